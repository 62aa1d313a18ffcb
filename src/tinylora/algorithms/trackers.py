"""Trackers of metrics: TensorBoard, Weights & Biases, trackio.

Not accelerate's: they start only in a process whose device and process group are accelerate's
state, and for TensorBoard they take no settings that are lists.
"""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from tinylora.errors import RequestError, install_hint

PROJECT = "tinylora"
Tracker = tuple[Callable[[int, Mapping[str, float]], None], Callable[[], None]]


def open_tracker(name: str | None, folder: Path, settings: Mapping[str, Any]) -> Tracker:
    """(log a step's metrics, close) of a tracker.

    Offline: TensorBoard and trackio write local files anyway; wandb does with WANDB_MODE=offline.

    Raises:
        RequestError: the tracker is unknown, not installed, or does not start, such as one that
            is not logged in.
    """
    if name is None:
        return (lambda step, metrics: None), (lambda: None)
    if name not in OPENERS:
        raise RequestError(
            f'track = "{name}" is not a known tracker. Use one of {", ".join(OPENERS)}.'
        )
    try:
        import_module(name)  # the first to miss it: torch takes another package for tensorboard
        return OPENERS[name](folder, dict(settings))
    except ImportError as error:
        raise missing_tracker(name, f" ({error})") from error
    except Exception as error:  # each tracker has errors of its own
        cause = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(
            f"track = {name}, but {name} did not start: {cause.rstrip('.')}. Log in to {name}, or "
            "leave track out: metrics.jsonl has the same values."
        ) from error


def _tensorboard(folder: Path, settings: dict[str, Any]) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder / "tensorboard"))
    writer.add_text("settings", json.dumps(settings, indent=1, default=str))

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log, writer.close


def _wandb(folder: Path, settings: dict[str, Any]) -> Tracker:
    run = import_module("wandb").init(
        project=PROJECT,
        name=folder.name,
        dir=str(folder),
        config=settings,
        reinit="finish_previous",
    )
    return (lambda step, metrics: run.log(dict(metrics), step=step)), run.finish


def _trackio(folder: Path, settings: dict[str, Any]) -> Tracker:
    run = import_module("trackio").init(project=PROJECT, name=folder.name, config=settings)
    return (lambda step, metrics: run.log(dict(metrics), step=step)), run.finish


OPENERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}


def missing_tracker(name: str, cause: str = "") -> RequestError:
    """What to say where a tracker's package is not there."""
    return RequestError(
        f"track = {name}, but {name} is not installed{cause}. {install_hint('track')}"
    )
