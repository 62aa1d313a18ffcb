"""A task: problems to train on, problems to test on, and a way to grade an answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from tinylora.errors import RequestError
from tinylora.rewards.verdict import Verdict
from tinylora.tasks.theirs import as_score, awaited, listed, their_code
from tinylora.tasks.turns import Turn, check_text, earlier_turns


@dataclass(frozen=True)
class Problem:
    """One problem.

    Args:
        prompt: what the model reads; or the turns of a chat, of which the last is the user's.
        gold: the right answer, as the task's grader understands it; a number is written out.
        solution: a worked solution, where one exists.
        columns: other fields of its row; a reward function gets them by name.
        system: the system turn before the prompt.
        plain: what a model without a chat template reads; None: all turns as text.
        turns: those between the system turn and the prompt.
        place: where it stands (`data.jsonl, line 7`), for sentences about it.

    Raises:
        RequestError: prompt or gold is something else, or a text that cannot be encoded.
    """

    prompt: str
    gold: str
    solution: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    plain: str | None = None
    turns: tuple[Turn, ...] = ()
    place: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        prompt: Any = self.prompt
        gold: Any = self.gold
        if isinstance(prompt, list | tuple):
            system, turns, last = earlier_turns(prompt)
            self._set(system=self.system if system is None else system, turns=turns, prompt=last)
        if isinstance(gold, int | float) and not isinstance(gold, bool):
            self._set(gold=written_number(gold))
        for name in ("prompt", "gold", "system"):
            check_text(getattr(self, name), f"Problem.{name}", optional=name == "system")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # frozen

    @property
    def identity(self) -> tuple[str | None, tuple[str, ...], str]:
        """What the model is asked, spaces apart: equal for two problems that are the same."""
        before = tuple(f"{turn['role']} {turn['content']}" for turn in self.turns)
        return self.system, before, "".join(self.prompt.split())


def written_number(number: int | float) -> str:
    """As a person writes it: 2.0 is 2, as pandas makes 2.0 of 2 where a column has a gap."""
    whole = isinstance(number, float) and number.is_integer() and abs(number) < 1e15
    return str(int(number) if whole else number)


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
        train: problems to learn from; a sequence may make them by index.
        test: problems to measure on.
        grade: (gold, completion) -> Verdict, or a number, None where it cannot judge; None where a
            verdict needs more of the problem than its gold answer: then there is `grade_many`.
        max_new_tokens: the completion budget, unless the settings give one.
        label: names the kind of a completion; evaluations then report the share and the accuracy
            of each kind.
        grade_many: a grader of many completions in one call, used in place of `grade` where there
            is one.
        right_answer: of a problem, a completion that is right; None: there is none to try. Without
            it, the solution or the gold answer is right.
        wrong_answer: of a problem, a completion that is not right; None: there is none to try.
        spellings: of a problem, other completions that are right.
        answer_of: the answer that a completion gives in the format that is asked for; None: it
            gives none.
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
    spellings: Callable[[Problem], Sequence[str]] | None = None
    answer_of: Callable[[str], str | None] | None = None
    notes: tuple[str, ...] = ()


def grader_of(task: Task) -> Grade:
    """The task's own grader: of many completions at once where it has one, else one by one.

    What it returns is a verdict for each, whatever kind of number the user's grader gives.

    Raises:
        RequestError: it has neither. (When it is called) TinyLoraError: it raised an exception, or
            returned something that is not a verdict.
    """
    what = f"The grader of task {task.name}"
    if task.grade_many is None and task.grade is None:
        raise RequestError(
            f"The task {task.name} needs a grader. Pass grade=, (gold, completion) -> Verdict, or "
            "grade_many=."
        )

    def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        with their_code(what):
            said = listed(awaited(_said(task, problems, texts)), len(texts), what)
            return [as_verdict(awaited(value), what) for value in said]

    return grade


def _said(task: Task, problems: Sequence[Problem], texts: Sequence[str]) -> Any:
    if task.grade_many is not None:
        return task.grade_many(problems, texts)
    assert task.grade is not None
    pairs: Iterator[tuple[Problem, str]] = zip(problems, texts, strict=True)
    return [task.grade(problem.gold, text) for problem, text in pairs]


def as_verdict(value: Any, what: str) -> Verdict:
    """A verdict as it is; of a number, the verdict with this score."""
    if isinstance(value, Verdict):
        return value
    score = as_score(value, what)
    return Verdict(score, f"{what} returned {value}" if score is None else "")


def check_task(task: Any, name: str) -> Task:
    """The task, if it is one that can be trained on.

    Raises:
        RequestError: it is something else, or one of its parts is.
    """
    if not isinstance(task, Task):
        raise RequestError(
            f"{name} returned a {type(task).__name__}, but a task is a tinylora.Task. Return "
            "Task(name, train, test, grade)."
        )
    for split, problems in (("train", task.train), ("test", task.test)):
        _check_problems(problems, f"Task.{split} of {name}")
    budget: Any = task.max_new_tokens
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise RequestError(
            f"Task.max_new_tokens of {name} is {budget!r}, but it must be a whole number of at "
            "least 1: the tokens that an answer may have."
        )
    for part in ("grade", "grade_many"):
        given = getattr(task, part)
        if given is not None and not callable(given):
            raise RequestError(
                f"Task.{part} of {name} is a {type(given).__name__}, but it must be a function."
            )
    grader_of(task)
    return task


def _check_problems(problems: Any, what: str) -> None:
    if not hasattr(problems, "__len__") or not hasattr(problems, "__getitem__"):
        raise RequestError(
            f"{what} is a {type(problems).__name__}, but problems are drawn by index. Pass a list "
            "of tinylora.Problem."
        )
    is_made = not isinstance(problems, list | tuple)  # a sequence may make its problems when asked
    for place, problem in enumerate(problems[:1] if is_made else problems):
        if not isinstance(problem, Problem):
            raise RequestError(
                f"{what} contains a {type(problem).__name__} at place {place}. Make each row a "
                "problem: tinylora.Problem(prompt, gold)."
            )
