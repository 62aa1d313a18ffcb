"""The merged model: a folder that stock Transformers loads, and what half precision cost it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.exports import adapter_of, logits
from helpers.tiny import FAMILIES, model_of, tokens, values_like
from tinylora.adapter import AdapterConfig, attach
from tinylora.errors import RequestError
from tinylora.export import to_merged
from tinylora.export.merged import compare_logits
from tinylora.models import load_model


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_transformers_gives_our_logits(family: str, tmp_path: Path) -> None:
    adapter, ids = adapter_of(family), tokens()
    to_merged(adapter, tmp_path / "merged")
    ours, merged = logits(adapter.model, ids), logits(loaded(tmp_path / "merged"), ids)
    assert torch.allclose(ours, merged, rtol=0, atol=1e-5)
    assert not torch.allclose(ours, logits(model_of(family), ids), atol=0.1)


@pytest.mark.parametrize("store", ["fp32", "bf16", "fp16"])
def test_the_model_at_hand_is_as_it_was(store: Any, tmp_path: Path) -> None:
    adapter = adapter_of()
    before = {name: tensor.clone() for name, tensor in adapter.model.state_dict().items()}
    said = logits(adapter.model, tokens())
    to_merged(adapter, tmp_path / "merged", store)
    after = adapter.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.equal(logits(adapter.model, tokens()), said)


@pytest.mark.parametrize(("store", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_the_nearest_that_there_is(
    store: Any, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Every element is W + dW rounded once, and config.json says in which precision."""
    adapter = adapter_of()
    to_merged(adapter, tmp_path / "merged", store)
    held = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {dtype}
    for name in adapter.maps:
        W = adapter.model.get_submodule(name).weight
        nearest = (W.double() + adapter.delta_weight(name).double()).to(dtype)
        assert (held[f"{name}.weight"] == nearest).double().mean() > 0.999
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["dtype"] == str(dtype).removeprefix("torch.")


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    to_merged(adapter_of(), tmp_path / "merged", "bf16")
    held = load_file(tmp_path / "merged" / "model.safetensors")
    assert "lm_head.weight" not in held
    assert loaded(tmp_path / "merged").lm_head.weight.shape == (40, 32)


def test_the_report_tells_what_rounding_cost(tmp_path: Path) -> None:
    """W is 1 everywhere, and bf16 has steps of 2^-7 above 1: 0.4 steps are lost, 0.6 become 1."""
    model = model_of()
    adapter = attach(model, AdapterConfig(u=1, rank=1, targets=("down_proj",), layers="0-0"))
    item = next(iter(adapter.maps.values()))
    weight = model.model.layers[0].mlp.down_proj.weight
    weight.data.fill_(1.0)  # (32, 48)
    item.A, item.P = torch.ones(1, 48), torch.ones(1, 1, 1)
    item.B = torch.full((32, 1), 0.4 * 2**-7)
    adapter.set_values(torch.ones(1, 1))
    lost = to_merged(adapter, tmp_path / "1", "bf16").notes[0]
    assert "In bf16, 0.00% of the update arrived in the weights" in lost
    assert "relative error of 1." in lost
    item.B[16:] = 0.6 * 2**-7  # <1, 0.6> / (0.4^2 + 0.6^2) = 115 %; ((0.4^2 + 0.4^2) / 0.52)^.5
    half = to_merged(adapter, tmp_path / "2", "bf16").notes[0]
    assert "In bf16, 115.38% of the update arrived" in half
    assert "relative error of 0.78." in half


def test_logits_are_compared_by_hand() -> None:
    """p = (1/2, 1/2), q = (1/4, 3/4): KL = log(2) - log(3) / 2; and one choice of two changed."""
    exact = [torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])]
    merged = [torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])]
    report = compare_logits(exact, merged)
    assert report.mean_kl == pytest.approx((math.log(2) - math.log(3) / 2) / 2)
    assert report.max_difference == pytest.approx(math.log(3))
    assert (report.changed, report.num_positions) == (0.5, 2)


def test_rounding_is_worse_for_smaller_updates_and_logits_say_so(tmp_path: Path) -> None:
    """On the embedded model, whose weights are on bf16's grid: FIELD's table in miniature."""
    base = load_model("pocket", "fp32", "cpu")
    adapter = attach(base.model, AdapterConfig(u=4))
    arrived = []
    prompts = [base.tokenizer("Tom has 3 apples. Tom finds 4 more.")["input_ids"]]
    for size in (1e-4, 1e-2, 1.0):
        adapter.set_values(values_like(adapter.v, size=size))
        notes = to_merged(adapter, tmp_path / str(size), "bf16", prompts=prompts).notes
        arrived.append(float(notes[0].split("%")[0].split()[-1]))
        assert f"on {len(prompts[0])} positions of sample prompts: KL" in notes[1]
    assert arrived == sorted(arrived)
    assert arrived[0] < 60 < 99 < arrived[-1]


def test_the_tokenizer_lies_beside_the_model(tmp_path: Path) -> None:
    base = load_model("pocket", "fp32", "cpu")
    adapter = attach(base.model, AdapterConfig(u=4))
    to_merged(adapter, tmp_path / "merged", "bf16", tokenizer=base.tokenizer)
    there = AutoTokenizer.from_pretrained(tmp_path / "merged")
    text = "Tom has 3 apples. How many apples now?"
    assert there(text)["input_ids"] == base.tokenizer(text)["input_ids"]
    assert there.chat_template == base.tokenizer.chat_template


class Quantised(nn.Module):
    """A layer whose weight is no plain matrix."""

    in_features, out_features = 48, 32

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def test_a_quantised_base_is_refused(tmp_path: Path) -> None:
    model = model_of()
    model.model.layers[0].mlp.down_proj = Quantised(model.model.layers[0].mlp.down_proj)
    adapter = attach(model, AdapterConfig(targets=("mlp.down_proj",)))
    with pytest.raises(RequestError, match=r"down_proj cannot be merged: it is a Quantised.*LoRA"):
        to_merged(adapter, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_a_finer_precision_than_the_base_has_is_refused(tmp_path: Path) -> None:
    adapter = adapter_of(dtype=torch.bfloat16)
    with pytest.raises(RequestError, match=r"torch.bfloat16, so merged weights in fp32 .*in fp32"):
        to_merged(adapter, tmp_path / "merged", "fp32")
    to_merged(adapter, tmp_path / "merged", "bf16")
    merged = logits(loaded(tmp_path / "merged"), tokens())
    assert torch.isfinite(merged).all()
