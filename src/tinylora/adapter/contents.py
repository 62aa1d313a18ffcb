"""What an adapter consists of, whatever form it is kept in, and what rounding its numbers costs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tinylora.errors import RequestError
from tinylora.settings import AdapterConfig

Store = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class AdapterFile:
    """What a file holds; in a text, the hash and the revision are the beginnings of these."""

    v: Tensor  # (num_groups, u)
    config: AdapterConfig
    modules: str  # `modules_hash` of the groups
    left_out: tuple[str, ...]  # modules whose weights do not define the kept directions
    base: str  # name of the base model, "" where it has none
    revision: str  # its commit on the hub, "" where it has none
    fingerprint: str = ""  # of the base model's weights; "" where it was not taken


def kept_settings(config: AdapterConfig) -> dict[str, Any]:
    """The settings as files and texts hold them: without what joined later and is not used, so that
    earlier versions read them."""
    settings = config.model_dump(mode="json")
    return {name: x for name, x in settings.items() if name != "n_tie" or x is not None}


@dataclass(frozen=True)
class Rounding:
    """What storing v in fewer bits changes."""

    max_abs: float
    relative: float  # ||stored - v|| / ||v||, 0 for v = 0


def rounding(v: Tensor, store: Store) -> Rounding:
    """What v would lose in the precision `store`."""
    exact = v.detach().double()
    error = exact.to(DTYPES[store]).double() - exact
    norm = float(exact.norm())
    return Rounding(float(error.abs().max()), float(error.norm()) / norm if norm else 0.0)


def smallest_store(v: Tensor) -> Store:
    """The precision with the fewest bits in which v loses nothing."""
    stores: tuple[Store, ...] = ("bf16", "fp16")
    return next((store for store in stores if rounding(v, store).max_abs == 0), "fp32")


def as_stored(v: Tensor, store: Store) -> Tensor:
    """v in the precision `store`, on the CPU.

    Raises:
        RequestError: `store` is unknown, or v does not fit into it (inf, nan).
    """
    if store not in DTYPES:
        raise RequestError(f"store = {store!r}, but v can only be stored as {', '.join(DTYPES)}.")
    stored = v.detach().cpu().to(DTYPES[store]).contiguous()
    if not bool(torch.isfinite(stored).all()):
        raise RequestError(
            f"v is not finite in {store} (largest value {float(v.abs().max())}): the model could "
            "not answer. Store it as fp32, or train with a smaller learning rate."
        )
    return stored


def modules_hash(groups: Sequence[Sequence[str]]) -> str:
    """16 hex digits over the names of the adapted modules, group by group."""
    text = "\n\n".join("\n".join(names) for names in groups)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
