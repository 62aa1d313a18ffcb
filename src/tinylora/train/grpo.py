"""GRPO, the paper's loop: sample, grade, centre, step.

At each step: draw P problems, sample G completions of each, grade them, measure each against the
mean of its group, and move the policy's numbers so that the better ones become likelier. There is
no critic. Everything random at step t is a function of (seed, t), so a run continues from a
checkpoint as if it had never stopped.

It does not cover: more than one process; grading in parallel (a `grade` of your own may do it).

Departures from the paper: (1) groups without variance are left out of the pass, where their
advantages are zero; with a KL term that also leaves out their KL; (2) the KL to the base and the
correction for the engine's log-probabilities are settings; (3) a step whose groups all lack
variance leaves the numbers as they are, Adam's momentum included.
"""

import hashlib
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from tinylora.config import TrainConfig
from tinylora.errors import TinyLoraError
from tinylora.policy import Policy
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion, Engine, Sampling
from tinylora.tasks.task import Problem, Task
from tinylora.train import losses
from tinylora.train.batching import (
    MicroBatch,
    Sample,
    best_samples_per_row,
    check_model,
    collate,
    completion_logprobs,
    pack,
    split_rows,
)
from tinylora.train.checkpoint import load_checkpoint, save_checkpoint
from tinylora.train.metrics import PhaseClock, RunLog

MAX_UNJUDGED_SHARE = 0.05  # of a step's completions; beyond it the grader is broken, not the model
SAMPLES_PER_STEP = 4  # completions of each step that samples.jsonl keeps

Grade = Callable[[Sequence[Problem], Sequence[str]], Sequence[Verdict]]


