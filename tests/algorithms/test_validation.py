"""Held-out problems, the choice of the best numbers, and a whole run with both."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.standins import SteeringPolicy, tiny_model
from tinylora.adapter.files import read
from tinylora.algorithms.validation import Validation, hold_out
from tinylora.cli import main
from tinylora.errors import RequestError
from tinylora.settings import TrainConfig
from tinylora.tasks import Problem, Task
from tinylora.tasks.pocket import make


def numbered(count: int) -> Task:
    problems = [Problem(str(i), "") for i in range(count)]
    return Task("numbered", problems, problems[:1], lambda gold, text: None)  # type: ignore[arg-type,return-value]


def test_held_out_problems_are_not_trained_on() -> None:
    task = numbered(100)
    training, held_out = hold_out(task, TrainConfig(eval_every=5, validation_problems=12))
    left, out = [int(p.prompt) for p in training.train], [int(p.prompt) for p in held_out]
    assert (len(left), len(out)) == (88, 12)
    assert sorted(left + out) == list(range(100))
    assert left == sorted(left)
    assert max(out) - min(out) > 50  # from everywhere, not from one end
    assert [p.prompt for p in training.train[2:4]] == [str(i) for i in left[2:4]]
    assert training.train[-1].prompt == str(left[-1])
    with pytest.raises(IndexError):
        training.train[88]


def test_they_are_the_same_in_every_run() -> None:
    task = numbered(100)
    first, second = (hold_out(task, TrainConfig(eval_every=5, seed=seed))[1] for seed in (0, 1))
    assert first == second
    assert len(first) == 20  # one in five at most


def test_nothing_is_held_out_without_validation() -> None:
    task = numbered(100)
    assert hold_out(task, TrainConfig()) == (task, [])


def test_a_split_of_four_is_too_small() -> None:
    with pytest.raises(
        RequestError, match="numbered has only 4 training problems, and at most one in 5"
    ):
        hold_out(numbered(4), TrainConfig(eval_every=5))


def test_a_million_problems_are_not_read() -> None:
    training, held_out = hold_out(make(), TrainConfig(eval_every=5, validation_problems=3))
    assert (len(training.train), len(held_out)) == (999_997, 3)
    assert held_out[0] not in [training.train[i] for i in range(5)]


def test_the_earliest_of_equal_numbers_is_kept() -> None:
    policy, values = SteeringPolicy(tiny_model()), iter([0.25, 0.5, 0.5, 0.125])
    validation = Validation(lambda: next(values), every=2)
    for step in range(1, 9):
        with torch.no_grad():
            policy.v.fill_(step)
        measured = validation.after(step, policy)
        assert ("validation_accuracy" in measured) == (step % 2 == 0)
    assert validation.best is not None
    assert (validation.best.step, validation.best.accuracy) == (4, 0.5)
    assert torch.equal(validation.best.state["v"], torch.full_like(policy.v, 4.0))


def test_an_interval_beyond_the_run_is_refused() -> None:
    with pytest.raises(RequestError, match=r"eval_every = 9, but the run has 4 steps.*<= 4"):
        TrainConfig(steps=4, eval_every=9)


def run(tiny_folder: Path, task_name: str, folder: Path, *extra: str) -> dict[str, Any]:
    options = [f"--model={tiny_folder}", f"--task={task_name}", "--device=cpu", "--u=2"]
    sizes = ["--prompts-per-step=4", "--samples-per-prompt=4", "--eval-samples=2"]
    rates = ["--learning-rate=0.3", "--warmup-steps=0", "--schedule=constant"]
    argv = ["train", *options, *sizes, *rates, "--eval-every=2", f"--output={folder}", *extra]
    assert main(argv) == 0
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def test_best_and_last_adapter_are_kept_also_after_a_resume(
    tiny_folder: Path, task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    summary = run(tiny_folder, task_name, whole, "--steps=6")
    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    measured = {m["step"]: m["validation_accuracy"] for m in lines if "validation_accuracy" in m}
    assert list(measured) == [2, 4, 6]
    best = summary["best"]
    assert best["validation_accuracy"] == max(measured.values())
    assert best["step"] == max(measured, key=lambda step: measured[step])
    assert f"best: step {best['step']} " in printed
    assert best["num_validation_problems"] == 4  # of the 20 training problems
    assert best["accuracy"] == summary["evaluations"]["best"]["greedy"]["accuracy"]
    is_last = bool((read(whole / "best").v == read(whole).v).all())
    assert is_last == (best["step"] == 6)

    run(tiny_folder, task_name, halves, "--steps=3")
    again = run(tiny_folder, task_name, halves, "--steps=6", "--resume")
    assert again["best"] == best
    for name in ("adapter.safetensors", "best/adapter.safetensors"):
        assert (whole / name).read_bytes() == (halves / name).read_bytes()

    out = tmp_path / "eval.json"
    assert main(["eval", f"--adapter={whole / 'best'}", "--device=cpu", f"--json={out}"]) == 0
    alone = json.loads(out.read_text(encoding="utf-8"))
    assert alone["sampled"] == summary["evaluations"]["best"]["sampled"]
    recorded = yaml.safe_load((whole / "config.yaml").read_text(encoding="utf-8"))
    assert recorded["eval_every"] == 2
