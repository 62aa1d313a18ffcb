"""Where things are kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """`TINYLORA_CACHE` (default: `$XDG_CACHE_HOME/tinylora`); None where it is `off`."""
    chosen = os.environ.get("TINYLORA_CACHE")
    if chosen is None:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinylora"
    return None if chosen.lower() in ("", "0", "off", "none") else Path(chosen)
