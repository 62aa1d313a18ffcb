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
    default_micro_batch_tokens,
    micro_batches,
    pack,
    split_among_processes,
)
from tinylora.algorithms.log import PhaseClock
from tinylora.algorithms.loop import Run, Samples
from tinylora.algorithms.optimizer import learning_rate_at, make_optimizer, step_clipped
from tinylora.algorithms.recompute import recomputing
from tinylora.algorithms.rollouts import (
    Rollouts,
    further_draw,
    joined,
    roll_out,
    rollout_metrics,
    sample_records,
)
from tinylora.algorithms.served import check_served
from tinylora.fsdp import in_step
from tinylora.policy import Policy
from tinylora.settings import Grpo


class GrpoStep:
    """One step of the paper's loop: sample, grade, centre, step on the parameters.

    A side effect on the whole process: denormal numbers are flushed to zero from here on, also in
    what is computed after training.
    """

    def __init__(self, run: Run, settings: Grpo) -> None:
        torch.set_flush_denormal(True)  # Adam's moments at rest become denormal, and slow
        check_model(run.policy.model)
        self.run, self.settings = run, settings
        self.state = make_optimizer(run.policy, settings)

    def __call__(self, number: int) -> tuple[dict[str, float], Samples]:
        """Take step `number` (from 0).

        Raises:
            TinyLoraError: too many completions could not be judged, the engine sampled from
                another policy, or the gradient is not finite; nothing was updated.
        """
        run, settings, clock = self.run, self.settings, PhaseClock()
        rollouts = self.draw(number, clock)
        with clock("learn"):
            learnable = most_telling(rollouts, settings.prompts_per_step)
            batch = make_batch(learnable, run, settings)
            if batch:
                learned = learn(run, self.state, batch, settings, number)
            else:
                learned = at_rest(run, watch_batch(learnable, run, settings), settings, number)
        metrics = {
            **rollout_metrics(rollouts, run.task),
            **learned,
            **run.policy.metrics(),
            **clock.metrics(),
        }
        metrics["tokens_per_second"] = rollouts.num_tokens / metrics["seconds"]
        return metrics, sample_records(rollouts, number + 1)

    def draw(self, number: int, clock: PhaseClock) -> Rollouts:
        """The step's completions; more of them while too few groups have variance."""
        settings, draws = self.settings, list[Rollouts]()
        while True:
            place = further_draw(number, len(draws))
            wanted, samples = settings.prompts_per_step, settings.samples_per_prompt
            draws.append(roll_out(self.run, place, wanted, samples, clock))
            telling = sum(int(losses.has_variance(one.rewards_P_G).sum()) for one in draws)
            is_enough = telling >= wanted or len(draws) == settings.dynamic_sampling
            if distributed.from_main(is_enough):  # all draw again, or none
                return joined(draws)


def most_telling(rollouts: Rollouts, num: int) -> Rollouts:
    """`num` problems, in the order drawn but those first whose groups have variance.

    Source: DAPO (2503.14476), section 3.2, dynamic sampling.
    """
    if len(rollouts.problems_P) <= num:
        return rollouts
    order_P = losses.has_variance(rollouts.rewards_P_G).int().argsort(descending=True, stable=True)
    return rollouts.select(order_P[:num].tolist())


@dataclass
class Batch:
    """The completions that teach something, as flat token tensors (`_T`) and rows to run.

    With several processes, the tensors are of all completions and the rows are this one's: what a
    row fills in is zero elsewhere until it is added up.
    """

    rows: list[list[Row]]  # one list a micro-batch
    owners_T: Tensor  # which completion a token belongs to
    advantages_T: Tensor
    rollout_T: Tensor  # log-probabilities under the engine
    weights_T: Tensor  # the normaliser
    old_T: Tensor  # log-probabilities before the first update
    new_T: Tensor  # log-probabilities in the last pass
    reference_T: Tensor  # log-probabilities under the base model; kept where the KL is on


def make_batch(rollouts: Rollouts, run: Run, settings: Grpo) -> Batch | None:
    """The judged completions of groups with variance, ready to learn from; None: there are none."""
    rewards_P_G = rollouts.rewards_P_G
    keep_mask_P_G = losses.has_variance(rewards_P_G)[:, None] & ~rewards_P_G.isnan()
    if settings.mask_truncated:
        keep_mask_P_G &= ~truncated(rollouts)
    return batch_of(rollouts, keep_mask_P_G, run, settings) if keep_mask_P_G.any() else None


