"""The fingerprint of a quantised base: another one is refused, and the same one never is."""

import copy
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import _convert_weight_packed_for_cpu
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from helpers.tiny import values_like
from tinylora.adapter import attach, load
from tinylora.adapter.files import read
from tinylora.adapter.fingerprint import compare, take
from tinylora.adapter.quantized import codes, quantized_layers, scheme
from tinylora.adapter.text import encode
from tinylora.errors import RequestError
from tinylora.models import load_model
from tinylora.pocket import model_folder

KINDS = {"none": "plain", "nf4": "nf4-double", "int8": "int8"}
LAYER = "model.layers.2.mlp.down_proj"


def pocket(quantize, dtype="fp32"):
    return load_model("pocket", dtype, "cpu", quantize).model


@lru_cache
def bare(quantize):
    """Without an adapter, for tests that leave it so."""
    return pocket(quantize)


@lru_cache
def taken(quantize):
    return take(bare(quantize))


@pytest.mark.parametrize("quantize", KINDS)
def test_the_scheme_is_a_category_and_plain_parts_are_as_in_the_plain_base(quantize):
    kind, _, digits = taken(quantize).partition(":")
    assert kind == KINDS[quantize]
    assert (digits[:8], digits[16:24], len(digits)) == ("9f1f920c", "012cfd3d", 36)


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_it_is_the_same_after_a_forward_pass(quantize):
    model = pocket(quantize)
    with torch.no_grad():
        model(torch.arange(3, 13)[None])
    assert take(model) == taken(quantize)


def test_it_is_the_same_in_another_process():
    code = (
        "from tinylora.adapter.fingerprint import take; from tinylora.models import load_model\n"
        "for kind in 'nf4', 'int8': print(take(load_model('pocket', 'fp32', 'cpu', kind).model))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for there, here in zip(done.stdout.split(), map(taken, ("nf4", "int8")), strict=True):
        assert compare(there, here) is None


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_what_the_layers_compute_in_does_not_matter(quantize):
    """As another device would: bf16 instead of fp32."""
    here = take(pocket(quantize, "bf16"))
    assert compare(taken(quantize), here) is None


def test_codes_are_the_same_where_bitsandbytes_has_packed_them_for_a_cpu():
    layer = pocket("nf4").get_submodule(LAYER)
    (before,) = codes(layer)
    packed, _ = _convert_weight_packed_for_cpu(layer.weight.data, layer.weight.quant_state)
    layer.weight.data = packed
    assert not torch.equal(packed.flatten(), before.flatten())
    for _ in range(2):  # and taking them leaves the packed ones alone
        assert torch.equal(codes(layer)[0].flatten(), before.flatten())
    assert layer.weight.quant_state.packing_format_for_cpu
    assert scheme({"": layer}) == "nf4-double"


def one_code(model):
    model.get_submodule(LAYER).weight.data.view(torch.uint8).flatten()[0] ^= 1


def one_scale(model):
    """Those of one layer of 28, by a twentieth."""
    weight = model.get_submodule(LAYER).weight
    (weight.SCB if weight.dtype == torch.int8 else weight.quant_state.offset).mul_(1.05)


def one_bias(model):
    model.get_submodule("model.layers.0.self_attn.q_proj").bias.data[0] += 0.01


def one_norm(model):
    model.model.norm.weight.data[0] += 2**-10


def one_embedding(model):
    model.get_input_embeddings().weight.data[0, 0] += 2**-10


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (one_code, "linear layers"),
        (one_scale, "scales"),
        (one_bias, "norms or biases"),
        (one_norm, "norms or biases"),
        (one_embedding, "embeddings"),
    ],
)
def test_one_change_makes_another_base(quantize, change, differing):
    model = pocket(quantize)
    with torch.no_grad():
        change(model)
    assert compare(taken(quantize), take(model)).what == f"the {differing} differ"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An adapter's file for each way to load the packaged model."""
    folder = tmp_path_factory.mktemp("adapters")
    for quantize in KINDS:
        adapter = attach(bare(quantize))
        adapter.set_values(values_like(adapter.v))
        adapter.save(folder / quantize)
        adapter.detach()
    return folder


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("here", KINDS)
def test_an_adapter_is_refused_on_a_base_that_is_quantised_otherwise(files, there, here):
    model, path = bare(here), files / there
    if there == here:
        adapter = load(model, path)
        assert torch.equal(adapter.v, values_like(adapter.v))
        adapter.detach()
        return
    with pytest.raises(RequestError, match=rf"quantised.*\(--quantize {there}\).*--force"):
        load(model, path)


