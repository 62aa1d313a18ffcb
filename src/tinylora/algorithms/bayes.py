"""Bayesian optimisation of v: a Gaussian process with noise, in a trust region (TuRBO).

After each step a Gaussian process is fitted to all candidates and scores so far; it infers the
noise of a score, which comes from few problems. The next candidates are draws from its posterior
(Thompson sampling) in a box around the point that it believes to be best. The box grows after
steps that improve on that belief and shrinks after steps that do not.

Source: Eriksson et al., Scalable Global Optimization via Local Bayesian Optimization (1910.01739).
The process, its fit and the draws are botorch's; the region's rules are the paper's, but that it
waits for three steps without success (there: for one, with a large population), since scores are
noisy.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from tinylora.errors import RequestError, install_hint

SIGMAS = 4.0  # half the width of the search space, in spreads of the first candidates
LENGTH, LEAST_LENGTH, MOST_LENGTH = 0.8, 0.5**7, 1.6  # of the region, in widths of the space
SUCCESSES = 3  # in a row, before the region grows
FAILURES = 3  # in a row, at least, before it shrinks
DRAWS = 1000  # points of the region, of which the posterior's draws choose
NUM_MOVED = 20  # numbers that a point has other than the centre, on average


class Bayes:
    """A search over n numbers, from zero; its state is what it has seen.

    Args:
        num: parameters.
        population: candidates in a step.
        sigma: the spread of the first candidates; the space is 4 of it on each side of zero.

    Raises:
        RequestError: botorch is not installed.
    """

    def __init__(self, num: int, population: int, sigma: float, seed: int) -> None:
        try:
            with unwarned():
                import botorch.models  # noqa: F401
        except ImportError as error:
            hint = install_hint("bayes")
            raise RequestError(f"algorithm = bayes needs botorch ({error}). {hint}") from error
        self.num, self.population, self.sigma, self.seed = num, population, sigma, seed
        self.points = torch.zeros(0, num, dtype=torch.float64)  # in units of v
        self.scores = torch.zeros(0, dtype=torch.float64)
        self.centre = torch.zeros(num, dtype=torch.float64)
        self.belief = -math.inf  # of the centre's score
        self.length, self.successes, self.failures = LENGTH, 0, 0

    def ask(self) -> Tensor:
        """(population, n): first a spread around zero with zero itself, then posterior draws."""
        step = len(self.scores) // self.population
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        if step == 0:
            shape = (self.population, self.num)
            spread = torch.randn(shape, generator=generator, dtype=torch.float64)
            self.asked = self.sigma * spread
            self.asked[0] = 0
        else:
            self.asked = self._drawn(generator)
        return self.asked

    def tell(self, scores: Sequence[float]) -> None:
        """The scores of what was asked; those that could not be judged are forgotten."""
        told = torch.tensor(scores, dtype=torch.float64)
        told = torch.where(told.isfinite(), told, self._known_mean())
        self.points = torch.cat([self.points, self.asked])
        self.scores = torch.cat([self.scores, told])
        self._fit()
        self._move_region()

    def best(self) -> Tensor:
        """(n,): the point of which most is believed."""
        return self.centre

    def metrics(self) -> dict[str, float]:
        return {"region": self.length, "believed_score": self.belief}

    def state_dict(self) -> dict[str, Any]:
        numbers = [self.belief, self.length, self.successes, self.failures]
        return {
            "points": self.points,
            "scores": self.scores,
            "centre": self.centre,
            "region": torch.tensor(numbers, dtype=torch.float64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points, self.scores, self.centre = (state[k] for k in ("points", "scores", "centre"))
        self.belief, self.length, successes, failures = state["region"].tolist()
        self.successes, self.failures = int(successes), int(failures)
        if len(self.scores):
            self._fit()

    def _known_mean(self) -> Tensor:
        return self.scores.mean() if len(self.scores) else torch.zeros((), dtype=torch.float64)

    def _unit(self, points: Tensor) -> Tensor:
        """Points of v in the unit cube, in which the process lives."""
        return points / (2 * SIGMAS * self.sigma) + 0.5

    def _fit(self) -> None:
        """The Gaussian process on everything seen, scores standardised."""
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.transforms import Standardize
        from gpytorch.mlls import ExactMarginalLogLikelihood  # type: ignore[import-untyped]

        with unwarned():
            self.process: Any = SingleTaskGP(
                self._unit(self.points),
                self.scores[:, None],
                outcome_transform=Standardize(m=1, min_stdv=1e-6),
            )
            likelihood = ExactMarginalLogLikelihood(self.process.likelihood, self.process)
            fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": 100}})

    @torch.no_grad()
    def _move_region(self) -> None:
        """The centre goes to the best belief; the region grows, shrinks, or begins anew."""
        beliefs = self.process.posterior(self._unit(self.points)).mean[:, 0]
        top = int(beliefs.argmax())
        margin = 1e-3 * abs(self.belief) if math.isfinite(self.belief) else 0.0
        is_better = float(beliefs[top]) > self.belief + margin
        self.centre, self.belief = self.points[top].clone(), float(beliefs[top])
        self.successes = self.successes + 1 if is_better else 0
        self.failures = 0 if is_better else self.failures + 1
        if self.successes == SUCCESSES:
            self.length, self.successes = min(2 * self.length, MOST_LENGTH), 0
        elif self.failures == max(FAILURES, math.ceil(self.num / self.population)):
            self.length, self.failures = self.length / 2, 0
        if self.length < LEAST_LENGTH:
            self.length = LENGTH

    @torch.no_grad()
    def _drawn(self, generator: torch.Generator) -> Tensor:
        """Candidates: for each a function drawn from the posterior, and where it is highest."""
        from botorch.generation.sampling import MaxPosteriorSampling
        from botorch.utils.sampling import manual_seed

        seed = int(torch.randint(2**31, (), generator=generator))
        centre = self._unit(self.centre)
        scales = self.process.covar_module.lengthscale.detach().flatten()
        widths = self.length * scales / scales.log().mean().exp()
        low, high = ((centre + side * widths / 2).clamp(0, 1) for side in (-1, 1))
        sobol: Any = SobolEngine(self.num, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        points = low + (high - low) * sobol.draw(DRAWS, dtype=torch.float64)
        share = min(1.0, NUM_MOVED / self.num)
        is_moved = torch.rand(DRAWS, self.num, generator=generator) <= share
        stuck = ~is_moved.any(dim=1)
        one = torch.randint(self.num, (DRAWS,), generator=generator)
        is_moved[stuck, one[stuck]] = True
        points = torch.where(is_moved, points, centre)
        sampling = MaxPosteriorSampling(self.process, replacement=False)
        with manual_seed(seed), unwarned():
            chosen: Tensor = sampling(points, num_samples=self.population)
        return (chosen - 0.5) * (2 * SIGMAS * self.sigma)


@contextmanager
def unwarned() -> Iterator[None]:
    """Inside, nothing is said of equal scores, of jitter, and of a fit that stops at its cap."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
