"""The natural policy gradient on v, with the exact Fisher matrix and a line search.

A step samples and grades as GRPO does. One forward and backward pass then gives the score of every
single completion, because every row of a batch can run a v of its own; `natural.py` turns scores
and advantages into a step of `step_kl` nats; forward passes on the same completions check it.
There is no learning rate.

Rewards are compared with the mean of the rest of their group. A KL to the base is part of the
reward, `-kl_coef (log pi - log pi_base)` of the completion. With several processes each scores its
share of the completions, and all get all scores: what follows is the same computation everywhere.

It does not cover: methods without a v; several completions in one row, whose scores could not be
told apart; supervised fine-tuning, whose references are not the policy's own samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tinylora import distributed
from tinylora.adapter import TinyLora
from tinylora.algorithms import natural
from tinylora.algorithms.batching import (
    Row,
    Sample,
    best_samples_per_row,
    check_model,
    collate,
    completion_logprobs,
    micro_batches,
    pack,
    split_among_processes,
)
from tinylora.algorithms.log import PhaseClock
from tinylora.algorithms.loop import Run, Samples
from tinylora.algorithms.losses import group_advantages, kl_k3
from tinylora.algorithms.optimizer import round_to, schedule_factor
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
from tinylora.errors import RequestError, TinyLoraError
from tinylora.fsdp import in_step
from tinylora.policy import adapter_of
from tinylora.settings import Npg, Passes

MOST_PARAMETERS = 4096  # F is n x n in float64: 128 MiB, and its inverse some ten seconds


@dataclass(frozen=True)
class Draw:
    """Completions as rows to run.

    With several processes, the rows are this one's share, and the counts are of all.
    """

    rollouts: Rollouts
    rows: list[list[Row]]  # one completion each, one list a micro-batch
    shared_rows: list[list[Row]]  # the same for forward passes, where completions share prompts
    lengths_N: Tensor  # tokens of each completion
    places: dict[int, int]  # a row's first token -> its completion

    def sums(self, values_T: Tensor) -> Tensor:
        """The sum over each completion's tokens, (N,) in float64."""
        owners_T = torch.arange(len(self.lengths_N)).repeat_interleave(self.lengths_N)
        zeros_N = torch.zeros(len(self.lengths_N), dtype=torch.float64)
        return zeros_N.index_add(0, owners_T, values_T.double())

    @property
    def rollout_T(self) -> Tensor:
        """Log-probabilities under the engine that drew the tokens."""
        return torch.tensor([x for c in self.rollouts.completions for x in c.logprobs])


@dataclass(frozen=True)
class Scored:
    """A draw, and what the policy before the step says of it."""

    draw: Draw
    logprobs_T: Tensor
    scores_N: Tensor  # (N, n)
    advantages_N: Tensor
    weights_N: Tensor  # pi / pi_engine of whole completions, capped
    metrics: dict[str, float]

    @property
    def sums_N(self) -> Tensor:
        """Log-probabilities of whole completions."""
        return self.draw.sums(self.logprobs_T)


