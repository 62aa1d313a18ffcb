"""The hub: whether it answers, adapters on it, downloaded once and kept by huggingface_hub, and
folders that become repositories."""

import logging
import re
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tinylora.errors import RequestError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MESSAGE = "Adapter written by tinylora"
CURES: dict[int | None, str] = {  # by HTTP status
    401: 'The hub does not know the token: log in again with "hf auth login", or set HF_TOKEN.',
    403: "The token may not write there: use one with the right to write, or your own name.",
}
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


def is_kept(name: str, file_name: str) -> bool:
    """Whether a repository's file was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file_name), str)


def upload(folder: Path, name: str, *, private: bool) -> str:
    """Make the repository, where it is not there, and put the folder's files into it.

    Returns:
        The address of the commit.

    Raises:
        RequestError: there is no token, or it does not suffice; the hub cannot be reached; the
            repository is there already, with something else in it or open to everybody.
    """
    from huggingface_hub import HfApi, errors, get_token

    if get_token() is None:
        raise RequestError(
            f"No token for the hub is on this machine, so {name} cannot be written there. Log in "
            'with "hf auth login", or set HF_TOKEN; --dry-run needs none.'
        )
    api = HfApi()
    try:
        _make_repository(api, name, {file.name for file in folder.iterdir()}, private)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message=MESSAGE))
    except RequestError:  # which is a ValueError
        raise
    except (OSError, ValueError, RuntimeError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        is_upload = isinstance(error, RuntimeError)  # which says only what file it was
        reason = (error.__cause__ if is_upload else None) or error
        cause = str(reason).strip().split("\n")[0].rstrip(".")
        status = getattr(getattr(reason, "response", None), "status_code", None)
        cure = CURES.get(status, "Push again when the hub can be reached.")
        raise RequestError(f"{name} was not published ({cause}). {cure}") from error


def _make_repository(api: "HfApi", name: str, files: Set[str], private: bool) -> None:
    """A repository that is free for these files."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        there = api.model_info(name)
    except RepositoryNotFoundError:
        api.create_repo(name, private=private, exist_ok=True)
        return
    held = {item.rfilename for item in there.siblings or []} - {".gitattributes"}
    if others := sorted(held - files):
        raise RequestError(
            f"{name} is on the hub already and holds {', '.join(others[:3])}, so it is not an "
            "adapter's repository and its card would be lost. Choose another name."
        )
    if private and not there.private:
        raise RequestError(
            f"{name} is on the hub already and open to everybody, which --private would not "
            "change. Make it private in its settings first, or choose another name."
        )
