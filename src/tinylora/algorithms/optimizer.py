"""Adam on a policy's numbers: its rate by step, and the clip of its gradient."""

import math

import torch

from tinylora import distributed
from tinylora.adapter.files import DTYPES
from tinylora.errors import TinyLoraError
from tinylora.policy import Policy
from tinylora.settings import TrainConfig


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


def step_clipped(
    policy: Policy, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int
) -> dict[str, float]:
    """One update with the gradient that is there, over all processes, clipped.

    Raises:
        TinyLoraError: the gradient is not finite.
    """
    distributed.add_up_gradients(policy.parameters())
    rate = learning_rate_at(step, config)
    for group in optimizer.param_groups:
        group["lr"] = rate
    norm = clipped_norm(policy, config.max_grad_norm)
    optimizer.step()
    if config.precision != "fp32":
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.copy_(parameter.to(DTYPES[config.precision]))
    return {"learning_rate": rate, "grad_norm": norm}


def clipped_norm(policy: Policy, max_norm: float) -> float:
    """Clip the gradient to this norm; returns the norm that it had."""
    norm = float(torch.nn.utils.clip_grad_norm_(policy.parameters(), max_norm))
    if not math.isfinite(norm):
        raise TinyLoraError(
            f"The gradient has norm {norm}, so a step would destroy the numbers. Resume from the "
            "checkpoint with a smaller learning_rate, or in fp32."
        )
    return norm
