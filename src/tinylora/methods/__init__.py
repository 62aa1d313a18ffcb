"""The methods that TinyLoRA is compared with, behind the same seam: one loop, one set of metrics.

    tinylora    u numbers for each group of modules                    num_groups * u
    lora-xs     the same layer with identity P and u = r^2 (2405.17604)  num_groups * r^2
    lora        PEFT's LoRA, alpha = r (2106.09685)                    sum of r (d_in + d_out)
    vera        PEFT's VeRA (2310.11454)                               sum of r + d_out
    bias-only   a vector added to each layer's output (2505.18706)       sum of d_out
    full        the layers' weights themselves                         sum of d_in d_out

All act on the linear layers that `targets` and `layers` name, so counts are those of the paper's
table 1. What is trained is fp32; `full` therefore needs fp32 weights.

Departures: (1) `full` leaves embeddings, head and norms alone, as table 1 counts it; (2) a
`bias-only` vector is beside the layer's own bias, where it has one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tinylora.adapter import TinyLora, attach, load
from tinylora.adapter.modules import LinearMap
from tinylora.adapter.sharing import groups_of
from tinylora.methods import peft
from tinylora.methods.weights import BiasPolicy, FullPolicy, loader
from tinylora.policy import Policy
from tinylora.settings import PEFT, AdapterConfig, method_kind


@dataclass(frozen=True)
class Method:
    """How a method comes onto a model, and what it trains there."""

    attach: Callable[[Any, AdapterConfig], Policy]
    load: Callable[[Any, Path, AdapterConfig], Policy]
    count: Callable[[Sequence[LinearMap], AdapterConfig], int]


def _load_tinylora(model: Any, place: Path, config: AdapterConfig) -> TinyLora:
    """From a run folder, or from a file, as snapshots are."""
    return load(model, place)


def _num_grouped(maps: Sequence[LinearMap], config: AdapterConfig) -> int:
    names = [linear.name for linear in maps]
    return config.u * len(groups_of(names, config))


def method_of(name: str) -> Method:
    """The method of this name; `peft:NAME` is made from PEFT's own table."""
    if method_kind(name) != PEFT:
        return METHODS[name]
    kind = name.removeprefix("peft:")
    return Method(
        partial(peft.other, kind),
        lambda model, folder, config: peft.other(kind, model, config).load(folder),
        partial(peft.count, kind),
    )


METHODS = {
    "tinylora": Method(attach, _load_tinylora, _num_grouped),
    "lora-xs": Method(attach, _load_tinylora, _num_grouped),
    "lora": Method(
        peft.lora,
        lambda model, folder, config: peft.lora(model, config).load(folder),
        lambda maps, config: sum(config.rank * (m.d_in + m.d_out) for m in maps),
    ),
    "vera": Method(
        peft.vera,
        lambda model, folder, config: peft.vera(model, config).load(folder),
        lambda maps, config: sum(config.rank + m.d_out for m in maps),
    ),
    "bias-only": Method(
        BiasPolicy, loader(BiasPolicy), lambda maps, config: sum(m.d_out for m in maps)
    ),
    "full": Method(
        FullPolicy,
        loader(FullPolicy),
        lambda maps, config: sum(m.d_in * m.d_out for m in maps),
    ),
}
