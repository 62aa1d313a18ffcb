"""Accuracy and its interval by hand; controls leave the adapter as it was."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tinylora.errors import TinyLoraError
from tinylora.evaluate import Evaluation, Record, controls, evaluate, random_values, wilson
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion, Sampling
from tinylora.tasks.task import Problem, Task
from tinylora.train.grpo import Text


def records(scores: Sequence[Sequence[float | None]], label: str | None = None) -> Evaluation:
    return Evaluation([[Record("", Verdict(s), 1, False, label) for s in row] for row in scores])


def test_wilson_by_hand() -> None:
    """8 of 10: (0.8 + z2/20 -+ z sqrt(0.016 + z2/400)) / (1 + z2/10), z = 1.96."""
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0.0, 512) == pytest.approx((0.0, 0.00745), abs=1e-5)
    assert wilson(1.0, 512)[1] == pytest.approx(1.0)


def test_only_judged_answers_count() -> None:
    evaluation = records([[1.0], [0.0], [0.5], [None]])
    assert evaluation.accuracy == pytest.approx(1 / 3)
    assert evaluation.num_unjudged == 1


def test_answers_that_go_together_make_a_wider_interval() -> None:
    alike = records([[1.0] * 8] * 16 + [[0.0] * 8] * 16)  # worth 32 answers, not 256
    assert alike.interval == pytest.approx(wilson(0.5, 32), abs=0.01)
    apart = records([[1.0, 0.0] * 4] * 32)
    assert apart.interval == wilson(0.5, 256)


def test_one_answer_a_problem_is_plain_wilson() -> None:
    assert records([[1.0]] * 3 + [[0.0]]).interval == wilson(0.75, 4)


class Parrot:
    """An engine that answers with the prompt's own tokens."""

    def generate(
        self, prompts: Sequence[list[int]], num_samples: int, sampling: Sampling, seed: int
    ) -> list[list[Completion]]:
        return [[Completion(p, [0.0] * len(p), p == [3])] * num_samples for p in prompts]


TEXT = Text(lambda problem: [int(problem.prompt)], lambda ids: str(ids[0]), (0,))
PROBLEMS = [Problem(str(i), str(i % 2)) for i in range(4)]


def parrot_task(grade: Any) -> Task:
    return Task(
        "parrot", PROBLEMS, PROBLEMS, grade, 5, lambda text: "low" if text < "2" else "high"
    )


def test_evaluation_by_hand() -> None:
    task = parrot_task(lambda gold, text: Verdict(float(gold == text)))
    summary = evaluate(Parrot(), PROBLEMS, task, TEXT, samples=2, temperature=1.0).summary()
    assert summary["accuracy"] == 0.5  # 0 and 1 repeat their gold answers, 2 and 3 do not
    assert (summary["num_problems"], summary["num_samples"]) == (4, 2)
    assert (summary["mean_length"], summary["truncated_share"]) == (1.0, 0.25)
    assert summary["by_label"] == {
        "low": {"share": 0.5, "accuracy": 1.0},
        "high": {"share": 0.5, "accuracy": 0.0},
    }


def test_a_grader_that_judges_nothing_is_an_error() -> None:
    task = parrot_task(lambda gold, text: Verdict(None, "compiler missing"))
    with pytest.raises(TinyLoraError, match=r"None of 4 answers could be judged \(compiler miss"):
        evaluate(Parrot(), PROBLEMS, task, TEXT)


class Numbers:
    """An adapter's numbers and nothing else."""

    def __init__(self) -> None:
        self.v = torch.nn.Parameter(torch.tensor([[3.0], [4.0]]))

    def zero(self) -> None:
        self.set_values(torch.zeros_like(self.v))

    def set_values(self, values: torch.Tensor) -> None:
        with torch.no_grad():
            self.v.copy_(values)


def test_controls_have_the_same_norm_and_leave_v_as_it_was() -> None:
    adapter: Any = Numbers()
    held = controls(adapter, lambda: float(adapter.v.detach().norm()), seed=0)
    assert held["zero"] == 0.0
    assert held["random"] == pytest.approx([5.0] * 10)
    assert adapter.v.tolist() == [[3.0], [4.0]]


def test_random_values_follow_the_seed() -> None:
    v = torch.ones(3, 2)
    first, again, other = (torch.stack(random_values(v, seed, 2)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
