"""Every recipe runs two steps, at a fraction of its size."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.shapes import skeleton
from tinylora.adapter.modules import linear_maps
from tinylora.cli import main
from tinylora.rewards.code.selftest import mechanism_for
from tinylora.rewards.code.toolbox import SandboxUnavailable
from tinylora.run import memory
from tinylora.settings import load_recipe, unflatten
from tinylora.sweep.grid import load_grid

ROOT = Path(__file__).parent.parent
ALL = sorted((ROOT / "recipes").rglob("*.yaml"))
GRIDS = [path for path in ALL if "grids" in path.parts and path.stem != "base"]
RECIPES = [path for path in ALL if path not in GRIDS]
OF_POCKET = [path for path in RECIPES if "pocket" in path.parts]
OF_SMOLLM2 = [path for path in RECIPES if "smollm2" in path.parts]
OF_THE_PAPER = [path for path in RECIPES if path not in (*OF_POCKET, *OF_SMOLLM2)]
SMALL = ["--steps=2", "--prompts-per-step=4", "--eval-problems=8", "--eval-samples=1"]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda path: f"{path.parent.name}/{path.stem}")
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
    assert len(GRIDS) == 16


def test_every_recipe_is_there() -> None:
    assert (len(OF_POCKET), len(OF_SMOLLM2), len(OF_THE_PAPER)) == (3, 1, 5)


@pytest.mark.parametrize(
    "recipe", [*OF_POCKET, *OF_SMOLLM2], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_a_recipe_runs_two_steps(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(["train", str(recipe), *SMALL, "--model=pocket", f"--output={folder}"]) == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rows of every data set that the recipes name, in the form of each."""
    folder = tmp_path_factory.mktemp("data")
    words = [{"question": f"Tom has {i} pens. How many?", "answer": f"#### {i}"} for i in range(12)]
    write(folder / "gsm8k_train.jsonl", words[:8])
    write(folder / "gsm8k_test.jsonl", words[8:])
    asked = [
        {"question": f"{i}+1?", "reward_model": {"ground_truth": str(i + 1)}} for i in range(8)
    ]
    write(folder / "simplerl_math.jsonl", asked)
    write(folder / "math500.jsonl", [{"problem": f"{i}+2?", "answer": i + 2} for i in range(4)])
    programs = [program(i) for i in range(8)]
    write(folder / "code_contests_train.jsonl", programs[:5])
    write(folder / "code_contests_test.jsonl", programs[5:])
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def program(number: int) -> dict[str, Any]:
    """A row of CodeContests of difficulty A."""
    none: dict[str, list[str]] = {"input": [], "output": []}
    return {
        "description": f"Print {number}.",
        "public_tests": {"input": [""], "output": [str(number)]},
        "private_tests": none,
        "generated_tests": none,
        "source": 2,
        "difficulty": 7,
    }


@pytest.mark.parametrize("recipe", OF_THE_PAPER, ids=lambda path: path.stem)
def test_a_recipe_of_the_paper_runs_two_steps_on_the_pocket_model(
    recipe: Path, sample: Path, tmp_path: Path
) -> None:
    if "code" in recipe.parts:
        try:
            mechanism_for(unsafe_no_sandbox=False)
        except SandboxUnavailable as reason:
            pytest.skip(f"PROGRAMS ARE NOT JUDGED HERE: {reason}")
    folder = tmp_path / "run"
    small = [*SMALL, "--model=pocket", f"--data={sample}", "--rollout=transformers"]
    small += ["--samples-per-prompt=2", "--max-new-tokens=8", "--device=cpu"]
    assert main(["train", str(recipe), *small, f"--output={folder}"]) == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    summary = json.loads((folder / "summary.json").read_text())
    settings = load_recipe(recipe)
    groups = settings.get("num_groups") or -(-28 // settings["n_tie"])  # pocket has 28 layers
    assert summary["num_trainable"] == settings["u"] * groups


@pytest.mark.parametrize("recipe", OF_THE_PAPER, ids=lambda path: path.stem)
def test_a_recipe_opens_with_its_command_hardware_and_number(recipe: Path) -> None:
    opening = "".join(line for line in recipe.read_text().splitlines() if line.startswith("#"))
    command = f"# tinylora train {recipe.relative_to(ROOT)}"
    assert opening.startswith(command)
    assert "GPU" in opening
    assert "%" in opening


@pytest.mark.parametrize("recipe", OF_THE_PAPER, ids=lambda path: path.stem)
def test_a_recipe_fits_the_card_that_its_header_names(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a prompt of 512 tokens (programs: 2,048) and the whole completion budget."""
    card = int(re.search(r"One GPU of (\d+) GB", recipe.read_text())[1])  # type: ignore[index]
    monkeypatch.setattr(memory, "place_of", lambda device: torch.device("cuda"))
    monkeypatch.setattr(memory, "can_share_prompts", lambda model: True)
    config = unflatten({**load_recipe(recipe), "dtype": "bf16"})
    model = skeleton("7B" if "7b" in recipe.name else "3B", vocab_size=152_064)
    maps = linear_maps(model, config.adapter.targets, config.adapter.layers)
    longest = 2048 if "code" in recipe.parts else 512
    found = memory.estimate(model, maps, config, 32, longest, config.max_new_tokens or 1024)
    usable = card * 0.985 * 2**30  # the driver keeps some: 79 GiB of 80, 23.6 of 24
    assert found.peak <= memory.SHARE * usable, memory.size_text(found.peak)
