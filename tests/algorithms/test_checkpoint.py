"""Saving is atomic, loading says what does not fit, and a kill at any moment changes no bit."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import Process
from pathlib import Path

import pytest
import torch

from helpers import run_standin
from helpers.standins import SteeringPolicy, tiny_model
from tinylora.algorithms.checkpoint import FILE_NAME, load_checkpoint, save_checkpoint
from tinylora.errors import RequestError, TinyLoraError


def trained(u: int = 5) -> tuple[SteeringPolicy, torch.optim.Optimizer]:
    policy = SteeringPolicy(tiny_model(), u)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    policy.v.grad = torch.ones(u)
    optimizer.step()
    return policy, optimizer


def test_a_checkpoint_brings_back_numbers_and_moments(tmp_path: Path) -> None:
    policy, optimizer = trained()
    save_checkpoint(tmp_path, policy, {"optimizer": optimizer}, step=3, seed=7)
    fresh = SteeringPolicy(tiny_model(), 5)
    fresh_optimizer = torch.optim.Adam(fresh.parameters(), lr=0.1)
    assert load_checkpoint(tmp_path, fresh, {"optimizer": fresh_optimizer}, seed=7) == 3
    for p, o in ((policy, optimizer), (fresh, fresh_optimizer)):
        p.v.grad = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])
        o.step()
    assert torch.equal(policy.v, fresh.v)


def kept(u: int = 5) -> tuple[SteeringPolicy, dict[str, torch.optim.Optimizer]]:
    policy, optimizer = trained(u)
    return policy, {"optimizer": optimizer}


def test_no_checkpoint_means_no_step_done(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, *kept(), seed=0) == 0


def test_a_failed_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, optimizer = trained()
    save_checkpoint(tmp_path, policy, {"optimizer": optimizer}, step=1, seed=0)

    def half_a_file(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, policy, {"optimizer": optimizer}, step=2, seed=0)
    assert load_checkpoint(tmp_path, policy, {"optimizer": optimizer}, seed=0) == 1


def test_another_seed_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *kept(), step=1, seed=7)
    with pytest.raises(RequestError, match=r"seed = 8, but .* with seed = 7"):
        load_checkpoint(tmp_path, *kept(), seed=8)


def test_another_policy_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, *kept(u=5), step=1, seed=0)
    with pytest.raises(RequestError, match="is from a different policy"):
        load_checkpoint(tmp_path, *kept(u=4), seed=0)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"nothing that torch wrote")
    with pytest.raises(TinyLoraError, match="cannot be read"):
        load_checkpoint(tmp_path, *kept(), seed=0)


@pytest.fixture
def start_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Process]:
    """Start the stand-in run as a process of its own; it resumes what it finds in the folder."""
    tests = Path(__file__).parents[1]
    paths = [str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["run_standin"])  # torch is imported once for all runs

    def start(folder: Path) -> Process:
        process = context.Process(target=run_standin.main, args=(folder,))
        process.start()
        return process

    return start


def kill_after(process: Process, metrics: Path, num_lines: int, delay_s: float) -> None:
    """SIGKILL the run a moment after its record has reached so many lines."""
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") >= num_lines):
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay_s)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_killed_at_several_moments_ends_with_the_same_bits(
    tmp_path: Path, start_run: Callable[[Path], Process]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    uninterrupted = start_run(whole)
    uninterrupted.join(timeout=120)
    assert uninterrupted.exitcode == 0
    for num_lines, delay_s in ((1, 0.0), (4, 0.003), (5, 0.02), (8, 0.011)):
        kill_after(start_run(killed), killed / "metrics.jsonl", num_lines, delay_s)
    last = start_run(killed)
    last.join(timeout=120)
    assert last.exitcode == 0

    left, right = torch.load(whole / "v.pt"), torch.load(killed / "v.pt")
    assert left["last"].abs().max() > 0.01
    assert torch.equal(left["last"], right["last"])
    assert left["step"] == right["step"]
    assert torch.equal(left["v"], right["v"])  # the best by validation
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert without_times(killed / name) == without_times(whole / name)


def without_times(path: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if not k.startswith(timed)} for line in lines]
