"""Sweeps: what a grid means, states kept apart, nothing done twice, one failure among others."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from tinylora.cli import main
from tinylora.errors import RequestError, TinyLoraError
from tinylora.sweep import outcomes
from tinylora.sweep.grid import Grid, load_grid
from tinylora.sweep.results import read_results
from tinylora.sweep.sweep import best_rates, sweep

QUIET = Console(quiet=True)


@pytest.fixture
def grid_of(tiny_folder: Path, task_name: str, tmp_path: Path) -> Callable[[str], Grid]:
    """A grid on the tiny model, of the lines given."""

    def make(lines: str) -> Grid:
        common = (
            f"settings: {{model: {tiny_folder}, task: '{task_name}', steps: 1, device: cpu, "
            "prompts_per_step: 2, samples_per_prompt: 2, eval_problems: 4, eval_samples: 1}\n"
        )
        path = tmp_path / "grid.yaml"
        path.write_text(common + lines, encoding="utf-8")
        return load_grid(path)

    return make


def test_lists_are_multiplied_out_and_rates_are_not(grid_of: Callable[[str], Grid]) -> None:
    grid = grid_of(
        "points:\n"
        "- {u: [1, 2], num_groups: [1, 3]}\n"
        "- {method: lora, rank: 1, learning_rate: [0.1, 0.2, 0.3]}\n"
        "seeds: [0, 1]\n"
        "rate_seeds: [1]\n"
    )
    assert [point.name for point in grid.points] == [
        "u=1 num_groups=1",
        "u=1 num_groups=3",
        "u=2 num_groups=1",
        "u=2 num_groups=3",
        "method=lora rank=1",
    ]
    first = grid.first_runs()
    assert len(first) == 4 * 2 + 3
    assert [(run.rate, run.seed) for run in first[8:]] == [(0.1, 1), (0.2, 1), (0.3, 1)]
    later = grid.later_runs({"method=lora rank=1": 0.2})
    assert [(run.rate, run.seed) for run in later] == [(0.2, 0)]
    assert later[0].config.learning.learning_rate == 0.2
    assert later[0].config.method == "lora"
    names = [run.folder_name for run in (*first, *later)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("pionts: []\n", "pionts is not a key of a grid. Did you mean points"),
        ("points: [{uu: 1}]\n", "uu is not a setting of a grid"),
        ("points: [{seed: [1, 2]}]\n", "List seeds under seeds"),
        ("points: [{u: 0}]\n", "point u=0: u = 0, but it must be at least 1"),
        ("points: [{u: 1}, {u: 1}]\n", "the point u=1 is listed twice"),
        ("seeds: [0]\nrate_seeds: [3]\n", r"rate_seeds = \[3\] with seeds = \[0\]"),
    ],
)
def test_a_wrong_grid_is_a_sentence(
    lines: str, sentence: str, grid_of: Callable[[str], Grid]
) -> None:
    with pytest.raises(RequestError, match=sentence):
        grid_of(lines)


def test_a_sweep_ends_once_and_its_best_rate_runs_on(
    grid_of: Callable[[str], Grid], tmp_path: Path
) -> None:
    grid = grid_of(
        "points: [{u: 1, learning_rate: [0.01, 3.0]}]\nseeds: [0, 1]\nrate_seeds: [0]\n"
        "objective: final_accuracy_sampled\ncurves: true\n"
    )
    folder = tmp_path / "sweep"
    sweep(grid, folder, "local", 1, QUIET)
    done = sorted(path.parent.name for path in folder.glob("*/summary.json"))
    assert len(done) == 3
    scores = {
        run.rate: outcomes.summary(folder / run.folder_name)["final_accuracy_sampled"]
        for run in grid.first_runs()
    }
    assert best_rates(grid, folder) == {"u=1": max(scores, key=lambda rate: scores[rate])}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}
    sweep(grid, folder, "local", 1, QUIET)
    assert times == {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}
    records = read_results([str(folder)])
    assert len(records) == 3
    assert sum(record["is_best_rate"] for record in records) == 2
    assert all(len(record["curves"]["reward"]) == 1 for record in records)
    bases = {json.dumps(outcomes.summary(folder / name)["evaluations"]["base"]) for name in done}
    assert len(list((folder / "bases").iterdir())) == len(bases) == 2  # once for each seed


@pytest.mark.slow
def test_grids_share_the_runs_that_they_have_in_common(
    grid_of: Callable[[str], Grid], tmp_path: Path
) -> None:
    """Wherever a setting is written; each grid has its own records of them."""
    sweep(grid_of("points: [{u: 2, num_groups: 3}]\n"), tmp_path / "sweep", "local", 1, QUIET)
    (first,) = (tmp_path / "sweep").glob("*/summary.json")
    time = first.stat().st_mtime_ns
    other = tmp_path / "other.yaml"
    text = (tmp_path / "grid.yaml").read_text(encoding="utf-8")
    text = text.replace("settings: {", "settings: {num_groups: 3, ").split("points:")[0]
    other.write_text(text + "points: [{u: [2, 1]}]\n", encoding="utf-8")
    sweep(load_grid(other), tmp_path / "sweep", "local", 1, QUIET)
    assert first.stat().st_mtime_ns == time
    assert len(list((tmp_path / "sweep").glob("*/summary.json"))) == 2
    assert len(read_results([str(tmp_path / "sweep" / "other.jsonl")])) == 2
    assert len(read_results([str(tmp_path / "sweep" / "grid.jsonl")])) == 1


@pytest.mark.slow
def test_what_fails_leaves_the_others_alone_and_is_taken_up_again(
    grid_of: Callable[[str], Grid], tmp_path: Path
) -> None:
    grid = grid_of("points: [{u: 1}, {num_groups: 999}]\n")
    folder = tmp_path / "sweep"
    for _ in range(2):
        with pytest.raises(TinyLoraError, match=r"1 of 2 runs failed.*only 14 modules matched"):
            sweep(grid, folder, "local", 2, QUIET)
    states = {run.point.name: outcomes.state(folder / run.folder_name) for run in grid.first_runs()}
    assert states == {"u=1": "done", "num_groups=999": "failed"}
    assert len(read_results([str(folder)])) == 1


@pytest.mark.slow
def test_a_worker_that_dies_fails_its_run_alone(
    grid_of: Callable[[str], Grid], tmp_path: Path
) -> None:
    deadly = tmp_path / "deadly.py"
    deadly.write_text("import os\n\ndef make():\n    os.kill(os.getpid(), 9)\n", encoding="utf-8")
    grid = grid_of(f"points: [{{task: '{deadly}:make'}}, {{u: 2}}]\n")
    with pytest.raises(TinyLoraError, match=r"1 of 2 runs failed.*process ended with status -9"):
        sweep(grid, tmp_path / "sweep", "local", 1, QUIET)
    states = [outcomes.state(tmp_path / "sweep" / run.folder_name) for run in grid.first_runs()]
    assert states == ["failed", "done"]


def test_a_cancelled_run_is_told_from_a_failed_one(tmp_path: Path) -> None:
    outcomes.mark(tmp_path / "a", "cancelled", "interrupted")
    outcomes.mark(tmp_path / "b", "failed", "no space: at all")
    assert [outcomes.state(tmp_path / name) for name in "abc"] == ["cancelled", "failed", "open"]


def test_the_verb_lists_runs_and_draws_figures(
    grid_of: Callable[[str], Grid], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid_of("figure: fig1\npoints: [{u: [1, 3]}, {method: full}]\nseeds: [0, 1]\n")
    grid = str(tmp_path / "grid.yaml")
    out = str(tmp_path / "out")
    assert main(["sweep", grid, "--dry-run", "--out", out]) == 0
    assert "6 runs, and 0 more" in capsys.readouterr().out
    assert not Path(out).exists()
    assert main(["sweep", grid, "--processes=1", "--out", out]) == 0
    assert "u=3" in capsys.readouterr().out
    figures = tmp_path / "figures"
    assert main(["figures", out, "--out", str(figures)]) == 0
    assert sorted(os.listdir(figures)) == ["fig1.csv", "fig1.png"]
    rows = (figures / "fig1.csv").read_text().splitlines()
    assert rows[0] == "measure,series,x,y,seed"
    assert len(rows) == 1 + 2 * 4
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    assert main(["figures", str(tmp_path)]) == 2


def test_a_plain_run_is_drawn_and_one_that_has_not_ended_is_told(
    grid_of: Callable[[str], Grid], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full fine-tuning too, which is a dashed line beside others and a series alone."""
    sweep(grid_of("points: [{method: full}]\n"), tmp_path / "sweep", "local", 1, QUIET)
    (run,) = (path.parent for path in (tmp_path / "sweep").glob("*/summary.json"))
    assert main(["figures", str(run), "--out", str(tmp_path / "figures")]) == 0
    rows = (tmp_path / "figures" / "fig1.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == ["series", "full", "full"]
    (run / "summary.json").unlink()
    assert main(["figures", str(run)]) == 2
    assert "is not a finished run, a sweep folder or a file of results" in capsys.readouterr().err
