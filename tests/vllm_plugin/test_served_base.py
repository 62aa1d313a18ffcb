"""What a server makes of adapters: cores that are the trainer's, checked as `load` checks them."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tinylora.adapter import attach
from tinylora.adapter.contents import AdapterFile
from tinylora.adapter.text import decode
from tinylora.errors import RequestError
from tinylora.models import load_model
from tinylora.settings import AdapterConfig
from tinylora.vllm_plugin import base as served
from tinylora.vllm_plugin.base import ServedBase, as_lora, frame_of


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Any:
    return load_model(str(tiny_folder), "fp32", "cpu").model


@pytest.fixture
def server(tiny_folder: Path) -> ServedBase:
    return ServedBase(str(tiny_folder), torch.float32, None)


def contents_on(model: Any, **settings: Any) -> tuple[AdapterFile, dict[str, Any]]:
    """An adapter with numbers, as a text brings it; and what the trainer makes of it."""
    adapter = attach(model, AdapterConfig(**settings))
    v = torch.randn(adapter.v.shape, generator=torch.Generator().manual_seed(1))
    adapter.set_values(v)
    made = {
        name: (item.mix(adapter.v.detach()), adapter.delta_weight(name))
        for name, item in adapter.maps.items()
    }
    line = adapter.to_text("fp32")
    adapter.detach()
    return decode(line), made


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"u": 13, "num_groups": 1},
        {"basis": "random", "seed": 3},
        {"projection": "identity", "u": 4},
        {"targets": ("q_proj", "down_proj"), "scale": False},
    ],
)
def test_cores_are_the_trainers(settings: dict, model: Any, server: ServedBase) -> None:
    contents, wanted = contents_on(model, **settings)
    plan = server.plan(contents, "it")
    cores = plan.cores(contents.v)
    assert list(plan.names) == list(wanted)
    for name, R in zip(plan.names, cores, strict=True):
        torch.testing.assert_close(R, wanted[name][0], rtol=0, atol=1e-6)
    for name, (A, B) in as_lora(plan, contents.v).items():
        torch.testing.assert_close(B @ A, wanted[name][1], rtol=0, atol=1e-5)


def test_adapters_that_share_their_directions_share_a_and_b(
    model: Any, server: ServedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed, another u, fewer layers: the factors are made once for all of them."""
    made: list[str] = []
    factors = served.linear_factors

    def counted(linear: Any, config: Any) -> Any:
        made.append(linear.name)
        return factors(linear, config)

    monkeypatch.setattr(served, "linear_factors", counted)
    some = [{}, {"u": 2, "seed": 5}, {"targets": ("q_proj",), "num_groups": 1}]
    plans = [server.plan(contents_on(model, **settings)[0], "it") for settings in some]
    assert len({plan.frame for plan in plans}) == 1
    assert len(made) == len(set(made)) == 14
    assert server.plan(contents_on(model)[0], "it") is plans[0]
    assert frame_of(AdapterConfig(basis="random", seed=1)) != frame_of(
        AdapterConfig(basis="random")
    )


def test_plans_are_bounded(model: Any, server: ServedBase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "MAX_PLANS", 2)
    first = server.plan(contents_on(model, seed=0)[0], "it")
    for seed in (1, 2):
        server.plan(contents_on(model, seed=seed)[0], "it")
    assert len(server._plans) == 2
    assert server.plan(contents_on(model, seed=0)[0], "it") is not first


def test_another_base_and_other_modules_are_refused(
    model: Any, server: ServedBase, tiny_folder: Path
) -> None:
    contents, _ = contents_on(model)
    kind, digits = contents.fingerprint.split(":")
    other = dataclasses.replace(contents, fingerprint=f"{kind}:{'0' * 8}{digits[8:]}")
    with pytest.raises(RequestError, match=r"it was not trained on the weights that this server"):
        server.plan(other, "it")
    fewer = contents.config.model_copy(update={"num_groups": 7})
    with pytest.raises(RequestError, match="it does not match this model: different shape of v"):
        server.plan(dataclasses.replace(contents, config=fewer), "it")
    swapped = dataclasses.replace(contents, modules="0" * 8)
    with pytest.raises(RequestError, match=r"different modules or groups(?!.*--force)"):
        server.plan(swapped, "it")
    quantised = ServedBase(str(tiny_folder), torch.float32, "awq")
    with pytest.raises(RequestError, match=r"served quantised .awq."):
        quantised.plan(contents, "it")


def test_weights_that_the_server_rounds_are_another_base(model: Any, tiny_folder: Path) -> None:
    contents, _ = contents_on(model)
    rounded = ServedBase(str(tiny_folder), torch.bfloat16, None)
    with pytest.raises(RequestError, match=r"rounded to bf16.*--dtype fp32"):
        rounded.plan(contents, "it")
