"""Runs as lines of JSON: what figures are drawn from, small enough to be committed.

A result holds the figure it belongs to, the settings that were given, and what the run ended with.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinylora.atomic import write_atomically
from tinylora.errors import RequestError
from tinylora.sweep import outcomes
from tinylora.sweep.grid import Grid, GridRun

KEPT = (
    "model", "model_parameters", "num_modules", "method", "algorithm", "reward_control",
    "u", "num_groups",
    "base_accuracy", "final_accuracy", "base_accuracy_sampled", "final_accuracy_sampled",
    "num_trainable", "adapter_bytes", "store", "steps", "rollouts_per_step", "seconds",
)  # fmt: skip
CURVES = (
    "reward", "true_reward", "completion_length", "kl_rollout", "validation_accuracy", "seconds",
)  # fmt: skip

Result = dict[str, Any]


class Drawn(BaseModel):
    """What figures are drawn from, of each run."""

    model_config = ConfigDict(allow_inf_nan=False)

    figure: str
    settings: dict[str, Any]
    is_best_rate: bool
    method: str
    algorithm: str = ""
    model_parameters: float
    num_modules: int
    u: int | None = None
    base_accuracy: float
    final_accuracy: float
    base_accuracy_sampled: float
    final_accuracy_sampled: float
    num_trainable: Annotated[int, Field(gt=0)]
    adapter_bytes: Annotated[float, Field(gt=0)]
    seconds: float
    rollouts_per_step: float | None = None
    curves: dict[str, list[float | None]] = {}


def write_results(
    grid: Grid, wanted: Sequence[GridRun], everything: Sequence[GridRun], folder: Path
) -> None:
    """Write GRID.jsonl of a sweep folder, in the order of the grid's points.

    Args:
        wanted: the runs at the best rate of their point, which figures show.
        everything: these, and the runs at other rates.
    """
    shown = {run.folder_name for run in wanted}
    lines = []
    for run in sorted(everything, key=lambda run: (grid.points.index(run.point), run.seed)):
        place = folder / run.folder_name
        if outcomes.state(place) == "done":
            result = _result(grid, run, place)
            lines.append(json.dumps({**result, "is_best_rate": run.folder_name in shown}))
    write_atomically(folder / f"{grid.name}.jsonl", "".join(f"{line}\n" for line in lines).encode())


def read_results(places: Sequence[str]) -> list[Result]:
    """The results of sweep folders, of single run folders, and of files of results.

    Raises:
        RequestError: a place holds none.
    """
    return [_checked(result, place) for place in places for result in _read(Path(place))]


def _checked(result: Any, place: str) -> Result:
    """The result as it is.

    Raises:
        RequestError: something that figures are drawn from is not there, or of another kind.
    """
    try:
        Drawn.model_validate(result)
    except ValidationError as error:
        finding = error.errors()[0]
        raise RequestError(
            f"'{place}' holds a result that cannot be drawn: "
            f"{'.'.join(map(str, finding['loc'])) or 'it'}: {finding['msg']}. The file is damaged, "
            "or from another version: leave it out, or run it again."
        ) from None
    held: Result = result
    return held


def _read(place: Path) -> Iterator[Result]:
    if (place / outcomes.SUMMARY).is_file():
        yield _run_result(place)
        return
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    if not files or not all(file.is_file() and file.suffix == ".jsonl" for file in files):
        raise _not_results(place)
    for file in files:
        for number, line in enumerate(file.read_bytes().splitlines(), start=1):
            result = _json(line, f"{file}, line {number},")
            if "is_best_rate" not in result:  # such as the metrics of a run that has not ended
                raise _not_results(place)
            yield result


def _json(text: bytes, what: str) -> Result:
    try:
        held = json.loads(text)
    except (ValueError, RecursionError):
        held = None
    if not isinstance(held, dict):
        raise RequestError(f"{what} is not a JSON object: the file is damaged. Leave it out.")
    return held


def _not_results(place: Path) -> RequestError:
    return RequestError(
        f"'{place}' is not a finished run, a sweep folder or a file of results. Pass folders that "
        '"tinylora train" or "tinylora sweep" wrote, or the .jsonl files of a sweep.'
    )


def _run_result(folder: Path) -> Result:
    """A finished run that is not part of a sweep."""
    from tinylora.settings import load_recipe

    return {
        "figure": "run",
        "settings": load_recipe(folder / "config.yaml"),
        **_ended(_json((folder / outcomes.SUMMARY).read_bytes(), f"{folder / outcomes.SUMMARY}")),
        "curves": curves(folder),
        "is_best_rate": True,
    }


def _result(grid: Grid, run: GridRun, place: Path) -> Result:
    result = {
        "figure": grid.figure,
        "point": run.point.name,
        "settings": run.settings,
        **_ended(outcomes.summary(place)),
    }
    return {**result, "curves": curves(place)} if grid.curves else result


def _ended(summary: dict[str, Any]) -> Result:
    return {name: _short(summary[name]) for name in KEPT if name in summary}


def curves(place: Path) -> dict[str, list[Any]]:
    """Metrics by step; null where a step has none."""
    from tinylora.algorithms.log import whole_lines

    lines = [line for _, line in whole_lines(place / "metrics.jsonl")]
    held = {name: [_short(line.get(name)) for line in lines] for name in CURVES}
    return {name: values for name, values in held.items() if any(v is not None for v in values)}


def _short(value: Any) -> Any:
    """Four digits tell as much as sixteen."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
