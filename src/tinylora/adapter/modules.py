"""The linear layers of a model: which ones the settings name, and what their weights are.

A layer is named as the bare model names it, whatever wraps the model, and the layers come ordered
by depth, then by the settings' order of `targets`: nothing depends on the order in which a model's
class happens to create its attributes.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinylora.adapter.sharing import with_sharing
from tinylora.decoders import is_called, language_part
from tinylora.errors import RequestError
from tinylora.settings import SEVEN_MAPS, AdapterConfig

PLAIN_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_LEADING_WRAPPERS = ("module.", "base_model.model.")
_INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


@dataclass(frozen=True, eq=False)
class LinearMap:
    """One linear layer y = W x (+ bias) of the model, W being (d_out, d_in)."""

    name: str
    module: nn.Module
    d_out: int
    d_in: int
    layer: int | None

    @property
    def is_plain(self) -> bool:
        """The weight is a floating-point matrix that the layer multiplies with as it is."""
        weight = getattr(self.module, "weight", None)
        return (
            _multiplies_plainly(self.module)
            and type(weight) is nn.Parameter
            and weight.dtype in PLAIN_DTYPES
        )

    def weight(self) -> Tensor:
        """The plain weight itself as (d_out, d_in): a view, outside autograd."""
        weight = self.module.get_parameter("weight").data
        return weight.mT if _is_conv1d(self.module) else weight


def clean_name(name: str) -> str:
    """The name without what DDP, FSDP, PEFT, checkpointing or compilation put around modules."""
    name = ".".join(part for part in name.split(".") if part not in _INNER_WRAPPERS)
    while name.startswith(_LEADING_WRAPPERS):
        name = name.removeprefix("module.").removeprefix("base_model.model.")
    return name


def resolved(config: AdapterConfig, model: nn.Module) -> AdapterConfig:
    """The settings for this model: where a default does not fit it, that which does.

    Works on a model without weights (meta device).
    """
    if "targets" not in config.model_fields_set:
        config = config.model_copy(update={"targets": default_targets(model)})
    return with_sharing(config, len(linear_maps(model, config.targets, config.layers)))


def default_targets(model: nn.Module) -> tuple[str, ...]:
    """The seven of a Llama block where the model has them, else all linear layers of its blocks.

    A block is numbered in the model's names. Each layer is named by its last part, or by as many
    as tell it apart from what is not to be adapted.

    Raises:
        RequestError: there are no linear layers in numbered blocks.
    """
    modules = dict(text_modules(model))
    if all(any(_is_named(name, (target,)) for name in modules) for target in SEVEN_MAPS):
        return SEVEN_MAPS
    in_blocks = {name for name, module in modules.items() if _is_in_block(name, module)}
    wanted = {name for name in in_blocks if is_called(model, name)}
    if not wanted:
        raise RequestError(
            f"{type(model).__name__} has no linear layers in numbered blocks, so tinylora cannot "
            "tell which ones to adapt. Name them as targets."
        )
    taken = {suffix for name in modules if name not in wanted for suffix in _suffixes(name)}
    targets = {next((s for s in _suffixes(name) if s not in taken), name) for name in wanted}
    known = [target for target in SEVEN_MAPS if target in targets]
    return (*known, *sorted(targets - set(known)))


def _is_in_block(name: str, module: nn.Module) -> bool:
    """A gate with a single output is left out: it has no second singular direction."""
    return _layer(name) is not None and looks_linear(module) and sizes_of(module)[0] > 1


def _suffixes(name: str) -> list[str]:
    """The last part of a name, the last two, ..."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in reversed(range(len(parts)))]


def _is_named(name: str, targets: tuple[str, ...]) -> bool:
    return f".{name}".endswith(tuple(f".{target}" for target in targets))


