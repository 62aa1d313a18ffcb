"""Versions of an adapter on a server that notes what it is told."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.standins import END, SteeringPolicy, tiny_model
from tinylora.adapter import TinyLora, attach
from tinylora.errors import RequestError
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.lora_engine import LoraEngine, seed_of, version_folder
from tinylora.settings import AdapterConfig

SAMPLED = Sampling(temperature=1.0, max_new_tokens=8, eos_token_ids=(END,))
GREEDY = Sampling(temperature=0.0, max_new_tokens=8, eos_token_ids=(END,))


class NotingServer:
    """Keeps the weights of every adapter that it was given, and answers with its seeds."""

    def __init__(self) -> None:
        self.loaded: dict[str, dict[str, torch.Tensor]] = {}
        self.unloaded: list[str] = []

    def takes(self, line: str) -> bool:
        return False

    def load(self, folder: Path) -> None:
        self.loaded[folder.name] = load_file(folder / "adapter_model.safetensors")

    def unload(self, folder: Path) -> None:
        assert folder.is_dir()  # its files are there for as long as it is served
        self.unloaded.append(folder.name)

    def generate(
        self, prompts: Sequence[list[int]], num_samples: int, sampling: Sampling, seeds: list[int]
    ) -> list[list[Completion]]:
        return [[Completion([seed], [0.0], False)] * num_samples for seed in seeds]


def make(folder: Path) -> tuple[LoraEngine, NotingServer, TinyLora]:
    config = AdapterConfig(u=3, num_groups=1, targets=("o_proj",))
    policy = attach(tiny_model(), config)
    server = NotingServer()
    return LoraEngine(policy, server, folder, count()), server, policy


def test_every_version_has_a_name_and_a_folder_of_its_own(tmp_path: Path) -> None:
    engine, server, policy = make(tmp_path)
    for value in (0.0, 1.0, -2.0):
        policy.adapter.set_values(torch.full((1, 3), value))
        engine.generate([[3, 4]], 2, SAMPLED, seed=0)
    names = [f"{tmp_path.name}-v{i}" for i in range(3)]
    assert list(server.loaded) == names
    assert server.unloaded == names[:2]
    assert [path.name for path in tmp_path.iterdir()] == names[2:]
    B = "base_model.model.model.layers.0.self_attn.o_proj.lora_B.weight"
    first, second, third = (server.loaded[name][B] for name in names)
    assert not first.any()  # the base is served through a zero adapter
    torch.testing.assert_close(third, -2 * second)


def test_numbers_that_have_not_moved_are_not_published_again(tmp_path: Path) -> None:
    engine, server, policy = make(tmp_path)
    for _ in range(2):
        engine.generate([[3, 4]], 2, SAMPLED, seed=0)
    assert (len(server.loaded), engine.previous) == (1, None)
    policy.adapter.set_values(torch.ones(1, 3))
    engine.publish()
    assert engine.previous is not None
    assert not engine.previous["v"].any()


def test_what_is_served_last_goes_with_the_engine(tmp_path: Path) -> None:
    engine, server, _ = make(tmp_path)
    engine.publish()
    engine.close()
    engine.close()
    assert server.unloaded == list(server.loaded)
    assert not list(tmp_path.iterdir())


def test_greedy_answers_are_drawn_once_and_given_as_often_as_asked(tmp_path: Path) -> None:
    engine, server, _ = make(tmp_path)
    asked: list[int] = []
    generate = server.generate

    def noted(prompts: Any, num_samples: int, *rest: Any) -> Any:
        asked.append(num_samples)
        return generate(prompts, num_samples, *rest)

    server.generate = noted  # type: ignore[method-assign]
    assert [len(row) for row in engine.generate([[3], [4]], 5, GREEDY, seed=0)] == [5, 5]
    assert [len(row) for row in engine.generate([[3], [4]], 5, SAMPLED, seed=0)] == [5, 5]
    assert asked == [1, 5]


def test_seeds_follow_the_seed_and_the_place(tmp_path: Path) -> None:
    seeds = {seed_of(seed, place) for seed in range(20) for place in range(20)}
    assert len(seeds) == 400
    assert min(abs(a - b) for a in seeds for b in seeds if a != b) > 10**6
    assert max(seeds) < 2**62
    engine, _, _ = make(tmp_path)
    first, again, other = (engine.generate([[3], [4]], 1, SAMPLED, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    engine, server, _ = make(tmp_path)
    with pytest.raises(RequestError, match="0 tokens"):
        engine.generate([[3], []], 1, SAMPLED, seed=0)
    with pytest.raises(RequestError, match="context ends at 128"):
        engine.generate([[3] * 125], 1, SAMPLED, seed=0)
    assert not server.loaded


def test_a_policy_that_is_no_lora_is_refused(tmp_path: Path) -> None:
    policy: Any = SteeringPolicy(tiny_model())
    engine = LoraEngine(policy, NotingServer(), tmp_path, count())
    with pytest.raises(RequestError, match=r"SteeringPolicy cannot be written as a LoRA"):
        engine.publish()


def test_version_folders_are_new_and_where_they_should_be(tmp_path: Path) -> None:
    first, second = (version_folder(str(tmp_path)) for _ in range(2))
    assert first != second
    assert first.parent == second.parent == tmp_path
    with pytest.raises(RequestError, match=r"adapter_dir = .*absent is not a folder"):
        version_folder(str(tmp_path / "absent"))
