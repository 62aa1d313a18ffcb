"""Runs on the embedded model that come with the package."""

import json
from pathlib import Path

BOXED = Path(__file__).parent / "boxed.json"  # by how many numbers they trained
DEFAULT_BOX = "13"


def boxed_texts(name: str) -> dict[int, str]:
    """The snapshots of a run as texts, by their step."""
    runs = json.loads(BOXED.read_text(encoding="utf-8"))
    return {int(step): text for step, text in runs[name].items()}
