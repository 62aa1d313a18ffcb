"""Bayesian optimisation: it climbs a noisy hill faster than its control, and continues exactly."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("botorch")

from tinylora.algorithms.bayes import LENGTH, Bayes
from tinylora.algorithms.es import BestDraw
from tinylora.settings import RandomSearch

NOISE = 0.05


def hill(candidate: Tensor, generator: torch.Generator) -> float:
    """A reward with its top, 1, at (1, -1, 1, ...), and the noise of few problems."""
    target = torch.tensor([(-1.0) ** i for i in range(len(candidate))], dtype=torch.float64)
    height = torch.exp(-(candidate - target).square().mean())
    return float(height + NOISE * torch.randn((), generator=generator))


def climb(search: Bayes | BestDraw, num_steps: int) -> float:
    """The true height of what a search settles on."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        search.tell([hill(candidate, generator) for candidate in search.ask()])
    silent = torch.Generator().manual_seed(1)
    return hill(search.best(), silent) - NOISE * float(
        torch.randn((), generator=torch.Generator().manual_seed(1))
    )


@pytest.mark.parametrize(("num", "population", "num_steps"), [(1, 4, 6), (4, 8, 10)])
def test_it_climbs_further_than_random_search(num: int, population: int, num_steps: int) -> None:
    found = climb(Bayes(num, population, sigma=0.5, seed=0), num_steps)
    control = climb(BestDraw(num, RandomSearch(population=population), seed=0), num_steps)
    assert found > 0.9
    assert found > control


def test_it_continues_from_its_state_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    first = Bayes(3, 5, sigma=0.5, seed=7)
    for _ in range(3):
        first.tell([hill(candidate, generator) for candidate in first.ask()])
    second = Bayes(3, 5, sigma=0.5, seed=7)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.ask(), second.ask())
    assert torch.equal(first.best(), second.best())


def test_zero_is_among_the_first_candidates_and_what_cannot_be_judged_is_no_score() -> None:
    search = Bayes(3, 4, sigma=0.5, seed=0)
    assert not search.ask()[0].any()
    search.tell([0.2, float("-inf"), 0.4, 0.3])
    assert search.scores.isfinite().all()
    assert search.length == LENGTH


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    search = Bayes(2, 4, sigma=0.5, seed=0)
    for _ in range(2):
        search.ask()
        search.tell([0.1, 0.2, 0.3, 0.2])
    assert torch.equal(torch.get_rng_state(), before)