def watch_batch(rollouts: Rollouts, run: Run, settings: Grpo) -> Batch:
    """The first completion of each problem, to compare engine and trainer where nothing teaches."""
    keep_mask_P_G = torch.zeros(rollouts.rewards_P_G.shape, dtype=torch.bool)
    keep_mask_P_G[:, 0] = True
    return batch_of(rollouts, keep_mask_P_G, run, settings)


def batch_of(rollouts: Rollouts, keep_mask_P_G: Tensor, run: Run, settings: Grpo) -> Batch:
    """Some of the completions, as tensors."""
    model = run.policy.model
    advantages_P_G = losses.group_advantages(
        rollouts.rewards_P_G, settings.normalize_std, settings.baseline
    )
    kept = [(int(p), rollouts.completions_P_G[p][g]) for p, g in keep_mask_P_G.nonzero()]
    lengths_B = torch.tensor([len(completion.token_ids) for _, completion in kept])
    owners_T = torch.arange(len(kept)).repeat_interleave(lengths_B)
    advantages_T = advantages_P_G[keep_mask_P_G].repeat_interleave(lengths_B)
    rollout_T = torch.tensor([value for _, completion in kept for value in completion.logprobs])
    weights_T = losses.token_weights(
        lengths_B,
        settings.normalizer,
        keep_mask_P_G.numel(),
        num_tokens(rollouts, settings),
        run.sampling.max_new_tokens,
    )
    samples = [Sample(p, rollouts.prompts_P[p], completion.token_ids) for p, completion in kept]
    budget = settings.micro_batch_tokens or default_micro_batch_tokens(model.device)
    rows = pack(samples, best_samples_per_row(model, samples), budget)
    flat = torch.stack([advantages_T, rollout_T, weights_T, *torch.zeros(3, len(rollout_T))])
    cuts = split_among_processes(rows, model, settings.micro_batch_tokens)
    advantages_T, rollout_T, weights_T, *unknown = flat.to(model.device)
    owners_T = owners_T.to(model.device)
    return Batch(cuts, owners_T, advantages_T, rollout_T, weights_T, *unknown)


def truncated(rollouts: Rollouts) -> Tensor:
    """Which completions the token budget cut off. (P, G)"""
    return torch.tensor([[c.truncated for c in row] for row in rollouts.completions_P_G])


def num_tokens(rollouts: Rollouts, settings: Grpo) -> int:
    """The tokens that the normaliser `token` counts: of masked completions none, as in TRL."""
    counted = [c for c in rollouts.completions if not (settings.mask_truncated and c.truncated)]
    return sum(len(completion.token_ids) for completion in counted)


def learn(
    run: Run, optimizer: torch.optim.Optimizer, batch: Batch, settings: Grpo, step: int
) -> dict[str, float]:
    """`num_iterations` passes over the batch, each one update; returns what it saw.

    Raises:
        TinyLoraError: the engine sampled from another policy; nothing was updated.
    """
    policy, model, temperature = run.policy, run.policy.model, run.sampling.temperature
    if settings.kl_coef > 0:
        note_reference(policy, batch, temperature)
    for iteration in range(settings.num_iterations):
        optimizer.zero_grad()
        with recomputing(model, settings), in_step(model, is_learning=True):
            for part in micro_batches(batch.rows, model):
                logprobs_T = completion_logprobs(model, part, temperature)
                batch.new_T[part.tokens] = logprobs_T.detach()
                if iteration == 0:  # before any update: these are the old log-probabilities
                    batch.old_T[part.tokens] = logprobs_T.detach()
                loss = micro_batch_loss(logprobs_T, batch, part.tokens, settings)
                loss.backward()  # type: ignore[no-untyped-call]
        if iteration == 0:
            distributed.add_up(batch.old_T)
            compare(run, batch, settings.rollout_tolerance)
        rate = learning_rate_at(step, run.num_steps, settings)
        updated = step_clipped(policy, optimizer, settings, rate)
    distributed.add_up(batch.new_T, batch.reference_T)
    return {**updated, **policy_metrics(batch, settings)}