class NpgStep:
    """One step: sample, grade, score every completion, move by `step_kl` nats.

    A side effect on the whole process: denormal numbers are flushed to zero, as in GRPO.

    Raises:
        RequestError: the method has no v, or too many parameters for an exact F.
    """

    def __init__(self, run: Run, settings: Npg) -> None:
        torch.set_flush_denormal(True)
        check_model(run.policy.model)
        self.run, self.settings = run, settings
        self.adapter = adapter_of(run.policy, "The natural gradient")
        check_size(self.adapter.v.numel())
        self.basis = natural.whitening(weight_metric(self.adapter))  # (n, k)
        self.state = Momentum(self.adapter.v.numel(), settings.momentum)

    def __call__(self, number: int) -> tuple[dict[str, float], Samples]:
        """Take step `number` (from 0).

        Raises:
            TinyLoraError: too many completions could not be judged, the engine sampled from
                another policy, or scores are not finite; nothing was updated.
        """
        run, clock = self.run, PhaseClock()
        draws = self.draw(number, clock)
        with clock("learn"):
            progress = number / run.num_steps
            step_kl = self.settings.step_kl * schedule_factor(self.settings.schedule, progress)
            learned = self.learn(draws, step_kl)
        rollouts = joined([scored.draw.rollouts for scored in draws])
        metrics = {
            **rollout_metrics(rollouts, run.task),
            **draws[-1].metrics,
            **learned,
            **run.policy.metrics(),
            **clock.metrics(),
        }
        metrics["tokens_per_second"] = rollouts.num_tokens / metrics["seconds"]
        return metrics, sample_records(rollouts, number + 1)

    def draw(self, number: int, clock: PhaseClock) -> list[Scored]:
        """The step's completions with their scores; more of them while the SNR is too low."""
        run, settings = self.run, self.settings
        draws: list[Scored] = []
        while True:
            place = further_draw(number, len(draws))
            rollouts = roll_out(
                run, place, settings.prompts_per_step, settings.samples_per_prompt, clock
            )
            with clock("learn"):
                draws.append(scored(run, self.adapter, rollouts, settings))
            if settings.snr is None or len(draws) == settings.max_draws:
                return draws
            found = estimate_of(draws).within(self.basis)
            inverse = natural.damped_inverse(found.fisher, settings.damping)
            is_enough = natural.signal_to_noise(found, inverse) >= settings.snr
            if distributed.from_main(is_enough):  # all draw again, or none
                return draws

    def learn(self, draws: Sequence[Scored], step_kl: float) -> dict[str, float]:
        """`num_iterations` steps from the same completions, each with its share of `step_kl`."""
        settings, seen = self.settings, list(draws)
        step_kl /= settings.num_iterations
        totals = {"step_kl": 0.0, "step_kl_measured": 0.0, "step_gain": 0.0}
        for iteration in range(settings.num_iterations):
            if iteration > 0:
                seen = [rescored(self.run, self.adapter, one, settings) for one in seen]
            found = estimate_of(seen)
            mean = self.state.add(found, is_new_step=iteration == 0).within(self.basis)
            inverse = natural.damped_inverse(mean.fisher, settings.damping)
            if iteration == 0:
                snr = natural.signal_to_noise(found.within(self.basis), inverse)
            step = natural.step_of(mean.gradient, inverse, step_kl)
            taken = self.search(seen, distributed.from_main(self.basis @ step), step_kl)
            totals["step_kl"] += natural.predicted_kl(taken.scale * step, mean.fisher)
            totals["step_kl_measured"] += taken.kl
            totals["step_gain"] += taken.gain
        return {"snr": snr, **totals, "step_scale": taken.scale}

    def search(self, seen: Sequence[Scored], step: Tensor, step_kl: float) -> natural.Found:
        """Move v along the step (n,), as far as the line search goes on the same completions."""
        run, v = self.run, self.adapter.v
        start = v.detach().clone()
        sums_N, advantages_N, weights_N = (
            gathered(seen, name) for name in ("sums_N", "advantages_N", "weights_N")
        )

        def measure(scale: float) -> tuple[float, float]:
            self.adapter.set_values(start + (scale * step).view_as(v).to(v))
            round_to(run.policy, self.settings.precision)
            new_N = torch.cat([one.draw.sums(logprobs(run, one.draw)) for one in seen])
            found = natural.measured(new_N - sums_N, advantages_N, weights_N)
            return distributed.from_main(found)  # one decision for all processes

        can_gain = bool(step.any() and advantages_N.any())  # momentum alone is never taken
        taken = natural.line_search(measure, step_kl) if can_gain else natural.REST
        if taken.scale == 0:
            self.adapter.set_values(start)
        return taken


class Momentum:
    """Running means of g and F over steps, by exponential weights that add up to 1; in units of v.

    Args:
        num: parameters.
        decay: what is left of a step after the next one; 0: every step has its own g and F alone.
    """

    def __init__(self, num: int, decay: float) -> None:
        self.decay = decay
        zeros = torch.zeros(num, num + 1, dtype=torch.float64)
        self.kept = {"moments": zeros, "weight": torch.zeros((), dtype=torch.float64)}

    def add(self, found: natural.Estimate, is_new_step: bool = True) -> natural.Estimate:
        """The means with this step's g and F; the noise stays this step's.

        Args:
            is_new_step: False for the same completions under the numbers after an iteration: they
                take the place of what they said before.
        """
        if is_new_step:
            self.before = dict(self.kept)
        moments = torch.cat([found.gradient[:, None], found.fisher], dim=1)  # (n, 1 + n)
        new = {"moments": moments, "weight": torch.ones_like(self.kept["weight"])}
        self.kept = {k: self.decay * self.before[k] + (1 - self.decay) * new[k] for k in new}
        mean = self.kept["moments"] / self.kept["weight"]
        return natural.Estimate(mean[:, 0], mean[:, 1:], found.noise)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.kept)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        shapes = [tuple(part["moments"].shape) for part in (state, self.kept)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"moments of shape {shapes[0]}, where this run has {shapes[1]}")
        self.kept = {name: state[name] for name in self.kept}


