"""Adapters on the hub: the file of a repository, downloaded once and kept by huggingface_hub."""

import logging
import re
from pathlib import Path

from tinylora.errors import RequestError


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