@dataclass(frozen=True)
class Text:
    """How texts become tokens and back."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    eos_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """How training ended: `stopped` is "steps" or "time"."""

    steps: int
    seconds: float
    stopped: str


@dataclass(frozen=True)
class Rollouts:
    """What was sampled in a step, and what the grader said; P problems by G samples."""

    problems_P: list[Problem]
    prompts_P: list[list[int]]
    completions_P_G: list[list[Completion]]
    texts_P_G: list[list[str]]
    verdicts_P_G: list[list[Verdict]]

    @property
    def rewards_P_G(self) -> Tensor:
        """(P, G); NaN where the grader could not judge."""
        nan = math.nan
        return torch.tensor(
            [[nan if v.score is None else v.score for v in row] for row in self.verdicts_P_G]
        )

    @property
    def completions(self) -> list[Completion]:
        return [completion for row in self.completions_P_G for completion in row]


@dataclass
class Batch:
    """The completions that teach something, as flat token tensors (`_T`) and micro-batches."""

    micro_batches: list[MicroBatch]
    advantages_T: Tensor
    rollout_T: Tensor  # log-probabilities under the engine
    weights_T: Tensor  # the normaliser
    old_T: Tensor  # log-probabilities before the first update
    new_T: Tensor  # log-probabilities in the last pass
    reference_T: Tensor  # log-probabilities under the base model; kept where the KL is on


def train_grpo(
    policy: Policy,
    engine: Engine,
    task: Task,
    text: Text,
    config: TrainConfig,
    log: RunLog,
    *,
    checkpoint_folder: Path,
    resume: bool = False,
    grade: Grade | None = None,
) -> Outcome:
    """Train the policy's numbers on the task, until `config.steps` or `config.max_minutes`.

    Args:
        policy: changed in place; nothing but its parameters moves.
        log: gets every step; closed by the caller.
        checkpoint_folder: written every `checkpoint_every` steps, at the end and on Ctrl-C.
        resume: go on from the checkpoint, if there is one.
        grade: (problems, completions) -> verdicts of a whole step; None: `task.grade` one by one.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the running step, with the checkpoint written (a
            second Ctrl-C does not wait).
        TinyLoraError: too many completions could not be judged.
    """
    torch.set_flush_denormal(True)  # Adam's moments of numbers at rest become denormal, and slow
    check_model(policy.model)
    optimizer = make_optimizer(policy, config)
    done = load_checkpoint(checkpoint_folder, policy, optimizer, config.seed) if resume else 0
    log.rewind(done)
    start = time.monotonic()

    def save() -> None:
        save_checkpoint(checkpoint_folder, policy, optimizer, done, config.seed)

    with deferred_interrupt() as interrupted:
        while done < config.steps and not interrupted() and not _is_over(start, config):
            rollouts, metrics = grpo_step(
                policy, engine, task, text, config, done, optimizer, grade
            )
            done += 1
            log.step({"step": done, **metrics}, sample_records(rollouts, done))
            if done % config.checkpoint_every == 0:
                save()
        save()
        if interrupted():
            raise KeyboardInterrupt
    return Outcome(done, time.monotonic() - start, "steps" if done >= config.steps else "time")


def grpo_step(
    policy: Policy,
    engine: Engine,
    task: Task,
    text: Text,
    config: TrainConfig,
    step: int,
    optimizer: torch.optim.Optimizer,
    grade: Grade | None = None,
) -> tuple[Rollouts, dict[str, float]]:
    """One step of the paper's loop: sample, grade, centre, step on the numbers."""
    clock = PhaseClock()
    sampling = Sampling(
        config.temperature, config.max_new_tokens or task.max_new_tokens, text.eos_token_ids
    )
    problems_P = draw_problems(task.train, config.prompts_per_step, config.seed, step)
    with clock("rollout"):
        prompts_P = [text.encode(problem.prompt) for problem in problems_P]
        completions_P_G = engine.generate(
            prompts_P,
            config.samples_per_prompt,
            sampling,
            derive_seed(config.seed, "rollout", step),
        )
    with clock("grade"):
        texts_P_G = [[text.decode(c.token_ids) for c in row] for row in completions_P_G]
        verdicts_P_G = grade_groups(grade or one_by_one(task), problems_P, texts_P_G)
        rollouts = Rollouts(problems_P, prompts_P, completions_P_G, texts_P_G, verdicts_P_G)
        check_judged(rollouts)
    with clock("learn"):
        batch = make_batch(rollouts, policy, config, sampling.max_new_tokens)
        learned = {} if batch is None else learn(policy, optimizer, batch, config, step)
    metrics = {**rollout_metrics(rollouts, task), **learned, **policy.metrics(), **clock.metrics()}
    num_tokens = sum(len(c.token_ids) for c in rollouts.completions)
    return rollouts, {**metrics, "tokens_per_second": num_tokens / metrics["seconds"]}


def learn(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: TrainConfig,
    step: int,
) -> dict[str, float]:
    """`num_iterations` passes over the batch, each one update; returns what it saw."""
    rate = learning_rate_at(step, config)
    for group in optimizer.param_groups:
        group["lr"] = rate
    if config.kl_coef > 0:
        with policy.reference(), torch.no_grad():
            for micro_batch in batch.micro_batches:
                batch.reference_T[micro_batch.tokens] = completion_logprobs(
                    policy.model, micro_batch, config.temperature
                )
    grad_norm = 0.0
    for iteration in range(config.num_iterations):
        optimizer.zero_grad()
        for micro_batch in batch.micro_batches:
            logprobs_T = completion_logprobs(policy.model, micro_batch, config.temperature)
            batch.new_T[micro_batch.tokens] = logprobs_T.detach()
            if iteration == 0:  # before any update: these are the old log-probabilities
                batch.old_T[micro_batch.tokens] = logprobs_T.detach()
            loss = micro_batch_loss(logprobs_T, batch, micro_batch.tokens, config)
            loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        grad_norm = float(norm)
        optimizer.step()
    return {"learning_rate": rate, "grad_norm": grad_norm, **policy_metrics(batch, config)}


