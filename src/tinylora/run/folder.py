"""The folder of one run: who may write into it, and what is where.

`config.yaml` is written first; a folder that has one is a run, finished or not.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tinylora.adapter.files import FILE_NAME
from tinylora.algorithms.log import whole_lines
from tinylora.atomic import write_atomically
from tinylora.errors import RequestError
from tinylora.settings import flatten, recorded, unflatten
from tinylora.settings.evaluate import SNAPSHOTS

MAY_CHANGE = {
    *("steps", "max_minutes", "checkpoint_every", "snapshots", "track", "output", "device"),
    *("fsdp", "attention", "micro_batch_tokens", "activation_checkpointing"),
    *("no_signal_steps", "on_no_signal"),
    *("rollout", "rollout_tolerance", "rollout_cache_gib", "rollout_timeout_s", "adapter_dir"),
}
LOCAL_PATHS = ("model", "task", "data", "adapter_dir")  # settings that may be paths
NAMES = ("pocket", "smollm2")  # which a folder of that name does not change


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def adapter(self) -> Path:
        return self.path / FILE_NAME

    @property
    def best(self) -> Path:
        """A folder of its own for what validation found best."""
        return self.path / "best"

    @property
    def snapshots(self) -> Path:
        """The adapter after steps 1, 2, 4, 8, ..., and its figures."""
        return self.path / SNAPSHOTS

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def base(self) -> Path:
        return self.path / "base.json"

    @property
    def origin(self) -> Path:
        return self.path / "origin.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def curve(self) -> Path:
        return self.path / "curve.png"

    def write_config(self, settings: str) -> None:
        """Create the folder and record the resolved settings, in YAML."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.config, settings.encode())

    def seconds_before(self) -> float:
        """What the steps before an interruption took."""
        return sum(float(line.get("seconds", 0.0)) for _, line in whole_lines(self.metrics))

    def measured_base(self) -> dict[str, Any] | None:
        """The accuracies of the base that an earlier start has measured; None: there are none, or
        a power cut left half of them."""
        try:
            held = json.loads(self.base.read_bytes())
            return held if {"greedy", "sampled"} <= held.keys() else None
        except (OSError, ValueError, AttributeError):
            return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process may write into the folder.

        The operating system frees the lock when the process ends, however it ends. A folder that
        is empty afterwards is gone.

        Raises:
            RequestError: another process is at work in it.
        """
        was_there = self.path.is_dir()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with self._lock_file() as file:
                yield
                file.flush()
                self.lock.unlink(missing_ok=True)
        finally:
            if not was_there and not any(self.path.iterdir()):
                self.path.rmdir()

    @contextmanager
    def _lock_file(self) -> Iterator[IO[str]]:
        with self.lock.open("a+", encoding="utf-8") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    yield file  # a network file system without locks
                    return
                file.seek(0)
                owner = file.read(100).strip() or "another process"
                raise RequestError(
                    f"output = {self.path} is in use: {owner} trains into it, and two runs would "
                    "overwrite each other. Wait until it has ended, or choose another folder."
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield file


def recordable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings, with the paths of what is here written out, so that they hold anywhere."""
    found = dict(settings)
    for name in LOCAL_PATHS:
        value = found.get(name)
        if not isinstance(value, str) or value in NAMES:
            continue
        path, colon, function = value.partition(":") if name == "task" else (value, "", "")
        if path and os.path.exists(path) and (name != "task" or os.path.isfile(path)):
            found[name] = os.path.abspath(path) + colon + function
    return found


def discard(folder: RunFolder) -> None:
    """Remove what a run has written that failed before it measured anything."""
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path != folder.lock:
            path.unlink(missing_ok=True)


def new_folder(output: str | None, task_name: str, seed: int) -> RunFolder:
    """The folder that the settings name, or a new one under `runs/`."""
    if output is not None:
        return RunFolder(Path(output))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    slug = re.sub(r"[^\w.-]+", "-", task_name).strip("-.") or "task"
    return RunFolder(Path("runs") / f"{slug}-seed{seed}-{stamp}")


def check_free(folder: RunFolder) -> None:
    """Refuse to write into a folder that holds anything.

    Raises:
        RequestError: it holds another run, or other files.
    """
    if folder.path.is_dir() and not {*folder.path.iterdir()} - {folder.lock}:
        return
    if not folder.path.exists():
        return
    if folder.config.is_file():
        raise RequestError(
            f"output = {folder.path} contains another run, and its results would be overwritten. "
            "Choose another output folder, or resume that run with --resume."
        )
    raise RequestError(
        f"output = {folder.path} exists and is not an empty folder, so a run cannot be kept apart "
        "from what is there. Choose another output folder."
    )


def recorded_settings(folder: RunFolder) -> dict[str, Any]:
    """The settings of the run that the folder holds.

    Raises:
        RequestError: it holds none.
    """
    if not folder.config.is_file():
        raise RequestError(
            f"{folder.path} is not a run that can be resumed: it lacks config.yaml. Pass the "
            "run's folder as output, or start it without --resume."
        )
    return recorded(folder.config)


def check_folder(folder: RunFolder, settings: Mapping[str, Any], resume: bool) -> None:
    """Refuse a folder that cannot take this run.

    Raises:
        RequestError: a new run would overwrite something, or a resumed one would be another run.
    """
    if resume:
        check_same_run(folder, settings)
    else:
        check_free(folder)


def check_same_run(folder: RunFolder, now: Mapping[str, Any]) -> None:
    """Refuse to resume a run under settings that would make it another one.

    Args:
        now: as `recordable` has them.

    Raises:
        RequestError: a setting differs that may not.
    """
    before = recordable(flatten(unflatten(recorded_settings(folder))))
    changed = [name for name in now if name not in MAY_CHANGE and now[name] != before.get(name)]
    if changed:
        name = changed[0]
        raise RequestError(
            f"{name} = {now[name]}, but the run in {folder.path} began with {name} = "
            f"{before.get(name)}. A resumed run keeps its original settings. Leave {name} out, "
            "or start a new run with a different output folder."
        )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON for people and programs, atomically."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())
