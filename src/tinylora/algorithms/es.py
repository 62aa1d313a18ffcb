"""Training without gradients: CMA-ES, and random search as the control for every optimiser.

A step draws a population of v, lets every candidate answer the same prompts with the same
randomness (one batch: by row, or as many adapters in vLLM), and scores each by its mean reward.
No gradient is needed, so it works over any quantised or inference-only base.

    cma-es          pycma; the policy is the mean of its distribution (its tutorial: 1604.00772)
    random-search   v ~ sigma N(0, 1), always on the first step's prompts; the best one is kept

Departures: (1) pycma needs two dimensions, so a single number has an idle second one; (2) restarts
(`restarts`) double the population, as in IPOP-CMA-ES, and are off by default.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cma  # type: ignore[import-untyped]
import numpy as np
import torch
from torch import Tensor

from tinylora import distributed
from tinylora.algorithms.log import NoLog, PhaseClock, RunLog
from tinylora.algorithms.loop import Outcome, run_steps
from tinylora.algorithms.rollouts import Rollouts, graded, rollout_metrics, sample_records
from tinylora.algorithms.validation import Validation
from tinylora.errors import RequestError
from tinylora.fsdp import in_step
from tinylora.policy import Policy, TinyLoraPolicy
from tinylora.prompts import Text
from tinylora.rollout.engine import Completion, Engine, Sampling
from tinylora.rollout.sharded import ShardedEngine
from tinylora.settings import TrainConfig
from tinylora.tasks.draw import derive_seed, draw_problems
from tinylora.tasks.task import Grade, Task, grader_of


@runtime_checkable
class PopulationEngine(Protocol):
    """An engine whose batch may hold answers of many candidates: `per_row`, or adapters served."""

    policy: Policy

    def generate_population(
        self,
        prompts: Sequence[list[int]],
        candidates: Tensor,
        sampling: Sampling,
        seed: int,
        places: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """A completion of each prompt by each candidate (P by C)."""


class Search(Protocol):
    """Ask for candidates, tell their scores (higher is better), name the best."""

    def ask(self) -> Tensor:
        """(C, n) in float64."""

    def tell(self, scores: Sequence[float]) -> None:
        """The scores of the candidates last asked for."""

    def best(self) -> Tensor:
        """(n,)"""

    def metrics(self) -> dict[str, float]:
        """Where the search stands."""


class CmaEs:
    """pycma's CMA-ES on n numbers, from zero."""

    def __init__(self, num: int, config: TrainConfig) -> None:
        self.num, self.config = num, config
        self.restarts_left = config.restarts
        self.rng = np.random.default_rng(config.seed)
        self.es = self._start(np.zeros(max(2, num)), population_of(num, config))

    def _start(self, mean: np.ndarray[Any, Any], population: int) -> Any:
        options = {
            "popsize": population,
            "randn": lambda *shape: self.rng.standard_normal(shape),
            "seed": np.nan,  # leave numpy's global generator alone
            "verbose": -9,
        }
        return cma.CMAEvolutionStrategy(mean, self.config.sigma, options)

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


class RandomSearch:
    """Draws, of which the best is kept; zero competes, too."""

    def __init__(self, num: int, config: TrainConfig) -> None:
        self.num, self.config = num, config
        self.rng = np.random.default_rng(config.seed)
        self.best_score = -math.inf
        self.kept = torch.zeros(num, dtype=torch.float64)

    def ask(self) -> Tensor:
        shape = (population_of(self.num, self.config), self.num)
        self.asked = torch.from_numpy(self.config.sigma * self.rng.standard_normal(shape))
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


SEARCHES: dict[str, Callable[[int, TrainConfig], Search]] = {
    "cma-es": CmaEs,
    "random-search": RandomSearch,
}


class Replayed:
    """A search whose state is the scores that it was told: a checkpoint replays them, exactly."""

    def __init__(self, num: int, config: TrainConfig) -> None:
        self.num, self.config = num, config
        self._start()

    def _start(self) -> None:
        self.search = SEARCHES[self.config.algorithm](self.num, self.config)
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


def train_es(
    policy: Policy,
    engine: Engine,
    task: Task,
    text: Text,
    config: TrainConfig,
    log: RunLog | NoLog,
    *,
    checkpoint_folder: Path,
    resume: bool = False,
    grade: Grade | None = None,
    validation: Validation | None = None,
) -> Outcome:
    """Search v by forward passes alone; arguments and errors as `train_grpo`'s.

    Raises:
        RequestError: the method has no v, or the engine cannot run candidates by row.
    """
    engine = engine.engine if isinstance(engine, ShardedEngine) else engine
    if not isinstance(policy, TinyLoraPolicy) or not isinstance(engine, PopulationEngine):
        raise RequestError(
            f"algorithm = {config.algorithm} lets every candidate v answer in one batch, which "
            f"takes method = tinylora or lora-xs (not {config.method}) and an engine that can."
        )
    v = policy.adapter.v
    replayed = Replayed(v.numel(), config)

    def step(number: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
        clock = PhaseClock()
        candidates = replayed.search.ask().to(v).view(-1, *v.shape)
        rollouts = population_rollouts(
            engine, candidates, task, text, config, number, grade or grader_of(task), clock
        )
        scores_C = rollouts.rewards_P_G.double().nanmean(dim=0).nan_to_num(nan=-math.inf)
        replayed.tell(scores_C.tolist())
        policy.adapter.set_values(replayed.search.best().to(v).view_as(v))
        metrics = {
            **rollout_metrics(rollouts, task),
            "score_max": float(scores_C.max()),
            **replayed.search.metrics(),
            **policy.metrics(),
            **clock.metrics(),
        }
        metrics["tokens_per_second"] = rollouts.num_tokens / metrics["seconds"]
        return metrics, sample_records(rollouts, number + 1)

    return run_steps(
        step,
        policy,
        replayed,
        config,
        log,
        checkpoint_folder=checkpoint_folder,
        resume=resume,
        validation=validation,
    )


def population_rollouts(
    engine: PopulationEngine,
    candidates: Tensor,
    task: Task,
    text: Text,
    config: TrainConfig,
    step: int,
    grade: Grade,
    clock: PhaseClock,
) -> Rollouts:
    """Every candidate's graded answer to each of the step's prompts; candidates count as samples.

    Random search compares draws of all steps, so it always has the first step's prompts and noise.
    """
    step = 0 if config.algorithm == "random-search" else step
    budget = config.max_new_tokens or task.max_new_tokens
    sampling = Sampling(config.temperature, budget, text.eos_token_ids)
    problems_P = draw_problems(task.train, config.prompts_per_step, config.seed, step)
    prompts_P = [text.encode(problem) for problem in problems_P]
    seed = derive_seed(config.seed, "rollout", step)
    with clock("rollout"):
        mine, places = distributed.share(prompts_P), distributed.share(range(len(prompts_P)))
        done = []
        with in_step(engine.policy.model):
            if mine:
                done = engine.generate_population(mine, candidates, sampling, seed, places)
        completions_P_C = distributed.gather(done)
    with clock("grade"):
        return graded(problems_P, prompts_P, completions_P_C, text, grade)


def population_of(num: int, config: TrainConfig) -> int:
    """The candidates of a step: as the settings have it, or CMA-ES's default for n numbers."""
    return config.population or 4 + int(3 * math.log(max(2, num)))
