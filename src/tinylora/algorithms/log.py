"""What a run says while it runs: metrics.jsonl, samples.jsonl, the terminal, a tracker if asked.

Lines are numbered by finished steps. When a run is resumed, the lines behind its checkpoint are
dropped, because those steps are taken again.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from tinylora.atomic import write_atomically
from tinylora.errors import RequestError

SHOWN = {  # metric -> how the terminal shows it
    "reward": "reward {:.3f}",
    "completion_length": "length {:.0f}",
    "validation_accuracy": "validation {:.1%}",
    "zero_variance_share": "no variance {:.0%}",
    "v_norm": "|v| {:.3f}",
    "rollout_difference_mean": "rollout off by {:.1e}",
    "snr": "SNR {:.1f}",
    "kl_rollout": "KL {:.1e}",
}
ETA_WINDOW = 20  # steps whose mean time predicts the rest


class RunLog:
    """The record of one run, in its folder and on the terminal.

    Args:
        folder: of the run.
        total_steps: for the progress display.
        track: tensorboard, wandb or trackio; None: files alone.
        settings: shown by the tracker beside the curves.
        console: where progress goes; a live bar on a terminal, plain lines elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        *,
        track: str | None = None,
        settings: Mapping[str, Any] | None = None,
        console: Console | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.metrics_path = folder / "metrics.jsonl"
        self.samples_path = folder / "samples.jsonl"
        self._display = _Display(total_steps, console or Console())
        self._track, self._close = open_tracker(track, folder, settings or {})

    def rewind(self, step: int) -> None:
        """Forget everything after the first `step` steps."""
        for path in (self.metrics_path, self.samples_path):
            keep_steps(path, step)
        self._display.rewind(step)

    def step(self, metrics: Mapping[str, float], samples: Sequence[Mapping[str, Any]]) -> None:
        """Record a finished step; `metrics["step"]` is its number, counted from 1."""
        _append(self.samples_path, samples)
        _append(self.metrics_path, [metrics])
        self._display.step(metrics)
        curves = {name: value for name, value in metrics.items() if name != "step"}
        self._track(int(metrics["step"]), curves)

    def warn(self, sentence: str) -> None:
        """Say something once, beside the progress."""
        self._display.console.print(sentence, soft_wrap=True, highlight=False, markup=False)

    def close(self) -> None:
        """End the live display and the tracker."""
        self._display.close()
        self._close()


class NoLog:
    """The log of a process that does not write."""

    def rewind(self, step: int) -> None:
        """Nothing."""

    def step(self, metrics: Mapping[str, float], samples: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""

    def warn(self, sentence: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def keep_steps(path: Path, step: int) -> None:
    """Drop the lines of later steps, and a line that was cut off by a kill; atomic."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="\n") as file:
        kept = [line for line in file if line.endswith("\n") and json.loads(line)["step"] <= step]
    write_atomically(path, "".join(kept).encode())


def _append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(dict(line), ensure_ascii=False) + "\n" for line in lines))


class PhaseClock:
    """Seconds by phase of one step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start

    def metrics(self) -> dict[str, float]:
        """`seconds` since the clock was made, and `seconds_PHASE` of each."""
        total = time.perf_counter() - self._start
        return {"seconds": total, **{f"seconds_{name}": s for name, s in self.seconds.items()}}


class _Display:
    """A live bar with what matters and an ETA on a terminal; a plain line a step elsewhere."""

    def __init__(self, total_steps: int, console: Console) -> None:
        self.total_steps, self.console = total_steps, console
        self.recent_seconds: deque[float] = deque(maxlen=ETA_WINDOW)
        self.progress: Progress | None = None
        self.bar: TaskID | None = None
        self.first_step = 0

    def rewind(self, step: int) -> None:
        self.first_step = step

    def step(self, metrics: Mapping[str, float]) -> None:
        step = int(metrics["step"])
        self.recent_seconds.append(metrics["seconds"])
        text = "  ".join(
            form.format(metrics[name]) for name, form in SHOWN.items() if name in metrics
        )
        text += f"  {metrics['seconds']:.1f} s  ETA {self._eta(step)}"
        if self.console.is_terminal:
            self._update_bar(step, text)
        else:
            self.console.print(f"step {step}/{self.total_steps}  {text}", soft_wrap=True)

    def _eta(self, step: int) -> str:
        mean = sum(self.recent_seconds) / len(self.recent_seconds)
        return str(timedelta(seconds=round(mean * (self.total_steps - step))))

    def _update_bar(self, step: int, text: str) -> None:
        if self.progress is None:
            columns = (
                MofNCompleteColumn(),
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
            )
            self.progress = Progress(*columns, console=self.console)
            self.bar = self.progress.add_task(
                text, total=self.total_steps, completed=self.first_step
            )
            self.progress.start()
        assert self.bar is not None
        self.progress.update(self.bar, completed=step, description=text)

    def close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


Tracker = tuple[Callable[[int, Mapping[str, float]], None], Callable[[], None]]


def open_tracker(name: str | None, folder: Path, settings: Mapping[str, Any]) -> Tracker:
    """(log a step's metrics, close) of a tracker.

    Offline: TensorBoard and trackio write local files anyway; wandb does with WANDB_MODE=offline.

    Raises:
        RequestError: the tracker is unknown or not installed.
    """
    if name is None:
        return (lambda step, metrics: None), (lambda: None)
    openers = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
    if name not in openers:
        raise RequestError(f'track = "{name}" is no tracker. Use one of {", ".join(openers)}.')
    return openers[name](folder, settings)


def missing_tracker(name: str, cause: str = "") -> RequestError:
    """What to say where a tracker's package is not there."""
    return RequestError(
        f"track = {name}, but {name} is not installed{cause}. Install the extra: "
        'pip install "tinylora[track]".'
    )


def _tensorboard(folder: Path, settings: Mapping[str, Any]) -> Tracker:
    _import("tensorboard", "tensorboard")
    writer = _import("torch.utils.tensorboard", "tensorboard").SummaryWriter(
        str(folder / "tensorboard")
    )
    writer.add_text("settings", json.dumps(dict(settings), indent=1, default=str))

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log, writer.close


def _wandb(folder: Path, settings: Mapping[str, Any]) -> Tracker:
    wandb = _import("wandb", "wandb")
    run = wandb.init(
        project="tinylora",
        name=folder.name,
        dir=str(folder),
        config=dict(settings),
        reinit="finish_previous",
    )
    return (lambda step, metrics: run.log(dict(metrics), step=step)), run.finish


def _trackio(folder: Path, settings: Mapping[str, Any]) -> Tracker:
    trackio = _import("trackio", "trackio")
    trackio.init(project="tinylora", name=folder.name, config=dict(settings))
    return (lambda step, metrics: trackio.log(dict(metrics), step=step)), trackio.finish


def _import(module: str, tracker: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise missing_tracker(tracker, f" ({error})") from error
