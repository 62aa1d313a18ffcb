"""Folding: the update written into the weights, the saved weights put back, and what was lost.

What it does **not** do: fold into a layer that is not plain, or into one matrix of two modules.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from tinylora.adapter.hooks import AdaptedLayer
from tinylora.errors import RequestError


@dataclass(frozen=True)
class FoldReport:
    """What half precision did to the update that was folded in."""

    rounded_away: float  # share of the update that is missing: 1 - <applied, dW> / <dW, dW>
    relative_error: float  # ||applied - dW|| / ||dW||


@contextmanager
def folded_into(maps: Sequence[AdaptedLayer], v: Tensor) -> Iterator[FoldReport | None]:
    """Inside, every weight is W + B R A; afterwards it is what it was, bit for bit.

    Yields:
        What was lost, where a weight is in half precision.
    """
    saved = [item.linear.weight().clone() for item in maps]
    try:
        for item in maps:
            item.fold(v)
        is_exact = not any(item.is_half for item in maps)
        yield None if is_exact else fold_report(maps, saved, v)
    finally:
        for item, weight in zip(maps, saved, strict=True):
            item.linear.weight().copy_(weight)


def is_foldable(model: nn.Module, maps: Sequence[AdaptedLayer]) -> bool:
    """Whether folding is exact: every adapted weight is plain, unshared and at least fp32."""
    shared = shared_parameters(model)
    return not any(hindrance(item, shared) for item in maps)


def check_foldable(model: nn.Module, maps: Sequence[AdaptedLayer], allow_half: bool) -> None:
    """Refuse what cannot be folded, and half precision unless it is allowed.

    Raises:
        RequestError: it names the module and the cause.
    """
    shared = shared_parameters(model)
    for item in maps:
        cause = hindrance(item, shared, allow_half)
        if cause:
            raise RequestError(
                f"{item.linear.name} cannot be folded: it is {cause}. Generate with the hooks."
            )


def hindrance(item: AdaptedLayer, shared: set[nn.Parameter], allow_half: bool = False) -> str:
    """What keeps a layer from being folded; "" where nothing does."""
    if not item.linear.is_plain:
        return f"a {type(item.linear.module).__name__}, whose weight is not a plain matrix"
    if item.linear.module.weight in shared:
        return "tied to another module, which would get the update too"
    if item.is_half and not allow_half:
        return (
            f"{item.linear.weight().dtype}, which rounds most of a tiny update away "
            "(folded(allow_half=True) does it anyway, and reports the loss)"
        )
    return ""


def shared_parameters(model: nn.Module) -> set[nn.Parameter]:
    uses = Counter(p for _, p in model.named_parameters(remove_duplicate=False))
    return {parameter for parameter, count in uses.items() if count > 1}


def fold_report(maps: Sequence[AdaptedLayer], saved: Sequence[Tensor], v: Tensor) -> FoldReport:
    """Compare what the folded weights gained with what they should have gained."""
    wanted = kept = missed = 0.0
    for item, before in zip(maps, saved, strict=True):
        delta = item.delta_weight(v).to(before.device)
        applied = item.linear.weight().to(delta.dtype) - before.to(delta.dtype)
        wanted += float(delta.square().sum())
        kept += float((applied * delta).sum())
        missed += float((applied - delta).square().sum())
    if wanted == 0:
        return FoldReport(0.0, 0.0)
    return FoldReport(1 - kept / wanted, (missed / wanted) ** 0.5)
