"""The state of a run on disk, such that a kill at any moment costs steps and never changes a bit.

A checkpoint is the policy's numbers, the optimiser's state, the count of finished steps, and the
best numbers that validation has seen, where there is one. The order of the problems and all
sampling at step t are functions of (seed, t) alone, so the seed and the count are the whole of the
randomness and of the position in the data.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from tinylora import distributed
from tinylora.atomic import write_atomically
from tinylora.errors import RequestError, TinyLoraError
from tinylora.policy import Policy

FILE_NAME = "state.pt"


class Optimizer(Protocol):
    """Whatever a step changes beside the policy's numbers."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Kept = Mapping[str, Any]
"""Everything else that goes on from step to step, by name: an `Optimizer` each, or None."""


def save_checkpoint(folder: Path, policy: Policy, kept: Kept, step: int, seed: int) -> None:
    """Replace the folder's checkpoint in one piece; of several processes, the first one writes."""
    if not distributed.is_main():
        return
    state = {
        "step": step,
        "seed": seed,
        "policy": policy.state_dict(),
        **{name: part and part.state_dict() for name, part in kept.items()},
    }
    data = io.BytesIO()
    torch.save(state, data)
    write_atomically(folder / FILE_NAME, data.getvalue())


def load_checkpoint(folder: Path, policy: Policy, kept: Kept, seed: int) -> int:
    """Put the checkpoint's state back; returns how many steps were finished (0: there is none).

    Raises:
        RequestError: it was written with another seed or for another policy.
        TinyLoraError: the file is damaged.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return 0
    state = _read(path)
    if state["seed"] != seed:
        raise RequestError(
            f"seed = {seed}, but {path} is from a run with seed = {state['seed']}, which saw "
            f"different problems. Resume with seed = {state['seed']}, or choose another output "
            "folder."
        )
    try:
        policy.load_state_dict(state["policy"])
        for name, part in kept.items():
            if part is not None and name in state:
                part.load_state_dict(state[name])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{path} is from a different policy ({error}). Resume with the settings of its "
            "config.yaml, or choose another output folder."
        ) from error
    return int(state["step"])


def _read(path: Path) -> dict[str, Any]:
    """The state, which has at least its own parts.

    Raises:
        TinyLoraError: what is in the file is something else.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle may fail anywhere in it
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise _damaged(path, cause) from error
    kinds = {"step": int, "seed": int, "policy": dict}
    for name, kind in kinds.items():
        if not isinstance(state, dict) or not isinstance(state.get(name), kind):
            raise _damaged(path, f"it lacks {name}")
    if state["step"] < 0:
        raise _damaged(path, f"step = {state['step']}")
    found: dict[str, Any] = state
    return found


def _damaged(path: Path, cause: str) -> TinyLoraError:
    return TinyLoraError(
        f"{path} cannot be read ({cause}). Delete the folder {path.parent} to start the run again "
        "from its first step."
    )
