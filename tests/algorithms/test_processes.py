"""Two real processes (gloo) learn what one learns; one that dies leaves a whole checkpoint."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tinylora import train
from tinylora.adapter import files
from tinylora.errors import RequestError
from tinylora.settings import TrainConfig

TESTS = Path(__file__).parents[1]

SETTINGS = {
    "steps": "6",
    "prompts-per-step": "6",
    "samples-per-prompt": "4",
    "eval-problems": "5",
    "eval-samples": "2",
    "learning-rate": "0.2",
    "num-iterations": "2",
    "normalizer": "token",
    "kl-coef": "0.01",
    "checkpoint-every": "2",
    "u": "2",
    "num-groups": "3",
}


NPG = {
    "algorithm": "npg",
    **{k: v for k, v in SETTINGS.items() if k not in ("learning-rate", "normalizer", "steps")},
    "steps": "3",
    "snr": "1e9",
    "max-draws": "2",
}


def torchrun(num_processes: int) -> list[str]:
    """The launcher, at a port of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    module = ["-m", "torch.distributed.run"]
    return [*module, f"--nproc-per-node={num_processes}", f"--master-port={port}"]


def launch(
    output: Path,
    model: Path,
    task: str,
    num_processes: int,
    *more: str,
    settings: Mapping[str, str] = SETTINGS,
) -> subprocess.Popen[str]:
    """A run, as torchrun starts it where there is more than one process."""
    command = [
        sys.executable,
        *(torchrun(num_processes) if num_processes > 1 else []),
        *("-m", "tinylora", "train", f"--output={output}", f"--model={model}", f"--task={task}"),
        *(f"--{name}={value}" for name, value in settings.items()),
        *more,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def v_of(folder: Path) -> torch.Tensor:
    return files.read(folder).v


@pytest.fixture(scope="module")
def alone(tiny_folder: Path, task_name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run by one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    finish(launch(folder, tiny_folder, task_name, 1))
    return folder


def test_two_processes_learn_what_one_learns(
    alone: Path, tiny_folder: Path, task_name: str, tmp_path: Path
) -> None:
    said = finish(launch(tmp_path / "two", tiny_folder, task_name, 2))
    assert said.count("Measuring the base model") == 1  # one of them speaks
    one, two = v_of(alone), v_of(tmp_path / "two")
    assert bool(one.any())
    assert torch.allclose(one, two, atol=1e-6)
    summaries = [
        json.loads((folder / "summary.json").read_text()) for folder in (alone, tmp_path / "two")
    ]
    assert summaries[0]["evaluations"] == summaries[1]["evaluations"]
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (alone, tmp_path / "two")
    ]
    assert len(lines[1]) == 6
    for first, second in zip(*lines, strict=True):
        for name in ("reward", "completion_length", "grad_norm", "kl_rollout", "kl_reference"):
            assert first[name] == pytest.approx(second[name], abs=1e-5), name


@pytest.mark.slow
def test_two_processes_that_split_the_weights_learn_what_one_learns(
    alone: Path, tiny_folder: Path, task_name: str, tmp_path: Path
) -> None:
    finish(launch(tmp_path / "two", tiny_folder, task_name, 2, "--fsdp=true"))
    assert torch.allclose(v_of(alone), v_of(tmp_path / "two"), atol=1e-6)
    summaries = [
        json.loads((folder / "summary.json").read_text()) for folder in (alone, tmp_path / "two")
    ]
    assert summaries[0]["evaluations"] == summaries[1]["evaluations"]


@pytest.mark.parametrize("more", [(), pytest.param(("--fsdp=true",), marks=pytest.mark.slow)])
def test_two_processes_take_the_natural_steps_of_one(
    tiny_folder: Path, task_name: str, tmp_path: Path, more: tuple[str, ...]
) -> None:
    for name, num_processes, extra in (("one", 1, ()), ("two", 2, more)):
        place = tmp_path / name
        finish(launch(place, tiny_folder, task_name, num_processes, *extra, settings=NPG))
    one, two = (v_of(tmp_path / name) for name in ("one", "two"))
    assert bool(one.any())
    assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.slow
def test_a_rank_holds_its_part_of_the_blocks_and_computes_with_all_of_them(tmp_path: Path) -> None:
    """Four passes on one rank and one on the other, with and without recomputing."""
    rooms = [str(TESTS), *sys.path]
    ran = subprocess.run(
        [
            sys.executable,
            *torchrun(2),
            str(TESTS / "helpers" / "shard_standin.py"),
            str(tmp_path / "found"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(rooms)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for rank in json.loads((tmp_path / "found").read_text()):
        assert rank["held"] == rank["after"] == pytest.approx(rank["weights"] / 2, rel=0.02)
        assert rank["alive"] == 0  # whole weights that somebody still holds
        assert rank["is_sharded"] == [True, False]
        assert not rank["can_fold"]
        assert rank["gradient"] > 0.1
        assert torch.tensor(rank["errors"]).max() < 1e-5


def test_one_process_has_nobody_to_share_its_weights_with(
    tiny_folder: Path, task_name: str, tmp_path: Path
) -> None:
    config = TrainConfig(
        model=str(tiny_folder), task=task_name, output=str(tmp_path / "run"), fsdp=True
    )
    with pytest.raises(RequestError, match=r"there is one process.*torchrun --nproc-per-node=N"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_and_another_number_goes_on(
    alone: Path, tiny_folder: Path, task_name: str, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    process = launch(output, tiny_folder, task_name, 2, "--max-minutes=9")
    metrics = output / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    kill_rank(process.pid, 1)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Another process of this run has ended" in said or "SIGKILL" in said
    assert not (output / "summary.json").exists()
    finish(launch(output, tiny_folder, task_name, 1, "--resume", "--max-minutes=9"))
    assert torch.allclose(v_of(alone), v_of(output), atol=1e-6)


def kill_rank(launcher: int, rank: int) -> None:
    """SIGKILL the process of that rank among the launcher's children."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            held = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if parent == launcher and f"RANK={rank}".encode() in held:
            os.kill(int(folder.name), signal.SIGKILL)
            return
    raise AssertionError("no such rank")
