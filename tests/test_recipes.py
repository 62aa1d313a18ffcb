"""Every recipe runs two steps, at a fraction of its size."""

from pathlib import Path

import pytest

from tinylora.cli import main
from tinylora.sweep.grid import load_grid

ALL = sorted((Path(__file__).parent.parent / "recipes").rglob("*.yaml"))
GRIDS = [path for path in ALL if path.parent.name == "grids" and path.stem != "base"]
RECIPES = [path for path in ALL if path not in GRIDS]
SMALL = ["--steps=2", "--prompts-per-step=4", "--eval-problems=8", "--eval-samples=1"]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda path: path.stem)
def test_a_grid_s_runs_have_settings_that_can_be(grid: Path) -> None:
    held = load_grid(grid)
    runs = held.first_runs()
    best = {run.point.name: run.rate for run in runs}
    assert len({run.folder_name for run in [*runs, *held.later_runs(best)]}) == sum(
        len(point.rates) * len(held.rate_seeds) + len(held.seeds) - len(held.rate_seeds)
        if len(point.rates) > 1
        else len(held.seeds)
        for point in held.points
    )


def test_every_grid_is_there() -> None:
    assert len(GRIDS) == 10


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_two_steps(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(["train", str(recipe), *SMALL, f"--output={folder}"]) == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
