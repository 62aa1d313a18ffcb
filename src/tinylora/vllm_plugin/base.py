"""The base model as its adapters know it: fingerprint, factors, and what an adapter makes of them.

Its weights are mapped from the disk, in the precision in which vLLM computes with them, and read
once: factors are remembered, so that a new adapter costs milliseconds. Every adapter is checked as
`tinylora.load` checks it.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tinylora.adapter.contents import AdapterFile, kept_settings
from tinylora.adapter.factors import linear_factors
from tinylora.adapter.fingerprint import compare, take
from tinylora.adapter.hooks import AdaptedLayer
from tinylora.adapter.layer import TinyLora, unattached
from tinylora.adapter.loading import base_problem, unattached_from
from tinylora.adapter.modules import LinearMap, resolved
from tinylora.adapter.svd import Factors
from tinylora.errors import RequestError
from tinylora.mapped import mapped_model
from tinylora.settings import AdapterConfig

MAX_PLANS = 64  # adapters of other settings than these are made anew
Frame = tuple[int, str, str, bool, int]  # what decides A and B: see `frame_of`


@dataclass(frozen=True, eq=False)
class Plan:
    """What all adapters of the same settings share; two of them are never equal."""

    frame: Frame
    names: tuple[str, ...]  # of the adapted layers
    outer: dict[str, tuple[Tensor, Tensor]]  # A (r, d_in) and B (d_out, r) of each
    P: Tensor  # (layers, u, r, r)
    groups: Tensor  # (layers,): whose numbers a layer uses

    @property
    def rank(self) -> int:
        return self.frame[0]

    def cores(self, v: Tensor) -> Tensor:
        """R of every layer, (layers, r, r), from v (num_groups, u)."""
        return torch.einsum("lu,luqr->lqr", v.to(self.P)[self.groups], self.P)


class ServedBase:
    """The base model of a server.

    Args:
        source: its folder or hub id.
        dtype: in which vLLM computes with it.
        quantization: what vLLM calls its quantisation; None: it is plain.
    """

    def __init__(self, source: str, dtype: torch.dtype, quantization: str | None) -> None:
        self.source, self.dtype, self.quantization = source, dtype, quantization
        self._factors: dict[tuple[str, Frame], Factors] = {}
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    @cached_property
    def model(self) -> Any:
        """Its weights, which stay on the disk until they are read."""
        if self.quantization is not None:
            raise RequestError(
                f"{self.source} is served quantised ({self.quantization}), and this server cannot "
                "check adapters against quantised weights. Serve the base unquantised."
            )
        model = mapped_model(self.source)
        stored = {parameter.dtype for parameter in model.parameters()}
        is_exact = all(torch.promote_types(kind, self.dtype) == self.dtype for kind in stored)
        return model if is_exact else model.to(self.dtype)

    @cached_property
    def fingerprint(self) -> str:
        return take(self.model)

    def default_targets(self) -> tuple[str, ...]:
        """The layers that adapters act on where their settings do not say otherwise."""
        return resolved(AdapterConfig(), self.model).targets

    def prepare(self, rank: int) -> None:
        """Make the default factors, so that the first adapter does not wait for them.

        Raises:
            RequestError: the default settings do not fit this model.
        """
        unattached(self.model, AdapterConfig(rank=rank), self._factors_of)

    def plan(self, contents: AdapterFile, name: str) -> Plan:
        """What the adapter shares with all others of its settings.

        Args:
            name: what sentences call it.

        Raises:
            RequestError: it was trained on another base, or other modules.
        """
        if compare(contents.fingerprint, self.fingerprint) is not None:
            raise RequestError(
                f"{name} was not trained on the weights that this server has: "
                f"{base_problem(self.model, contents)}"
            )
        key = repr((kept_settings(contents.config), contents.modules, contents.left_out))
        key += f"{tuple(contents.v.shape)}"
        if key not in self._plans:
            adapter = unattached_from(self.model, contents, name, self._factors_of)
            self._plans[key] = plan_of(adapter)
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return self._plans[key]

    def _factors_of(self, linear: LinearMap, config: AdapterConfig) -> Factors:
        key = linear.name, frame_of(config)
        if key not in self._factors:
            self._factors[key] = linear_factors(linear, config)
        return self._factors[key]


def frame_of(config: AdapterConfig) -> Frame:
    """The settings that A and B depend on; adapters that agree in them share A and B."""
    seed = config.seed if config.basis == "random" else 0
    return config.rank, config.basis, config.subspace, config.scale, seed


def plan_of(adapter: TinyLora) -> Plan:
    """The plan of an adapter."""
    maps: dict[str, AdaptedLayer] = adapter.maps
    return Plan(
        frame=frame_of(adapter.config),
        names=tuple(maps),
        outer={name: (item.A, item.B) for name, item in maps.items()},
        P=torch.stack([item.P for item in maps.values()]),
        groups=torch.tensor([item.group for item in maps.values()]),
    )


def as_lora(plan: Plan, v: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """A (r, d_in) and B R (d_out, r) of every layer: the adapter as a LoRA."""
    cores = plan.cores(v)
    factors = [plan.outer[name] for name in plan.names]
    pairs = [(A, B @ R) for (A, B), R in zip(factors, cores, strict=True)]
    return dict(zip(plan.names, pairs, strict=True))
