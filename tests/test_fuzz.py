"""Wrong settings and damaged files end with a sentence, never with a traceback.

Cases follow from their number. More of them: TINYLORA_FUZZ=5000 pytest tests/test_fuzz.py
"""

import os
import random
import shutil
from pathlib import Path

import pytest

import tinylora
from helpers.wrong import wrong_file, wrong_settings
from tinylora.cli import main
from tinylora.export import to_peft_tinylora
from tinylora.models import load_model

NUM_CASES = int(os.environ.get("TINYLORA_FUZZ", "60"))  # of each kind
BATCHES = 4
ROWS = "".join(
    f'{{"prompt": "what is {a} {b} ?", "answer": "{b}"}}\n'
    for a in ("one", "two", "three", "red")
    for b in ("one", "two", "blue")
)
OWN = """
from tinylora import Problem, Task, Verdict

def make():
    problems = [Problem(f"what is {w} ?", w) for w in ("one", "two", "three", "red")]
    return Task("own", problems[:2], problems[2:], grade, 4)

def grade(gold, completion):
    return Verdict(float(gold == completion))
"""
RECIPE = """
model: {model}
task: {rows}
steps: 3
num_groups: 2
learning_rate: 0.1
eval_problems: 2
"""
GRID = """
figure: fig1
recipe: recipe.yaml
seeds: [0, 1]
points:
  - {u: 1, num_groups: [1, 2], learning_rate: 0.1}
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, Path]:
    """Right files of every kind."""
    root = tmp_path_factory.mktemp("right")
    at = {name: root / name for name in ("model", "run", "peft")}
    at |= {name: root / f"{name}.yaml" for name in ("recipe", "grid")}
    at |= {"rows": root / "rows.jsonl", "own": root / "own.py", "results": root / "results.jsonl"}
    shutil.copytree(tiny_folder, at["model"])
    at["rows"].write_text(ROWS)
    at["own"].write_text(OWN)
    at["recipe"].write_text(RECIPE.format(model=at["model"], rows=at["rows"]))
    at["grid"].write_text(GRID)
    small = ["--steps=2", "--prompts-per-step=2", "--samples-per-prompt=2", "--max-new-tokens=2"]
    argv = ["train", f"--model={at['model']}", f"--task={at['rows']}", f"--output={at['run']}"]
    assert main([*argv, *small, "--eval-samples=1", "--device=cpu"]) == 0
    base = load_model(str(at["model"]), device="cpu")
    to_peft_tinylora(tinylora.load(base.model, at["run"]), at["peft"])
    at["results"].write_text('{"figure": "run", "is_best_rate": true, "settings": {}, "u": 1}\n')
    return at


def ended_well(argv: list[str], what: str) -> None:
    """Done, or refused: anything else says what was wrong."""
    try:
        status = main(argv)
    except Exception as error:
        error.add_note(f"argv: {argv}\nwrong: {what}")
        raise
    assert status in (0, 1, 2), (argv, what)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_wrong_settings_are_sentences(
    batch: int, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"model": f"--model={places['model']}", "task": f"--task={places['rows']}"}
    for case in range(batch, NUM_CASES, BATCHES):
        ended_well(*wrong_settings(random.Random(case), given))


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_sentences(
    batch: int, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for case in range(batch, NUM_CASES, BATCHES):
        ended_well(*wrong_file(random.Random(case), tmp_path / "wrong", places))
