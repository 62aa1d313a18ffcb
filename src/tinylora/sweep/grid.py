"""A grid file to runs.

    figure: fig1               # which figure its runs belong to (optional)
    recipe: base.yaml          # settings of every run, from a file beside this one (optional)
    settings: {steps: 30}      # settings of every run (optional)
    points:                    # settings that differ; a list of values is multiplied out
      - {params: [1, 13]}
      - {method: lora, rank: [1, 8], learning_rate: [1.0e-3, 5.0e-3]}
    seeds: [0, 1, 2]
    rate_seeds: [0]            # seeds on which learning rates are compared (default: all)

A list under `learning_rate` is not an axis: the rates are compared on `rate_seeds`, and the best by
the mean of `objective` (default: final_accuracy) runs on the other seeds.

Importing this module imports no torch.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError

from tinylora.errors import RequestError
from tinylora.settings import FIELDS, TrainConfig, combine, load_recipe, nearest, unflatten

KEYS = ("figure", "recipe", "settings", "points", "seeds", "rate_seeds", "objective", "curves")


@dataclass(frozen=True)
class Point:
    """Settings that every seed shares, and the learning rates to choose from."""

    settings: dict[str, Any]  # flat, without seed and learning_rate
    rates: tuple[float | None, ...]  # None: the method's default

    @property
    def name(self) -> str:
        """For people: the settings in a line."""
        return " ".join(f"{name}={value}" for name, value in self.settings.items()) or "defaults"


@dataclass(frozen=True)
class GridRun:
    """One training run of the sweep."""

    point: Point
    rate: float | None
    seed: int
    grid: "Grid"

    @property
    def settings(self) -> dict[str, Any]:
        rate = {} if self.rate is None else {"learning_rate": self.rate}
        return {**combine(self.grid.common, self.point.settings), **rate, "seed": self.seed}

    @property
    def config(self) -> TrainConfig:
        return unflatten(self.settings)

    @property
    def folder_name(self) -> str:
        """Readable, different for different settings, and the same in every grid of a recipe."""
        settings, recipe = self.settings, self.grid.recipe
        shown = {k: v for k, v in sorted(settings.items()) if k not in recipe or recipe[k] != v}
        slug = re.sub(r"[^\w.=,-]+", "-", ",".join(f"{k}={v}" for k, v in shown.items()))
        text = json.dumps(settings, sort_keys=True, default=str)
        return f"{slug[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class GridFile(BaseModel):
    """The kinds of a grid file's values; what settings are is checked with each run."""

    figure: str = ""
    recipe: str = ""
    settings: Any = None
    points: list[Any] = Field(default=[{}], min_length=1)
    seeds: list[int] = [0]
    rate_seeds: list[int] = [0]
    objective: Literal["final_accuracy", "final_accuracy_sampled"] = "final_accuracy"
    curves: bool = False


@dataclass(frozen=True)
class Grid:
    """What a grid file asks for."""

    name: str
    figure: str
    recipe: dict[str, Any]  # settings from the recipe alone
    common: dict[str, Any]  # those and the grid's: what all runs share
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    rate_seeds: tuple[int, ...]
    objective: str
    curves: bool  # keep each step's metrics in the records

    def first_runs(self) -> list[GridRun]:
        """All that can run at once: every rate on its seeds, and points without a choice."""
        return [
            GridRun(point, rate, seed, self)
            for point in self.points
            for rate in point.rates
            for seed in (self.rate_seeds if len(point.rates) > 1 else self.seeds)
        ]

    def later_runs(self, best: Mapping[str, float | None]) -> list[GridRun]:
        """The other seeds, with the best rate of each point (by its name)."""
        return [
            GridRun(point, best[point.name], seed, self)
            for point in self.points
            if len(point.rates) > 1 and point.name in best
            for seed in self.seeds
            if seed not in self.rate_seeds
        ]


def load_grid(path: str | Path) -> Grid:
    """Read and check a grid; every run's settings are checked before the first one starts.

    Raises:
        RequestError: the file is missing, holds an unknown key, or settings that cannot be.
    """
    path = Path(path)
    held = _mapping(path)
    recipe = load_recipe(path.parent / held["recipe"]) if "recipe" in held else {}
    common = combine(recipe, _settings(held.get("settings", {}), f"{path}: settings"))
    points = tuple(_points(held.get("points", [{}]), common, path))
    common.pop("learning_rate", None)
    seeds = tuple(held.get("seeds", [0]))
    grid = Grid(
        path.stem,
        str(held.get("figure", path.stem)),
        recipe,
        common,
        points,
        seeds,
        tuple(held.get("rate_seeds", seeds)),
        str(held.get("objective", "final_accuracy")),
        bool(held.get("curves", False)),
    )
    _check(grid, path)
    return grid


def _check(grid: Grid, path: Path) -> None:
    names = [point.name for point in grid.points]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RequestError(f"{path}: the point {twice} is listed twice. Leave one out.")
    if not grid.seeds or not set(grid.rate_seeds) <= set(grid.seeds):
        raise RequestError(
            f"{path}: rate_seeds = {list(grid.rate_seeds)} with seeds = {list(grid.seeds)}, but "
            "rates are compared on some of the seeds. Choose rate_seeds among them."
        )
    for run in grid.first_runs():
        try:
            _ = run.config
        except RequestError as error:
            raise RequestError(f"{path}, point {run.point.name}: {error}") from None


def _mapping(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RequestError(f"The grid {path} does not exist. Pass the path of a YAML file.")
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(held, dict):
        raise RequestError(
            f"{path} is not a grid: it contains a {type(held).__name__}. A grid has the keys "
            f"{', '.join(KEYS)}."
        )
    for key in held:
        if key not in KEYS:
            raise RequestError(f"{path}: {key} is not a key of a grid.{nearest(str(key), KEYS)}")
    try:
        return dict(GridFile.model_validate(held).model_dump(exclude_unset=True))
    except ValidationError as error:
        finding = error.errors()[0]
        where = ".".join(map(str, finding["loc"]))
        raise RequestError(f"{path}: {where} = {finding['input']!r}: {finding['msg']}.") from None


def _points(
    entries: Sequence[Mapping[str, Any]], common: Mapping[str, Any], path: Path
) -> Iterator[Point]:
    for entry in entries:
        _settings(entry, f"{path}: points")
        rates = entry.get("learning_rate", common.get("learning_rate"))
        axes = {
            name: values if isinstance(values, list) else [values]
            for name, values in entry.items()
            if name != "learning_rate"
        }
        for values in itertools.product(*axes.values()):
            settings = dict(zip(axes, values, strict=True))
            yield Point(settings, tuple(rates) if isinstance(rates, list) else (rates,))


def _settings(held: Any, where: str) -> dict[str, Any]:
    if not isinstance(held, Mapping):
        raise RequestError(f'{where} must be lines of "setting: value", but it is {held!r}.')
    for name in held:
        if name not in FIELDS or name in ("seed", "output"):
            hint = " List seeds under seeds." if name == "seed" else nearest(str(name), FIELDS)
            raise RequestError(f"{where}: {name} is not a setting of a grid.{hint}")
    return dict(held)
