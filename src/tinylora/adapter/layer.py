"""TinyLora: attach v to a model by forward hooks, and take it off again without a trace.

The adapter stays outside the model's module tree: no module is replaced, renamed or added, so
`state_dict`, `save_pretrained`, sharding and `generate` are as they were. While it is attached, v
is the only parameter that requires a gradient.

What it does **not** do: keep several adapters on one model (`per_row` serves many v), or reach
modules that a fused kernel computes without calling them (the first forward pass says so).
"""

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn
from weakref import ref

import torch
from torch import Tensor, nn

from tinylora.adapter import core, files, text
from tinylora.adapter.contents import smallest_store
from tinylora.adapter.factors import linear_factors, projections
from tinylora.adapter.fingerprint import identity, take
from tinylora.adapter.fold import FoldReport, check_foldable, folded_into, is_foldable
from tinylora.adapter.freedom import degrees_of_freedom
from tinylora.adapter.hooks import (
    REGISTERED_NAME,
    AdaptedLayer,
    FirstForward,
    TrainedNumbers,
    without_autocast,
    without_beams,
)
from tinylora.adapter.lora_writer import LoraWriter
from tinylora.adapter.modules import (
    LinearMap,
    clean_name,
    common_ancestor,
    input_kind,
    keep_codes,
    linear_maps,
    resolved,
)
from tinylora.adapter.sharing import groups_of, with_sharing
from tinylora.adapter.svd import Factors
from tinylora.errors import RequestError
from tinylora.settings import AdapterConfig

FactorsOf = Callable[[LinearMap, AdapterConfig], Factors]


def attach(
    model: nn.Module, config: AdapterConfig | None = None, *, register: bool = False
) -> "TinyLora":
    """Put an adapter on the model: v = 0, so that no logit changes by a bit.

    Args:
        model: any model with the linear layers that `config.targets` names; it is changed in place
            by hooks and by freezing its parameters, and `detach` undoes both.
        config: how many numbers, and where they act; None: 13 numbers in 13 groups.
        register: also put v among `model.parameters()` (as `tinylora_v`), for trainers that look
            for it there; it is then in `state_dict` too.

    Raises:
        RequestError: an adapter is on already; the targets, layers, rank or number of groups do
            not fit the model.
    """
    _check_bare(model)
    keep_codes(model)
    adapter = unattached(model, config or AdapterConfig())
    adapter._hook(register)
    return adapter


def unattached(
    model: nn.Module, config: AdapterConfig, factors_of: FactorsOf = linear_factors
) -> "TinyLora":
    """The adapter that `attach` would put on the model, with v = 0, without putting it there.

    For engines that compute the update themselves: factors, groups, names and fingerprint.

    Args:
        factors_of: gives the factors of a linear layer; one that remembers them saves the time.

    Raises:
        RequestError: as `attach`, save that an adapter may be on already.
    """
    config = resolved(config, model)
    fingerprint = take(model)
    maps = linear_maps(model, config.targets, config.layers)
    factors = {m: _factors(m, config, factors_of) for m in maps}
    left_out = [m.name for m, found in factors.items() if not found.is_defined]
    _report_left_out(left_out, len(factors))
    kept = {m.name: (m, found) for m, found in factors.items() if found.is_defined}
    config = with_sharing(config, len(kept))
    groups = groups_of(list(kept), config)
    adapted = [
        _adapted_map(*kept[name], config, index)
        for index, names in enumerate(groups)
        for name in names
    ]
    return TinyLora(model, config, groups, left_out, adapted, fingerprint)


