"""GRPO, the paper's loop: sample, grade, centre, step.

At each step: draw P problems, sample G completions of each, grade them, measure each against the
mean of its group, and move the policy's numbers so that the better ones become likelier. There is
no critic. A run continues from its checkpoint as if it had never stopped.

Departures from the paper: (1) groups without variance are left out of the pass, where their
advantages are zero; with a KL term that also leaves out their KL; (2) the KL to the base and the
correction for the engine's log-probabilities are settings; (3) a step whose groups all lack
variance leaves the numbers as they are, Adam's momentum included.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinylora import distributed
from tinylora.algorithms import losses
from tinylora.algorithms.batching import (
    Row,
    Sample,
    best_samples_per_row,
    check_model,
    completion_logprobs,
    micro_batches,
    pack,
    split_among_processes,
)
from tinylora.algorithms.log import NoLog, PhaseClock, RunLog
from tinylora.algorithms.loop import Outcome, run_steps
from tinylora.algorithms.optimizer import learning_rate_at, make_optimizer, step_clipped
from tinylora.algorithms.recompute import recomputing
from tinylora.algorithms.rollouts import Rollouts, graded, rollout_metrics, sample_records
from tinylora.algorithms.served import check_served
from tinylora.algorithms.validation import Validation
from tinylora.fsdp import in_step
from tinylora.policy import Policy
from tinylora.prompts import Text
from tinylora.rollout.engine import Engine, Sampling
from tinylora.settings import TrainConfig
from tinylora.tasks.draw import derive_seed, draw_problems
from tinylora.tasks.grading import grade_groups
from tinylora.tasks.task import Grade, Task, grader_of

__all__ = [
    "Grade",
    "Outcome",
    "Rollouts",
    "Text",
    "derive_seed",
    "draw_problems",
    "grade_groups",
    "grpo_step",
    "make_optimizer",
    "train_grpo",
]


def train_grpo(
    policy: Policy,
    engine: Engine,
    task: Task,
    text: Text,
    config: TrainConfig,
    log: RunLog | NoLog,
    *,
    checkpoint_folder: Path,
    resume: bool = False,
    grade: Grade | None = None,
    validation: Validation | None = None,
) -> Outcome:
    """Train the policy's numbers on the task, until `config.steps` or `config.max_minutes`.

    However short the time, one step is taken. A side effect on the whole process: denormal numbers
    are flushed to zero from here on, also in what is computed after training.

    Args:
        policy: changed in place; nothing but its parameters moves.
        log: gets every step; closed by the caller.
        checkpoint_folder: written every `checkpoint_every` steps, at the end and on Ctrl-C.
        resume: go on from the checkpoint, if there is one.
        grade: (problems, completions) -> verdicts of a whole step; None: the task's own.
        validation: measures the policy every so many steps, and keeps the best numbers.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after the running step, with the checkpoint written (a
            second Ctrl-C does not wait).
        TinyLoraError: too many completions could not be judged, or the gradient is not finite.
    """
    torch.set_flush_denormal(True)  # Adam's moments of numbers at rest become denormal, and slow
    check_model(policy.model)
    optimizer = make_optimizer(policy, config)

    def step(number: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
        rollouts, metrics = grpo_step(policy, engine, task, text, config, number, optimizer, grade)
        return metrics, sample_records(rollouts, number + 1)

    return run_steps(
        step,
        policy,
        optimizer,
        config,
        log,
        checkpoint_folder=checkpoint_folder,
        resume=resume,
        validation=validation,
    )


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
    budget = config.max_new_tokens or task.max_new_tokens
    sampling = Sampling(config.temperature, budget, text.eos_token_ids)
    problems_P = draw_problems(task.train, config.prompts_per_step, config.seed, step)
    prompts_P = [text.encode(problem) for problem in problems_P]
    with clock("rollout"):
        seed = derive_seed(config.seed, "rollout", step)
        completions_P_G = engine.generate(prompts_P, config.samples_per_prompt, sampling, seed)
    with clock("grade"):
        rollouts = graded(problems_P, prompts_P, completions_P_G, text, grade or grader_of(task))
    with clock("learn"):
        batch = make_batch(rollouts, policy, config, budget)
        if batch:
            learned = learn(policy, optimizer, batch, config, step, engine)
        else:
            watched = watch_batch(rollouts, policy, config, budget)
            learned = at_rest(policy, watched, config, step, engine)
    metrics = {**rollout_metrics(rollouts, task), **learned, **policy.metrics(), **clock.metrics()}
    return rollouts, {**metrics, "tokens_per_second": rollouts.num_tokens / metrics["seconds"]}


@dataclass
class Batch:
    """The completions that teach something, as flat token tensors (`_T`) and rows to run.

    With several processes, the tensors are of all completions and the rows are this one's: what a
    row fills in is zero elsewhere until it is added up.
    """

    rows: list[list[Row]]  # one list a micro-batch
    advantages_T: Tensor
    rollout_T: Tensor  # log-probabilities under the engine
    weights_T: Tensor  # the normaliser
    old_T: Tensor  # log-probabilities before the first update
    new_T: Tensor  # log-probabilities in the last pass
    reference_T: Tensor  # log-probabilities under the base model; kept where the KL is on


def make_batch(
    rollouts: Rollouts, policy: Policy, config: TrainConfig, budget: int
) -> Batch | None:
    """The judged completions of groups with variance, ready to learn from; None: there are none."""
    rewards_P_G = rollouts.rewards_P_G
    keep_mask_P_G = losses.has_variance(rewards_P_G)[:, None] & ~rewards_P_G.isnan()
    return (
        batch_of(rollouts, keep_mask_P_G, policy, config, budget) if keep_mask_P_G.any() else None
    )


def watch_batch(rollouts: Rollouts, policy: Policy, config: TrainConfig, budget: int) -> Batch:
    """The first completion of each problem, to compare engine and trainer where nothing teaches."""
    keep_mask_P_G = torch.zeros(rollouts.rewards_P_G.shape, dtype=torch.bool)
    keep_mask_P_G[:, 0] = True
    return batch_of(rollouts, keep_mask_P_G, policy, config, budget)


def batch_of(
    rollouts: Rollouts, keep_mask_P_G: Tensor, policy: Policy, config: TrainConfig, budget: int
) -> Batch:
    """Some of the completions, as tensors."""
    advantages_P_G = losses.group_advantages(rollouts.rewards_P_G, config.normalize_std)
    kept = [(int(p), rollouts.completions_P_G[p][g]) for p, g in keep_mask_P_G.nonzero()]
    lengths_B = torch.tensor([len(completion.token_ids) for _, completion in kept])
    advantages_T = advantages_P_G[keep_mask_P_G].repeat_interleave(lengths_B)
    rollout_T = torch.tensor([value for _, completion in kept for value in completion.logprobs])
    weights_T = losses.token_weights(
        lengths_B, config.normalizer, keep_mask_P_G.numel(), rollouts.num_tokens, budget
    )
    samples = [Sample(p, rollouts.prompts_P[p], completion.token_ids) for p, completion in kept]
    rows = pack(samples, best_samples_per_row(policy.model, samples))
    flat = torch.stack([advantages_T, rollout_T, weights_T, *torch.zeros(3, len(rollout_T))])
    cuts = split_among_processes(rows, policy.model, config.micro_batch_tokens)
    return Batch(cuts, *flat.to(policy.model.device))


def learn(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: TrainConfig,
    step: int,
    engine: Engine,
) -> dict[str, float]:
    """`num_iterations` passes over the batch, each one update; returns what it saw.

    Raises:
        TinyLoraError: the engine sampled from another policy; nothing was updated.
    """
    model, temperature = policy.model, config.temperature
    note_reference(policy, batch, config)
    for iteration in range(config.num_iterations):
        optimizer.zero_grad()
        with recomputing(model, config), in_step(model, is_learning=True):
            for part in micro_batches(batch.rows, model):
                logprobs_T = completion_logprobs(model, part, temperature)
                batch.new_T[part.tokens] = logprobs_T.detach()
                if iteration == 0:  # before any update: these are the old log-probabilities
                    batch.old_T[part.tokens] = logprobs_T.detach()
                loss = micro_batch_loss(logprobs_T, batch, part.tokens, config)
                loss.backward()  # type: ignore[no-untyped-call]
        if iteration == 0:
            distributed.add_up(batch.old_T)
            compare(policy, engine, batch, config)
        updated = step_clipped(policy, optimizer, config, step)
    distributed.add_up(batch.new_T, batch.reference_T)
    return {**updated, **policy_metrics(batch, config)}


@torch.no_grad()
def at_rest(
    policy: Policy, batch: Batch, config: TrainConfig, step: int, engine: Engine
) -> dict[str, float]:
    """What `learn` would return of a batch that teaches nothing: it is looked at, and v rests."""
    note_reference(policy, batch, config)
    with in_step(policy.model):
        for part in micro_batches(batch.rows, policy.model):
            logprobs_T = completion_logprobs(policy.model, part, config.temperature)
            batch.old_T[part.tokens] = batch.new_T[part.tokens] = logprobs_T
    distributed.add_up(batch.old_T, batch.new_T, batch.reference_T)
    compare(policy, engine, batch, config)
    rate = learning_rate_at(step, config)
    return {"learning_rate": rate, "grad_norm": 0.0, **policy_metrics(batch, config)}


@torch.no_grad()
def note_reference(policy: Policy, batch: Batch, config: TrainConfig) -> None:
    """Keep the base model's log-probabilities, where the KL is on."""
    if config.kl_coef == 0:
        return
    with policy.reference(), in_step(policy.model):
        for part in micro_batches(batch.rows, policy.model):
            batch.reference_T[part.tokens] = completion_logprobs(
                policy.model, part, config.temperature
            )


