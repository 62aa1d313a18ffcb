"""Silence for what transformers says while it loads: the command speaks for itself."""

from transformers.utils import logging


def quieten() -> None:
    """No progress bars and no warnings from transformers."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
