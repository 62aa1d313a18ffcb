"""Files that are whole or not there: whoever looks finds the old one or the new one."""

import os
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, is_shared: bool = False) -> None:
    """Replace `path` by these bytes; after a failure it is as it was, and nothing else is left.

    Args:
        is_shared: other processes may write the same path at the same time.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
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
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """A rename outlives a power cut only once its folder is on the disk (POSIX alone has this)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
