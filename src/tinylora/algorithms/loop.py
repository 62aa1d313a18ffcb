"""A run in progress, and the loop around every algorithm's step: resume, count, log, stop.

An algorithm is `make_step(run, settings) -> Step`; this loop takes its steps.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tinylora import distributed
from tinylora.algorithms.checkpoint import Optimizer, load_checkpoint, save_checkpoint
from tinylora.algorithms.interrupt import deferred_interrupt
from tinylora.algorithms.log import NoLog, RunLog
from tinylora.algorithms.snapshots import Snapshots
from tinylora.algorithms.validation import Validation
from tinylora.errors import TinyLoraError
from tinylora.policy import Policy
from tinylora.prompts import Text
from tinylora.rollout.engine import Engine, Sampling
from tinylora.settings import RunSettings
from tinylora.tasks.draw import draw_problems
from tinylora.tasks.task import Problem, Task

SEARCHES = ("cma-es", "bayes", "random-search")
SIGNAL_STATE = ("quiet_steps", "noisy_steps", "reward", "accuracy", "good_reward", "good")
MOST_KEPT = 10_000_000  # parameters; of more, no copy is kept for a collapse
Samples = list[dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """What every algorithm works with; the same for all steps.

    Args:
        policy: changed in place by the steps; nothing but its parameters moves.
        task: with the grader that counts, which is the user's reward where one was given.
        sampling: of the rollouts, with the budget and the end tokens resolved.
        num_steps: of the whole run, for schedules.
    """

    policy: Policy
    engine: Engine
    task: Task
    text: Text
    sampling: Sampling
    seed: int
    num_steps: int

    def problems(self, step: int, count: int) -> list[Problem]:
        """The problems of step `step` (from 0)."""
        return draw_problems(self.task.train, count, self.seed, step)


class Step(Protocol):
    """One step of an algorithm, and what it keeps from step to step."""

    @property
    def state(self) -> Optimizer:
        """What a checkpoint holds beside the policy's numbers."""

    def __call__(self, number: int) -> tuple[Mapping[str, float], Samples]:
        """Take step `number` (from 0); returns its metrics, and samples for people to read."""


@dataclass(frozen=True)
class Outcome:
    """How training ended: `stopped` is "steps", "time" or "no signal"."""

    steps: int
    seconds: float
    stopped: str


@dataclass
class Signal:
    """Notices that steps have stopped teaching, and keeps the last numbers that taught.

    Where every group of a step is without variance there is no gradient; a policy that has
    collapsed into wrong answers stays there for ever. Where the natural gradient's signal-to-noise
    ratio is at most 1, a step is a random walk; the numbers are as good as before.
    """

    policy: Policy
    patience: int
    quiet_steps: int = 0  # in a row, without variance
    noisy_steps: int = 0  # in a row, with a signal-to-noise ratio of at most 1
    reward: float = 0.0
    accuracy: float = 0.0
    good_reward: float = 0.0  # of the numbers in `good`
    good: dict[str, Tensor] = field(default_factory=dict)
    _present: dict[str, Tensor] = field(default_factory=dict)

    def before(self) -> None:
        """Note the numbers that the coming step samples from."""
        if self.policy.num_trainable <= MOST_KEPT:
            self._present = self.policy.state_dict()

    def after(self, metrics: Mapping[str, float]) -> None:
        """Look at the step that was taken."""
        self.reward = metrics.get("reward", 0.0)
        self.accuracy = metrics.get("accuracy", 0.0)
        differs = metrics.get("zero_variance_share", 0.0) < 1
        moves = differs or metrics.get("step_kl", 0.0) > 0  # a KL term moves v without rewards
        is_noise = moves and metrics.get("snr", math.inf) <= 1
        self.quiet_steps = 0 if moves else self.quiet_steps + 1
        self.noisy_steps = self.noisy_steps + 1 if is_noise else self.noisy_steps * (not moves)
        if moves and not is_noise:
            self.good, self.good_reward = self._present, self.reward

    @property
    def is_lost(self) -> bool:
        """Whether the last `patience` steps taught nothing."""
        return max(self.quiet_steps, self.noisy_steps) >= self.patience

    @property
    def has_collapsed(self) -> bool:
        """Whether rewards stopped differing at less than they were."""
        return self.quiet_steps >= self.patience and self.reward < self.good_reward

    def keep_good(self) -> None:
        """After a collapse, put the last numbers back that taught something."""
        if self.good and self.has_collapsed:
            self.policy.load_state_dict(self.good)

    def sentence(self) -> str:
        """What happened, the likely cause, and what to do."""
        if self.quiet_steps < self.patience:
            return (
                f"In {self.noisy_steps} steps the samples did not show a direction (the "
                "signal-to-noise ratio is at most 1). Sample more in a step (--snr 2, more "
                "prompts_per_step), or stop here."
            )
        start = f"In {self.quiet_steps} steps no group of completions had rewards that differ: "
        if self.accuracy >= 1:
            return start + "all have the full reward, so there is nothing left to learn."
        return (
            f"{start}the mean reward is {self.reward:.3g}. The step size was too large, or the "
            "task is too hard. Use a smaller step, more samples_per_prompt, or easier problems."
        )

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SIGNAL_STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in SIGNAL_STATE:
            if name in state:
                setattr(self, name, state[name])


