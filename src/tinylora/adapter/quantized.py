"""What identifies a quantised layer: its scheme, its codes, and a sketch of the map it computes.

Codes are integers, and are the same on every device. Scales are floats that devices round in their
own ways, and that some backends store anew: they show in what the layer computes, so the sketch
covers them, and is compared within a tolerance.

What it does **not** notice: scales that change by less than some 3 % in one layer of a hundred.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tinylora.adapter.modules import (
    PLAIN_DTYPES,
    LinearMap,
    clean_name,
    input_kind,
    looks_linear,
    without_bias,
)
from tinylora.adapter.stream import keyed_signs

SKETCH_STEP = 2.0**-17  # of a binary logarithm
SKETCH_TOLERANCE = 2.0**-11  # the same: 0.034 % of every scale
NUM_BYTES = 3  # of each number


def quantized_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that keep codes, by clean name; a wrapper around one is none."""
    return {clean_name(n): module for n, module in model.named_modules() if has_codes(module)}


def scheme(layers: Mapping[str, nn.Module]) -> str:
    """How the layers are quantised, as a category: nf4-double, int8, or the classes that do it."""
    return "+".join(sorted({_scheme(layer) for layer in layers.values()}))


def codes(layer: nn.Module) -> list[Tensor]:
    """The integers that a layer keeps, as bytes, before any kernel arranged them anew."""
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    whole = [_unpacked(tensor) for tensor in own]
    return [part.contiguous().view(torch.uint8) for tensor in whole for part in _integers(tensor)]


def kept_tensors(thing: object, seen: set[int] | None = None) -> Iterator[Tensor]:
    """All tensors that hang on a layer: parameters, buffers, and what a backend keeps beside them.

    In no fixed order, and some of them twice, where the backend does so.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        names = thing.__tensor_flatten__()[0] if hasattr(thing, "__tensor_flatten__") else []
        yield from [getattr(thing, name) for name in names] or [thing.detach()]
    inside: Iterable[object] = getattr(thing, "__dict__", {}).values()
    if isinstance(thing, dict):
        inside = thing.values()
    elif isinstance(thing, list | tuple):
        inside = thing
    if not isinstance(thing, type | ModuleType | FunctionType):
        for part in inside:
            yield from kept_tensors(part, seen)


def sketch(layers: Mapping[str, nn.Module]) -> str:
    """Hex digits: how much the layers enlarge a keyed vector of signs, in two averages.

    Every element of every W takes part, and signs are exact in all arithmetics, int8's too.
    """
    gains = [_gain(name, layer) for name, layer in sorted(layers.items()) if looks_linear(layer)]
    means = [sum(part) / max(1, len(part)) for part in (gains[0::2], gains[1::2])]
    steps = (round(mean / SKETCH_STEP) for mean in means)
    return b"".join(step.to_bytes(NUM_BYTES, "big", signed=True) for step in steps).hex()


def is_near(there: str, here: str) -> bool:
    """Whether two sketches are of the same maps, as far as arithmetics differ."""
    pairs = zip(_steps(there), _steps(here), strict=True)
    return all(abs(a - b) * SKETCH_STEP <= SKETCH_TOLERANCE for a, b in pairs)


def _steps(digits: str) -> list[int]:
    data = bytes.fromhex(digits)
    places = range(0, len(data), NUM_BYTES)
    return [int.from_bytes(data[i : i + NUM_BYTES], "big", signed=True) for i in places]


def has_codes(module: nn.Module) -> bool:
    """Whether the module itself keeps integers in place of weights."""
    own: list[Tensor] = [*module.parameters(recurse=False)]
    if looks_linear(module):  # GPTQ and AWQ keep their codes as buffers
        own += [buffer for buffer in module.buffers(recurse=False) if buffer.dim() > 1]
    return any(_integers(tensor) for tensor in own)


def _scheme(layer: nn.Module) -> str:
    weight = getattr(layer, "weight", None)
    if (state := getattr(weight, "quant_state", None)) is not None:  # bitsandbytes, 4 bits
        is_double = getattr(state, "original_nested", state.nested)
        return f"{state.quant_type}{'-double' if is_double else ''}"
    if hasattr(weight, "SCB"):  # bitsandbytes, LLM.int8
        return "int8"
    kinds = [type(layer), *[type(weight)] * (type(weight) not in (nn.Parameter, type(None)))]
    library = kinds[-1].__module__.partition(".")[0]
    return "-".join([library, *(kind.__name__ for kind in kinds)])


def _unpacked(tensor: Tensor) -> Tensor:
    """4-bit codes in their own order, where bitsandbytes has arranged them for a CPU's kernel."""
    state: Any = getattr(tensor, "quant_state", None)
    if not getattr(state, "packing_format_for_cpu", False):
        return tensor
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    return _convert_weight_packed_for_cpu_inverse(tensor.data, copy.copy(state))[0]


def _integers(tensor: Tensor) -> list[Tensor]:
    """The tensor if it is of integers (or of 8-bit floats), or those inside a tensor subclass."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in _integers(getattr(tensor, name))]
    return [] if tensor.dtype in PLAIN_DTYPES else [tensor.detach()]


def _gain(name: str, layer: nn.Module) -> float:
    """log2 of ||W x|| / ||x||."""
    d_out, d_in = (getattr(layer, side) for side in ("out_features", "in_features"))
    dtype, device = input_kind(LinearMap(name, layer, d_out, d_in, None))
    signs = torch.from_numpy(keyed_signs(f"tinylora/sketch/{name}", d_in, 1)).to(device, dtype)
    with torch.no_grad(), without_bias(layer):
        norm = float(torch.linalg.vector_norm(layer(signs.mT), dtype=torch.float64))
    return math.log2(max(norm, 1e-15)) - math.log2(d_in) / 2
