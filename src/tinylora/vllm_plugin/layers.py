"""vLLM's linear layers with A and B once, and a core R for every slot.

    y = W x + B R A x

A and B are those of the trainer, in the layer's precision; R is in fp32, as in the trainer's own
hook (`adapter/core.py`), and is that of each token's adapter. What is packed into one layer (q, k
and v; gate and up) is one product with A, one gather of cores, and one product with a B whose
blocks lie on the diagonal.

vLLM's own classes slice A and B for tensor parallelism: a row-parallel layer holds the columns of A
that its inputs have, and adds up B R A x with the rest of its output; a column-parallel one holds
its rows of B.

On a GPU it is the same three products, on tensors that stay where they are, so that CUDA graphs
hold; A x and the product with B go to cuBLAS, because there is one A for all and nothing to sort by
adapter. **It has not run on a GPU.**
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from vllm.lora import utils
from vllm.lora.layers import (
    ColumnParallelLinearWithLoRA,
    MergedColumnParallelLinearWithLoRA,
    MergedQKVParallelLinearWithLoRA,
    QKVParallelLinearWithLoRA,
    ReplicatedLinearWithLoRA,
    RowParallelLinearWithLoRA,
)

making: ContextVar[int | None] = ContextVar("core_rank", default=None)  # while layers are replaced


@contextmanager
def native_layers(core_rank: int) -> Iterator[None]:
    """Inside, vLLM replaces linear layers by those of this file."""
    token = making.set(core_rank)
    try:
        yield
    finally:
        making.reset(token)


class CoreLinear:
    """What the classes below put before vLLM's own.

    Attributes:
        shared_a: A of all parts below each other, (parts * core_rank, d_in).
        shared_b: B of all parts on a diagonal, (d_out, parts * core_rank).
        cores: R of every slot and part, (slots + 1, parts, core_rank, core_rank) in fp32, a view of
            the manager's; the last slot is that of tokens without an adapter, and zero.
        token_slots: the slot of each token of the batch, (max_tokens,); the manager's.
    """

    cores: Tensor
    token_slots: Tensor
    shared_a: Tensor
    shared_b: Tensor

    def create_lora_weights(
        self: Any, max_loras: int, lora_config: Any, model_config: Any = None
    ) -> None:
        """A and B once, whatever the number of slots."""
        core_rank = making.get()
        assert core_rank is not None
        self.lora_config, self.core_rank = lora_config, core_rank
        if not isinstance(self, MergedColumnParallelLinearWithLoRA):
            self.output_slices = (self.output_size,)
        like = {"dtype": lora_config.lora_dtype, "device": self.device}
        width = self.n_slices * core_rank
        self.shared_a = torch.zeros(width, self.input_size, **like)
        self.shared_b = torch.zeros(sum(self.output_slices), width, **like)

    def write_outer(self: Any, part: int, offset: int, A: Tensor, B: Tensor) -> None:
        """Write this process's share of A (r, d_in) and B (d_out, r) of one part.

        Args:
            offset: of their directions among the `core_rank` of a part.
        """
        if self.tp_size > 1:
            A, B = self._shares(part, A, B)
        columns = slice(part * self.core_rank + offset, part * self.core_rank + offset + len(A))
        start = sum(self.output_slices[:part])
        self.shared_a[columns].copy_(A)
        self.shared_b[start : start + len(B), columns].copy_(B)

    def _shares(self: Any, part: int, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
        """By the rules of vLLM's layer, which takes lists where it packs several parts."""
        if not isinstance(self, MergedColumnParallelLinearWithLoRA):
            return self.slice_lora_a(A), self.slice_lora_b(B)
        parts = [B if i == part else None for i in range(self.n_slices)]
        share = self.slice_lora_b(parts)[part]
        assert share is not None
        return A, share

    def reset_lora(self, index: int) -> None:
        """Slots are the manager's."""

    def set_lora(self, index: int, lora_a: Any, lora_b: Any) -> None:
        raise AssertionError("cores are written by the manager")

    def _apply_lora_to_output(self: Any, x: Tensor, output: Tensor) -> Tensor:
        """output + B R A x, in place, for x (tokens, d_in) and output (tokens, d_out)."""
        rows, flat = output.reshape(-1, output.shape[-1]), x.reshape(-1, x.shape[-1])
        h = F.linear(flat.to(self.shared_a.dtype), self.shared_a)
        h = h.view(-1, self.n_slices, 1, self.core_rank)  # (tokens, parts, 1, r)
        R = self.cores[self.token_slots[: flat.shape[0]]]  # (tokens, parts, r, r)
        h = (R * h.to(R.dtype)).sum(-1)  # (tokens, parts, r)
        rows.addmm_(h.flatten(1).to(rows.dtype), self.shared_b.to(rows.dtype).mT)
        return rows.view(output.shape)

    @classmethod
    def can_replace_layer(
        cls, source_layer: Any, lora_config: Any, packed_modules_list: Any, model_config: Any = None
    ) -> bool:
        """What vLLM's class replaces, while native layers are made."""
        if making.get() is None:
            return False
        found: bool = super().can_replace_layer(  # type: ignore[misc]
            source_layer=source_layer,
            lora_config=lora_config,
            packed_modules_list=packed_modules_list,
            model_config=model_config,
        )
        return found


class CoreColumn(CoreLinear, ColumnParallelLinearWithLoRA):
    """Of a column-parallel layer."""


class CoreMergedColumn(CoreLinear, MergedColumnParallelLinearWithLoRA):
    """Of gate and up in one layer."""


class CoreQKV(CoreLinear, QKVParallelLinearWithLoRA):
    """Of q, k and v that are one layer in the checkpoint, too."""


class CoreMergedQKV(CoreLinear, MergedQKVParallelLinearWithLoRA):
    """Of q, k and v in one layer."""


class CoreRow(CoreLinear, RowParallelLinearWithLoRA):
    """Of a row-parallel layer."""


class CoreReplicated(CoreLinear, ReplicatedLinearWithLoRA):
    """Of a layer that every process has whole."""


CLASSES = (CoreColumn, CoreMergedColumn, CoreQKV, CoreMergedQKV, CoreRow, CoreReplicated)


def install() -> None:
    """Put these classes before vLLM's own, which take over where they are not asked for."""
    if CoreColumn not in utils._all_lora_classes:
        utils._all_lora_classes = CLASSES + utils._all_lora_classes
