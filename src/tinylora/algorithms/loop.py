"""The loop around every algorithm's step: resume, count, log, checkpoint, stop."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinylora import distributed
from tinylora.algorithms.checkpoint import Optimizer, load_checkpoint, save_checkpoint
from tinylora.algorithms.interrupt import deferred_interrupt
from tinylora.algorithms.log import NoLog, RunLog
from tinylora.algorithms.validation import Validation
from tinylora.policy import Policy
from tinylora.settings import TrainConfig

Step = Callable[[int], tuple[Mapping[str, float], list[dict[str, Any]]]]
"""Step number `step` (from 0) of an algorithm: its metrics, and samples for people to read."""


@dataclass(frozen=True)
class Outcome:
    """How training ended: `stopped` is "steps" or "time"."""

    steps: int
    seconds: float
    stopped: str


def run_steps(
    step: Step,
    policy: Policy,
    optimizer: Optimizer,
    config: TrainConfig,
    log: RunLog | NoLog,
    *,
    checkpoint_folder: Path,
    resume: bool = False,
    validation: Validation | None = None,
) -> Outcome:
    """Take steps until `config.steps` or `config.max_minutes`; however short the time, one.

    Args:
        validation: measures after each step for which it is due, and keeps the best numbers.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the running step, with the checkpoint written (a
            second Ctrl-C does not wait).
    """
    done = 0
    if resume:
        done = load_checkpoint(checkpoint_folder, policy, optimizer, config.seed, validation)
    log.rewind(done)
    first = done
    start = time.monotonic()

    def save() -> None:
        if not distributed.is_main():
            return
        save_checkpoint(checkpoint_folder, policy, optimizer, done, config.seed, validation)

    def is_over() -> bool:
        if config.max_minutes is None or done == first:
            return False
        return time.monotonic() - start >= 60 * config.max_minutes

    with deferred_interrupt() as interrupted:
        while done < config.steps and not distributed.anywhere(interrupted() or is_over()):
            metrics, samples = step(done)
            done += 1
            if validation is not None:
                metrics = with_validation(metrics, validation.after(done, policy))
            log.step({"step": done, **metrics}, samples)
            if done % config.checkpoint_every == 0:
                save()
        save()
        if interrupted():
            raise KeyboardInterrupt
    return Outcome(done, time.monotonic() - start, "steps" if done >= config.steps else "time")


def with_validation(
    metrics: Mapping[str, float], measured: Mapping[str, float]
) -> dict[str, float]:
    """The step's metrics with what validation says; its time is the step's too."""
    seconds = metrics["seconds"] + measured.get("seconds_validation", 0.0)
    return {**metrics, **measured, "seconds": seconds}