@pytest.mark.parametrize("quantize", KINDS)
def test_one_line_of_text_says_it_too(files, quantize):
    text = encode(read(files / quantize), "bf16")
    assert len(text) <= 160
    assert read(text).fingerprint == taken(quantize)


@pytest.mark.parametrize(("there", "here"), [("nf4", "none"), ("none", "nf4")])
def test_force_loads_it_all_the_same(files, there, here):
    with pytest.warns(UserWarning, match=r"quantised \(nf4-double\).*It is loaded anyway"):
        adapter = load(bare(here), files / there, force=True)
    assert torch.equal(adapter.v, values_like(adapter.v))
    adapter.detach()


def test_other_settings_of_the_same_method_are_refused(files):
    for settings in (
        {"bnb_4bit_quant_type": "nf4"},
        {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
    ):
        config = BitsAndBytesConfig(load_in_4bit=True, **settings)
        model = AutoModelForCausalLM.from_pretrained(model_folder(), quantization_config=config)
        with pytest.raises(
            RequestError, match=r"quantised \(nf4-double\).* is quantised \((nf4|fp4-double)\)"
        ):
            load(model, files / "nf4")


def test_a_light_fine_tune_is_refused_once_it_is_quantised(files, tmp_path):
    plain = load_model("pocket", "fp32", "cpu")
    generator = torch.Generator().manual_seed(0)
    for layer in plain.model.model.layers:
        weight = layer.mlp.up_proj.weight
        weight.data += 0.01 * weight.std() * torch.randn(weight.shape, generator=generator)
    plain.model.save_pretrained(tmp_path)
    plain.tokenizer.save_pretrained(tmp_path)
    tuned = load_model(str(tmp_path), "fp32", "cpu", "nf4").model
    with pytest.raises(RequestError, match=r"linear layers differ.*Likely a fine-tuned version"):
        load(tuned, files / "nf4")


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_the_codes_stored_in_a_folder_are_the_same_base(files, quantize, tmp_path: Path):
    base = load_model("pocket", "fp32", "cpu", quantize)
    base.model.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    load(load_model(str(tmp_path), "fp32", "cpu").model, files / quantize)


def test_codes_that_are_buffers_count():
    """As GPTQ and AWQ keep them, beside scales in floating point."""

    class Packed(nn.Module):
        in_features, out_features = 4, 2

        def __init__(self):
            super().__init__()
            self.register_buffer("qweight", torch.tensor([[2**30], [-(2**30)]], dtype=torch.int32))
            self.register_buffer("scales", torch.ones(2, 1))

        def forward(self, x):
            return x[:, :1] @ (self.scales * self.qweight.sign()).mT

    model = nn.ModuleDict({"q": Packed(), "norm": nn.LayerNorm(2)})
    before = take(model)
    assert before.startswith("test_quantized_fingerprint-Packed:")
    other = copy.deepcopy(model)
    other["q"].qweight[0] += 1  # which fp32 would not show
    assert compare(before, take(other)).what == "the linear layers differ"
    other = copy.deepcopy(model)
    other["q"].scales *= 1.01
    assert compare(before, take(other)).what == "the scales differ"


def test_a_wrapper_around_a_quantised_layer_changes_nothing():
    model = pocket("nf4")
    names = list(quantized_layers(model))
    assert len(names) == 28
    assert take(nn.ModuleDict({"module": model})) == taken("nf4")
    assert list(quantized_layers(nn.ModuleDict({"module": model}))) == names


def test_tensor_subclasses_keep_codes_inside():
    quanto = pytest.importorskip("optimum.quanto")
    torch.manual_seed(0)
    model = nn.ModuleDict({"q": nn.Linear(128, 128)})
    quanto.quantize(model, weights=quanto.qint8)
    quanto.freeze(model)
    before = take(model)
    assert before.startswith("optimum-QLinear-WeightQBytesTensor:")
    weight = model["q"].weight
    with torch.no_grad():
        weight._scale *= 1.01
        assert compare(before, take(model)).what == "the scales differ"
        weight._data[0, 0] += 1
    assert compare(before, take(model)).what == "the linear layers differ"
