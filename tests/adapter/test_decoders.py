"""The default targets on tiny models of many architectures."""

import pytest
import torch
from test_layer import logits
from torch import nn

from helpers.decoders import OF_THEIR_OWN, decoder_of
from helpers.tiny import tokens, values_like
from tinylora.adapter import AdapterConfig, attach, files, load
from tinylora.adapter.modules import default_targets, looks_linear
from tinylora.errors import RequestError
from tinylora.settings import SEVEN_MAPS

HAVE_SEVEN = {"gemma3_text", "glm4_moe", "qwen2_moe", "qwen3_next"}
EXPECTED = {
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "phi3": ("o_proj", "down_proj", "gate_up_proj", "qkv_proj"),
    "glm": ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "gate_up_proj"),
    "gpt2": ("c_attn", "c_fc", "c_proj"),
    "gpt_neox": ("dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"),
    "opt": ("q_proj", "k_proj", "v_proj", "fc1", "fc2", "out_proj"),  # and not project_in
    "starcoder2": ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj"),
    "nemotron": ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"),
    "phimoe": ("q_proj", "k_proj", "v_proj", "o_proj"),  # and not the router
    "mixtral": ("q_proj", "k_proj", "v_proj", "o_proj"),  # fused experts are no linear layers
    "minicpm3": (
        "o_proj", "gate_proj", "up_proj", "down_proj",
        "kv_a_proj_with_mqa", "kv_b_proj", "q_a_proj", "q_b_proj",
    ),
}  # fmt: skip


def in_blocks(model: nn.Module) -> set[str]:
    """Linear layers with a number in their names."""
    named = {name for name, module in model.named_modules() if looks_linear(module)}
    return {name for name in named if any(part.isdigit() for part in name.split("."))}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:transformers")
@pytest.mark.parametrize("kind", OF_THEIR_OWN)
def test_the_defaults_adapt_any_decoder(kind, tmp_path):
    model, ids = decoder_of(kind), tokens()
    with torch.no_grad():
        base = logits(model, ids)
        adapter = attach(model)
        assert torch.equal(logits(model, ids), base)  # and every hook was reached
    adapter.set_values(values_like(adapter.v, size=1.0))
    logits(model, ids).log_softmax(-1)[..., 3].sum().backward()
    assert adapter.v.grad.ne(0).all()
    assert (logits(model, ids) - base).abs().max() > 0.05
    if kind in HAVE_SEVEN:
        assert adapter.config.targets == SEVEN_MAPS
    else:
        assert set(adapter.maps) == in_blocks(model)
    adapter.save(tmp_path / "a.safetensors")
    assert files.read(tmp_path / "a.safetensors").config.targets == adapter.config.targets
    load(again := decoder_of(kind), tmp_path / "a.safetensors")
    assert torch.equal(logits(again, ids), logits(model, ids))


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_layers_are_named_as_people_name_them(kind):
    assert default_targets(decoder_of(kind)) == EXPECTED[kind]


def test_names_that_others_have_too_are_longer():
    """The head is called out, as a layer of the blocks is, and an attention is no layer."""
    block = nn.ModuleDict(
        {
            "attn": nn.ModuleDict({"out": nn.Linear(4, 4)}),
            "mlp": nn.ModuleDict({"up": nn.Linear(4, 4)}),
        }
    )
    model = nn.ModuleDict(
        {"layers": nn.ModuleList([block]), "out": nn.Linear(4, 4), "up": nn.ReLU()}
    )
    assert default_targets(model) == ("attn.out", "mlp.up")


def test_a_gate_with_one_output_is_no_target():
    block = nn.ModuleDict({"up": nn.Linear(4, 4), "gate": nn.Linear(4, 1)})
    assert default_targets(nn.ModuleDict({"layers": nn.ModuleList([block])})) == ("up",)


def test_a_model_without_blocks_is_refused():
    with pytest.raises(RequestError, match="ModuleDict has no linear layers in numbered blocks"):
        attach(nn.ModuleDict({"up": nn.Linear(4, 4)}))


def test_targets_that_were_named_are_kept_whatever_the_model():
    """Also where they are those of the default."""
    with pytest.raises(RequestError, match=r"GPT2LMHeadModel has no module named q_proj, .*Leave"):
        attach(decoder_of("gpt2"), AdapterConfig(targets=SEVEN_MAPS))


def test_a_router_is_not_a_linear_layer():
    with pytest.raises(RequestError, match="is a PhimoeTopKRouter, not a linear layer"):
        attach(decoder_of("phimoe"), AdapterConfig(targets=("router",)))
