"""Silence for what transformers says while it loads: the command speaks for itself."""

from pathlib import Path

from transformers.utils import logging


def quieten(model: str) -> None:
    """No warnings from transformers, and progress bars for downloads alone."""
    if model == "pocket" or Path(model).expanduser().is_dir():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