def compare(policy: Policy, engine: Engine, batch: Batch, config: TrainConfig) -> None:
    """Stop where the engine's log-probabilities are not the trainer's of before the update."""

    def recompute(temperature: float) -> tuple[Tensor, Tensor]:
        with in_step(policy.model):
            part = next(micro_batches(batch.rows, policy.model), None)
            if part is None:  # a process without rows has nothing to look at
                return batch.old_T, batch.rollout_T
            logprobs_T = completion_logprobs(policy.model, part, temperature)
            return logprobs_T, batch.rollout_T[part.tokens]

    check_served(policy, engine, config, batch.old_T, batch.rollout_T, recompute)


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


def policy_metrics(batch: Batch, config: TrainConfig) -> dict[str, float]:
    """How far trainer, engine and base model are from one another on the batch's tokens."""
    ratio_T = (batch.old_T - batch.rollout_T).exp()
    change_T = (batch.new_T - batch.old_T).exp()
    cap = config.importance_cap or math.inf
    difference_T = (batch.old_T - batch.rollout_T).abs()
    metrics = {
        "rollout_difference_mean": difference_T,
        "kl_rollout": losses.kl_k3(batch.rollout_T, batch.old_T),
        "importance_mean": ratio_T,
        "importance_truncated_share": ratio_T > cap,
        "clip_low_share": (change_T < 1 - config.clip_low) & (batch.advantages_T < 0),
        "clip_high_share": (change_T > 1 + config.clip_high) & (batch.advantages_T > 0),
    }
    if config.kl_coef > 0:
        metrics["kl_reference"] = losses.kl_k3(batch.new_T, batch.reference_T)
    means = {name: float(values_T.float().mean()) for name, values_T in metrics.items()}
    most = {"rollout_difference_max": difference_T, "importance_max": ratio_T}
    return means | {name: float(values_T.max()) for name, values_T in most.items()}
