"""Adapters on quantised bases: what is read through a layer, and what trains there."""

import weakref
from collections.abc import Callable
from functools import lru_cache

import bitsandbytes
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from torch import Tensor, nn

from tinylora.adapter import attach, cache
from tinylora.adapter.modules import (
    LinearMap,
    linear_maps,
    passes_gradient,
    read_weight,
)
from tinylora.models import load_model
from tinylora.settings import SEVEN_MAPS, AdapterConfig

KINDS = ("nf4", "int8")


def pocket(quantize: str, dtype: str = "fp32") -> nn.Module:
    return load_model("pocket", dtype, "cpu", quantize).model


@lru_cache
def maps_of(quantize: str, dtype: str = "fp32") -> list[LinearMap]:
    return linear_maps(pocket(quantize, dtype), SEVEN_MAPS)


def dequantised(linear: LinearMap) -> Tensor:
    """W by the backend's own words."""
    weight = linear.module.weight
    if weight.dtype == torch.int8:
        return weight.float() * weight.SCB[:, None] / 127
    return dequantize_4bit(weight.data, weight.quant_state)


def distance(W: Tensor, expected: Tensor) -> float:
    return float((W.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize(
    ("quantize", "dtype", "tolerance"),
    [
        ("nf4", "fp32", 1e-6),
        ("nf4", "bf16", 5e-4),
        ("int8", "fp32", 3e-5),  # bitsandbytes' 1 / 127^2 is 1.8e-5 too large
        ("int8", "bf16", 3e-5),
    ],
)
def test_what_is_read_through_a_layer_is_its_weight(
    quantize: str, dtype: str, tolerance: float
) -> None:
    """Explicitly dequantised before the first forward pass; q, k and v have biases."""
    linears = linear_maps(pocket(quantize, dtype), SEVEN_MAPS)
    expected = [dequantised(linear) for linear in linears]
    assert any(linear.module.bias is not None for linear in linears)
    for linear, W in zip(linears, expected, strict=True):
        assert not linear.is_plain
        assert distance(read_weight(linear), W) < tolerance


@pytest.mark.parametrize("quantize", KINDS)
def test_blocks_change_nothing_and_are_no_larger_than_asked(quantize: str) -> None:
    linear = maps_of(quantize)[0]
    rows = []
    hook = linear.module.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    try:
        assert torch.equal(read_weight(linear, block=48), read_weight(linear))
    finally:
        hook.remove()
    assert rows == [49, 49, 33, 129]  # one of them is zero


def test_a_bias_is_back_after_reading_even_where_that_fails() -> None:
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert not self.bias.any()
            raise RuntimeError("no kernel")

    module = Broken(3, 2)
    bias = module.bias
    (linear,) = linear_maps(nn.ModuleDict({"q": module}), ("q",))
    with pytest.raises(RuntimeError, match="no kernel"):
        read_weight(linear)
    assert module.bias is bias


def test_attach_holds_one_module_dequantised_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[weakref.ref[Tensor]] = []

    def watched(linear: LinearMap) -> Tensor:
        assert not any(reference() is not None for reference in read)
        weight = read_weight(linear)
        read.append(weakref.ref(weight))
        return weight

    monkeypatch.setattr(cache, "read_weight", watched)
    attach(pocket("nf4"))
    assert len(read) == 28


@pytest.mark.parametrize("quantize", KINDS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_v_is_fp32_starts_at_the_base_and_alone_gets_a_gradient(quantize: str, dtype: str) -> None:
    model = pocket(quantize, dtype)
    ids = torch.arange(3, 13)[None]
    with torch.no_grad():
        before = model(ids).logits
    adapter = attach(model, AdapterConfig(u=3, num_groups=4))
    after = model(ids).logits
    assert torch.equal(before, after)
    after.float().log_softmax(-1)[0, :, 7].sum().backward()
    assert adapter.v.dtype == adapter.v.grad.dtype == torch.float32
    assert (adapter.v.grad.abs().sum(dim=1) > 0).all()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == []
    adapter.detach()


def test_the_gradient_on_nf4_is_that_of_its_dequantised_twin() -> None:
    """The same model with the dequantised weights in plain layers is an independent oracle."""
    gradients = []
    for is_twin in (False, True):
        model = pocket("nf4")
        for linear in linear_maps(model, SEVEN_MAPS) if is_twin else []:
            plain = nn.Linear(linear.d_in, linear.d_out, bias=linear.module.bias is not None)
            plain.weight.data = dequantised(linear)
            plain.bias = linear.module.bias
            model.set_submodule(linear.name, plain)
        adapter = attach(model, AdapterConfig(u=3, num_groups=4))
        adapter.set_values(torch.full((4, 3), 0.05))
        model(torch.arange(3, 13)[None]).logits.log_softmax(-1)[0, :, 7].sum().backward()
        gradients.append(adapter.v.grad)
    assert distance(gradients[0], gradients[1]) < 1e-4


@pytest.mark.parametrize("quantize", KINDS)
def test_a_model_that_was_seen_is_neither_read_nor_decomposed_again(quantize, monkeypatch) -> None:
    """Freshly quantised, or after a forward pass, where int8 keeps its codes in another place."""
    first = attach(pocket(quantize))
    monkeypatch.setattr(cache, "read_weight", lambda linear: pytest.fail("read again"))
    model = pocket(quantize)
    with torch.no_grad():
        model(torch.arange(3, 13)[None])
    attach(pocket(quantize))
    second = attach(model)
    first.set_values(torch.ones(13, 1))
    second.set_values(torch.ones(13, 1))
    name = "model.layers.3.mlp.down_proj"
    assert torch.equal(first.delta_weight(name), second.delta_weight(name))


def scale_of_one_block(layer: nn.Module) -> None:
    layer.weight.quant_state.absmax[100] ^= 1


def scale_of_scales(layer: nn.Module) -> None:
    layer.weight.quant_state.state2.absmax[1] *= 1 + 2**-20


def mean_of_scales(layer: nn.Module) -> None:
    layer.weight.quant_state.offset *= 1 + 2**-20


def one_code(layer: nn.Module) -> None:
    layer.weight.data[100] ^= 1


def computed_in_bf16(layer: nn.Module) -> None:
    layer.compute_dtype = torch.bfloat16


@pytest.mark.parametrize(
    "change",
    [scale_of_one_block, scale_of_scales, mean_of_scales, one_code, computed_in_bf16],
)
def test_whatever_changes_the_map_is_read_anew(change: Callable[[nn.Module], None]) -> None:
    linear = linear_maps(pocket("nf4"), SEVEN_MAPS)[-1]
    before, W = cache.cached_svd_of_layer(linear, 2), read_weight(linear)
    change(linear.module)
    assert not torch.equal(read_weight(linear), W)
    after = cache.cached_svd_of_layer(linear, 2)
    assert not torch.equal(after.S, before.S)
    assert distance(after.S, before.S) < 0.01


def test_a_layer_of_another_backend_is_read_the_same_way() -> None:
    quanto = pytest.importorskip("optimum.quanto")
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 5e-4)):
        torch.manual_seed(0)
        model = nn.ModuleDict({"q": nn.Linear(64, 32)}).to(dtype)
        quanto.quantize(model, weights=quanto.qint8)
        quanto.freeze(model)
        (linear,) = linear_maps(model, ("q",))
        assert not linear.is_plain
        W = model["q"].weight.dequantize().detach()
        assert distance(read_weight(linear, block=24), W) < tolerance
        assert passes_gradient(linear)


class Blind(nn.Linear):
    """A kernel for inference: right answers, no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Wrong(nn.Linear):
    """A kernel whose backward pass belongs to something else."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y.detach() + 0.5 * (y - y.detach())


@pytest.mark.parametrize(("kind", "passes"), [(nn.Linear, True), (Blind, False), (Wrong, False)])
def test_a_layer_without_its_gradient_is_known(kind: type[nn.Linear], passes: bool) -> None:
    (linear,) = linear_maps(nn.ModuleDict({"q": kind(16, 8)}), ("q",))
    assert passes_gradient(linear) == passes


@pytest.mark.parametrize("quantize", KINDS)
def test_the_layers_of_bitsandbytes_pass_their_gradient(quantize: str) -> None:
    assert all(passes_gradient(linear) for linear in maps_of(quantize))


def test_attaching_keeps_a_foreign_model_from_packing_its_codes(monkeypatch) -> None:
    """As transformers loads it where the CPU has AVX512-BF16."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = nn.ModuleDict({"q": bitsandbytes.nn.LinearNF4(128, 64)}).to("cpu").eval()
    codes = model["q"].weight.data.clone()
    with torch.no_grad():
        attach(nn.Sequential(model["q"]), AdapterConfig(targets=("0",)))
        model["q"](torch.ones(1, 128))
    assert torch.equal(model["q"].weight.data, codes)
