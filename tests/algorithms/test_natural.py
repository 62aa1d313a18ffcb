"""The natural gradient's arithmetic: by hand, by finite differences, and under v -> M v."""

import math

import pytest
import torch
from torch import Tensor

from tinylora.algorithms import natural
from tinylora.algorithms.natural import Estimate, Found

NUM_PROMPTS, NUM_ANSWERS, NUM = 3, 5, 4


def family() -> tuple[Tensor, Tensor]:
    """A softmax policy whose logits are features @ v: features (P, Y, n) and rewards (P, Y)."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(NUM_PROMPTS, NUM_ANSWERS, NUM, generator=generator, dtype=torch.float64)
    rewards = torch.rand(NUM_PROMPTS, NUM_ANSWERS, generator=generator, dtype=torch.float64)
    return features, rewards


def log_policy(features: Tensor, v: Tensor) -> Tensor:
    return (features @ v).log_softmax(dim=-1)


def exact(features: Tensor, rewards: Tensor, v: Tensor) -> Estimate:
    """g and F with every answer of every prompt, weighted by its probability."""
    log_pi = log_policy(features, v)
    pi = log_pi.exp()
    scores = features - (pi[..., None] * features).sum(dim=1, keepdim=True)
    advantages = rewards - (pi * rewards).sum(dim=1, keepdim=True)
    weights = NUM_ANSWERS * pi  # the mean over all answers is then the expectation
    return natural.estimate(scores.flatten(0, 1), advantages.flatten(), weights.flatten())


def kl(features: Tensor, old: Tensor, new: Tensor) -> float:
    before, after = log_policy(features, old), log_policy(features, new)
    return float((before.exp() * (before - after)).sum(dim=1).mean())


def natural_step(features: Tensor, rewards: Tensor, v: Tensor, metric: Tensor, **how) -> Tensor:
    """The step in v."""
    basis = natural.whitening(metric)
    found = exact(features, rewards, v).within(basis)
    inverse = natural.damped_inverse(found.fisher, how.get("damping", 0.05))
    return basis @ natural.step_of(found.gradient, inverse, how.get("step_kl", 0.1))


def test_moments_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    advantages = torch.tensor([2.0, -1.0], dtype=torch.float64)
    found = natural.estimate(scores, advantages, torch.ones(2, dtype=torch.float64))
    assert found.gradient.tolist() == [0.5, -1.0]  # (2 [1, 0] - [1, 2]) / 2
    assert found.fisher.tolist() == [[1.0, 1.0], [1.0, 2.0]]
    # Pulls [2, 0] and [-1, -2] are [1.5, 1] and [-1.5, -1] from their mean; over N^2 = 4.
    assert found.noise.tolist() == [[1.125, 0.75], [0.75, 0.5]]
    weighted = natural.estimate(scores, advantages, torch.tensor([2.0, 1.0], dtype=torch.float64))
    assert weighted.gradient.tolist() == [1.5, -1.0]
    assert weighted.fisher.tolist() == [[1.5, 1.0], [1.0, 2.0]]


def test_step_by_hand() -> None:
    fisher = torch.diag(torch.tensor([4.0, 1.0], dtype=torch.float64))
    gradient = torch.tensor([4.0, 1.0], dtype=torch.float64)
    inverse = natural.damped_inverse(fisher, 0.0)
    # F^-1 g = [1, 1] and g^T F^-1 g = 5, so alpha = sqrt(2 * 0.4 / 5) = 0.4.
    step = natural.step_of(gradient, inverse, 0.4)
    torch.testing.assert_close(step, torch.full_like(step, 0.4))
    assert natural.predicted_kl(step, fisher) == pytest.approx(0.4)
    damped = natural.damped_inverse(fisher, 0.4)  # 0.4 * 2.5 = 1 on the diagonal
    torch.testing.assert_close(damped.diagonal(), torch.tensor([0.2, 0.5], dtype=torch.float64))
    noise = torch.diag(torch.tensor([0.4, 0.4], dtype=torch.float64))
    # trace(F^-1 C) = 0.1 + 0.4
    assert natural.signal_to_noise(Estimate(gradient, fisher, noise), inverse) == pytest.approx(10)


def test_no_gradient_is_no_step_and_no_signal() -> None:
    zero, one = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    assert natural.step_of(zero, one, 0.1).tolist() == [0.0, 0.0]
    assert natural.signal_to_noise(Estimate(zero, one, 0 * one), one) == 0


def test_fisher_is_the_curvature_of_the_kl() -> None:
    """Against finite differences of KL(v || v + d), at a v that is not zero."""
    features, rewards = family()
    v = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)
    fisher = exact(features, rewards, v).fisher
    size, units = 1e-4, torch.eye(NUM, dtype=torch.float64)
    for i in range(NUM):
        for j in range(NUM):
            signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
            corners = [
                a * b * kl(features, v, v + size * (a * units[i] + b * units[j])) for a, b in signs
            ]
            assert sum(corners) / (4 * size**2) == pytest.approx(float(fisher[i, j]), abs=1e-6)


def test_gradient_is_that_of_the_expected_reward() -> None:
    features, rewards = family()
    v = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64, requires_grad=True)
    expected = (log_policy(features, v).exp() * rewards).sum(dim=1).mean()
    (gradient,) = torch.autograd.grad(expected, v)
    found = exact(features, rewards, v.detach()).gradient
    torch.testing.assert_close(found, gradient, atol=1e-12, rtol=0)


def test_predicted_kl_becomes_the_true_one_as_steps_shrink() -> None:
    features, rewards = family()
    v, metric = torch.zeros(NUM, dtype=torch.float64), torch.eye(NUM, dtype=torch.float64)
    errors = []
    for step_kl in (1e-1, 1e-3, 1e-5):
        step = natural_step(features, rewards, v, metric, damping=0.0, step_kl=step_kl)
        errors.append(abs(kl(features, v, v + step) / step_kl - 1))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2e-3


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_policy_after_a_step_does_not_depend_on_how_v_is_written(damping: float) -> None:
    """v = M^-1 w for any invertible M: the same policy, to 1e-6. A gradient step has another."""
    features, rewards = family()
    v = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    metric = torch.randn(NUM, NUM, generator=generator, dtype=torch.float64)
    metric = metric @ metric.T
    M = torch.randn(NUM, NUM, generator=generator, dtype=torch.float64)
    M = M * torch.tensor([100.0, 1.0, 0.1, 3.0], dtype=torch.float64)
    back = torch.linalg.inv(M)
    theirs = features @ back, back.T @ metric @ back  # in w = M v
    plain = log_policy(features, v + natural_step(features, rewards, v, metric, damping=damping))
    step = natural_step(theirs[0], rewards, M @ v, theirs[1], damping=damping)
    written = log_policy(theirs[0], M @ v + step)
    torch.testing.assert_close(written, plain, atol=1e-6, rtol=0)

    def adam(features: Tensor, v: Tensor) -> Tensor:  # its first step: the signs of g
        return log_policy(features, v + 0.1 * exact(features, rewards, v).gradient.sign())

    assert (adam(theirs[0], M @ v) - adam(features, v)).abs().max() > 0.01


def test_parameters_that_repeat_each_other_change_nothing() -> None:
    """Eight parameters over the four directions of four: the same step."""
    features, rewards = family()
    metric, spread = torch.eye(NUM, dtype=torch.float64), torch.eye(NUM, 2 * NUM).double()
    spread[:, NUM:] = torch.randn(NUM, NUM, generator=torch.Generator().manual_seed(2))
    v, w = torch.zeros(NUM, dtype=torch.float64), torch.zeros(2 * NUM, dtype=torch.float64)
    assert natural.whitening(spread.T @ spread).shape == (2 * NUM, NUM)
    few = natural_step(features, rewards, v, metric)
    many = spread @ natural_step(features @ spread, rewards, w, spread.T @ spread)
    torch.testing.assert_close(many, few, atol=1e-9, rtol=0)


def test_line_search_halves_until_kl_and_gain_agree() -> None:
    asked = []

    def measure(scale: float) -> tuple[float, float]:
        asked.append(scale)
        return scale**2, 1.0 if scale < 0.5 else -1.0

    assert natural.line_search(measure, 0.1) == Found(0.25, 0.0625, 1.0)
    assert asked == [1.0, 0.5, 0.25]
    assert natural.line_search(lambda scale: (0.0, -1.0), 0.1) == natural.REST
    assert natural.line_search(lambda scale: (0.2, 1.0), 0.1) == Found(1.0, 0.2, 1.0)


def test_measured_by_hand() -> None:
    ratios = torch.tensor([2.0, 0.5], dtype=torch.float64)
    one = torch.ones(2, dtype=torch.float64)
    cost, gain = natural.measured(ratios.log(), torch.tensor([1.0, -1.0]).double(), one)
    assert cost == pytest.approx((2 - 1 - math.log(2) + 0.5 - 1 + math.log(2)) / 2)
    assert gain == pytest.approx((1 + 0.5) / 2)
