"""Proof that the policy that answers is the policy that is trained.

The engine says with which log-probabilities it drew each token; the trainer computes the same of
its own. Where they part by more than rounding, the step is not taken, and a second look says which
policy the engine served: the trainer's log-probabilities are computed again without the adapter,
with the numbers of the version before, and at temperature 1.

In half precision rounding explains more than a small adapter does. So an engine that serves copies
is also asked, over thousands of tokens, whether it is nearer to the policy with the adapter or to
the one without (`towards_adapter`).

It does not cover: an engine that draws from another distribution than the one whose
log-probabilities it reports.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from tinylora import distributed
from tinylora.algorithms.loop import Run
from tinylora.errors import TinyLoraError
from tinylora.models import quantization_of
from tinylora.policy import Policy

FP32_TOLERANCE, HALF_TOLERANCE = 0.01, 0.1

SIGMAS = 6.0  # standard errors by which an engine is nearer to the base before a run stops

Logprobs = Callable[[float], tuple[Tensor, Tensor]]
"""The trainer's, as it is now, of some tokens at this temperature; and which tokens those are."""


def tolerance(model: Any, given: float | None) -> float:
    """The mean difference in log-probability (nats) that rounding explains."""
    if given is not None:
        return given
    is_exact = model.dtype.itemsize >= 4 and quantization_of(model) == "none"
    return FP32_TOLERANCE if is_exact else HALF_TOLERANCE


def check_served(
    run: Run, given: float | None, trained_T: Tensor, rollout_T: Tensor, recompute: Logprobs
) -> None:
    """Stop where the engine's log-probabilities are not those of the policy.

    Args:
        given: the tolerance that the settings name; None: by precision.
        trained_T, rollout_T: the trainer's and the engine's of every token, (tokens,).
        recompute: the same for a part of the tokens, to look for the cause.

    Raises:
        TinyLoraError: they differ by more than the tolerance, with the likely cause.
    """
    difference = mean_difference(trained_T, rollout_T)
    allowed = tolerance(run.policy.model, given)
    if difference <= allowed:
        if given is None and run.engine.previous is not None:  # it serves copies
            check_adapter_is_on(run, trained_T, rollout_T, recompute)
        return
    most = float((trained_T - rollout_T).abs().max())
    cause = likely_cause(run, rollout_T, recompute, allowed)
    raise TinyLoraError(
        f"The rollout engine's log-probabilities differ from the trainer's by {difference:.2g} on "
        f"average and {most:.2g} at most, so it samples from a policy different from the one that "
        f"is trained. {cause} The parameters are as they were before this step; resume with "
        "--resume. If you expect the difference, raise rollout_tolerance, which is "
        f"{allowed:g}."
    )


@torch.no_grad()
def check_adapter_is_on(
    run: Run, trained_T: Tensor, rollout_T: Tensor, recompute: Logprobs
) -> None:
    """Stop where the engine answers as the base model does, by less than rounding explains.

    Raises:
        TinyLoraError: it is nearer to the base by `SIGMAS` standard errors.
    """
    with run.policy.reference():
        base_T, tokens = recompute(run.sampling.temperature)
    sigmas = towards_adapter(rollout_T[tokens], trained_T[tokens], base_T)
    if distributed.from_main(sigmas) >= -SIGMAS:
        return
    raise TinyLoraError(
        f"The rollout engine's log-probabilities are nearer to the base model's than to those of "
        f"the policy that is trained (by {-sigmas:.0f} standard errors over {len(base_T)} tokens): "
        "the adapter is not applied, or it is another one. The parameters are as they were before "
        "this step; resume with --resume. To train anyway, set rollout_tolerance."
    )


def towards_adapter(engine_T: Tensor, trained_T: Tensor, base_T: Tensor) -> float:
    """By how many standard errors the engine is nearer to the trained policy than to the base.

    The mean of (engine - (trained + base) / 2) (trained - base) over tokens, in its standard
    errors: half the mean square of what the adapter does where the engine applies it, minus that
    where it does not. Rounding adds noise and no bias, because the trainer's two policies round
    alike.

    Args:
        engine_T, trained_T, base_T: log-probabilities of the same tokens.

    Returns:
        0 where the adapter changes nothing.
    """
    engine_T, trained_T, base_T = engine_T.double(), trained_T.double(), base_T.double()
    signs_T = (engine_T - (trained_T + base_T) / 2) * (trained_T - base_T)
    error = float(signs_T.std()) / len(signs_T) ** 0.5 if len(signs_T) > 1 else 0.0
    return float(signs_T.mean()) / error if error > 0 else 0.0


@torch.no_grad()
def likely_cause(run: Run, rollout_T: Tensor, recompute: Logprobs, allowed: float) -> str:
    """Which policy the engine served, as far as log-probabilities tell."""
    policy, temperature = run.policy, run.sampling.temperature
    present_T, tokens = recompute(temperature)
    rollout_T = rollout_T[tokens].to(present_T)
    with policy.reference():
        base_T, _ = recompute(temperature)
    distances = {
        "the current parameters": mean_difference(present_T, rollout_T),
        "no adapter": mean_difference(base_T, rollout_T),
    }
    if run.engine.previous is not None:
        with holding(policy, run.engine.previous):
            previous_T, _ = recompute(temperature)
        distances["the previous parameters"] = mean_difference(previous_T, rollout_T)
    if temperature != 1:
        plain_T, _ = recompute(1.0)
        distances["temperature 1"] = mean_difference(plain_T, rollout_T)
    effect = mean_difference(present_T, base_T)
    listed = ", ".join(f"{name} {value:.2g}" for name, value in distances.items())
    return f"Likely cause: {sentence(distances, effect, allowed)} (Distances: {listed}.)"


def sentence(distances: dict[str, float], effect: float, allowed: float) -> str:
    """A sentence for the nearest of the policies that were tried.

    Args:
        distances: of the engine's log-probabilities from those of each policy.
        effect: how far the adapter itself moves them.
        allowed: what rounding explains.
    """
    nearest = min(distances, key=lambda name: distances[name])
    is_explained = distances[nearest] <= allowed
    if is_explained and nearest == "no adapter":
        return "the adapter is not applied: only the base model answers."
    if is_explained and nearest == "the previous parameters":
        return (
            "a stale version, the engine still serves the parameters of the previous version (or "
            "their keys and values from its prefix cache)."
        )
    if is_explained and nearest == "temperature 1":
        return (
            "the engine reports log-probabilities before the temperature is applied; start it with "
            "--logprobs-mode processed_logprobs."
        )
    if effect <= allowed:
        return (
            "precision, or a different base model; the adapter moves log-probabilities by "
            f"{effect:.2g} only, so the adapter is not the cause."
        )
    if distances["the current parameters"] < distances["no adapter"] / 2:
        return (
            "precision; the adapter is applied, but the engine computes in different arithmetic "
            "from the trainer (dtype, quantisation, kernels)."
        )
    return "the wrong adapter (another run's, or for other modules), or a different base model."


def mean_difference(trained_T: Tensor, rollout_T: Tensor) -> float:
    """The mean of |log p - log q| over tokens."""
    return float((trained_T - rollout_T).abs().mean())


@contextmanager
def holding(policy: Policy, state: dict[str, Tensor]) -> Iterator[None]:
    """Inside, the policy has these numbers."""
    present = policy.state_dict()
    policy.load_state_dict(state)
    try:
        yield
    finally:
        policy.load_state_dict(present)
