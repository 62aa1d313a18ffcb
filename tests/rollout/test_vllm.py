"""Real vLLM, in this process: it draws from the policy that is trained, and it is noticed when not.

Run by `make test-vllm` in an environment of its own, on the pocket model.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.standins import pocket_run
from tinylora.adapter import TinyLora, attach
from tinylora.algorithms import make_step
from tinylora.errors import TinyLoraError
from tinylora.methods import METHODS
from tinylora.models import load_model
from tinylora.pocket import model_folder
from tinylora.prompts import text_of
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.lora_engine import SHARED_MEMORY, LoraEngine, version_folder
from tinylora.rollout.transformers import TransformersEngine
from tinylora.rollout.vllm import Colocated
from tinylora.settings import AdapterConfig, TrainConfig
from tinylora.tasks import pocket as pocket_task
from tinylora.tasks.draw import draw_problems

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]  # vLLM's own warnings
pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm", exc_type=ImportError)

ADAPTER = AdapterConfig(u=13, num_groups=1, rank=2)
V = 0.1 * torch.randn(1, 13, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def server() -> Iterator[Colocated]:
    server = Colocated(
        str(model_folder()),
        "float32",
        ADAPTER,
        num_adapters=2,
        cache_gib=0.5,
    )
    yield server
    server.close()


@pytest.fixture(scope="module")
def base() -> Any:
    return load_model("pocket", "fp32", "cpu")


@pytest.fixture
def policy(base: Any) -> Iterator[TinyLora]:
    adapter = attach(base.model, ADAPTER)
    adapter.set_values(V)
    yield adapter
    adapter.detach()


@pytest.fixture
def engine(policy: TinyLora, server: Colocated) -> Iterator[LoraEngine]:
    engine = LoraEngine(policy, server, version_folder(None), count())
    yield engine
    engine.close()
    engine.folder.rmdir()


def sampling_of(base: Any, temperature: float, max_new_tokens: int = 40) -> Sampling:
    return Sampling(temperature, max_new_tokens, base.eos_token_ids)


def prompts_of(base: Any, number: int = 12) -> list[list[int]]:
    encode = text_of(base).encode
    return [encode(p) for p in draw_problems(pocket_task.make().test, number, 0, 0)]


@torch.no_grad()
def difference(policy: TinyLora, prompts: Any, groups: Any, temperature: float) -> float:
    """The largest |log p - log q| over all tokens, by one plain forward pass a completion."""
    worst = 0.0
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            ids = torch.tensor([prompt + completion.token_ids])
            logits = policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / temperature
            chosen = torch.tensor(completion.token_ids)[:, None]
            logprobs = logits.log_softmax(-1).gather(-1, chosen).squeeze(-1)
            worst = max(worst, float((logprobs - torch.tensor(completion.logprobs)).abs().max()))
    return worst


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_logprobs_are_the_trainers_at_every_version(
    temperature: float, base: Any, policy: TinyLora, engine: LoraEngine
) -> None:
    prompts = prompts_of(base)
    for factor in (1.0, 1.1, -2.0, 0.0):
        policy.adapter.set_values(factor * V)
        groups = engine.generate(prompts, 4, sampling_of(base, temperature), seed=1)
        assert difference(policy, prompts, groups, temperature) < 1e-4
        assert len(list(engine.folder.iterdir())) == 1
    policy.adapter.set_values(V)
    assert difference(policy, prompts, groups, temperature) > 0.1  # so the measure sees v


def test_greedy_answers_are_those_of_transformers(
    base: Any, policy: TinyLora, engine: LoraEngine
) -> None:
    prompts, sampling = prompts_of(base, 24), sampling_of(base, 0.0)
    ours, theirs = (
        e.generate(prompts, 2, sampling, seed=0) for e in (engine, TransformersEngine(policy))
    )
    assert [[c.token_ids for c in row] for row in ours] == [
        [c.token_ids for c in row] for row in theirs
    ]
    assert difference(policy, prompts, ours, 1.0) < 1e-4


def test_every_candidate_answers_under_its_own_numbers(
    base: Any, policy: TinyLora, engine: LoraEngine
) -> None:
    """More candidates than a batch mixes; the one that is trained is served before and after."""
    prompts = prompts_of(base, 6)
    candidates = torch.stack([factor * V for factor in (1.0, -1.0, 0.0, 2.0, 0.5)])
    before = engine.generate(prompts, 1, sampling_of(base, 0.0), seed=0)
    greedy, ours = (
        e.generate_population(prompts, candidates, sampling_of(base, 0.0), seed=0)
        for e in (engine, TransformersEngine(policy))
    )
    assert [[c.token_ids for c in row] for row in greedy] == [
        [c.token_ids for c in row] for row in ours
    ]
    torch.testing.assert_close(policy.adapter.v.detach(), V)
    assert engine.generate(prompts, 1, sampling_of(base, 0.0), seed=0) == before
    assert len(list(engine.folder.iterdir())) == 1
    drawn = engine.generate_population(prompts, candidates, sampling_of(base, 1.0), seed=3)
    for place, values in enumerate(candidates):
        policy.adapter.set_values(values)
        assert difference(policy, prompts, [[row[place]] for row in drawn], 1.0) < 1e-4


def test_a_zero_adapter_is_the_base_model(base: Any, policy: TinyLora, engine: LoraEngine) -> None:
    """The control: served through the same kernels as every other version."""
    policy.adapter.zero()
    prompts = prompts_of(base)
    groups = engine.generate(prompts, 4, sampling_of(base, 1.0), seed=2)
    with policy.reference():
        assert difference(policy, prompts, groups, 1.0) < 1e-4


def test_the_seed_decides_what_is_drawn(base: Any, engine: LoraEngine) -> None:
    prompts, sampling = prompts_of(base), sampling_of(base, 1.0)
    first, again, other = (engine.generate(prompts, 4, sampling, seed=s) for s in (4, 4, 5))
    assert [[c.token_ids for c in row] for row in first] == [
        [c.token_ids for c in row] for row in again
    ]
    assert first != other
    assert len({tuple(c.token_ids) for c in first[0]}) > 1


def test_ends_and_budgets(base: Any, engine: LoraEngine) -> None:
    for budget in (3, 40):
        groups = engine.generate(prompts_of(base), 4, sampling_of(base, 1.0, budget), seed=6)
        for completion in (c for row in groups for c in row):
            assert len(completion.token_ids) == len(completion.logprobs) <= budget
            assert completion.truncated == (completion.token_ids[-1] not in base.eos_token_ids)
            assert not set(base.eos_token_ids) & set(completion.token_ids[:-1])
    assert not all(c.truncated for row in groups for c in row)


class Tampering:
    """The server as it is, but for what it makes of an adapter that it is given."""

    def __init__(self, server: Colocated, how: str, wrong: Path) -> None:
        self.server, self.how, self.wrong = server, how, wrong
        self.num_loads = 0

    def takes(self, line: str) -> bool:
        return self.server.takes(line)

    def load(self, folder: Path) -> None:
        self.num_loads += 1
        if self.how == "stale" and self.num_loads > 1:
            return
        self.server.load(self.wrong if self.how == "wrong" else folder)
        if self.how == "absent":
            self.server._loaded = None

    def unload(self, folder: Path) -> None:
        if self.how != "stale":
            self.server.unload(folder)

    def generate(self, *args: Any) -> list[list[Completion]]:
        return self.server.generate(*args)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("applied", None),
        ("stale", "a stale version"),
        ("wrong", "the wrong adapter"),
        ("absent", "the adapter is not applied"),
    ],
)
def test_what_is_served_is_told_apart(
    how: str,
    cause: str | None,
    base: Any,
    policy: TinyLora,
    server: Colocated,
    tmp_path: Path,
) -> None:
    policy.adapter.set_values(V.flip(1))
    policy.write_lora(tmp_path / "wrong")
    tampering = Tampering(server, how, tmp_path / "wrong")
    engine = LoraEngine(policy, tampering, tmp_path, count())
    config = TrainConfig(prompts_per_step=8, samples_per_prompt=4)
    policy.adapter.set_values(0.9 * V)
    engine.publish()
    policy.adapter.set_values(V)

    def step() -> dict[str, float]:
        return dict(make_step(pocket_run(base, policy, engine, config), config.learning)(0)[0])

    if cause is None:
        assert step()["rollout_difference_max"] < 1e-4
        return
    with pytest.raises(TinyLoraError, match=f"Likely cause: {cause}"):
        step()
    assert torch.equal(policy.adapter.v, V)


def test_a_lora_of_pefts_is_served_as_exactly(base: Any, server: Colocated, tmp_path: Path) -> None:
    """The comparison method `lora` goes the same way."""
    settings = {"prompts_per_step": 8, "samples_per_prompt": 4, "learning_rate": 1e-2}
    config = TrainConfig(method="lora", warmup_steps=0, **settings)
    policy = METHODS["lora"].attach(base.model, config.adapter)
    engine = LoraEngine(policy, server, tmp_path, count())
    step = make_step(pocket_run(base, policy, engine, config), config.learning)
    for number in range(2):
        metrics, _ = step(number)
        assert metrics["rollout_difference_max"] < 1e-3
    engine.close()
    policy.detach()


def test_this_vllm_has_no_layers_for_quantised_bases() -> None:
    """Which is why `check_vllm` refuses them; where this fails, they can be served."""
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

    assert "bitsandbytes" not in QUANTIZATION_METHODS


def test_a_whole_run_leaves_nothing_behind(tmp_path: Path) -> None:
    left = set(SHARED_MEMORY.glob("tinylora-*"))
    command = [sys.executable, "-m", "tinylora", "train", "--rollout=vllm", "--steps=3"]
    small = ["--prompts-per-step=8", "--samples-per-prompt=4", "--eval-problems=16"]
    output = ["--rollout-cache-gib=0.5", "--eval-samples=2", f"--output={tmp_path / 'run'}"]
    subprocess.run([*command, *small, *output], check=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert max(json.loads(line)["rollout_difference_max"] for line in lines) < 1e-3
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["final_accuracy_sampled"] > 0.1
    assert set(SHARED_MEMORY.glob("tinylora-*")) == left
