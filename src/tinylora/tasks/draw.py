"""Which problems a step sees, and the seeds of everything random: functions of (seed, step)."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from tinylora.tasks.task import Problem


def draw_problems(problems: Sequence[Problem], count: int, seed: int, step: int) -> list[Problem]:
    """The step's problems: each epoch goes through all of them in an order of its own."""
    places = range(step * count, (step + 1) * count)
    size = len(problems)
    return [problems[int(epoch_order(size, seed, i // size)[i % size])] for i in places]


@lru_cache(maxsize=2)
def epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    """A permutation of the problems for one epoch."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(size, generator=generator)


def derive_seed(seed: int, purpose: str, number: int) -> int:
    """A seed of its own for every purpose and step, unrelated to its neighbours."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
