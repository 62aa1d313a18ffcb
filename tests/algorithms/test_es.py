"""CMA-ES and random search: they climb, they continue exactly, and rows run their own v."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import tinylora
from helpers.standins import END, tiny_model
from tinylora import AdapterConfig, RequestError, TrainConfig, attach
from tinylora.algorithms.es import BestDraw, Cma, Replayed, population_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import CmaEs, RandomSearch

PROMPTS = [[3, 4, 5], [6, 7, 8, 9, 10], [11, 12]]


SEARCHES = {"cma-es": CmaEs(), "random-search": RandomSearch()}


def score(candidate: torch.Tensor) -> float:
    """A hill with its top at (1, -1, 1, ...)."""
    target = torch.tensor([(-1.0) ** i for i in range(len(candidate))], dtype=torch.float64)
    return -float((candidate - target).square().sum())


@pytest.mark.parametrize("num", [1, 3, 13])
@pytest.mark.parametrize(("algorithm", "gap"), [("cma-es", 0.01), ("random-search", 1.0)])
def test_a_search_climbs(algorithm: str, gap: float, num: int) -> None:
    search = Replayed(num, SEARCHES[algorithm], seed=0).search
    for _ in range(150):
        search.tell([score(candidate) for candidate in search.ask()])
    reached = score(search.best())
    assert reached > score(torch.zeros(num, dtype=torch.float64))
    assert reached > -gap * num


@pytest.mark.parametrize("settings", [CmaEs(), CmaEs(restarts=2), RandomSearch()])
def test_replayed_scores_give_the_same_search(settings: CmaEs | RandomSearch) -> None:
    first = Replayed(3, settings, seed=0)
    for step in range(60):
        asked = first.search.ask()
        first.tell([round(score(candidate), 2 if step < 40 else 8) for candidate in asked])
    second = Replayed(3, settings, seed=0)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.search.ask(), second.search.ask())
    assert torch.equal(first.search.best(), second.search.best())


def test_a_restart_doubles_the_population() -> None:
    search = Cma(2, CmaEs(restarts=1), seed=0)
    sizes = set()
    for _ in range(400):
        asked = search.ask()
        sizes.add(len(asked))
        search.tell([score(candidate) for candidate in asked])
    assert sizes == {6, 12}


def test_the_global_generators_are_left_alone() -> None:
    import numpy as np

    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    search = Cma(4, CmaEs(), seed=0)
    search.tell([score(candidate) for candidate in search.ask()])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002


def test_random_search_keeps_the_best_and_begins_with_the_base() -> None:
    search = BestDraw(3, RandomSearch(population=4), seed=0)
    assert not search.ask()[0].any()
    search.tell([0.5, 0.1, 0.2, 0.3])
    assert not search.best().any()
    asked = search.ask()
    search.tell([0.5, 0.7, 0.6, 0.2])
    assert torch.equal(search.best(), asked[1])


def test_populations() -> None:
    assert [population_of(n, CmaEs()) for n in (1, 13, 64)] == [6, 11, 16]
    assert population_of(13, CmaEs(population=5)) == 5


@pytest.mark.parametrize("max_cache_tokens", [2**17, 60])
def test_a_candidate_in_a_row_answers_as_it_does_alone(max_cache_tokens: int) -> None:
    """Greedy and sampled; rows end at different times and leave the batch."""
    model = tiny_model()
    adapter = attach(model, AdapterConfig(u=3, num_groups=2))
    engine = TransformersEngine(adapter, max_cache_tokens=max_cache_tokens)
    candidates = 2 * torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    for temperature in (0.0, 1.0):
        sampling = Sampling(temperature, 12, (END, 5, 9))
        together = engine.generate_population(PROMPTS, candidates, sampling, seed=1)
        for c, candidate in enumerate(candidates):
            adapter.set_values(candidate)
            alone = engine.generate(PROMPTS, 1, sampling, seed=1)
            for p in range(len(PROMPTS)):
                assert together[p][c].token_ids == alone[p][0].token_ids
                assert together[p][c].logprobs == pytest.approx(alone[p][0].logprobs, abs=1e-4)
    lengths = {len(c.token_ids) for row in together for c in row}
    assert len(lengths) > 1


@pytest.mark.parametrize("algorithm", ["cma-es", "bayes", "random-search"])
def test_a_run_and_its_resumption(
    algorithm: str, tiny_folder: Path, task_name: str, tmp_path: Path
) -> None:
    def run(name: str, steps: int, resume: bool = False) -> dict[str, Any]:
        settings = TrainConfig(
            algorithm=algorithm,
            model=str(tiny_folder),
            task=task_name,
            steps=steps,
            prompts_per_step=4,
            eval_samples=1,
            output=str(tmp_path / name),
        )
        return tinylora.train(settings, resume=resume, console=Console(quiet=True))

    whole = run("whole", 4)
    run("parts", 2)
    parts = run("parts", 4, resume=True)
    assert whole["final_accuracy"] == parts["final_accuracy"]
    bytes_of = [(tmp_path / n / "adapter.safetensors").read_bytes() for n in ("whole", "parts")]
    assert bytes_of[0] == bytes_of[1]
    lines = [json.loads(x) for x in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["score_max"] >= line["reward"] for line in lines)


def test_methods_without_rows_are_refused() -> None:
    with pytest.raises(RequestError, match=r"a different v in every row of a batch, .* has no v"):
        TrainConfig(algorithm="cma-es", method="lora")