def linear_maps(model: nn.Module, targets: tuple[str, ...], layers: str = "all") -> list[LinearMap]:
    """The linear layers that the settings name, ordered by depth.

    A target names a module by the last part of its name, or by a longer suffix of whole parts
    (`mlp.c_proj`), in the language part of a model of several modalities. Works on a model without
    weights (meta device).

    Raises:
        RequestError: a target names no module, or one that is not a linear layer; the band of
            layers holds none of them.
    """
    found: list[tuple[tuple[int, int, str], LinearMap]] = []
    for name, module in text_modules(model):
        place = next((i for i, t in enumerate(targets) if _is_named(name, (t,))), None)
        if place is not None:
            linear = _linear_map(name, module)
            found.append(((linear.layer or 0, place, name), linear))
    _check_all_matched(model, targets, [linear.name for _, linear in found])
    ordered = [linear for _, linear in sorted(found, key=lambda pair: pair[0])]
    return _in_band(ordered, layers)


def common_ancestor(model: nn.Module, names: list[str]) -> nn.Module:
    """The smallest module whose forward pass runs all the named ones."""
    modules = dict(_named_modules(model))
    paths = [name.split(".")[:-1] for name in names]
    same = takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False))
    parts = [column[0] for column in same]
    while isinstance(modules[".".join(parts)], nn.ModuleList | nn.ModuleDict):
        parts = parts[:-1]
    return modules[".".join(parts)]


def read_weight(linear: LinearMap, block: int = 256) -> Tensor:
    """W as the base model computes with it, (d_out, d_in).

    A plain weight is returned as it is. Any other layer (quantised, wrapped) is read through its
    own output, `block` columns at a time, so that no backend needs code of its own.
    """
    if linear.is_plain:
        return linear.weight()
    parts = torch.split(torch.arange(linear.d_in), block)
    columns = read_columns(linear, parts[0])
    weight = columns.new_empty(linear.d_out, linear.d_in)
    weight[:, parts[0]] = columns
    for places in parts[1:]:
        weight[:, places] = read_columns(linear, places)
    return weight


def read_columns(linear: LinearMap, places: Tensor) -> Tensor:
    """W e_j = f(e_j) - f(0) for each place j, as (d_out, n), through a layer that is not plain.

    Its bias rests meanwhile: in half precision w + b would be rounded.
    """
    dtype, device = input_kind(linear)
    rows = torch.zeros(1 + len(places), linear.d_in, dtype=dtype, device=device)
    rows[1:] = F.one_hot(places.to(device), linear.d_in)
    with torch.no_grad(), without_bias(linear.module):
        answers: Tensor = linear.module(rows)
    return (answers[1:] - answers[:1]).mT


def input_kind(linear: LinearMap) -> tuple[torch.dtype, torch.device]:
    """What a layer that is not plain takes: its own dtype, or fp32 where it holds integers."""
    floats = (buffer for buffer in linear.module.buffers() if buffer.dtype in PLAIN_DTYPES)
    held: Tensor = [*linear.module.parameters(), *floats, torch.empty(0)][0]
    return held.dtype if held.dtype in PLAIN_DTYPES else torch.float32, held.device


def passes_gradient(linear: LinearMap) -> bool:
    """Whether the layer's backward pass is that of its map: <y, y> = <x, W^T y> for y = W x.

    Kernels for inference alone hand back nothing, or something else, without a word.
    """
    if linear.is_plain:
        return True
    dtype, device = input_kind(linear)
    x = torch.randn(1, linear.d_in, generator=torch.Generator().manual_seed(0))
    x = x.to(device, dtype).requires_grad_()
    with torch.enable_grad(), without_bias(linear.module):
        y = linear.module(x)
        if not y.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(y, x, y.detach(), materialize_grads=True)
    forward, backward = y.detach().double().square().sum(), (x.detach() * gradient).double().sum()
    return bool((forward - backward).abs() <= 0.1 * forward)  # int8 rounds the inputs too


def keep_codes(model: nn.Module) -> None:
    """Stop 4-bit layers from packing their weights anew at the first forward pass on some CPUs.

    bitsandbytes does it where the CPU has AVX512-BF16, for a kernel that computes in bf16 whatever
    was asked for, and through which no gradient goes back.
    """
    for module in model.modules():
        if "support_avx512bf16_for_cpu" in vars(module):
            vars(module)["support_avx512bf16_for_cpu"] = False


