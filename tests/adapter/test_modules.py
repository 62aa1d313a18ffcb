"""Which modules the settings name, and the weights behind them."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen2Config

from helpers.decoders import decoder_of
from helpers.tiny import FAMILIES, GPT2_TARGETS, config_of, model_of
from tinylora.adapter import attach
from tinylora.adapter.modules import clean_name, common_ancestor, linear_maps, read_weight
from tinylora.errors import RequestError
from tinylora.settings import SEVEN_MAPS, AdapterConfig


def names(family="qwen2", targets=SEVEN_MAPS, layers="all"):
    return [m.name for m in linear_maps(model_of(family), targets, layers)]


def test_the_seven_maps_come_in_order_of_depth():
    parts = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    found = names()
    assert len(found) == 14
    assert [name.rsplit(".", 1)[1] for name in found] == parts * 2
    assert found[7].startswith("model.layers.1.")


def test_order_within_a_layer_is_that_of_the_targets_not_of_the_class():
    assert [name.rsplit(".", 1)[1] for name in names(targets=("down_proj", "q_proj"))] == [
        "down_proj",
        "q_proj",
    ] * 2


def test_gpt2_maps_are_found_and_its_head_is_not():
    assert len(names("gpt2", GPT2_TARGETS)) == 8


def test_a_longer_suffix_tells_two_modules_of_one_name_apart():
    assert names("gpt2", ("mlp.c_proj",)) == [f"transformer.h.{i}.mlp.c_proj" for i in range(2)]


def test_of_several_modalities_the_language_part_is_adapted():
    """The vision tower of Gemma 3 has layers of the same names."""
    model = decoder_of("gemma3")
    others = [n for n, _ in model.named_modules() if n.endswith("q_proj") and "vision" in n]
    adapter = attach(model)
    assert others
    assert len(adapter.maps) == 14
    assert all(name.startswith("model.language_model.layers.") for name in adapter.maps)


def test_part_of_a_name_names_nothing():
    with pytest.raises(RequestError, match="no module named proj"):
        names(targets=("proj",))


def test_a_missing_module_is_named_with_those_that_exist():
    with pytest.raises(RequestError, match=r"GPT2LMHeadModel has no module named q_proj\. Lea"):
        names("gpt2", ("q_proj", "c_attn"))


def test_the_names_that_are_advised_can_be_used():
    with pytest.raises(RequestError) as refused:
        names("gpt2")
    advised = str(refused.value).rsplit(": ", 1)[1].removesuffix(".")
    assert advised == "c_attn, c_proj, c_fc"
    assert len(names("gpt2", tuple(advised.split(", ")))) == 8


def test_a_module_that_is_not_linear_is_refused():
    with pytest.raises(RequestError, match="mlp is a Qwen2MLP, not a linear layer"):
        names(targets=("mlp",))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("early", [0, 1]),
        ("middle", [2, 3]),
        ("late", [4]),
        ("1-3", [1, 2, 3]),
        ("4-4", [4]),
        ("all", [0, 1, 2, 3, 4]),
    ],
)
def test_a_band_of_layers(layers, expected):
    model = nn.ModuleDict(
        {"layers": nn.ModuleList(nn.ModuleDict({"q": nn.Linear(2, 2)}) for _ in range(5))}
    )
    assert [m.layer for m in linear_maps(model, ("q",), layers)] == expected


def test_a_band_outside_the_model_is_refused():
    with pytest.raises(RequestError, match=r"layers = 1-2, but .* 0 to 1"):
        names(layers="1-2")


@pytest.mark.parametrize(
    "wrapped",
    [
        "_orig_mod.model.layers.0.q_proj",
        "module.model.layers.0.q_proj",
        "base_model.model.model.layers.0.q_proj",
        "module._orig_mod.model.layers.0.q_proj",
        "model.layers.0._checkpoint_wrapped_module.q_proj",
        "model.layers.0._fsdp_wrapped_module._orig_mod.q_proj",
    ],
)
def test_wrappers_are_not_part_of_a_name(wrapped):
    assert clean_name(wrapped) == "model.layers.0.q_proj"


def test_a_compiled_model_has_the_names_of_the_bare_one():
    model = model_of()
    compiled = torch.compile(model, backend="eager")
    assert [m.name for m in linear_maps(compiled, SEVEN_MAPS)] == names()


def test_the_common_ancestor_is_a_module_that_runs():
    model = model_of()
    assert common_ancestor(model, names()) is model.model
    assert common_ancestor(model, names()[:4]) is model.model.layers[0].self_attn
    assert common_ancestor(model, names()[:1]) is model.model.layers[0].self_attn


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_weight_read_through_its_layer_is_the_weight(family, monkeypatch):
    for linear in linear_maps(model_of(family), config_of(family).targets):
        plain = read_weight(linear)
        monkeypatch.setattr(type(linear), "is_plain", False)
        assert torch.allclose(read_weight(linear, block=5), plain, rtol=0, atol=1e-6)
        monkeypatch.undo()


def test_a_layer_that_is_not_plain_is_read_through_its_output():
    class Coded(nn.Module):
        """A layer that keeps codes, not weights, and has a bias."""

        in_features, out_features = 3, 2

        def forward(self, x):
            return 0.5 * x @ torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]) + 9

    (linear,) = linear_maps(nn.ModuleDict({"q": Coded()}), ("q",))
    assert not linear.is_plain
    assert read_weight(linear, block=2).tolist() == [[0.5, 1.5, 2.5], [1.0, 2.0, 3.5]]


SHAPES = {
    "Qwen2.5-3B": (Qwen2Config, 2048, 11008, 36, 16, 2),
    "Qwen2.5-7B": (Qwen2Config, 3584, 18944, 28, 28, 4),
    "Llama-3.2-3B": (LlamaConfig, 3072, 8192, 28, 24, 8),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("u", "n_tie"), [(13, None), (1, 1), (4, 7), (64, 2)])
def test_the_count_is_n_m_u_over_n_tie_without_any_weights(name, u, n_tie):
    kind, hidden, intermediate, num_layers, heads, kv_heads = SHAPES[name]
    config: AutoConfig = kind(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=num_layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    num_modules = num_layers * 7
    num_groups = 1 if n_tie is None else num_modules // n_tie
    adapter = attach(model, AdapterConfig(u=u, num_groups=num_groups))
    assert sum(map(len, adapter.modules_by_group)) == num_modules
    assert adapter.num_trainable == num_modules * u // (n_tie or num_modules)
    assert adapter.v.shape == (num_groups, u)
