"""The hub: whether it answers, and adapters on it, downloaded once and kept by huggingface_hub."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinylora.errors import RequestError

PATIENCE_S = 5.0  # for one answer; its client would try again for a minute
KNOWN_FOR_S = 300.0

_asked: dict[str, tuple[float, bool]] = {}  # by address: when, and whether it answered


@contextmanager
def offline_without_hub() -> Iterator[None]:
    """Inside, libraries look only into the hub's cache where the hub itself does not answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or answers(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def answers(address: str) -> bool:
    """Whether there is an answer of any kind; asked once in a while, and never for long."""
    import httpx

    asked, answered = _asked.get(address, (-KNOWN_FOR_S, False))
    if time.monotonic() - asked > KNOWN_FOR_S:
        try:
            httpx.head(address, timeout=PATIENCE_S)
            answered = True
        except (httpx.HTTPError, OSError):
            answered = False
        _asked[address] = time.monotonic(), answered
    return answered


def is_hub_id(name: str) -> bool:
    """Whether this can be a repository and is no path here: no folder has the owner's name."""
    owner, _, _ = name.partition("/")
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None and not Path(owner).is_dir()


def download(name: str, file_name: str) -> Path:
    """The path of a repository's file on this machine.

    Raises:
        RequestError: the hub cannot be reached, or has no such repository or file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    verbosity = get_verbosity()
    set_verbosity(logging.ERROR)  # it would tell of each of its attempts
    try:
        with offline_without_hub():
            return Path(hf_hub_download(name, file_name))
    except (OSError, ValueError, EntryNotFoundError) as error:
        cause = str(error).strip().split("\n")[0].rstrip(".")
        raise RequestError(
            f"{name} is neither a file nor a run folder, and the hub did not provide its "
            f"{file_name} ({cause}). Pass the path of an adapter file or of a run folder, or its "
            "text, or go online to load one from the hub."
        ) from error
    finally:
        set_verbosity(verbosity)