def check_size(num: int) -> None:
    """Refuse more parameters than an exact F is for."""
    if num > MOST_PARAMETERS:
        raise RequestError(
            f"algorithm = npg with {num} parameters, but the exact Fisher matrix is as large as "
            f"their square, so at most {MOST_PARAMETERS} are supported. Use fewer (num_groups, u "
            "or rank), or algorithm = grpo."
        )


def weight_metric(adapter: TinyLora) -> Tensor:
    """M (n, n) with v^T M v = ||dW||_F^2 over all adapted layers, float64.

    A layer's dW = U S R V^T has the norm of S R, and R = sum_i v_i P_i.
    """
    num_groups, u = adapter.v.shape
    metric = torch.zeros(num_groups, num_groups, u, u, dtype=torch.float64)
    for layer in adapter.maps.values():
        moves = (layer.S[:, None].cpu() * layer.P.cpu()).flatten(1).double()  # (u, r * r)
        metric[layer.group, layer.group] += moves @ moves.T
    return metric.transpose(1, 2).reshape(num_groups * u, num_groups * u)


def scored(run: Run, adapter: TinyLora, rollouts: Rollouts, settings: Npg) -> Scored:
    """Completions with scores, advantages and weights under the present policy.

    Raises:
        TinyLoraError: the engine sampled from another policy, or scores are not finite.
    """
    draw = draw_of(rollouts, run.policy.model, settings.micro_batch_tokens)
    logprobs_T, scores_N = scores(run, adapter, draw, settings)
    rollout_T = draw.rollout_T
    check_engine(run, draw, logprobs_T, settings.rollout_tolerance)
    rewards_N, metrics = rollouts.rewards_P_G.double().flatten(), {}
    if settings.kl_coef > 0:
        with run.policy.reference():
            reference_T = logprobs(run, draw)
        rewards_N = rewards_N - settings.kl_coef * draw.sums(logprobs_T - reference_T)
        metrics["kl_reference"] = float(kl_k3(logprobs_T, reference_T).mean())
    rewards_P_G = rewards_N.view(rollouts.rewards_P_G.shape)
    advantages_P_G = group_advantages(rewards_P_G, normalize_std=False, baseline="leave-one-out")
    ratios_N = draw.sums(logprobs_T - rollout_T).exp()
    cap = settings.importance_cap
    weights_N = torch.ones_like(ratios_N) if cap is None else ratios_N.clamp(max=cap)
    metrics |= engine_metrics(logprobs_T, rollout_T, ratios_N, cap)
    return Scored(draw, logprobs_T, scores_N, advantages_P_G.flatten(), weights_N, metrics)


def rescored(run: Run, adapter: TinyLora, seen: Scored, settings: Npg) -> Scored:
    """The same completions under the policy as it is now, with weights for how it has moved."""
    logprobs_T, scores_N = scores(run, adapter, seen.draw, settings)
    drift_N = seen.draw.sums(logprobs_T - seen.logprobs_T)
    weights_N = seen.weights_N * drift_N.exp()
    return replace(seen, logprobs_T=logprobs_T, scores_N=scores_N, weights_N=weights_N)


def scores(run: Run, adapter: TinyLora, draw: Draw, settings: Passes) -> tuple[Tensor, Tensor]:
    """grad_v log pi(y | x) of every single completion, exactly, in one pass over all of them.

    Row b of a micro-batch runs values[b] = v, so the gradient of the *sum* of log-probabilities
    with respect to `values` has the score of completion b in row b.

    Returns:
        Log-probabilities (tokens,), and scores (N, n) in float64.

    Raises:
        TinyLoraError: a score is not finite.
    """
    model, v = run.policy.model, adapter.v.detach()
    logprobs_T = torch.zeros(int(draw.lengths_N.sum()), dtype=torch.float64)
    scores_N = torch.zeros(len(draw.lengths_N), v.numel(), dtype=torch.float64)
    with recomputing(model, settings), in_step(model, is_learning=True):
        for rows in draw.rows:
            part = collate(rows, model.device, model.dtype)
            values = v.expand(len(rows), *v.shape).clone().requires_grad_()
            with adapter.per_row(values):
                found_T = completion_logprobs(model, part, run.sampling.temperature)
                found_T.sum().backward()  # type: ignore[no-untyped-call]
            assert values.grad is not None
            logprobs_T[part.tokens.cpu()] = found_T.detach().double().cpu()
            places = [draw.places[row.first_tokens[0]] for row in rows]
            scores_N[places] = values.grad.flatten(1).double().cpu()
    add_up(model, logprobs_T, scores_N)
    if not scores_N.isfinite().all():
        raise TinyLoraError(
            "The gradient of a completion is not finite, so a step would destroy the parameters. "
            "Resume from the checkpoint with a smaller step_kl, or in fp32."
        )
    return logprobs_T, scores_N


