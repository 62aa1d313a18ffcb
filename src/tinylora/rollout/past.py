"""What a model remembers of the tokens before, row by row, while an engine samples.

Keys and values go into buffers of ours (`Buffers`). A model that remembers more, the states of
Mamba or of linear attention, fills a cache of its own (`OwnCache`); its rows then have no padding,
which a state would take for tokens.
"""

import inspect
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from tinylora.decoders import is_recurrent
from tinylora.errors import RequestError
from tinylora.models import evaluation_mode

CACHE_NAMES = ("past_key_values", "cache_params")  # what models call it


class Past(Protocol):
    """The past of all rows of a batch."""

    def given(self) -> dict[str, Any]:
        """What the model's next forward pass takes."""

    def keep(self, output: Any) -> None:
        """Note what the forward pass has left."""

    def expand(self, num_copies: int, capacity: int) -> None:
        """Each row `num_copies` times, one after the other, with room for `capacity` tokens."""

    def move(self, source: Tensor, target: Tensor, num_rows: int) -> None:
        """Copy rows over others, then keep the first `num_rows`."""


def past_of(model: Any) -> Past:
    """An empty past for a batch of this model."""
    return OwnCache(model) if is_recurrent(model) else Buffers()


@torch.no_grad()
def check_past(model: Any) -> None:
    """Refuse a model whose past this engine cannot keep; without weights, as far as it shows.

    Raises:
        RequestError: so it is.
    """
    if not is_recurrent(model):
        return
    past = OwnCache(model)
    if model.device.type != "meta":
        with evaluation_mode(model):
            token = torch.ones(1, 1, dtype=torch.long, device=model.device)
            past.keep(model(input_ids=token, use_cache=True))


class BufferLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer's keys and values in buffers that have room for the longest completion.

    `DynamicLayer` copies everything at every token (torch.cat); this writes in place and hands out
    views of what is filled.
    """

    keys: Any
    values: Any

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:  # the prompt: kept as it is until `expand` makes room
            self.dtype, self.device = key_states.dtype, key_states.device
            self.keys, self.values, self.is_initialized = key_states, value_states, True
            self.length = key_states.shape[-2]
            return key_states, value_states
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def expand(self, num_copies: int, capacity: int) -> None:
        """Each row `num_copies` times, one after the other, with room for `capacity` tokens."""
        self.keys = self._expanded(self.keys, num_copies, capacity)
        self.values = self._expanded(self.values, num_copies, capacity)

    def _expanded(self, old: Tensor, num_copies: int, capacity: int) -> Tensor:
        num_rows, num_heads, length, size = old.shape
        new = old.new_empty(num_rows, num_copies, num_heads, capacity, size)
        new[:, :, :, :length] = old[:, None]
        return new.flatten(0, 1)  # (rows * copies, heads, capacity, size)

    def move(self, source: Tensor, target: Tensor, num_rows: int) -> None:
        """Copy rows over others in place, then keep the first `num_rows`."""
        for buffer in (self.keys, self.values):
            buffer[target, :, : self.length] = buffer[source, :, : self.length]
        self.keys, self.values = self.keys[:num_rows], self.values[:num_rows]

    def get_seq_length(self) -> int:
        return self.length


class Buffers:
    """Keys and values of every layer."""

    def __init__(self) -> None:
        self.cache = Cache(layer_class_to_replicate=BufferLayer)

    @property
    def layers(self) -> list[BufferLayer]:
        """Those that hold something: some models reuse the keys of another layer."""
        layers = cast(list[BufferLayer], self.cache.layers)
        return [layer for layer in layers if layer.is_initialized]

    def given(self) -> dict[str, Any]:
        return {"past_key_values": self.cache}

    def keep(self, output: Any) -> None:
        """The model has written into the buffers."""

    def expand(self, num_copies: int, capacity: int) -> None:
        for layer in self.layers:
            layer.expand(num_copies, capacity)

    def move(self, source: Tensor, target: Tensor, num_rows: int) -> None:
        for layer in self.layers:
            layer.move(source, target, num_rows)


class OwnCache:
    """The cache that the model makes for itself.

    Raises:
        RequestError: the model does not take one back.
    """

    def __init__(self, model: Any) -> None:
        taken = inspect.signature(model.forward).parameters
        named = [name for name in CACHE_NAMES if name in taken]
        if not named:
            raise _no_cache(type(model).__name__)
        self.model_class = type(model).__name__
        self.name, self.cache, self.num_rows = named[0], cast(Any, None), 0

    def given(self) -> dict[str, Any]:
        return {} if self.cache is None else {self.name: self.cache}

    def keep(self, output: Any) -> None:
        self.cache, self.num_rows = output.get(self.name), len(output.logits)
        if self.cache is None:
            raise _no_cache(self.model_class)

    def expand(self, num_copies: int, capacity: int) -> None:
        self.cache.reorder_cache(torch.arange(self.num_rows).repeat_interleave(num_copies))

    def move(self, source: Tensor, target: Tensor, num_rows: int) -> None:
        order = torch.arange(num_rows, device=source.device)
        order[target] = source
        self.cache.reorder_cache(order)


def _no_cache(model_class: str) -> RequestError:
    return RequestError(
        f"{model_class} keeps its past in a form of its own, not in a cache of Transformers, so "
        "rollout = transformers cannot sample from it. Use another engine or another model."
    )
