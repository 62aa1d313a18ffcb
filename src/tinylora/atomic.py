"""Files that are whole or not there: whoever looks finds the old one or the new one."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinylora.errors import RequestError


def write_atomically(path: Path, data: bytes, *, is_shared: bool = False) -> None:
    """Replace `path` by these bytes; after a failure it is as it was, and nothing else is left.

    Args:
        is_shared: other processes may write the same path at the same time.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path = path.expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp" if is_shared else f"{path.name}.tmp")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to fill; it becomes `path` when the block ends, and is gone if it fails.

    Raises:
        RequestError: something is at `path` already (an empty folder may be).
        OSError: the disk is full, or the folder around it cannot be written.
    """
    path = path.expanduser()
    check_free(path)
    scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        for file in scratch.rglob("*"):
            _sync(file)
        os.replace(scratch, path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _sync(path.parent)


def check_free(path: Path) -> None:
    """Refuse a folder that holds anything, a file of that name, and the folder one is in."""
    path = path.expanduser()
    if path.resolve() == Path.cwd():
        raise RequestError(
            f"{path} is the current working folder, which cannot be replaced. Choose a folder "
            "inside it."
        )
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise RequestError(
            f"{path} already exists, and its contents would be mixed up with the new files. "
            "Choose another folder."
        )


def _sync(path: Path) -> None:
    """A rename outlives a power cut only once what it names, and its folder, are on the disk.

    POSIX alone has this for folders.
    """
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
