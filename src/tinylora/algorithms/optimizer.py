"""Adam on a policy's numbers: its rate by step, and the clip of its gradient."""

import math

import torch

from tinylora import distributed
from tinylora.adapter.files import DTYPES
from tinylora.errors import TinyLoraError
from tinylora.policy import Policy
from tinylora.settings import Adam, Precision


def make_optimizer(policy: Policy, settings: Adam) -> torch.optim.Optimizer:
    """Adam on the policy's parameters, without weight decay."""
    betas = (settings.adam_beta1, settings.adam_beta2)
    return torch.optim.Adam(policy.parameters(), lr=settings.rate, betas=betas)


def learning_rate_at(step: int, num_steps: int, settings: Adam) -> float:
    """The rate of step `step` (from 0): a linear warm-up, then constant, or down to zero."""
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, num_steps - warmup)
    factors = {
        "constant": 1.0,
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
    }
    return settings.rate * factors[settings.schedule]


def step_clipped(
    policy: Policy, optimizer: torch.optim.Optimizer, settings: Adam, rate: float
) -> dict[str, float]:
    """One update with the gradient that is there, over all processes, clipped.

    Raises:
        TinyLoraError: the gradient is not finite.
    """
    distributed.add_up_gradients(policy.parameters())
    for group in optimizer.param_groups:
        group["lr"] = rate
    norm = clipped_norm(policy, settings.max_grad_norm)
    optimizer.step()
    round_to(policy, settings.precision)
    return {"learning_rate": rate, "grad_norm": norm}


@torch.no_grad()
def round_to(policy: Policy, precision: Precision) -> None:
    """Round the parameters to a precision below fp32; fp32 leaves them as they are."""
    if precision != "fp32":
        for parameter in policy.parameters():
            parameter.copy_(parameter.to(DTYPES[precision]))


def clipped_norm(policy: Policy, max_norm: float) -> float:
    """Clip the gradient to this norm; returns the norm that it had."""
    norm = float(torch.nn.utils.clip_grad_norm_(policy.parameters(), max_norm))
    if not math.isfinite(norm):
        raise TinyLoraError(
            f"The gradient has norm {norm}, so a step would destroy the parameters. Resume from "
            "the checkpoint with a smaller learning_rate, or in fp32."
        )
    return norm
