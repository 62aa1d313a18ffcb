"""How each run of a sweep ended, in its folder: done, failed, cancelled, or not yet (open).

A run is *done* when its `summary.json` is there (training writes it last). *Failed* and *cancelled*
runs keep a `failure.txt` that says which and why; the next call resumes both from their checkpoint.
"""

import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinylora.atomic import write_atomically
from tinylora.errors import TinyLoraError

FAILURE = "failure.txt"
SUMMARY = "summary.json"
BASES = "bases"  # the accuracies of the base models, by the settings that decide them
OF_THE_BASE = (  # settings that decide the base model's accuracy
    "model", "task", "data", "quantize", "dtype", "seed", "temperature", "max_new_tokens",
    "eval_problems", "eval_samples", "prompt_template", "chat_template", "enable_thinking",
    "long_prompts",
)  # fmt: skip


def state(folder: Path) -> str:
    """done, failed, cancelled or open."""
    if (folder / SUMMARY).is_file():
        return "done"
    failure = folder / FAILURE
    if failure.is_file():
        return failure.read_text(encoding="utf-8").split(":", 1)[0]
    return "open"


def summary(folder: Path) -> dict[str, Any]:
    """The results of a run that is done."""
    held: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    return held


def execute(settings: Mapping[str, Any], sweep: Path, name: str) -> str:
    """Start one run, or resume it; returns its state. Nothing that it raises escapes.

    What it prints is in the sweep's `logs/NAME.txt`.
    """
    folder = sweep / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        _train(settings, sweep, folder)
        (folder / FAILURE).unlink(missing_ok=True)
    except KeyboardInterrupt:
        mark(folder, "cancelled", "interrupted")
    except TinyLoraError as error:
        mark(folder, "failed", str(error))
    except Exception:  # one run that fails does not stop the others, whatever it raises
        mark(folder, "failed", traceback.format_exc())
    return state(folder)


def mark(folder: Path, what: str, cause: str) -> None:
    """Note in the folder how a run ended without results, and why."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FAILURE, f"{what}: {cause}\n".encode())


def _train(settings: Mapping[str, Any], sweep: Path, folder: Path) -> None:
    from rich.console import Console

    from tinylora.run.training import train
    from tinylora.settings import unflatten

    resume = (folder / "config.yaml").is_file()
    if not resume:  # it may have failed before it had begun, and its folder must be free
        (folder / FAILURE).unlink(missing_ok=True)
    config = unflatten({**settings, "output": str(folder)})
    known = sweep / BASES / f"{_key(settings)}.json"
    base = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else None
    log = sweep / "logs" / f"{folder.name}.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        console = Console(file=file, width=120)
        ended = train(config, resume=resume, console=console, base=base)
    if base is None:
        known.parent.mkdir(exist_ok=True)
        write_atomically(known, json.dumps(ended["evaluations"]["base"]).encode())


def _key(settings: Mapping[str, Any]) -> str:
    """Equal for runs whose base models answer alike."""
    import hashlib

    held = {name: settings.get(name) for name in OF_THE_BASE}
    return hashlib.sha256(json.dumps(held, sort_keys=True, default=str).encode()).hexdigest()[:16]
