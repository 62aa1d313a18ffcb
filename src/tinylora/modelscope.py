"""Models from ModelScope by their id: `--model modelscope:Qwen/Qwen2.5-0.5B-Instruct`.

For networks where the Hugging Face hub cannot be reached. ModelScope's own library downloads into
its own cache; what it returns is a folder like any other.
"""

from pathlib import Path

from tinylora.errors import RequestError, install_hint

PREFIX = "modelscope:"


def from_modelscope(name: str) -> Path | None:
    """The folder of a `modelscope:` model, downloaded if need be; None for any other name.

    Raises:
        RequestError: the library is not installed, or ModelScope did not provide the model.
    """
    if not name.startswith(PREFIX):
        return None
    try:
        from modelscope import snapshot_download  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise RequestError(
            f"model = {name} needs ModelScope's library ({error}). {install_hint('modelscope')}"
        ) from error
    try:
        return Path(snapshot_download(name.removeprefix(PREFIX)))
    except Exception as error:  # its own classes, requests' and OSError's
        cause = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise RequestError(
            f"ModelScope did not provide {name.removeprefix(PREFIX)} ({cause}). Use an id that it "
            "has, such as modelscope:Qwen/Qwen2.5-0.5B-Instruct."
        ) from error
