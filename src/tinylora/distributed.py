"""The processes of one run, as torchrun or `accelerate launch` start them; one alone will do.

Every process (rank) draws the same problems and holds the same v. What costs time is shared out:
prompts to sample, completions to grade, rows to learn from. What comes of it is gathered, so that
all ranks go on with the same, and one all-reduce adds the gradients of v. Rank 0 writes.

It does not cover: models that one device cannot hold (`fsdp.py`); ranks that see other files.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tinylora.errors import TinyLoraError

PATIENCE = timedelta(hours=2)  # how long a rank waits for another that samples or judges
Item = TypeVar("Item")


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _is_open() else 1


def rank() -> int:
    """Which of them this one is."""
    return dist.get_rank() if _is_open() else 0


def is_main() -> bool:
    """Whether this process writes and speaks."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes that a launcher started know one another.

    Raises:
        TinyLoraError: another process ended, so this one cannot go on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _is_open():
        yield
        return
    is_gpu = torch.cuda.is_available()
    if is_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # both, because a run may be on the CPU of a machine that has GPUs
    dist.init_process_group("cpu:gloo,cuda:nccl" if is_gpu else "gloo", timeout=PATIENCE)
    try:
        yield
        wait()  # gloo may abort a rank that takes the group down while another still uses it
    finally:
        dist.destroy_process_group()


def share(items: Sequence[Item]) -> list[Item]:
    """This rank's part."""
    return list(items[rank() :: size()])


def gather(mine: Sequence[Item]) -> list[Item]:
    """Every rank's part, in the order in which `share` gave them out."""
    if size() == 1:
        return list(mine)
    parts: list[Any] = [None] * size()
    _together(lambda: dist.all_gather_object(parts, list(mine)))
    longest = max(map(len, parts))
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def add_up(*tensors: Tensor) -> None:
    """Each tensor becomes its sum over the ranks."""
    if size() > 1:
        for tensor in tensors:
            _together(lambda tensor=tensor: dist.all_reduce(tensor))  # type: ignore[misc]


def add_up_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """The gradients become those of all ranks' rows; a rank without rows adds zero."""
    if size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    add_up(flat)
    parts = torch.split(flat, [p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


def anywhere(flag: bool) -> bool:
    """Whether any rank says so: all of them stop at the same step."""
    return flag if size() == 1 else any(gather([flag]))


def from_main(value: Item) -> Item:
    """Rank 0's value."""
    return gather([value])[0]


def wait() -> None:
    """Until every rank is here."""
    gather([None])


def _is_open() -> bool:
    return dist.is_available() and dist.is_initialized()


def _together(step: Callable[[], Any]) -> None:
    try:
        step()
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[0]
        raise TinyLoraError(
            f"Another process of this run has ended, or does not answer ({cause}), so the step "
            "cannot be finished. Its own message says why. Resume from the last checkpoint with "
            "--resume, with any number of processes."
        ) from error
