"""A finished run of the command, and a way to call it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tinylora.cli import main

Run = Callable[..., int]


@pytest.fixture(scope="session")
def small(tiny_folder: Path, task_name: str) -> list[str]:
    """Options of a run that takes a second."""
    settings = {
        "model": tiny_folder,
        "task": task_name,
        "device": "cpu",
        "prompts-per-step": 4,
        "samples-per-prompt": 4,
        "eval-samples": 2,
        "schedule": "constant",
        "warmup-steps": 0,
    }
    return [f"--{name}={value}" for name, value in settings.items()]


@pytest.fixture(scope="session")
def finished_run(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of four finished steps on 13 numbers: u = 1 in 13 groups."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    argv = ["train", *small, "--params=13", "--steps=4", "--store=bf16", f"--output={folder}"]
    assert main(argv) == 0
    return folder
