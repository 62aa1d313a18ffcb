"""The exported LoRA: loaded by stock PEFT it answers as the adapter does."""

import json
import math
import os
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from helpers.decoders import decoder_of
from helpers.exports import adapter_of, logits, served
from helpers.tiny import FAMILIES, config_of, model_of, tokens, values_like
from tinylora.adapter import AdapterConfig, attach
from tinylora.adapter import lora_writer as lora
from tinylora.errors import RequestError
from tinylora.export import LoraWriter, to_lora, verify
from tinylora.models import load_model

pytestmark = pytest.mark.filterwarnings(  # peft 0.21's
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_peft_gives_our_logits(family: str, tmp_path: Path) -> None:
    adapter, ids = adapter_of(family), tokens()
    to_lora(adapter, tmp_path / "lora")
    ours, theirs = logits(adapter.model, ids), logits(served(family, tmp_path / "lora"), ids)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)
    assert not torch.allclose(ours, logits(model_of(family), ids), atol=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": "1-1", "num_groups": None},
        {"targets": ("q_proj", "mlp.down_proj"), "num_groups": 1},
        {"rank": 1, "u": 1},
        {"scale": False},
        {"basis": "random"},
        {"projection": "identity", "u": 4},
    ],
)
def test_every_kind_of_adapter_gives_its_logits(settings: dict, tmp_path: Path) -> None:
    adapter, ids = adapter_of(**settings), tokens()
    to_lora(adapter, tmp_path / "lora")
    theirs = served("qwen2", tmp_path / "lora")
    assert torch.allclose(logits(adapter.model, ids), logits(theirs, ids), rtol=0, atol=1e-5)
    wrapped = {n for n, m in theirs.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    assert wrapped == {f"base_model.model.{name}" for name in adapter.maps}


def test_the_factors_are_those_of_the_adapter(tmp_path: Path) -> None:
    """B A is W' - W to rounding, A has orthonormal rows, and the scaling is 1."""
    adapter = adapter_of()
    to_lora(adapter, tmp_path / "lora")
    held = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert len(held) == 2 * len(adapter.maps)
    for name in adapter.maps:
        A, B = (held[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
        assert torch.allclose(A @ A.T, torch.eye(2), atol=1e-6)
        assert torch.allclose(B @ A, adapter.delta_weight(name), rtol=0, atol=1e-6)
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert settings["r"] == settings["lora_alpha"] == 2
    assert (settings["bias"], settings["init_lora_weights"]) == ("none", True)


def test_targets_are_the_whole_names_of_the_adapted_layers(tmp_path: Path) -> None:
    adapter = adapter_of()
    assert json.loads(LoraWriter(adapter).settings)["target_modules"] == sorted(adapter.maps)
    some = adapter_of(layers="0-0", targets=("q_proj",), num_groups=1)
    whole = ["model.layers.0.self_attn.q_proj"]
    assert json.loads(LoraWriter(some).settings)["target_modules"] == whole


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["deepseek_v2", "deepseek_v3", "glm4_moe", "qwen3_next", "phi3"])
def test_peft_answers_as_the_adapter_does_on_experts_that_it_renames(
    kind: str, tmp_path: Path
) -> None:
    adapter, ids = attach(decoder_of(kind)), tokens()
    adapter.set_values(values_like(adapter.v, size=1.0))
    exported = to_lora(adapter, tmp_path / "lora", prompts=ids.tolist())
    theirs = peft.PeftModel.from_pretrained(base := decoder_of(kind), str(tmp_path / "lora")).eval()
    ours = logits(adapter.model, ids)
    assert torch.allclose(ours, logits(theirs, ids), rtol=0, atol=1e-4)
    with theirs.disable_adapter():
        assert not torch.allclose(ours, logits(base, ids), atol=0.1)
    assert "Stock PEFT answers as the adapter does: on 21 positions" in exported.notes[1]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_where_peft_would_answer_otherwise_the_export_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would be if PEFT came to take parameters for the fused experts too."""
    monkeypatch.setattr(verify, "_as_parameters", verify._as_modules)
    adapter = attach(decoder_of("deepseek_v3"))
    adapter.set_values(values_like(adapter.v))
    sentence = r"does not answer as this adapter does on a DeepseekV3.*it adapts different modules"
    with pytest.raises(RequestError, match=sentence):
        to_lora(adapter, tmp_path / "lora")
    assert list(tmp_path.iterdir()) == []


def test_other_logits_alone_are_enough_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = adapter_of()
    settings = lora.lora_settings
    monkeypatch.setattr(lora, "lora_settings", lambda a: settings(a) | {"lora_alpha": 3})
    with pytest.raises(RequestError, match=r"its logits differ by .* adapter changes them by"):
        to_lora(adapter, tmp_path / "lora")


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_trying_it_in_peft_leaves_no_trace(family: str, tmp_path: Path) -> None:
    adapter, ids = adapter_of(family), tokens()
    model = adapter.model
    before = logits(model, ids)
    modules, attributes = dict(model.named_modules()), set(vars(model))
    required = [parameter.requires_grad for parameter in model.parameters()]
    model.train()
    to_lora(adapter, tmp_path / "lora")
    assert all(module.training for module in model.modules())
    model.eval()
    assert dict(model.named_modules()) == modules
    assert set(vars(model)) == attributes
    assert [parameter.requires_grad for parameter in model.parameters()] == required
    assert torch.equal(logits(model, ids), before)


def test_a_layer_that_peft_does_not_know_is_said(tmp_path: Path) -> None:
    """Over a quantised base other engines may serve it, over a plain one nothing could."""
    model = model_of()
    inner = model.model.layers[0].mlp.down_proj
    model.model.layers[0].mlp.down_proj = Coded(inner)
    adapter = attach(model, config_of(targets=("mlp.down_proj",), num_groups=None))
    adapter.set_values(values_like(adapter.v))
    exported = to_lora(adapter, tmp_path / "lora")
    assert exported.notes[1].startswith("It was not compared with PEFT, which does not load it he")
    assert model.model.layers[0].mlp.down_proj.inner is inner


class Coded(nn.Module):
    """A layer whose weight is no plain matrix, of a backend that PEFT has not heard of."""

    in_features, out_features = 48, 32

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_a_module_that_was_left_out_is_absent(tmp_path: Path) -> None:
    model = model_of()
    weight = model.model.layers[0].self_attn.q_proj.weight
    with torch.no_grad():
        weight.copy_(torch.eye(32))
    with pytest.warns(UserWarning, match="1 of 14 modules are left out"):
        adapter = attach(model, config_of())
    to_lora(adapter, tmp_path / "lora")
    names = "".join(load_file(tmp_path / "lora" / "adapter_model.safetensors"))
    assert "layers.0.self_attn.q_proj" not in names
    assert "layers.1.self_attn.q_proj" in names


def test_the_next_version_has_another_B_and_the_same_A(tmp_path: Path) -> None:
    adapter = adapter_of()
    writer = LoraWriter(adapter)
    writer.write(tmp_path / "1")
    adapter.set_values(2 * adapter.v.detach())
    writer.write(tmp_path / "2")
    one, two = (load_file(tmp_path / n / "adapter_model.safetensors") for n in "12")
    for name, tensor in one.items():
        factor = 2 if "lora_B" in name else 1
        assert torch.allclose(two[name], factor * tensor, rtol=1e-6, atol=0), name


@pytest.mark.parametrize(("store", "error"), [("bf16", 2**-8), ("fp16", 2**-11)])
def test_half_precision_is_as_good_as_its_rounding(store, error, tmp_path: Path) -> None:
    """Two rounded factors: at most twice the relative error of one rounding."""
    adapter = adapter_of()
    to_lora(adapter, tmp_path / "lora", store)
    held = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    for name in adapter.maps:
        A, B = (held[f"base_model.model.{name}.lora_{factor}.weight"].float() for factor in "AB")
        delta = adapter.delta_weight(name)
        assert 0 < (B @ A - delta).norm() <= 2 * math.sqrt(2) * error * delta.norm()


def test_a_folder_that_holds_something_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "thesis.tex").write_text("years of work")
    with pytest.raises(RequestError, match=r"lora already exists.*Choose another folder"):
        to_lora(adapter_of(), tmp_path / "lora")
    assert [file.name for file in tmp_path.rglob("*")] == ["lora", "thesis.tex"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    adapter = adapter_of()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        to_lora(adapter, tmp_path / "lora")
    assert list(tmp_path.iterdir()) == []


def test_a_v_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    adapter = adapter_of()
    adapter.set_values(torch.full_like(adapter.v, math.nan))
    with pytest.raises(RequestError, match="v contains inf or nan"):
        to_lora(adapter, tmp_path / "lora")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::FutureWarning:bitsandbytes")
def test_over_a_quantised_base_too(tmp_path: Path) -> None:
    """The factors are those of the NF4 weights; PEFT serves them over those weights."""
    ours, theirs = (load_model("pocket", "fp32", "cpu", "nf4").model for _ in range(2))
    ids = tokens()
    base = logits(theirs, ids)
    adapter = attach(ours, AdapterConfig(u=4))
    adapter.set_values(values_like(adapter.v))
    to_lora(adapter, tmp_path / "lora")
    served = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "lora")).eval()
    assert torch.allclose(logits(ours, ids), logits(served, ids), rtol=0, atol=1e-3)
    assert not torch.allclose(logits(ours, ids), base, atol=0.1)
    card = (tmp_path / "lora" / "README.md").read_text(encoding="utf-8")
    assert "| base model | pocket, quantised (Linear4bit) |" in card