class TinyLora:
    """v, and the linear layers of a model that it acts on. Made by `attach` or `tinylora.load`.

    It is a policy: the loop and the engines see its parameters, its reference, its rollouts and
    its state. Rollouts run folded where the fold is exact; elsewhere they run through the hooks,
    because half-precision weights would round the update away.
    """

    def __init__(
        self,
        model: nn.Module,
        config: AdapterConfig,
        groups: list[list[str]],
        left_out: list[str],
        adapted: list[AdaptedLayer],
        fingerprint: str,
    ) -> None:
        self.model = model
        self.config = config
        self.modules_by_group = groups
        self.left_out = left_out  # modules whose weights do not define the kept directions
        self.fingerprint = fingerprint  # of the base's weights, as they were when it was attached
        like = adapted[0].P
        zeros = torch.zeros(len(groups), config.u, dtype=like.dtype, device=like.device)
        self._v = TrainedNumbers(zeros)
        self._adapted = {item.linear.name: item for item in adapted}
        self._active: Tensor | None = self.v  # what the hooks apply: v, a v per row, or nothing
        self._context = ""
        self._handles: list[Any] = []
        self._frozen: list[ref[nn.Parameter]] = []  # a sharded model lets its weights go

    def __reduce__(self) -> NoReturn:
        raise RequestError(
            "An adapter cannot be copied or pickled apart from its model. Save it and load it on "
            "another model, or copy state_dict()."
        )

    @property
    def adapter(self) -> "TinyLora":
        """Itself: what a policy gives to those that let v differ from row to row."""
        return self

    @property
    def v(self) -> nn.Parameter:
        """The trained numbers, (num_groups, u); `set_values` overwrites them."""
        return self._v

    @property
    def num_trainable(self) -> int:
        return self.v.numel()

    @property
    def degrees_of_freedom(self) -> int:
        """The rank of v -> all R: what the numbers can reach, however many they are."""
        return degrees_of_freedom(self.modules_by_group, self.config)

    @property
    def maps(self) -> dict[str, AdaptedLayer]:
        """The adapted linear layers by name: their frozen factors, and R by `mix`."""
        return self._adapted

    @property
    def base(self) -> tuple[str, str]:
        """Name and revision of the base model, "" where it has none."""
        return identity(self.model)

    @property
    def can_fold(self) -> bool:
        """Whether `folded` is exact: every adapted weight is plain, unshared and at least fp32."""
        return is_foldable(self.model, list(self._adapted.values()))

    def parameters(self) -> list[nn.Parameter]:
        """What an optimiser steps on: v alone."""
        return [self.v]

    def state_dict(self) -> dict[str, Tensor]:
        return {"v": self.v.detach().clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.set_values(state["v"])

    def metrics(self) -> dict[str, float]:
        """How far the policy has moved, for the metrics of a step."""
        return {"v_norm": float(self.v.detach().norm()), "delta_rms": self.delta_rms()}

    def reference(self) -> AbstractContextManager[None]:
        """Inside, the model answers as the policy before training (for the KL term)."""
        return self.disabled()

    def rollout(self) -> AbstractContextManager[FoldReport | None]:
        """Inside, the model answers as the trained policy, in the fastest way that is exact."""
        return self.folded() if self.can_fold else nullcontext()

    def write_lora(self, folder: str | Path) -> None:
        """Write the current parameters as a LoRA, for engines that serve LoRA.

        Args:
            folder: which is made, and must not be there yet.
        """
        self._lora_writer.write(folder)

    @cached_property
    def _lora_writer(self) -> LoraWriter:
        return LoraWriter(self)

    def zero(self) -> None:
        """Back to the base model."""
        self.set_values(torch.zeros_like(self.v))

    def set_values(self, values: Tensor) -> None:
        """Overwrite v in place.

        Args:
            values: (num_groups, u), of any floating dtype.

        Raises:
            RequestError: they have another shape.
        """
        if values.shape != self.v.shape:
            raise RequestError(
                f"The values have shape {tuple(values.shape)}, but this adapter's v is "
                f"(num_groups, u) = {tuple(self.v.shape)}."
            )
        with torch.no_grad():
            self.v.copy_(values)

    def delta_weight(self, name: str) -> Tensor:
        """W' - W of one module, (d_out, d_in), in the dtype of v.

        Args:
            name: of the module, as `modules_by_group` has it.

        Raises:
            RequestError: it is not adapted.
        """
        item = self._adapted.get(clean_name(name))
        if item is None:
            raise RequestError(
                f"{name} is not adapted. The names are in modules_by_group, such as "
                f"{next(iter(self._adapted))}."
            )
        return item.delta_weight(self.v.detach())

    def delta_rms(self) -> float:
        """The root mean square over all elements of W' - W, without forming any of them."""
        maps = self._adapted.values()
        cores = [item.mix(self.v.detach()) for item in maps]
        norms = [
            core.delta_norm(item.S.to(R.device), R) for item, R in zip(maps, cores, strict=True)
        ]
        num_elements = sum(item.linear.d_out * item.linear.d_in for item in maps)
        return math.sqrt(float(torch.stack(norms).square().sum()) / num_elements)

    def rounding(self, store: files.Store) -> files.Rounding:
        """What `save` would take from v.

        Args:
            store: fp32, bf16 or fp16.
        """
        return files.rounding(self.v, store)

    def save(self, path: str | Path, store: files.Store = "fp32") -> int:
        """Write v and its settings as one small file, atomically; return its size in bytes.

        Args:
            path: of the file; in a folder that exists, it is `adapter.safetensors`, which `load`
                finds there.
            store: the precision of v in the file, fp32, bf16 or fp16.

        Raises:
            RequestError: v is not finite in this precision.
        """
        return files.write(path, self._contents(), store)

    def to_text(self, store: files.Store | None = None) -> str:
        """The adapter as one line, `tl1:...`, that `load` takes wherever it takes a file.

        Args:
            store: the precision of v; None: the one with the fewest bits that loses nothing.
        """
        return text.encode(self._contents(), store or smallest_store(self.v))

    def _contents(self) -> files.AdapterFile:
        base, revision = self.base
        return files.AdapterFile(
            v=self.v.detach(),
            config=self.config,
            modules=files.modules_hash(self.modules_by_group),
            left_out=tuple(self.left_out),
            base=base,
            revision=revision,
            fingerprint=self.fingerprint,
        )

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the model is the base model: the reference policy without a second copy."""
        with self._applying(None, "disabled"):
            yield

    @contextmanager
    def per_row(self, values: Tensor) -> Iterator[Callable[[Tensor], None]]:
        """Inside, row b of every batch runs the adapter values[b], and v rests.

        Yields a function for batches whose rows leave or move: `select(places)` makes row b run
        values[places[b]] from then on.

        With activation checkpointing, the backward pass belongs inside as well: it runs the
        layers again, and outside they would run v.

        Args:
            values: (batch, num_groups, u); a gradient reaches it where it requires one.
        """
        if values.dim() != 3 or values.shape[1:] != self.v.shape:
            raise RequestError(
                f"per_row was given values of shape {tuple(values.shape)}, but it needs one v per "
                f"row: (batch, num_groups, u) = (batch, {self.v.shape[0]}, {self.v.shape[1]})."
            )
        values = values.to(self.v)

        def select(places: Tensor) -> None:
            self._active = values[places]

        with self._applying(values, "per_row"), without_beams(self.model):
            yield select

    @contextmanager
    def folded(self, allow_half: bool = False) -> Iterator["FoldReport | None"]:
        """Inside, the update is written into the weights and the hooks rest: fast generation.

        On leaving, every weight is what it was, bit for bit.

        Args:
            allow_half: also fold into half-precision weights, which round most of a tiny update
                away; the context then yields a report of what was lost.

        Raises:
            RequestError: weights are quantised or shared, or in half precision and not allowed.
        """
        maps = list(self._adapted.values())
        check_foldable(self.model, maps, allow_half)
        with self._applying(None, "folded"), folded_into(maps, self.v.detach()) as report:
            yield report

    def detach(self) -> None:
        """Remove the hooks and restore every requires_grad: the model is what it was."""
        if self._context:
            raise RequestError(f"detach() was called inside {self._context}(). Leave that first.")
        for handle in self._handles:
            handle.remove()
        for parameter in (held() for held in self._frozen):
            if parameter is not None:
                parameter.requires_grad_(True)
        self._handles, self._frozen = [], []
        self.model._parameters.pop(REGISTERED_NAME, None)

    def _hook(self, register: bool) -> None:
        maps = list(self._adapted.values())
        for item in maps:
            item.active = self._get_active
            hook = item.linear.module.register_forward_hook(item.add_update, with_kwargs=True)
            self._handles.append(hook)
        check = FirstForward(maps, common_ancestor(self.model, list(self._adapted)))
        self._handles.append(check.handle)
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                self._frozen.append(ref(parameter))
                parameter.requires_grad_(False)
        if register:
            self.model.register_parameter(REGISTERED_NAME, self.v)
        if "torch._dynamo" in sys.modules:
            # Code compiled before now has no hooks in it, and torch does not guard on them.
            torch.compiler.reset()

    def _get_active(self) -> Tensor | None:
        return self._active

    @contextmanager
    def _applying(self, values: Tensor | None, context: str) -> Iterator[None]:
        if self._context:
            raise RequestError(
                f"{context}() was entered inside {self._context}(), and the two contradict each "
                "other. Leave the outer one first."
            )
        self._active, self._context = values, context
        try:
            yield
        finally:
            self._active, self._context = self.v, ""


def _factors(linear: LinearMap, config: AdapterConfig, factors_of: FactorsOf) -> Factors:
    _, device = input_kind(linear)
    try:
        with without_autocast(device.type):
            return factors_of(linear, config)
    except RequestError as error:
        raise RequestError(f"{linear.name}: {error}") from None


def _adapted_map(
    linear: LinearMap, factors: Factors, config: AdapterConfig, group: int
) -> AdaptedLayer:
    A, B = core.outer_factors(factors.U, factors.S, factors.V, scale=config.scale)
    S = factors.S if config.scale else torch.ones_like(factors.S)
    P = projections(linear.name, config)
    dtype = _dtype_of_v(linear)
    S, A, B, P = (part.to(A.device, dtype) for part in (S, A, B, P))
    return AdaptedLayer(linear, S, A, B, P, group)


def _dtype_of_v(linear: LinearMap) -> torch.dtype:
    """fp32, also over half-precision and quantised weights; float64 over float64."""
    is_double = linear.is_plain and linear.weight().dtype == torch.float64
    return torch.float64 if is_double else torch.float32


def _check_bare(model: nn.Module) -> None:
    for module in model.modules():
        for hook in module._forward_hooks.values():
            item = getattr(hook, "__self__", None)
            if isinstance(item, AdaptedLayer) and item.active is not None:
                raise RequestError(
                    f"An adapter is attached to {item.linear.name} already, and a second one "
                    "would add to it. Call detach() on the first, or serve several v on one model "
                    "with per_row."
                )
    model._parameters.pop(REGISTERED_NAME, None)  # what a copy of a registered model still carries


def _report_left_out(left_out: list[str], num_found: int) -> None:
    if len(left_out) == num_found:
        raise RequestError(
            f"None of the {num_found} matched modules can be adapted: in {left_out[0]}, for "
            "example, the weights do not separate the last kept singular direction from the next "
            '(equal values, or too small a rank of W). Use another rank, or basis = "random".'
        )
    if left_out:
        warnings.warn(
            f"{len(left_out)} of {num_found} modules are left out, because their weights do not "
            f"define the kept singular directions: {', '.join(left_out)}.",
            stacklevel=3,
        )
