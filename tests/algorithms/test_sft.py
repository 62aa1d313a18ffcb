"""SFT: its loss by hand, its references, its sentences."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.standins import (
    END,
    SteeringPolicy,
    low_token_task,
    run_of,
    text,
    tiny_model,
    train_in,
)
from tinylora.algorithms.loop import Outcome
from tinylora.algorithms.optimizer import make_optimizer
from tinylora.algorithms.sft import learn, own_samples
from tinylora.errors import RequestError
from tinylora.settings import Sft, TrainConfig
from tinylora.tasks.task import Problem, Task

SETTINGS: dict[str, Any] = {
    "algorithm": "sft",
    "steps": 6,
    "prompts_per_step": 4,
    "learning_rate": 5e-2,
}
CONFIG = TrainConfig(**SETTINGS)


def solved() -> Task:
    task = low_token_task()
    train = [replace(p, solution=f"{3 + i % 7} {9 + i % 5}") for i, p in enumerate(task.train)]
    return replace(task, train=train)


def run(folder: Path, task: Task, config: TrainConfig) -> tuple[SteeringPolicy, Outcome]:
    policy = SteeringPolicy(tiny_model())
    return policy, train_in(folder, run_of(policy, config, task), config, resume=True)


def test_the_loss_is_the_mean_over_tokens_of_the_models_own() -> None:
    policy = SteeringPolicy(tiny_model())
    references = [(Problem("3 4 5", ""), [7, 8, END]), (Problem("6 7", ""), [9, END])]
    settings = Sft(prompts_per_step=4, learning_rate=5e-2)
    optimizer = make_optimizer(policy, settings)
    metrics = learn(run_of(policy, CONFIG), optimizer, references, settings, 0)
    losses = []
    for prompt, ids in (([3, 4, 5], [7, 8, END]), ([6, 7], [9, END])):
        row = torch.tensor([prompt + ids])
        with policy.reference(), torch.no_grad():
            logprobs = policy.model(row).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, row.shape[1] - 1)
        losses += [-float(logprobs[i, row[0, i + 1]]) for i in places]
    assert metrics["loss"] == pytest.approx(sum(losses) / 5, abs=1e-5)


def test_solutions_become_likelier(tmp_path: Path) -> None:
    run(tmp_path, solved(), TrainConfig(**{**SETTINGS, "steps": 30}))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0] - 0.3


def test_a_resumed_run_is_the_run(tmp_path: Path) -> None:
    constant = TrainConfig(**SETTINGS, schedule="constant")
    whole, _ = run(tmp_path / "whole", solved(), constant)
    run(tmp_path / "parts", solved(), constant.model_copy(update={"steps": 3}))
    parts, outcome = run(tmp_path / "parts", solved(), constant)
    assert outcome.steps == 6
    assert torch.equal(whole.v, parts.v)
    assert bool(whole.v.any())


def test_own_samples_are_the_base_models_and_right() -> None:
    policy, task = SteeringPolicy(tiny_model()), low_token_task()
    with torch.no_grad():
        policy.v += 3.0  # what is trained must not change what the base answers
    problems = list(task.train[:6])
    found = own_samples(run_of(policy, CONFIG), problems, 8, 0)
    untouched = SteeringPolicy(tiny_model())
    same = own_samples(run_of(untouched, CONFIG), problems, 8, 0)
    assert found == same
    assert found
    assert all(task.grade("low", text().decode(ids)).is_right for _, ids in found)


def test_a_problem_without_a_solution_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"lacks a solution to learn from.*references = own"):
        run(tmp_path, low_token_task(), CONFIG)