@dataclass
class Loop:
    """How long to go on, and where to record it.

    Args:
        resume: start from the checkpoint in `folder`, if there is one.
        validation: measures after each step for which it is due, and keeps the best numbers.
        snapshots: keeps the adapter's file after each step for which one is due.
    """

    settings: RunSettings
    checkpoint_every: int
    folder: Path
    log: RunLog | NoLog
    resume: bool = False
    validation: Validation | None = None
    snapshots: Snapshots | None = None


def run_steps(policy: Policy, step: Step, loop: Loop) -> Outcome:
    """Take steps until the run is over; however short the time, one.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the running step, with the checkpoint written (a
            second Ctrl-C does not wait).
    """
    settings, validation = loop.settings, loop.validation
    signal = Signal(policy, settings.no_signal_steps)
    kept = {"optimizer": step.state, "signal": signal, "best": validation}
    done = load_checkpoint(loop.folder, policy, kept, settings.seed) if loop.resume else 0
    for record in (loop.log, loop.snapshots):
        if record is not None:
            record.rewind(done)
    first, start, has_warned = done, time.monotonic(), False

    def stopped() -> str:
        if done >= settings.steps:
            return "steps"
        if signal.is_lost and settings.on_no_signal == "stop":
            return "no signal"
        seconds = time.monotonic() - start
        is_late = settings.max_minutes is not None and seconds >= 60 * settings.max_minutes
        return "time" if distributed.anywhere(is_late and done > first) else ""

    with deferred_interrupt() as interrupted:
        while not (reason := stopped()) and not distributed.anywhere(interrupted()):
            if settings.algorithm != "sft":  # which has no rewards
                signal.before()
            with memory_errors(done + 1, settings.algorithm in SEARCHES):
                metrics, samples = step(done)
            signal.after(metrics)
            done += 1
            if validation is not None:
                metrics = with_validation(metrics, validation.after(done, policy))
            loop.log.step({"step": done, **metrics}, samples)
            if loop.snapshots is not None:
                loop.snapshots.after(done, policy)
            if signal.is_lost and not has_warned:
                loop.log.warn(signal.sentence())
                has_warned = True
            if done % loop.checkpoint_every == 0:
                save_checkpoint(loop.folder, policy, kept, done, settings.seed)
        was_stopped = distributed.anywhere(interrupted())  # for all processes, or for none
        save_checkpoint(loop.folder, policy, kept, done, settings.seed)
    if was_stopped:
        raise KeyboardInterrupt
    if reason == "no signal" and settings.algorithm not in SEARCHES:  # these know their best
        signal.keep_good()
    return Outcome(done, time.monotonic() - start, reason)


@contextmanager
def memory_errors(step: int, is_search: bool) -> Iterator[None]:
    """A device without memory is one sentence, with the settings that need less."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        cause = str(error).splitlines()[0]
        cure = (
            "a smaller population or prompts_per_step in a new run"
            if is_search
            else "--resume and a smaller --micro-batch-tokens, or with --activation-checkpointing "
            "true: neither changes what is learned"
        )
        raise TinyLoraError(
            f"The device ran out of memory in step {step} ({cause}). Try again with {cure}."
        ) from error


def with_validation(
    metrics: Mapping[str, float], measured: Mapping[str, float]
) -> dict[str, float]:
    """The step's metrics with what validation says; its time is the step's too."""
    seconds = metrics["seconds"] + measured.get("seconds_validation", 0.0)
    return {**metrics, **measured, "seconds": seconds}
