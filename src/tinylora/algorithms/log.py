"""The record of a run: metrics.jsonl, samples.jsonl, the terminal, a tracker if asked.

Lines are numbered by finished steps. When a run is resumed, the lines behind its checkpoint are
dropped, because those steps are taken again.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from tinylora.algorithms.display import Display
from tinylora.algorithms.trackers import open_tracker
from tinylora.atomic import write_atomically


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
        self._display = Display(total_steps, console or Console())
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
    """Drop the lines of later steps, and what a kill or a power cut left of a line; atomic."""
    if path.exists():
        kept = [raw for raw, line in whole_lines(path) if line["step"] <= step]
        write_atomically(path, b"".join(kept))


def whole_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """The lines of a record that can be read, as they are and as objects; none: there is no file.

    A kill leaves half a line at the end, a power cut zeros where lines were not yet on the disk.
    """
    if not path.is_file():
        return
    with path.open("rb") as file:
        for raw in file:
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            if raw.endswith(b"\n") and isinstance(line, dict) and isinstance(line.get("step"), int):
                yield raw, line


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