def micro_batch_loss(
    logprobs_T: Tensor, batch: Batch, tokens: Tensor, config: TrainConfig
) -> Tensor:
    """The GRPO loss of some tokens; the loss of a batch is the sum over its micro-batches."""
    old_T, weights_T = batch.old_T[tokens], batch.weights_T[tokens]
    importance_T = losses.importance_weights(old_T, batch.rollout_T[tokens], config.importance_cap)
    loss_T = importance_T * losses.surrogate_loss(
        logprobs_T, old_T, batch.advantages_T[tokens], config.clip_low, config.clip_high
    )
    if config.kl_coef > 0:
        loss_T = loss_T + config.kl_coef * losses.kl_k3(logprobs_T, batch.reference_T[tokens])
    return (weights_T * loss_T).sum()


def make_batch(
    rollouts: Rollouts, policy: Policy, config: TrainConfig, budget: int
) -> Batch | None:
    """The judged completions of groups with variance, ready to learn from; None: there are none."""
    rewards_P_G = rollouts.rewards_P_G
    advantages_P_G = losses.group_advantages(rewards_P_G, config.normalize_std)
    keep_mask_P_G = losses.has_variance(rewards_P_G)[:, None] & ~rewards_P_G.isnan()
    kept = [(int(p), int(g)) for p, g in keep_mask_P_G.nonzero()]
    if not kept:
        return None
    completions = [rollouts.completions_P_G[p][g] for p, g in kept]
    samples = [
        Sample(p, rollouts.prompts_P[p], c.token_ids)
        for (p, _), c in zip(kept, completions, strict=True)
    ]
    lengths_B = torch.tensor([len(c.token_ids) for c in completions])
    weights_T = losses.token_weights(
        lengths_B,
        config.normalizer,
        num_sequences=keep_mask_P_G.numel(),
        num_tokens=sum(len(c.token_ids) for c in rollouts.completions),
        budget=budget,
    )
    advantages_T = advantages_P_G[keep_mask_P_G].repeat_interleave(lengths_B)
    rollout_T = torch.tensor([value for c in completions for value in c.logprobs])
    model = policy.model
    rows = pack(samples, best_samples_per_row(model, samples))
    device = model.device
    return Batch(
        [collate(r, device, model.dtype) for r in split_rows(rows, config.micro_batch_tokens)],
        advantages_T.to(device),
        rollout_T.to(device),
        weights_T.to(device),
        *torch.zeros(3, len(rollout_T), device=device),
    )


