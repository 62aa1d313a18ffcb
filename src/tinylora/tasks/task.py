"""A task: problems to train on, problems to test on, and a way to grade an answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from tinylora.errors import RequestError
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


class MadeProblems(Sequence[Problem]):
    """`length` problems, each made when it is asked for."""

    def __init__(self, make: Callable[[int], Problem], length: int) -> None:
        self.make, self.length = make, length

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...
    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        if not -self.length <= index < self.length:
            raise IndexError(f"problem {index} of {self.length}")
        return self.make(index % self.length)


Grade = Callable[[Sequence[Problem], Sequence[str]], Sequence[Verdict]]
"""A grader of many completions in one call: the problem of each, and its text."""


@dataclass(frozen=True)
class Task:
    """What to learn and how to tell that it was learned.

    Args:
        name: what reports call it.
        train, test: problems; a sequence may make them by index.
        grade: (gold, completion) -> Verdict; None where a verdict needs more of the problem than
            its gold answer: then there is `grade_many`.
        max_new_tokens: the completion budget, unless the settings give one.
        label: names the kind of a completion; evaluations then report the share and the accuracy
            of each kind.
        grade_many: a grader of many completions in one call, used in place of `grade` where there
            is one.
        right_answer, wrong_answer: of a problem, a completion that is right, and one that is not;
            None: there is none to try. Without them, the solution or the gold answer is right.
        notes: what was left out of the data, and why; a sentence each, for people.
    """

    name: str
    train: Sequence[Problem]
    test: Sequence[Problem]
    grade: Callable[[str, str], Verdict] | None
    max_new_tokens: int = 256
    label: Callable[[str], str] | None = None
    grade_many: Grade | None = None
    right_answer: Callable[[Problem], str | None] | None = None
    wrong_answer: Callable[[Problem], str | None] | None = None
    notes: tuple[str, ...] = ()


def grader_of(task: Task) -> Grade:
    """The task's own grader: of many completions at once where it has one, else one by one.

    Raises:
        RequestError: it has neither.
    """
    grade = task.grade
    if task.grade_many is not None:
        return task.grade_many
    if grade is None:
        raise RequestError(
            f"The task {task.name} has no grader. Give it grade, (gold, completion) -> Verdict, or "
            "grade_many."
        )
    return lambda problems, texts: [
        grade(problem.gold, text) for problem, text in zip(problems, texts, strict=True)
    ]
