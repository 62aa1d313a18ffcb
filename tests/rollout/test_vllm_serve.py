"""Stock `vllm serve` processes: two replicas, of which one is killed in the middle of a step.

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
from helpers.vllm_servers import STOCK, Server, free_ports, kill, start, wait
from tinylora.adapter import TinyLora, attach
from tinylora.algorithms import make_step
from tinylora.errors import TinyLoraError
from tinylora.models import load_model
from tinylora.prompts import text_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.lora_engine import LoraEngine
from tinylora.rollout.transformers import TransformersEngine
from tinylora.rollout.vllm_server import Replicas
from tinylora.settings import AdapterConfig, TrainConfig
from tinylora.tasks import pocket as pocket_task
from tinylora.tasks.draw import draw_problems

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]
pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm", exc_type=ImportError)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    logs = tmp_path_factory.mktemp("servers")
    started = [
        start(
            STOCK, port, logs / str(port), VLLM_ALLOW_RUNTIME_LORA_UPDATING="1", VLLM_PLUGINS="none"
        )
        for port in free_ports(2)
    ]
    try:
        for server in started:
            wait(server)
        yield started
    finally:
        for server in started:
            kill(server)


@pytest.fixture(scope="module")
def base() -> Any:
    return load_model("pocket", "fp32", "cpu")


@pytest.fixture
def policy(base: Any) -> Iterator[TinyLora]:
    adapter = attach(base.model, AdapterConfig(u=13, num_groups=1))
    adapter.set_values(0.1 * torch.randn(1, 13, generator=torch.Generator().manual_seed(0)))
    yield adapter
    adapter.detach()


def step(base: Any, policy: TinyLora, engine: Any, number: int, **settings: Any) -> Any:
    config = TrainConfig(prompts_per_step=16, samples_per_prompt=4, **settings)
    return make_step(pocket_run(base, policy, engine, config), config.learning)(number)[0]


def test_steps_on_two_replicas(
    base: Any, policy: TinyLora, servers: list[Server], tmp_path: Path
) -> None:
    replicas = Replicas([server.address for server in servers], timeout_s=120)
    engine = LoraEngine(policy, replicas, tmp_path, count())
    for number, temperature in enumerate((1.0, 0.7)):
        metrics = step(base, policy, engine, number, temperature=temperature)
        assert metrics["rollout_difference_max"] < 1e-3
    prompts = [text_of(base).encode(p) for p in draw_problems(pocket_task.make().test, 8, 0, 0)]
    sampling = Sampling(1.0, 30, base.eos_token_ids)
    first, again, other = (engine.generate(prompts, 2, sampling, seed=s) for s in (4, 4, 5))
    assert [[c.token_ids for c in row] for row in first] == [
        [c.token_ids for c in row] for row in again
    ]
    assert first != other
    greedy = engine.generate(prompts, 2, Sampling(0.0, 30, base.eos_token_ids), seed=0)
    assert [row[0] for row in greedy] == [row[1] for row in greedy]
    engine.close()
    replicas.close()


def test_a_stale_replica_stops_the_run(
    base: Any, policy: TinyLora, servers: list[Server], tmp_path: Path
) -> None:
    """The new version never reaches the server, which goes on with the old one."""
    replicas = Replicas([servers[0].address], timeout_s=120)
    engine = LoraEngine(policy, replicas, tmp_path, count())
    engine.publish()
    replicas.load = replicas.unload = lambda folder: None  # type: ignore[method-assign]
    policy.adapter.set_values(1.5 * policy.adapter.v.detach())
    with pytest.raises(TinyLoraError, match="Likely cause: a stale version"):
        step(base, policy, engine, 0)
    replicas.close()


def test_candidates_are_adapters_beside_one_another(
    base: Any, policy: TinyLora, servers: list[Server], tmp_path: Path
) -> None:
    replicas = Replicas([server.address for server in servers], timeout_s=120)
    engine = LoraEngine(policy, replicas, tmp_path, count())
    prompts = [text_of(base).encode(p) for p in draw_problems(pocket_task.make().test, 6, 0, 0)]
    greedy = Sampling(0.0, 30, base.eos_token_ids)
    before = engine.generate(prompts, 1, greedy, seed=0)
    v = policy.adapter.v.detach()
    candidates = torch.stack([v, -v, torch.zeros_like(v)])
    theirs, ours = (
        e.generate_population(prompts, candidates, greedy, seed=0)
        for e in (engine, TransformersEngine(policy))
    )
    assert [[c.token_ids for c in row] for row in theirs] == [
        [c.token_ids for c in row] for row in ours
    ]
    assert engine.generate(prompts, 1, greedy, seed=0) == before
    engine.close()
    assert not list(tmp_path.iterdir())
    replicas.close()


def test_the_command_trains_on_addresses(servers: list[Server], tmp_path: Path) -> None:
    addresses = ",".join(server.address for server in servers)
    command = [sys.executable, "-m", "tinylora", "train", f"--rollout={addresses}", "--steps=2"]
    small = ["--prompts-per-step=8", "--samples-per-prompt=4", "--eval-problems=16"]
    where = [f"--adapter-dir={tmp_path}", f"--output={tmp_path / 'run'}", "--eval-samples=2"]
    subprocess.run([*command, *small, *where], check=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line)["rollout_difference_max"] for line in lines) < 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_replica_killed_in_the_middle_costs_no_step(
    base: Any, policy: TinyLora, servers: list[Server], tmp_path: Path
) -> None:
    replicas = Replicas([server.address for server in servers], timeout_s=120)
    engine = LoraEngine(policy, replicas, tmp_path, count())
    first, second = replicas.replicas
    complete, asked = first.complete, count()

    def dies_at_the_third(*args: Any) -> Any:
        if next(asked) == 2:
            kill(servers[0])
        return complete(*args)

    first.complete = dies_at_the_third  # type: ignore[method-assign]
    metrics = step(base, policy, engine, 2)
    assert metrics["rollouts"] == 64
    assert metrics["rollout_difference_max"] < 1e-3
    assert (first.works, second.works) == (False, True)
    kill(servers[1])
    with pytest.raises(TinyLoraError, match=r"No vLLM server is left .*--resume"):
        step(base, policy, engine, 3)
    replicas.close()
