"""`tinylora train`: a run folder, resuming, the dry run, recipes below flags."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tinylora.adapter.files import read
from tinylora.cli import main
from tinylora.run import training

PNG = b"\x89PNG\r\n\x1a\n"


def summary_of(folder: Path) -> dict[str, float]:
    summary: dict[str, float] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def test_a_run_folder_holds_the_whole_run(finished_run: Path) -> None:
    assert {path.name for path in finished_run.iterdir()} == {
        "adapter.safetensors",
        "base.json",
        "checkpoint",
        "config.yaml",
        "curve.png",
        "metrics.jsonl",
        "origin.json",
        "samples.jsonl",
        "summary.json",
    }
    assert (finished_run / "curve.png").read_bytes().startswith(PNG)
    assert len((finished_run / "metrics.jsonl").read_text().splitlines()) == 4


def test_the_summary_says_what_was_trained(finished_run: Path) -> None:
    summary = summary_of(finished_run)
    assert (summary["num_trainable"], summary["u"], summary["num_groups"]) == (13, 1, 13)
    assert (summary["adapter_bytes"], summary["store"], summary["steps"]) == (26, "bf16", 4)
    assert summary["file_bytes"] == (finished_run / "adapter.safetensors").stat().st_size < 1024
    for name in ("base_accuracy", "final_accuracy"):
        assert 0 <= summary[name] <= 1
        assert 0 <= summary[f"{name}_sampled"] <= 1
    assert summary["seconds"] > 0


def test_the_adapter_file_holds_what_was_trained(finished_run: Path) -> None:
    held = read(finished_run)
    assert (tuple(held.v.shape), held.v.dtype) == ((13, 1), torch.bfloat16)
    assert held.v.abs().max() > 0


def test_the_recorded_settings_are_resolved(finished_run: Path) -> None:
    recorded = yaml.safe_load((finished_run / "config.yaml").read_text(encoding="utf-8"))
    assert (recorded["params"], recorded["u"], recorded["num_groups"]) == (None, 1, 13)


def test_a_run_of_its_own_settings_gives_the_same_bytes(finished_run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["train", str(finished_run / "config.yaml"), "--output", str(again)]) == 0
    files = [folder / "adapter.safetensors" for folder in (finished_run, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(
    finished_run: Path, small: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    argv = ["train", *small, "--params=13", "--store=bf16", f"--output={folder}"]
    assert main([*argv, "--steps=2"]) == 0
    base = (folder / "base.json").stat().st_mtime_ns
    assert main([*argv, "--steps=4", "--resume"]) == 0
    files = [path / "adapter.safetensors" for path in (finished_run, folder)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4
    assert (folder / "base.json").stat().st_mtime_ns == base  # the base is measured once


def test_resume_needs_nothing_but_the_folder(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    (folder / "summary.json").unlink()
    assert main(["train", "--resume", "--output", str(folder)]) == 0
    assert summary_of(folder)["final_accuracy"] == summary_of(finished_run)["final_accuracy"]


def test_the_end_table_says_what_changed(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    main(["train", "--resume", "--output", str(folder)])
    printed = capsys.readouterr().out
    for word in ("base", "final", "gain", "parameters trained", "13", "26", "time", "curve.png"):
        assert word in printed


def test_flags_come_before_the_recipe(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: 7\nnum_groups: 4\nu: 3\n", encoding="utf-8")
    assert main(["train", str(recipe), *small, "--u=2", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "steps: 7\n" in printed
    assert "Trains 8 parameters: 32 bytes in fp32." in printed


def test_a_dry_run_shows_everything_and_writes_nothing(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    argv = ["train", *small, "--params=5", "--store=bf16", f"--output={folder}", "--dry-run"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "learning_rate: 0.0002\n" in printed
    assert "14 modules of" in printed
    assert "model.layers.*.mlp.down_proj" in printed
    assert "5 groups, tiled" in printed
    assert "Trains 5 parameters: 10 bytes in bf16." in printed
    assert "weights (fp32)" in printed
    assert "of N processes" not in printed
    assert not folder.exists()


def test_a_dry_run_says_what_several_processes_would_hold(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *small, "--fsdp=true", f"--output={tmp_path / 'run'}", "--dry-run"]) == 0
    assert "weights on each of N processes (fsdp)" in capsys.readouterr().out


def test_the_dry_run_prints_settings_that_are_a_recipe(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines as they are, however narrow the terminal; precision and rate as the run takes them."""
    output = f"{tmp_path}/{'long-' * 30}name"
    assert main(["train", *small, f"--output={output}", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"output: {output}\n" in printed
    assert "dtype: fp32\n" in printed


def test_identity_projections_without_sharing_are_lora_xs(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--projection=identity", "--u=4", "--num-groups=none"]
    assert main(["train", *small, *options, "--dry-run"]) == 0
    assert "Trains 56 parameters" in capsys.readouterr().out  # 14 modules, 2 x 2 each


def test_an_interrupted_run_says_how_to_go_on(
    small: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run_steps", interrupted)
    assert main(["train", *small, f"--output={tmp_path / 'run'}"]) == 130
    again = f'Resume it with "tinylora train --resume --output {tmp_path / "run"}".'
    assert capsys.readouterr().err == f"\ntinylora train: interrupted. {again}\n"


def test_params_are_spent_and_the_sharing_is_shown(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", *small, "--params=28", "--steps=1", f"--output={tmp_path / 'run'}"]
    assert main(argv) == 0
    assert "14 groups, tiled" in capsys.readouterr().out
    assert summary_of(tmp_path / "run")["u"] == 2  # 14 modules, so 2 numbers each
