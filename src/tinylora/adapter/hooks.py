"""v, the forward hook of one adapted map, and the check that every hook is reached.

Hooks are bound methods of small objects that know the adapter. A copy of the model (deepcopy,
pickle) copies hooks too, and a copied hook is inert: the copy is the base model, and never answers
with the first model's v. Nor does it train it: a copied v is frozen.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tinylora.adapter import core
from tinylora.adapter.modules import LinearMap
from tinylora.errors import RequestError

REGISTERED_NAME = "tinylora_v"  # of v on the model, where a foreign trainer looks for it


class TrainedNumbers(nn.Parameter):
    """v. A copy keeps the values, for whoever wants them, and is a frozen plain parameter."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Parameter:
        memo[id(self)] = copied = nn.Parameter(self.data.clone(), requires_grad=False)
        return copied

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return nn.Parameter, (self.data, False)


class AdaptedLayer:
    """One linear map with its frozen factors, and the hook that adds the update to its output."""

    def __init__(
        self, linear: LinearMap, S: Tensor, A: Tensor, B: Tensor, P: Tensor, group: int
    ) -> None:
        self.linear = linear
        self.S, self.A, self.B, self.P = S, A, B, P  # in the dtype of v: what the update *is*
        dtype = linear.weight().dtype if linear.is_plain else A.dtype
        self.outer = A.to(dtype), B.to(dtype)  # in the layer's dtype: what the hook multiplies with
        self.group = group
        self.active: Callable[[], Tensor | None] | None = None  # set by attach
        self.has_fired = False
        self._kept: tuple[Tensor, int, Tensor] | None = None  # from values, at their version

    def __reduce__(self) -> tuple[Any, ...]:
        return _inert, ()

    @property
    def is_half(self) -> bool:
        """The weight is plain and in half precision now, whatever it was at first."""
        return self.linear.is_plain and self.linear.weight().dtype.itemsize < 4

    def mix(self, values: Tensor) -> Tensor:
        """R (r, r) from v (num_groups, u), or (batch, r, r) from (batch, num_groups, u).

        Raises:
            RequestError: v was cast together with the model.
        """
        if values.dtype != self.P.dtype:
            raise RequestError(
                f"v is now {values.dtype}, because the model was cast with v registered in it. In "
                f"any type but {self.P.dtype} its small steps are lost. Cast the model before "
                "attaching; v keeps its own type."
            )
        if self.P.device != values.device:
            self.P = self.P.to(values.device)
        return core.mix(values[..., self.group, :], self.P)

    def add_update(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        """The forward hook: W' x from W x. None, which leaves the output alone, where it rests."""
        self.has_fired = True
        values = self.active() if self.active else None
        if values is None:
            return None
        x: Tensor = args[0] if args else next(iter(kwargs.values()))
        if values.dim() == 3:
            self._check_rows(x, values)
        outer = self.outer[0]
        if outer.device != output.device or outer.dtype.itemsize < output.dtype.itemsize:
            self.outer = self.A.to(output), self.B.to(output)  # the model was moved or cast
        A, B = (factor.to(output.dtype) for factor in self.outer)
        x = x.to(output.dtype)
        needs_gradient = values.requires_grad and torch.is_grad_enabled()
        with without_autocast(output.device.type):
            if needs_gradient or torch.compiler.is_compiling():
                R = self.mix(values).to(output.device)
                return core.add_update(output, x, A, R, B)
            kept = self._kept_of(values, B)
            if values.dim() == 3:
                return core.add_update(output, x, A, kept, B)
            return core.add_product(output, x, A, kept)

    def _kept_of(self, values: Tensor, B: Tensor) -> Tensor:
        """What does not change while the same numbers answer token after token.

        B R (d_out, r) of one v, in the type of B; R (batch, r, r) of many.
        """
        if self._kept is not None:
            known, version, kept = self._kept
            is_same = known is values and version == values._version
            if is_same and kept.device == B.device and (values.dim() == 3 or kept.dtype == B.dtype):
                return kept
        with torch.inference_mode(False):  # what is kept may meet a gradient of something else
            R = self.mix(values.detach()).to(B.device)
            kept = R if values.dim() == 3 else (B.to(R.dtype) @ R).to(B.dtype)
        if not values.is_inference():  # such a tensor does not tell when it changes
            self._kept = values, values._version, kept
        return kept

    def delta_weight(self, v: Tensor) -> Tensor:
        """W' - W, (d_out, d_in)."""
        return core.delta_weight(self.A, self.mix(v).to(self.A), self.B)

    def fold(self, v: Tensor) -> None:
        """Write W + B R A into the weight, which is plain."""
        W = self.linear.weight()
        A, B, R = (part.to(W.device) for part in (self.A, self.B, self.mix(v)))
        if W.dtype == A.dtype:
            W.addmm_(B @ R, A)
        else:
            W.copy_(W + core.delta_weight(A, R, B))

    def _check_rows(self, x: Tensor, values: Tensor) -> None:
        if x.dim() == 3 and x.shape[0] == values.shape[0]:
            return
        raise RequestError(
            f"per_row has values for {values.shape[0]} rows, but {self.linear.name} was given an "
            f"input of shape {tuple(x.shape)}: it cannot tell which row runs which adapter. The "
            "input must be (batch, tokens, d_in) with one row for each of the values; beams, "
            "num_return_sequences and experts that regroup tokens need values to match, or "
            "one adapter at a time."
        )


class FirstForward:
    """Checks at each forward pass, until one passes, that every hook was reached."""

    def __init__(self, adapted: list[AdaptedLayer], ancestor: nn.Module | None = None) -> None:
        self.adapted = adapted
        self.handle = None if ancestor is None else ancestor.register_forward_hook(self.check)

    def __reduce__(self) -> tuple[Any, ...]:
        return FirstForward, ([],)

    def check(self, module: nn.Module, args: Any, output: Any) -> None:
        # A compiled graph runs no Python between the layers, and hooks are part of it.
        if torch.compiler.is_compiling() or self.handle is None:
            return
        silent = [item.linear.name for item in self.adapted if not item.has_fired]
        if silent:
            raise RequestError(
                f"The forward pass never called {', '.join(silent[:8])}"
                f"{f' and {len(silent) - 8} more' if len(silent) > 8 else ''}: a fused kernel "
                "reads the weights without the module, so the adapter would not act there. Turn "
                "that kernel off, or leave these modules out of targets."
            )
        self.handle.remove()


@contextmanager
def without_beams(model: nn.Module) -> Iterator[None]:
    """Inside, `model.generate` refuses beam search, which hands a row's cache to another row."""
    generate = getattr(model, "generate", None)
    if generate is None:
        yield
        return

    def checked(*args: Any, **kwargs: Any) -> Any:
        configs = (
            kwargs.get("generation_config"),
            *args[1:2],
            getattr(model, "generation_config", None),
        )
        asked = kwargs.get("num_beams"), *(getattr(c, "num_beams", None) for c in configs)
        if (next(filter(None, asked), 1)) > 1:
            raise RequestError(
                "per_row cannot serve beam search: beams move between the rows of the batch, and "
                "with them the adapters. Sample instead (num_beams = 1)."
            )
        return generate(*args, **kwargs)

    is_patched = "generate" in vars(model)
    model.generate = checked  # type: ignore[assignment]
    try:
        yield
    finally:
        del model.generate
        if is_patched:
            model.generate = generate


def _inert() -> AdaptedLayer:
    copy = AdaptedLayer.__new__(AdaptedLayer)
    copy.active = None
    return copy


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Autocast would round v and the core to half precision."""
    if device_type != "meta" and torch.is_autocast_enabled(device_type):  # meta has no autocast
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
