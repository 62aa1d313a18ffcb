"""The adapter after steps 1, 2, 4, ...: which steps, what the files hold, and after a resume."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tinylora
from helpers.tiny import config_of, model_of
from tinylora import RequestError, TrainConfig
from tinylora.adapter.files import read
from tinylora.algorithms.snapshots import Snapshots, figures, found, is_due
from tinylora.cli import main
from tinylora.settings.evaluate import recorded_run

FIRST, LATER = "step-000001", "step-000004"


def test_powers_of_two_are_due() -> None:
    assert [step for step in range(1, 70) if is_due(step)] == [1, 2, 4, 8, 16, 32, 64]


def test_other_methods_are_refused() -> None:
    with pytest.raises(RequestError, match="snapshots = true with method = lora, which writes no"):
        TrainConfig(method="lora", snapshots=True)


@pytest.fixture
def small(tiny_folder: Path, task_name: str) -> list[str]:
    """Options of a run that takes a second."""
    options = [f"--model={tiny_folder}", f"--task={task_name}", "--device=cpu", "--params=13"]
    sizes = ["--prompts-per-step=4", "--samples-per-prompt=4", "--eval-samples=2"]
    return [*options, *sizes, "--warmup-steps=0", "--schedule=constant"]


def train(small: list[str], folder: Path, *extra: str) -> list[dict[str, Any]]:
    """The summary's snapshots of a run."""
    argv = ["train", *small, "--snapshots", f"--output={folder}", *extra]
    assert main(argv) == 0
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    kept: list[dict[str, Any]] = summary["snapshots"]
    return kept


def test_a_resumed_run_writes_the_snapshots_of_a_whole_one(
    small: list[str], tmp_path: Path
) -> None:
    """As if it was killed at step 4 before its checkpoint: that snapshot is dropped and remade."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    kept = train(small, whole, "--steps=5")
    assert [held["step"] for held in kept] == [1, 2, 4]
    train(small, halves, "--steps=3")
    stale = halves / "snapshots" / f"{LATER}.safetensors"
    shutil.copy(whole / "snapshots" / f"{FIRST}.safetensors", stale)
    figures(stale).write_text("{}", encoding="utf-8")
    assert train(small, halves, "--steps=5", "--resume") == kept
    for path in found(whole / "snapshots").values():
        assert path.read_bytes() == (halves / "snapshots" / path.name).read_bytes()
    first, later = (read(whole / "snapshots" / f"{name}.safetensors").v for name in (FIRST, LATER))
    assert not torch.equal(first, later)
    snapshot = str(whole / "snapshots" / f"{LATER}.safetensors")
    assert recorded_run([snapshot])["num_groups"] == 13


def test_steps_that_are_taken_again_leave_nothing_behind(tmp_path: Path) -> None:
    policy = tinylora.attach(model_of(), config_of())
    snapshots = Snapshots(tmp_path / "snapshots", "bf16")
    for step in range(1, 9):
        snapshots.after(step, policy)
    figures(found(snapshots.folder)[8]).write_text("{}", encoding="utf-8")
    snapshots.rewind(5)
    assert sorted(path.name for path in snapshots.folder.iterdir()) == [
        f"step-00000{step}.safetensors" for step in (1, 2, 4)
    ]
