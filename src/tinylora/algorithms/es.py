"""Training without gradients: CMA-ES, Bayesian optimisation, and random search as their control.

A step draws a population of v, lets every candidate answer the same prompts with the same
randomness (one batch: by row, or as many adapters in vLLM), and scores each by its mean reward.
No gradient is needed, so it works over any quantised or inference-only base.

    cma-es          pycma; the policy is the mean of its distribution (its tutorial: 1604.00772)
    random-search   v ~ sigma N(0, 1), always on the first step's prompts; the best one is kept
    bayes           a Gaussian process in a trust region (`bayes.py`)

Departures: (1) pycma needs two dimensions, so a single number has an idle second one; (2) restarts
(`restarts`) double the population, as in IPOP-CMA-ES, and are off by default.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tinylora.algorithms.bayes import Bayes
from tinylora.algorithms.log import PhaseClock
from tinylora.algorithms.loop import Run, Samples
from tinylora.algorithms.rollouts import roll_out, rollout_metrics, sample_records
from tinylora.policy import adapter_of
from tinylora.settings import Bayesian, CmaEs, RandomSearch, Search


class Optimiser(Protocol):
    """Ask for candidates, tell their scores (higher is better), name the best."""

    def ask(self) -> Tensor:
        """(C, n) in float64."""

    def tell(self, scores: Sequence[float]) -> None:
        """The scores of the candidates last asked for."""

    def best(self) -> Tensor:
        """(n,)"""

    def metrics(self) -> dict[str, float]:
        """Where the search stands."""


def _pycma() -> Any:
    """The package, which warns where it cannot draw."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Could not import matplotlib")
        import cma  # type: ignore[import-untyped]
    return cma


class Cma:
    """pycma's CMA-ES on n numbers, from zero."""

    def __init__(self, num: int, settings: CmaEs, seed: int) -> None:
        self.num, self.settings = num, settings
        self.restarts_left = settings.restarts
        self.rng = np.random.default_rng(seed)
        self.es = self._start(np.zeros(max(2, num)), population_of(num, settings))

    def _start(self, mean: np.ndarray[Any, Any], population: int) -> Any:
        options = {
            "popsize": population,
            "randn": lambda *shape: self.rng.standard_normal(shape),
            "seed": np.nan,  # leave numpy's global generator alone
            "verbose": -9,
        }
        return _pycma().CMAEvolutionStrategy(mean, self.settings.sigma, options)

    def ask(self) -> Tensor:
        self.asked = self.es.ask()
        return torch.from_numpy(np.stack(self.asked))[:, : self.num]

    def tell(self, scores: Sequence[float]) -> None:
        self.es.tell(self.asked, [-score for score in scores])
        if self.restarts_left and self.es.stop():
            self.restarts_left -= 1
            self.es = self._start(self.es.mean, 2 * self.es.popsize)

    def best(self) -> Tensor:
        return torch.from_numpy(self.es.mean[: self.num].copy())

    def metrics(self) -> dict[str, float]:
        return {"sigma": float(self.es.sigma)}


class BestDraw:
    """Draws, of which the best is kept; zero competes, too."""

    def __init__(self, num: int, settings: RandomSearch, seed: int) -> None:
        self.num, self.settings = num, settings
        self.rng = np.random.default_rng(seed)
        self.best_score = -math.inf
        self.kept = torch.zeros(num, dtype=torch.float64)

    def ask(self) -> Tensor:
        shape = (population_of(self.num, self.settings), self.num)
        self.asked = torch.from_numpy(self.settings.sigma * self.rng.standard_normal(shape))
        if self.best_score == -math.inf:
            self.asked[0] = 0
        return self.asked

    def tell(self, scores: Sequence[float]) -> None:
        top = max(range(len(scores)), key=scores.__getitem__)
        if scores[top] > self.best_score:
            self.best_score, self.kept = scores[top], self.asked[top].clone()

    def best(self) -> Tensor:
        return self.kept

    def metrics(self) -> dict[str, float]:
        return {"best_score": self.best_score}


class Replayed:
    """A search whose state is the scores that it was told: a checkpoint replays them, exactly."""

    def __init__(self, num: int, settings: CmaEs | RandomSearch, seed: int) -> None:
        self.num, self.settings, self.seed = num, settings, seed
        self._start()

    def _start(self) -> None:
        self.search: Optimiser
        if isinstance(self.settings, CmaEs):
            self.search = Cma(self.num, self.settings, self.seed)
        else:
            self.search = BestDraw(self.num, self.settings, self.seed)
        self.told: list[list[float]] = []

    def tell(self, scores: Sequence[float]) -> None:
        self.search.tell(scores)
        self.told.append(list(scores))

    def state_dict(self) -> dict[str, Any]:
        return {"told": [torch.tensor(scores, dtype=torch.float64) for scores in self.told]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start()
        for scores in state["told"]:
            self.search.ask()
            self.tell(scores.tolist())


class SearchStep:
    """Search v by forward passes alone: every candidate answers the same prompts, in one batch.

    Raises:
        RequestError: the method has no v.
    """

    def __init__(self, run: Run, settings: CmaEs | RandomSearch | Bayesian) -> None:
        self.run, self.settings = run, settings
        self.adapter = adapter_of(run.policy, "A search by candidates")
        num = self.adapter.v.numel()
        self.state: Replayed | Bayes
        if isinstance(settings, Bayesian):
            self.state = Bayes(num, population_of(num, settings), settings.sigma, run.seed)
        else:
            self.state = Replayed(num, settings, run.seed)

    def __call__(self, number: int) -> tuple[dict[str, float], Samples]:
        """Take step `number` (from 0).

        Raises:
            TinyLoraError: too many completions could not be judged.
        """
        run, clock, v = self.run, PhaseClock(), self.adapter.v
        search = self.state if isinstance(self.state, Bayes) else self.state.search
        candidates = search.ask().to(v).view(-1, *v.shape)
        # Random search compares draws of all steps: they share the first one's prompts and noise.
        drawn = 0 if isinstance(self.settings, RandomSearch) else number
        rollouts = roll_out(run, drawn, self.settings.prompts_per_step, candidates, clock)
        scores_C = rollouts.rewards_P_G.double().nanmean(dim=0).nan_to_num(nan=-math.inf)
        self.state.tell(scores_C.tolist())
        self.adapter.set_values(search.best().to(v).view_as(v))
        metrics = {
            **rollout_metrics(rollouts, run.task),
            "score_max": float(scores_C.max()),
            **search.metrics(),
            **run.policy.metrics(),
            **clock.metrics(),
        }
        metrics["tokens_per_second"] = rollouts.num_tokens / metrics["seconds"]
        return metrics, sample_records(rollouts, number + 1)


def population_of(num: int, settings: Search) -> int:
    """The candidates of a step: as the settings have it, or CMA-ES's default for n numbers."""
    return settings.population or 4 + int(3 * math.log(max(2, num)))
