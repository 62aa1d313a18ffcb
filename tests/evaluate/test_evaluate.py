"""An evaluation by hand; controls leave the adapter as it was."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tinylora.errors import TinyLoraError
from tinylora.evaluate.exam import Exam, controls, random_values
from tinylora.prompts import Text
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion, Sampling
from tinylora.tasks.task import Problem, Task


class Parrot:
    """An engine that answers with the prompt's own tokens."""

    def generate(
        self, prompts: Sequence[list[int]], num_samples: int, sampling: Sampling, seed: int
    ) -> list[list[Completion]]:
        return [[Completion(p, [0.0] * len(p), p == [3])] * num_samples for p in prompts]


TEXT = Text(
    lambda problem: [int(problem.prompt)],
    lambda answer: [int(answer)],
    lambda ids: str(ids[0]),
    (0,),
)
PARROT: Any = Parrot()
PROBLEMS = [Problem(str(i), str(i % 2)) for i in range(4)]


def parrot_task(grade: Any) -> Task:
    return Task(
        "parrot", PROBLEMS, PROBLEMS, grade, 5, lambda text: "low" if text < "2" else "high"
    )


def test_evaluation_by_hand() -> None:
    task = parrot_task(lambda gold, text: Verdict(float(gold == text)))
    summary = Exam(task, TEXT, PROBLEMS, samples=2).sampled(PARROT).summary()
    assert summary["accuracy"] == 0.5  # 0 and 1 repeat their gold answers, 2 and 3 do not
    assert (summary["num_problems"], summary["num_samples"]) == (4, 2)
    assert summary["figures"]["mean_length"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert summary["figures"]["truncated_share"]["value"] == 0.25
    assert summary["by_label"] == {
        "low": {"share": 0.5, "accuracy": 1.0},
        "high": {"share": 0.5, "accuracy": 0.0},
    }


def test_a_grader_that_judges_nothing_is_an_error() -> None:
    task = parrot_task(lambda gold, text: Verdict(None, "compiler missing"))
    with pytest.raises(TinyLoraError, match=r"None of 4 answers could be judged \(compiler miss"):
        Exam(task, TEXT, PROBLEMS).greedy(PARROT)


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
    zero, random = controls(adapter, lambda: float(adapter.v.detach().norm()), seed=0)
    assert zero == 0.0
    assert random == pytest.approx([5.0] * 10)
    assert adapter.v.tolist() == [[3.0], [4.0]]


def test_random_values_follow_the_seed() -> None:
    v = torch.ones(3, 2)
    first, again, other = (torch.stack(random_values(v, seed, 2)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
