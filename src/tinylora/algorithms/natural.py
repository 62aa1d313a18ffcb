"""The natural policy gradient as pure functions on tensors: exact, because v is small.

A score is the gradient of one whole completion's log-probability, s_i = grad_v log pi(y_i | x_i).
With N of them the policy gradient g and the Fisher matrix F are plain means,

    g = 1/N sum_i A_i s_i          F = 1/N sum_i s_i s_i^T

and a step dv changes the policy by KL(old || new) = dv^T F dv / 2 nats of a whole completion, to
second order. So a step is measured by what it does to the policy, not in units of v.

All of it happens in coordinates in which the length of a step is ||dW||_F (`whitening`). They do
not depend on how v is written: v and M v, for any invertible M, take the same step.

`_N` counts completions; n parameters in v, k <= n degrees of freedom of dW. Everything is float64.

Source: Kakade, A natural policy gradient (2001); the line search is TRPO's (1502.05477, appendix
C), but F is exact where TRPO has conjugate gradients.
It does not cover: models and completions (`npg.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-10  # of the largest eigenvalue; below it a direction of v moves no weight
MAX_HALVINGS = 6  # of a step that the line search refuses, before it is given up
KL_SLACK = 2.0  # how many times the wanted KL a step may cost


@dataclass(frozen=True)
class Estimate:
    """What the completions of a step say about the policy around v."""

    gradient: Tensor  # (n,), or (k,) in whitened coordinates; so the others
    fisher: Tensor
    noise: Tensor  # the covariance of `gradient` as an estimate

    def within(self, basis: Tensor) -> "Estimate":
        """The same in the coordinates w of v = T w, from `whitening`."""
        return Estimate(
            basis.T @ self.gradient, basis.T @ self.fisher @ basis, basis.T @ self.noise @ basis
        )


@dataclass(frozen=True)
class Found:
    """What the line search settled on; `scale` 0: no step is an improvement."""

    scale: float
    kl: float  # measured, nats of a whole completion
    gain: float  # of the expected reward, measured


REST = Found(0.0, 0.0, 0.0)


def whitening(metric: Tensor) -> Tensor:
    """T with T^T M T = 1: v = T w has |w| = ||dW||_F, where ||dW||_F^2 = v^T M v.

    Directions of v that move no weight are left out: k is the number of degrees of freedom.

    Args:
        metric: M (n, n), symmetric, without negative eigenvalues.

    Returns:
        (n, k)
    """
    eigenvalues, vectors = torch.linalg.eigh(metric.double())
    is_kept = eigenvalues > RANK_TOLERANCE * eigenvalues.max()
    basis: Tensor = vectors[:, is_kept] / eigenvalues[is_kept].sqrt()
    return basis


def estimate(scores_N: Tensor, advantages_N: Tensor, weights_N: Tensor) -> Estimate:
    """g and F from all completions, also of groups whose rewards are equal.

    Args:
        scores_N: (N, n), float64.
        advantages_N: (N,); 0 where a completion was not judged.
        weights_N: (N,), pi / pi_sampled: 1 where this very policy drew the completions.
    """
    if scores_N.dim() != 2 or advantages_N.shape != scores_N.shape[:1]:
        raise ValueError(
            "Scores (N, n) and advantages (N,) are expected, but the shapes are "
            f"{tuple(scores_N.shape)} and {tuple(advantages_N.shape)}."
        )
    num = len(scores_N)
    pulls_N = (weights_N * advantages_N)[:, None] * scores_N  # (N, n)
    gradient = pulls_N.mean(dim=0)
    fisher = (weights_N[:, None] * scores_N).T @ scores_N / num
    centred_N = pulls_N - gradient
    return Estimate(gradient, fisher, centred_N.T @ centred_N / num**2)


def damped_inverse(fisher: Tensor, damping: float) -> Tensor:
    """(F + damping * mean(diag F) * 1)^-1, or the pseudo-inverse where that is singular.

    In whitened coordinates 1 is the metric of dW, so the damping does not depend on how v is
    written, and directions of which the samples say nothing get steps by the size of dW.
    """
    identity = torch.eye(len(fisher), dtype=fisher.dtype)
    damped = fisher + damping * fisher.diagonal().mean() * identity
    inverse: Tensor = torch.linalg.pinv(damped, hermitian=True)
    return inverse


def step_of(gradient: Tensor, inverse: Tensor, step_kl: float) -> Tensor:
    """The step along F^-1 g whose KL is `step_kl` nats; 0 where there is no gradient. (k,)

    dw = alpha F^-1 g,   alpha = sqrt(2 step_kl / (g^T F^-1 g))
    """
    direction = inverse @ gradient
    slope = float(gradient @ direction)
    return direction * (math.sqrt(2 * step_kl / slope) if slope > 0 else 0.0)


def predicted_kl(step: Tensor, fisher: Tensor) -> float:
    """KL(old || new) of a step to second order, nats of a whole completion: dw^T F dw / 2."""
    return float(step @ fisher @ step) / 2


def signal_to_noise(found: Estimate, inverse: Tensor) -> float:
    """g^T F^-1 g over what it would be if the true gradient were 0: trace(F^-1 Cov(g)).

    About 1: the completions do not tell in which direction to go. 0 where all of g is zero.
    """
    noise = float((inverse * found.noise).sum())
    return float(found.gradient @ inverse @ found.gradient) / noise if noise > 0 else 0.0


def measured(log_ratios_N: Tensor, advantages_N: Tensor, weights_N: Tensor) -> tuple[float, float]:
    """KL(old || new) and the gain in expected reward, on the completions that gave the step.

        KL = mean(w (ratio - 1 - log ratio))        gain = mean(w A (ratio - 1))

    Args:
        log_ratios_N: log pi_new(y_i) - log pi_old(y_i) of whole completions.
        advantages_N, weights_N: as `estimate` had them.
    """
    changes_N = log_ratios_N.expm1()
    kl = (weights_N * (changes_N - log_ratios_N)).mean()
    return float(kl), float((weights_N * advantages_N * changes_N).mean())


def line_search(measure: Callable[[float], tuple[float, float]], step_kl: float) -> Found:
    """Halve the step until its KL is near what was wanted and the reward is expected to rise.

    Args:
        measure: KL and gain of `scale` times the step, as `measured` gives them.
        step_kl: the wanted KL; twice as much passes.
    """
    for halvings in range(MAX_HALVINGS + 1):
        scale = 0.5**halvings
        kl, gain = measure(scale)
        if kl <= KL_SLACK * step_kl and gain > 0:
            return Found(scale, kl, gain)
    return REST
