"""A base model that one device cannot hold: FSDP2 shards its frozen weights over the processes.

Each decoder block is a unit: every rank keeps its part of the block's weights, and gathers the
whole block while it runs. Embeddings, last norm and output head stay whole on every rank (they are
often one tied matrix, which the trainer reads outside the model's own forward pass), and so does
the adapter. It is attached before, from whole weights.

A pass through a sharded model is a pass of all ranks. Work is shared out as elsewhere, so a rank
may have fewer tokens to sample or fewer rows to learn from; `in_step` keeps it with the others
through passes of one token, which count for nothing.

It does not cover: weights that are trained, quantised weights, folding, loading (every rank reads
the whole model into the host's memory before it keeps its part).

Source: torch.distributed.fsdp.fully_shard; Zhao et al., 2304.11277.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from tinylora import distributed
from tinylora.adapter import TinyLora
from tinylora.decoders import body
from tinylora.errors import RequestError


def check_processes() -> None:
    """Refuse a run of one process: there is nothing to share the weights with.

    Raises:
        RequestError: there is one process.
    """
    if distributed.size() == 1:
        raise RequestError(
            "fsdp = true, but there is one process, which holds every weight anyway. Start "
            "several: torchrun --nproc-per-node=N -m tinylora train ..., or leave fsdp out."
        )


def shard(adapter: TinyLora, device: torch.device) -> None:
    """Keep this rank's part of the model's blocks, on `device`, with everything else whole there.

    The model stays sharded when the adapter is detached.

    Raises:
        RequestError: the weights are quantised, or the model has no blocks that are known.
    """
    model: Any = adapter.model
    for item in adapter.maps.values():
        if not item.linear.is_plain:
            raise RequestError(
                f"fsdp = true, but {item.linear.name} is a {type(item.linear.module).__name__}, "
                "whose weight is not a plain matrix that could be split. Use a model that is not "
                "quantised."
            )
    blocks = blocks_of(model)
    mesh = init_device_mesh(device.type, (distributed.size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    whole = {parameter for parameter in model.parameters() if id(parameter) not in inside}
    fully_shard(body(model), mesh=mesh, ignored_params=whole)  # it fetches blocks ahead
    model.to(device)
    adapter.v.data = adapter.v.data.to(device)


def blocks_of(model: Any) -> Sequence[torch.nn.Module]:
    """The model's decoder blocks.

    Raises:
        RequestError: it has none.
    """
    parts: list[torch.nn.Module] = list(body(model).modules())
    blocks = [part for part in parts if isinstance(part, GradientCheckpointingLayer)]
    if not blocks:
        raise RequestError(
            "fsdp = true, but Transformers does not name the decoder blocks of "
            f"{type(model).__name__}, so there is nothing to split. Leave fsdp out."
        )
    return blocks


def is_sharded(model: Any) -> bool:
    """Whether `shard` has split its weights."""
    return distributed.size() > 1 and isinstance(body(model), FSDPModule)


@contextmanager
def in_step(model: Any, is_learning: bool = False) -> Iterator[None]:
    """Inside, ranks may run different numbers of passes through a sharded model.

    Each pass is announced; a rank that leaves early runs passes of one token for as long as
    another announces one. All ranks enter together. Nothing happens where the model is whole.

    Args:
        is_learning: each forward pass is followed by its backward pass.
    """
    if not is_sharded(model):
        yield
        return
    with _announcing(model):
        yield
    while _someone_runs(model, False):
        _idle_pass(model, is_learning)


@contextmanager
def _announcing(model: Any) -> Iterator[None]:
    def announce(module: torch.nn.Module, args: Any) -> None:
        _someone_runs(model, True)

    handle = body(model).register_forward_pre_hook(announce, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def _someone_runs(model: Any, i_do: bool) -> bool:
    """Whether any rank is about to run a pass; asked by all of them, once for each pass."""
    running = torch.tensor([float(i_do)], device=model.device)
    distributed.add_up(running)
    return bool(running)


def _idle_pass(model: Any, is_learning: bool) -> None:
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.set_grad_enabled(is_learning):
        hidden: Tensor = body(model)(input_ids=token, use_cache=False).last_hidden_state
        if is_learning:
            (0 * hidden.sum()).backward()  # type: ignore[no-untyped-call]
