"""Runs as lines of JSON: what figures are drawn from, small enough to be committed.

A record holds the figure it belongs to, the settings that were given, and what the run ended with.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinylora.atomic import write_atomically
from tinylora.errors import RequestError
from tinylora.sweep import runs
from tinylora.sweep.grid import Grid, Run

KEPT = (
    "model", "model_parameters", "num_modules", "method", "algorithm", "u", "num_groups",
    "base_accuracy", "final_accuracy", "base_accuracy_sampled", "final_accuracy_sampled",
    "num_trainable", "adapter_bytes", "store", "steps", "rollouts_per_step", "seconds",
)  # fmt: skip
CURVES = ("reward", "completion_length", "kl_rollout", "validation_accuracy", "seconds")

Record = dict[str, Any]


def write_records(
    grid: Grid, wanted: Sequence[Run], everything: Sequence[Run], folder: Path
) -> None:
    """GRID.jsonl of a sweep folder, in the order of the grid's points: the runs that figures show,
    and the rates beside them."""
    shown = {run.folder_name for run in wanted}
    lines = []
    for run in sorted(everything, key=lambda run: (grid.points.index(run.point), run.seed)):
        place = runs.folder_of(folder, run)
        if runs.state(place) == "done":
            record = _record(grid, run, place)
            lines.append(json.dumps({**record, "is_best_rate": run.folder_name in shown}))
    write_atomically(folder / f"{grid.name}.jsonl", "".join(f"{line}\n" for line in lines).encode())


def read_records(places: Sequence[str]) -> list[Record]:
    """The records of sweep folders, of single run folders, and of files of records.

    Raises:
        RequestError: a place holds none.
    """
    return [record for place in places for record in _read(Path(place))]


def _read(place: Path) -> Iterator[Record]:
    if (place / runs.SUMMARY).is_file():
        from tinylora.settings import load_recipe

        summary = runs.summary(place)
        yield {
            "figure": "run",
            "settings": load_recipe(place / "config.yaml"),
            **_ended(summary),
            "curves": curves(place),
            "is_best_rate": True,
        }
        return
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    if not files or not all(file.is_file() and file.suffix == ".jsonl" for file in files):
        raise RequestError(
            f"{place} is no run that has ended, no sweep folder and no file of records. Give "
            'folders that "tinylora train" or "tinylora sweep" wrote, or their .jsonl files.'
        )
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _record(grid: Grid, run: Run, place: Path) -> Record:
    record = {
        "figure": grid.figure,
        "point": run.point.name,
        "settings": run.settings,
        **_ended(runs.summary(place)),
    }
    return {**record, "curves": curves(place)} if grid.curves else record


def _ended(summary: dict[str, Any]) -> Record:
    return {name: _short(summary[name]) for name in KEPT if name in summary}


def curves(place: Path) -> dict[str, list[Any]]:
    """Metrics by step; null where a step has none."""
    file = place / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    held = {name: [_short(line.get(name)) for line in lines] for name in CURVES}
    return {name: values for name, values in held.items() if any(v is not None for v in values)}


def _short(value: Any) -> Any:
    """Four digits tell as much as sixteen."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
