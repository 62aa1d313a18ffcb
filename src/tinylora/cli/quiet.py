"""Silence for what libraries say while a model is found and loaded: the command speaks itself."""

from pathlib import Path

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging


def quieten(model: str) -> None:
    """No warnings from transformers and the hub's client; progress bars for downloads alone."""
    if model == "pocket" or Path(model).expanduser().is_dir():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