@torch.no_grad()
def logprobs(run: Run, draw: Draw) -> Tensor:
    """Log-probabilities of all completions under the policy as it is now, (tokens,) in float64."""
    model = run.policy.model
    logprobs_T = torch.zeros(int(draw.lengths_N.sum()), dtype=torch.float64)
    with in_step(model):
        for part in micro_batches(draw.shared_rows, model):
            found_T = completion_logprobs(model, part, run.sampling.temperature)
            logprobs_T[part.tokens.cpu()] = found_T.double().cpu()
    add_up(model, logprobs_T)
    return logprobs_T


def add_up(model: Any, *tensors: Tensor) -> None:
    """Each tensor becomes its sum over the processes, by way of their device."""
    for tensor in tensors:
        there = tensor.to(model.device)
        distributed.add_up(there)
        tensor.copy_(there)


def draw_of(rollouts: Rollouts, model: Any, max_tokens: int | None) -> Draw:
    """The completions as rows, shared out among the processes and cut into micro-batches."""
    samples = [
        Sample(p, prompt, completion.token_ids)
        for p, prompt in enumerate(rollouts.prompts_P)
        for completion in rollouts.completions_P_G[p]
    ]
    alone = pack(samples, 1)  # in the order of the completions
    shared = pack(samples, best_samples_per_row(model, samples))
    cut_alone = split_among_processes(alone, model, max_tokens)
    cut_shared = split_among_processes(shared, model, max_tokens)
    lengths_N = torch.tensor([len(sample.completion) for sample in samples])
    places = {row.first_tokens[0]: i for i, row in enumerate(alone)}
    return Draw(rollouts, cut_alone, cut_shared, lengths_N, places)


def estimate_of(seen: Sequence[Scored]) -> natural.Estimate:
    """g and F from all of them."""
    names = ("scores_N", "advantages_N", "weights_N")
    return natural.estimate(*(gathered(seen, name) for name in names))


def gathered(seen: Sequence[Scored], name: str) -> Tensor:
    """A tensor of each, one after the other."""
    return torch.cat([getattr(one, name) for one in seen])


def check_engine(run: Run, draw: Draw, logprobs_T: Tensor, tolerance: float | None) -> None:
    """Stop where the engine's log-probabilities are not the trainer's."""
    model = run.policy.model

    def recompute(temperature: float) -> tuple[Tensor, Tensor]:
        with in_step(model):
            if not draw.rows:  # a process without rows has nothing to look at
                return logprobs_T, torch.arange(len(logprobs_T))
            part = collate(draw.rows[0], model.device, model.dtype)
            return completion_logprobs(model, part, temperature).cpu(), part.tokens.cpu()

    check_served(run, tolerance, logprobs_T, draw.rollout_T, recompute)


def engine_metrics(
    logprobs_T: Tensor, rollout_T: Tensor, ratios_N: Tensor, cap: float | None
) -> dict[str, float]:
    """How far trainer and engine are apart: by token, and as ratios of whole completions."""
    difference_T = (logprobs_T - rollout_T).abs()
    is_capped_N = torch.zeros_like(ratios_N) if cap is None else ratios_N > cap
    return {
        "rollout_difference_mean": float(difference_T.mean()),
        "rollout_difference_max": float(difference_T.max()),
        "kl_rollout": float(kl_k3(rollout_T.double(), logprobs_T).mean()),
        "importance_mean": float(ratios_N.mean()),
        "importance_max": float(ratios_N.max()),
        "importance_truncated_share": float(is_capped_N.double().mean()),
    }