@contextmanager
def without_bias(module: nn.Module) -> Iterator[None]:
    """Inside, the bias of the module, and of one that it wraps, is zero."""
    places: list[dict[str, Any]] = [
        held for part in module.modules() for held in (part._parameters, part._buffers)
    ]
    biases = [(held, held["bias"]) for held in places if held.get("bias") is not None]
    for held, bias in biases:
        held["bias"] = torch.zeros_like(bias)
    try:
        yield
    finally:
        for held, bias in biases:
            held["bias"] = bias


def _named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by clean name; of a wrapper and what it wraps, the inner one."""
    return iter({clean_name(name): module for name, module in model.named_modules()}.items())


def text_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Those of the language part; where a model has no other modality, all of them."""
    part = language_part(model)
    inside = set(part.modules())
    return ((n, m) for n, m in _named_modules(model) if part is model or m in inside)


def _linear_map(name: str, module: nn.Module) -> LinearMap:
    if not looks_linear(module):
        raise RequestError(
            f"{name} is a {type(module).__name__}, not a linear layer with in_features and "
            "out_features, so it cannot be adapted. Name the linear layers inside it as targets."
        )
    return LinearMap(name, module, *sizes_of(module), _layer(name))


def sizes_of(module: nn.Module) -> tuple[int, int]:
    """d_out and d_in of a linear layer."""
    if _is_conv1d(module):
        d_in, d_out = module.get_parameter("weight").shape
        return d_out, d_in
    d_out, d_in = (getattr(module, side) for side in ("out_features", "in_features"))
    return d_out, d_in


def _layer(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer, which keeps its weight as (d_in, d_out)."""
    return _class_of(module) == ("transformers.pytorch_utils", "Conv1D")


def _multiplies_plainly(module: nn.Module) -> bool:
    """Falcon's class of its own adds the bias in a step of its own, and nothing else."""
    falcon = ("transformers.models.falcon.modeling_falcon", "FalconLinear")
    return type(module) is nn.Linear or _is_conv1d(module) or _class_of(module) == falcon


def _class_of(module: nn.Module) -> tuple[str, str]:
    return type(module).__module__, type(module).__name__


def _check_all_matched(model: nn.Module, targets: tuple[str, ...], names: list[str]) -> None:
    missing = [t for t in targets if not any(_is_named(name, (t,)) for name in names)]
    if not missing:
        return
    present = [name for name, module in text_modules(model) if looks_linear(module)]
    in_layers = [name for name in present if _layer(name) is not None] or present
    usable = dict.fromkeys(name.rsplit(".", 1)[-1] for name in in_layers)
    raise RequestError(
        f"{type(model).__name__} has no module named {', '.join(missing)}. Leave targets out, or "
        f"name linear layers that it does have: {', '.join(usable) or 'none were found'}."
    )


def looks_linear(module: nn.Module) -> bool:
    """Whether it has the sizes of a linear layer; the routers of some models do, and answer with
    the experts that they chose."""
    sizes = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    is_router = type(module).__name__.endswith("Router")
    return _is_conv1d(module) or (all(isinstance(s, int) for s in sizes) and not is_router)


def _in_band(maps: list[LinearMap], layers: str) -> list[LinearMap]:
    num_layers = 1 + max((m.layer for m in maps if m.layer is not None), default=-1)
    inside = range(num_layers)
    if layers in (thirds := ("early", "middle", "late")):
        third = thirds.index(layers)
        inside = range(-(-third * num_layers // 3), -(-(third + 1) * num_layers // 3))
    elif band := re.fullmatch(r"(\d+)-(\d+)", layers):
        inside = range(int(band[1]), int(band[2]) + 1)
    else:
        return maps
    chosen = [m for m in maps if m.layer is not None and m.layer in inside]
    if not chosen or inside[-1] >= num_layers:
        raise RequestError(
            f"layers = {layers}, but the model's adapted blocks are 0 to {num_layers - 1}. "
            "Choose a band inside them."
        )
    return chosen
