"""Which programs may run now: one for each core, in all processes of this user together.

A slot is a lock on a file that stands for a core. So the ranks of a run that share a core take
turns, and those that have cores of their own do not wait for each other. The kernel frees the slots
of a process that dies.

Not covered: other users of the machine, and containers with temporary folders of their own.
"""

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CORES: tuple[int, ...] = (
    tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (0,)
)
NUM_CORES = len(CORES)
_POLL_S = 0.01
_places = ("/dev/shm", tempfile.gettempdir())
_queue = threading.Lock()  # one thread of this process looks for a slot, the others wait for it
_held: set[int] = set()


@contextmanager
def slots(alone: bool = False, cores: Sequence[int] = CORES) -> Iterator[None]:
    """Wait for a slot and hold it; `alone`: all of them, so that no other program runs.

    Raises:
        OSError: the files cannot be opened.
    """
    held: list[int] = []
    try:
        if alone:  # one at a time: two that collect slots would wait for each other
            held.append(_locked("all"))
            held += [_locked(f"core-{core}") for core in cores]
        else:
            with _queue:
                held.append(_any_of(cores))
        yield
    finally:
        for descriptor in held:
            _release(descriptor)


def try_slot(core: int) -> int | None:
    """A descriptor that holds this core's slot, or None where another holds it."""
    descriptor = _opened(f"core-{core}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _release(descriptor)
        return None
    return descriptor


def _any_of(cores: Sequence[int]) -> int:
    while True:
        for core in cores:
            descriptor = try_slot(core)
            if descriptor is not None:
                return descriptor
        time.sleep(_POLL_S)


def _locked(name: str) -> int:
    descriptor = _opened(name)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _opened(name: str) -> int:
    path = _folder() / name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    _held.add(descriptor)
    return descriptor


def _folder() -> Path:
    """This user's own folder; in another's, anybody could hold the slots."""
    for place in _places:
        folder = Path(place, f"tinylora-slots-{os.geteuid()}")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        if folder.lstat().st_uid == os.geteuid() and not folder.is_symlink():
            return folder
    raise OSError(f"no folder for the slots of the judge can be made in {' or '.join(_places)}")


def _release(descriptor: int) -> None:
    if descriptor in _held:
        _held.discard(descriptor)
        os.close(descriptor)


def _after_fork() -> None:
    """A child of a fork would keep its parent's slots for as long as it lives."""
    global _queue
    _queue = threading.Lock()
    for descriptor in list(_held):
        _release(descriptor)


os.register_at_fork(after_in_child=_after_fork)
