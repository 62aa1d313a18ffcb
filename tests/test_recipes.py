"""Every recipe runs two steps, at a fraction of its size."""

from pathlib import Path

import pytest

from tinylora.cli import main

RECIPES = sorted((Path(__file__).parent.parent / "recipes").rglob("*.yaml"))
SMALL = ["--steps=2", "--prompts-per-step=4", "--eval-problems=8", "--eval-samples=1"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_two_steps(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(["train", str(recipe), *SMALL, f"--output={folder}"]) == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
