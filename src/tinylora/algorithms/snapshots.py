"""Snapshots: the adapter after steps 1, 2, 4, 8, ..., each as an ordinary adapter file.

A snapshot is a function of the run's step alone, so a resumed run writes the same ones: those of
steps that are taken again are dropped first. Each is measured at the end of the run, from its
file, on the test problems of the base and the final adapter; FILE.json beside it holds the figures.
"""

import re
from pathlib import Path

from tinylora.adapter.files import Store
from tinylora.policy import Policy, adapter_of

FILE = re.compile(r"step-(\d{6,})\.safetensors")


def is_due(step: int) -> bool:
    """Whether `step` (from 1) is a power of two."""
    return step & (step - 1) == 0


class Snapshots:
    """Writes the adapter's file after each step for which one is due.

    Args:
        folder: of the files; made with the first one.
        store: the precision of the parameters in them.
        writes: False in a process that leaves the files to another one.
    """

    def __init__(self, folder: Path, store: Store, *, writes: bool = True) -> None:
        self.folder, self.store, self.writes = folder, store, writes

    def after(self, step: int, policy: Policy) -> None:
        """Keep the policy's present parameters, if a snapshot is due.

        Raises:
            RequestError: the policy has no adapter.
        """
        if self.writes and is_due(step):
            path = self.folder / f"step-{step:06d}.safetensors"
            figures(path).unlink(missing_ok=True)
            self.folder.mkdir(exist_ok=True)
            adapter_of(policy, "A snapshot").save(path, self.store)

    def rewind(self, step: int) -> None:
        """Forget the snapshots after the first `step` steps."""
        for later, path in found(self.folder).items():
            if self.writes and later > step:
                figures(path).unlink(missing_ok=True)
                path.unlink()


def found(folder: Path) -> dict[int, Path]:
    """The snapshots of a run, by their step, the first one first."""
    files = [(FILE.fullmatch(path.name), path) for path in sorted(folder.glob("step-*"))]
    return {int(match[1]): path for match, path in files if match}


def figures(path: Path) -> Path:
    """Where the figures of a snapshot are kept."""
    return path.with_suffix(".json")
