"""`tinylora eval` and `tinylora inspect`."""

import json
from pathlib import Path

import pytest

from tinylora.cli import main


def test_eval_measures_what_the_run_measured(finished_run: Path, tmp_path: Path) -> None:
    """Model, task, budget and temperature are those of the run, unless others are given."""
    out = tmp_path / "eval.json"
    argv = ["eval", f"--adapter={finished_run}", "--device=cpu"]
    assert main([*argv, "--samples=2", f"--json={out}"]) == 0
    measured = json.loads(out.read_text(encoding="utf-8"))
    final = json.loads((finished_run / "summary.json").read_text())["evaluations"]["final"]
    assert (measured["greedy"], measured["sampled"]) == (final["greedy"], final["sampled"])
    assert sum(kind["share"] for kind in measured["greedy"]["by_label"].values()) == 1


def test_controls_are_base_zero_and_ten_random(
    finished_run: Path, task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval.json"
    argv = ["eval", f"--adapter={finished_run}", f"--task={task_name}", "--split=train"]
    options = ["--samples=2", "--device=cpu", "--controls"]
    assert main([*argv, *options, f"--json={out}"]) == 0
    held = json.loads(out.read_text(encoding="utf-8"))["controls"]
    for kind in ("greedy", "sampled"):
        assert held[kind]["zero"] == held["base"][kind]["accuracy"]
        assert len(held[kind]["random"]) == 10
    printed = capsys.readouterr().out
    for row in ("base model", "zero adapter", "random v, mean"):
        assert row in printed


def test_inspect_shows_the_maps_of_a_model(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tiny_folder), "--num-groups=3"]) == 0
    printed = capsys.readouterr().out
    assert "14 linear maps matched" in " ".join(printed.split())
    assert "model.layers.*.mlp.gate_proj" in printed
    assert "3 groups, tiled (under model.layers)" in printed


def test_inspect_says_everything_in_an_adapter_file(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(finished_run)]) == 0
    printed = capsys.readouterr().out
    assert "An adapter of 13 numbers: 13 groups of modules, u = 1." in printed
    assert "26 bytes of numbers" in printed
    assert "rank = 2" in printed
    assert printed.count("\nv[") == 13