@torch.no_grad()
def at_rest(run: Run, batch: Batch, settings: Grpo, step: int) -> dict[str, float]:
    """What `learn` would return of a batch that teaches nothing: it is looked at, and v rests."""
    policy, temperature = run.policy, run.sampling.temperature
    if settings.kl_coef > 0:
        note_reference(policy, batch, temperature)
    with in_step(policy.model):
        for part in micro_batches(batch.rows, policy.model):
            logprobs_T = completion_logprobs(policy.model, part, temperature)
            batch.old_T[part.tokens] = batch.new_T[part.tokens] = logprobs_T
    distributed.add_up(batch.old_T, batch.new_T, batch.reference_T)
    compare(run, batch, settings.rollout_tolerance)
    rate = learning_rate_at(step, run.num_steps, settings)
    return {"learning_rate": rate, "grad_norm": 0.0, **policy_metrics(batch, settings)}


@torch.no_grad()
def note_reference(policy: Policy, batch: Batch, temperature: float) -> None:
    """Keep the base model's log-probabilities, for the KL."""
    with policy.reference(), in_step(policy.model):
        for part in micro_batches(batch.rows, policy.model):
            batch.reference_T[part.tokens] = completion_logprobs(policy.model, part, temperature)


def compare(run: Run, batch: Batch, tolerance: float | None) -> None:
    """Stop where the engine's log-probabilities are not the trainer's of before the update."""
    model = run.policy.model

    def recompute(temperature: float) -> tuple[Tensor, Tensor]:
        with in_step(model):
            part = next(micro_batches(batch.rows, model), None)
            if part is None:  # a process without rows has nothing to look at
                return batch.old_T, torch.arange(len(batch.old_T))
            return completion_logprobs(model, part, temperature), part.tokens

    check_served(run, tolerance, batch.old_T, batch.rollout_T, recompute)


def micro_batch_loss(logprobs_T: Tensor, batch: Batch, tokens: Tensor, settings: Grpo) -> Tensor:
    """The GRPO loss of some tokens; the loss of a batch is the sum over its micro-batches."""
    old_T, weights_T = batch.old_T[tokens], batch.weights_T[tokens]
    importance_T = losses.importance_weights(
        old_T, batch.rollout_T[tokens], settings.importance_cap
    )
    loss_T = importance_T * policy_loss(logprobs_T, batch, tokens, settings)
    if settings.kl_coef > 0:
        loss_T = loss_T + settings.kl_coef * losses.kl_k3(logprobs_T, batch.reference_T[tokens])
    return (weights_T * loss_T).sum()


def policy_loss(logprobs_T: Tensor, batch: Batch, tokens: Tensor, settings: Grpo) -> Tensor:
    """The chosen loss of each of some completions' tokens."""
    old_T, advantages_T = batch.old_T[tokens], batch.advantages_T[tokens]
    low, high = settings.clip_low, settings.clip_high
    if settings.loss == "cispo":
        return losses.cispo_loss(logprobs_T, old_T, advantages_T, high)
    if settings.loss == "gspo":
        owners_T = batch.owners_T[tokens]
        return losses.gspo_loss(logprobs_T, old_T, advantages_T, owners_T, low, high)
    return losses.surrogate_loss(logprobs_T, old_T, advantages_T, low, high)


def policy_metrics(batch: Batch, settings: Grpo) -> dict[str, float]:
    """How far trainer, engine and base model are from one another on the batch's tokens."""
    ratio_T = (batch.old_T - batch.rollout_T).exp()
    log_change_T = batch.new_T - batch.old_T
    if settings.loss == "gspo":
        log_change_T = losses.sequence_mean(log_change_T, batch.owners_T)
    change_T = log_change_T.exp()
    lowest = 0.0 if settings.loss == "cispo" else 1 - settings.clip_low
    cap = settings.importance_cap or math.inf
    difference_T = (batch.old_T - batch.rollout_T).abs()
    metrics = {
        "rollout_difference_mean": difference_T,
        "kl_rollout": losses.kl_k3(batch.rollout_T, batch.old_T),
        "importance_mean": ratio_T,
        "importance_truncated_share": ratio_T > cap,
        "clip_low_share": (change_T < lowest) & (batch.advantages_T < 0),
        "clip_high_share": (change_T > 1 + settings.clip_high) & (batch.advantages_T > 0),
    }
    if settings.kl_coef > 0:
        metrics["kl_reference"] = losses.kl_k3(batch.new_T, batch.reference_T)
    means = {name: float(values_T.float().mean()) for name, values_T in metrics.items()}
    most = {"rollout_difference_max": difference_T, "importance_max": ratio_T}
    return means | {name: float(values_T.max()) for name, values_T in most.items()}