def draw_problems(problems: Sequence[Problem], count: int, seed: int, step: int) -> list[Problem]:
    """The step's problems: each epoch goes through all of them in an order of its own."""
    places = range(step * count, (step + 1) * count)
    size = len(problems)
    return [problems[int(epoch_order(size, seed, i // size)[i % size])] for i in places]


@lru_cache(maxsize=2)
def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """A permutation of the problems for one epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)


def derive_seed(seed: int, purpose: str, number: int) -> int:
    """A seed of its own for every purpose and step, unrelated to its neighbours."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def one_by_one(task: Task) -> Grade:
    """The task's own grader, completion by completion."""
    return lambda problems, texts: [
        task.grade(problem.gold, text) for problem, text in zip(problems, texts, strict=True)
    ]


def grade_groups(
    grade: Grade, problems_P: Sequence[Problem], texts_P_G: list[list[str]]
) -> list[list[Verdict]]:
    """Verdicts of all samples, from one call of the grader."""
    num_samples = len(texts_P_G[0])
    repeated = [problem for problem in problems_P for _ in range(num_samples)]
    verdicts = list(grade(repeated, [text for row in texts_P_G for text in row]))
    if len(verdicts) != len(repeated):
        raise TinyLoraError(
            f"The grader gave {len(verdicts)} verdicts for {len(repeated)} completions, so which "
            "belongs to which is unknown. It has to give one for each, None where it cannot judge."
        )
    return [verdicts[i : i + num_samples] for i in range(0, len(verdicts), num_samples)]


def check_judged(rollouts: Rollouts) -> None:
    """Stop where more than a few completions could not be judged: the grader needs mending."""
    verdicts = [verdict for row in rollouts.verdicts_P_G for verdict in row]
    unjudged = [verdict for verdict in verdicts if verdict.score is None]
    if len(unjudged) <= max(1, MAX_UNJUDGED_SHARE * len(verdicts)) < len(verdicts):
        return
    reason, count = Counter(v.reason or "no reason given" for v in unjudged).most_common(1)[0]
    raise TinyLoraError(
        f"{len(unjudged)} of {len(verdicts)} completions of this step could not be judged "
        f"({count} of them: {reason}), and training on the rest would follow the grader's "
        "failures. Mend the grader or the gold answers, and resume."
    )


def make_optimizer(policy: Policy, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam on the policy's numbers, without weight decay."""
    betas = (config.adam_beta1, config.adam_beta2)
    return torch.optim.Adam(policy.parameters(), lr=config.learning_rate, betas=betas)


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """The rate of step `step` (from 0): a linear warm-up, then constant, or down to zero."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / (config.warmup_steps + 1)
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    factors = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
    }
    return config.learning_rate * factors[config.schedule]


def rollout_metrics(rollouts: Rollouts, task: Task) -> dict[str, float]:
    """What the step's completions were like."""
    rewards_P_G = rollouts.rewards_P_G
    judged = rewards_P_G[~rewards_P_G.isnan()]
    completions = rollouts.completions
    metrics = {
        "reward": float(judged.mean()),
        "accuracy": float((judged == 1).float().mean()),
        "completion_length": sum(len(c.token_ids) for c in completions) / len(completions),
        "truncated_share": sum(c.truncated for c in completions) / len(completions),
        "zero_variance_share": 1 - float(losses.has_variance(rewards_P_G).float().mean()),
        "num_unjudged": rewards_P_G.numel() - len(judged),
    }
    if task.label is not None:
        kinds = Counter(task.label(text) for row in rollouts.texts_P_G for text in row)
        metrics |= {f"share_{kind}": n / len(completions) for kind, n in sorted(kinds.items())}
    return metrics


def policy_metrics(batch: Batch, config: TrainConfig) -> dict[str, float]:
    """How far trainer, engine and base model are from one another on the batch's tokens."""
    ratio_T = (batch.old_T - batch.rollout_T).exp()
    change_T = (batch.new_T - batch.old_T).exp()
    metrics = {
        "kl_rollout": float(losses.kl_k3(batch.rollout_T, batch.old_T).mean()),
        "importance_mean": float(ratio_T.mean()),
        "importance_max": float(ratio_T.max()),
        "importance_truncated_share": float(
            (ratio_T > (config.importance_cap or math.inf)).float().mean()
        ),
        "clip_low_share": _share((change_T < 1 - config.clip_low) & (batch.advantages_T < 0)),
        "clip_high_share": _share((change_T > 1 + config.clip_high) & (batch.advantages_T > 0)),
    }
    if config.kl_coef > 0:
        metrics["kl_reference"] = float(losses.kl_k3(batch.new_T, batch.reference_T).mean())
    return metrics


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())


def sample_records(rollouts: Rollouts, step: int) -> list[dict[str, Any]]:
    """The first completion of the step's first problems, for people to read."""
    return [
        {
            "step": step,
            "prompt": problem.prompt,
            "gold": problem.gold,
            "completion": texts[0],
            "reward": verdicts[0].score,
            "reason": verdicts[0].reason,
        }
        for problem, texts, verdicts in zip(
            rollouts.problems_P[:SAMPLES_PER_STEP],
            rollouts.texts_P_G,
            rollouts.verdicts_P_G,
            strict=False,
        )
    ]


def _is_over(start: float, config: TrainConfig) -> bool:
    minutes = config.max_minutes
    return minutes is not None and time.monotonic() - start >= 60 * minutes


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C is only noted; the function given tells whether there was one.

    The second one interrupts at once. Outside the main thread nothing changes.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)
