"""A task: problems to train on, problems to test on, and a way to grade an answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinylora.rewards.verdict import Verdict


@dataclass(frozen=True)
class Problem:
    """One problem.

    Args:
        prompt: what the model reads.
        gold: the right answer, as the task's grader understands it.
        solution: a worked solution, where one exists.
        columns: other fields of its row; a reward function gets them by name.
        system: the system turn before the prompt.
        plain: what a model without a chat template reads; None: system turn and prompt as text.
    """

    prompt: str
    gold: str
    solution: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    plain: str | None = None


Grade = Callable[[Sequence[Problem], Sequence[str]], Sequence[Verdict]]
"""A grader of many completions in one call: the problem of each, and its text."""


@dataclass(frozen=True)
class Task:
    """What to learn and how to tell that it was learned.

    Args:
        name: what reports call it.
        train, test: problems; a sequence may make them by index.
        grade: (gold, completion) -> Verdict.
        max_new_tokens: the completion budget, unless the settings give one.
        label: names the kind of a completion; evaluations then report the share and the accuracy
            of each kind.
        grade_many: a grader of many completions in one call, used in place of `grade` where there
            is one.
        notes: what was left out of the data, and why; a sentence each, for people.
    """

    name: str
    train: Sequence[Problem]
    test: Sequence[Problem]
    grade: Callable[[str, str], Verdict]
    max_new_tokens: int = 256
    label: Callable[[str], str] | None = None
    grade_many: Grade | None = None
    notes: tuple[str, ...] = ()


def grader_of(task: Task) -> Grade:
    """The task's own grader: of many completions at once where it has one, else one by one."""
    return task.grade_many or (
        lambda problems, texts: [
            task.grade(problem.gold, text) for problem, text in zip(problems, texts, strict=True)
        ]
    )
