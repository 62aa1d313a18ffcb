"""A run whose rewards no longer differ: it warns once, stops, and keeps the last good numbers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.standins import SteeringPolicy, low_token_task, run_of, tiny_model, train_in
from tinylora.algorithms import loop
from tinylora.algorithms.loop import Outcome
from tinylora.rewards.verdict import Verdict
from tinylora.settings import TrainConfig
from tinylora.tasks.task import Problem

SETTINGS: dict[str, Any] = {
    "prompts_per_step": 4,
    "samples_per_prompt": 2,
    "learning_rate": 5e-2,
    "warmup_steps": 0,
    "schedule": "constant",
    "checkpoint_every": 1,
    "no_signal_steps": 3,
}
TAUGHT = 2  # steps whose rewards differ; then all are alike


class Grader:
    """Rewards that differ in the first steps, and are all `then` in the later ones."""

    def __init__(self, then: float, taught: int = TAUGHT) -> None:
        self.then, self.left = then, taught

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        self.left -= 1
        if self.left >= 0:
            return [Verdict(float(i % 2)) for i in range(len(texts))]
        return [Verdict(self.then) for _ in texts]


def run(
    folder: Path, grade: Grader, steps: int = 12, resume: bool = False, **settings: Any
) -> tuple[Tensor, Outcome]:
    """The numbers after a run, and how it ended."""
    policy = SteeringPolicy(tiny_model())
    config = TrainConfig(**{**SETTINGS, "steps": steps, **settings})
    task = replace(low_token_task(), grade_many=grade)
    outcome = train_in(folder, run_of(policy, config, task), config, resume=resume)
    return policy.v.detach().clone(), outcome


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every warning of a run's log."""
    sentences: list[str] = []
    warn = "tinylora.algorithms.log.RunLog.warn"
    monkeypatch.setattr(warn, lambda self, sentence: sentences.append(sentence))
    return sentences


def test_all_wrong_stops_the_run_with_the_last_good_numbers(
    tmp_path: Path, said: list[str]
) -> None:
    before_last, _ = run(tmp_path / "one", Grader(0.0), steps=TAUGHT - 1)
    after_last, _ = run(tmp_path / "two", Grader(0.0), steps=TAUGHT)
    numbers, outcome = run(tmp_path / "run", Grader(0.0))
    assert (outcome.stopped, outcome.steps) == ("no signal", TAUGHT + 3)
    assert torch.equal(numbers, before_last)  # those that the last teaching step sampled from
    assert not torch.equal(before_last, after_last)
    (sentence,) = said
    assert sentence.startswith(
        "In 3 steps no group of completions had rewards that differ: the mean re"
    )
    assert "the mean reward is 0" in sentence
    assert "step size was too large, or the task is too hard. Use a smaller step" in sentence
    saved = torch.load(tmp_path / "run" / "checkpoint" / "state.pt")
    assert torch.equal(saved["signal"]["good"]["v"], numbers)
    assert torch.equal(saved["policy"]["v"], after_last)  # a resumed run ends in the same way


def test_a_warning_alone_goes_on_to_the_last_step(tmp_path: Path, said: list[str]) -> None:
    after_last, _ = run(tmp_path / "two", Grader(0.0), steps=TAUGHT)
    numbers, outcome = run(tmp_path / "run", Grader(0.0), on_no_signal="warn")
    assert (outcome.stopped, outcome.steps) == ("steps", 12)
    assert torch.equal(numbers, after_last)
    assert len(said) == 1


def test_all_right_keeps_the_numbers(tmp_path: Path, said: list[str]) -> None:
    after_last, _ = run(tmp_path / "two", Grader(1.0), steps=TAUGHT)
    numbers, outcome = run(tmp_path / "run", Grader(1.0))
    assert (outcome.stopped, outcome.steps) == ("no signal", TAUGHT + 3)
    assert torch.equal(numbers, after_last)
    assert said[0].endswith("all have the full reward, so there is nothing left to learn.")


def test_a_step_that_teaches_begins_the_count_anew(tmp_path: Path, said: list[str]) -> None:
    class Often(Grader):
        def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
            verdicts = super().__call__(problems, texts)
            self.left = 1 if self.left == -2 else self.left  # two quiet steps, one that teaches
            return verdicts

    _, outcome = run(tmp_path, Often(0.0, taught=1), steps=9)
    shares = [json.loads(x)["zero_variance_share"] for x in lines(tmp_path)]
    assert shares == [0, 1, 1] * 3
    assert (outcome.stopped, outcome.steps, said) == ("steps", 9, [])


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_a_resumed_run_without_signal_ends_with_the_same_bits(cut: int, tmp_path: Path) -> None:
    """Cut before the last teaching step, and among the quiet ones."""
    whole, outcome = run(tmp_path / "whole", Grader(0.0))
    run(tmp_path / "parts", Grader(0.0), steps=cut)
    parts, resumed = run(tmp_path / "parts", Grader(0.0, TAUGHT - cut), resume=True)
    assert (resumed.stopped, resumed.steps) == (outcome.stopped, outcome.steps)
    assert torch.equal(whole, parts)
    assert whole.any()


def test_a_stopped_run_stays_stopped(tmp_path: Path) -> None:
    numbers, _ = run(tmp_path, Grader(0.0))
    again, outcome = run(tmp_path, Grader(0.0, 0), resume=True)
    assert (outcome.stopped, outcome.steps) == ("no signal", TAUGHT + 3)
    assert torch.equal(again, numbers)


def test_of_a_huge_policy_no_copy_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MOST_KEPT", 1)
    after_last, _ = run(tmp_path / "two", Grader(0.0), steps=TAUGHT)
    numbers, outcome = run(tmp_path / "run", Grader(0.0))
    assert outcome.stopped == "no signal"
    assert torch.equal(numbers, after_last)


def test_steps_whose_samples_are_noise_end_the_run_with_the_numbers_as_they_are() -> None:
    policy = SteeringPolicy(tiny_model())
    signal = loop.Signal(policy, patience=2)
    for snr in (3.0, 0.8, 0.9):
        signal.before()
        with torch.no_grad():
            policy.v += 1.0
        signal.after({"reward": 0.5, "zero_variance_share": 0.2, "snr": snr})
    assert signal.is_lost
    assert "signal-to-noise ratio is at most 1" in signal.sentence()
    signal.keep_good()
    assert policy.v.min() == 3.0
    restored = loop.Signal(policy, patience=2)
    restored.load_state_dict(signal.state_dict())
    assert restored.is_lost
    assert restored.noisy_steps == 2
