"""Reward functions of TRL's signature: a user's as a grader here, a task's grader as one for TRL.

TRL calls `f(prompts, completions, completion_ids, **columns)` with one list entry a completion and
expects as many numbers, None where the function cannot judge. The function may be async, and there
may be several, whose weighted scores are added up.

Departures from TRL, where a user's function is called here: prompts and completions are texts, also
for chat models, unless the function shows on its first call that it wants turns; `completion_ids`
are the tokens of these texts, without the token that ended the answer.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tinylora.errors import RequestError, TinyLoraError
from tinylora.rewards.verdict import Verdict
from tinylora.tasks.check import answers_of
from tinylora.tasks.task import Grade, Problem, Task, grader_of
from tinylora.tasks.theirs import as_score, awaited, listed, their_code
from tinylora.tasks.turns import last_turn

RewardFunction = Callable[..., Any]
Reward = RewardFunction | Sequence[RewardFunction | tuple[RewardFunction, float]]
Tokenize = Callable[[str], list[int]]
TRIED = 2  # problems whose answers are graded before anything is measured
_WANTS_TURNS = (TypeError, AttributeError, IndexError)  # what a text raises that is read as a chat


def rewarded(task: Task, reward: Reward, tokenize: Tokenize) -> Task:
    """The task with the user's reward in place of its grader; it has been tried.

    Args:
        reward: a function, or a list of functions or of (function, weight).
        tokenize: a completion's text to its token ids.

    Raises:
        RequestError: it is not a function, or fails on the task's first problems.
    """
    task = replace(task, grade=None, grade_many=as_grade(reward, tokenize))
    try_grader(task)
    return task


def try_grader(task: Task) -> None:
    """Grade answers to the first training problems as training will, before anything is measured.

    Raises:
        RequestError: the grader fails, or returns something that is not a score.
    """
    tries = [
        (problem, answer)
        for problem in task.train[:TRIED]
        for _, answer in answers_of(task, problem)
    ]
    try:
        grader_of(task)([problem for problem, _ in tries], [answer for _, answer in tries])
    except RequestError:
        raise
    except TinyLoraError as error:
        raise RequestError(str(error)) from error


def as_grade(reward: Reward, tokenize: Tokenize) -> Grade:
    """The function, or the sum of several, as a grader of many completions in one call.

    It gets, by name, what it names (everything, if it takes `**kwargs`): `prompts`, `completions`,
    `completion_ids`, `answer`, `solution`, and every other field of the problems' rows. Of several
    scores the weighted sum counts, without those that are None, as in TRL.

    Args:
        tokenize: a completion's text to its token ids.

    Raises:
        RequestError: it is not a function, or not a list of functions.
    """
    weighted = [(_Function(function), weight) for function, weight in _weighted(reward)]
    if len(weighted) == 1 and weighted[0][1] == 1:
        return _alone(weighted[0][0], tokenize)

    def grade(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        scores = {
            f"{function.name} ({number})": function(problems, completions, tokenize)
            for number, (function, _) in enumerate(weighted, start=1)
        }
        weights = dict(zip(scores, (weight for _, weight in weighted), strict=True))
        rows = zip(*scores.values(), strict=True)
        return [_sum(dict(zip(scores, row, strict=True)), weights) for row in rows]

    return grade


def _alone(function: "_Function", tokenize: Tokenize) -> Grade:
    def grade(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        scores = function(problems, completions, tokenize)
        return [
            Verdict(score, f"{function.name} did not judge" if score is None else "")
            for score in scores
        ]

    return grade


def _weighted(reward: Any) -> list[tuple[RewardFunction, float]]:
    """Functions and their weights, 1 where none is given."""
    given = [reward] if callable(reward) else reward
    entries = list(given) if isinstance(given, list | tuple) else []
    pairs = [entry if isinstance(entry, tuple) else (entry, 1.0) for entry in entries]
    for pair in pairs or [(reward, 1.0)]:
        function, weight = pair if len(pair) == 2 else (pair, 1.0)
        if not callable(function) or isinstance(weight, str) or not isinstance(weight, int | float):
            raise RequestError(
                f"reward = {reward!r}, but it must be a function of TRL's signature, or a list of "
                "functions or of (function, weight)."
            )
    return [(function, float(weight)) for function, weight in pairs]


def _sum(scores: dict[str, float | None], weights: dict[str, float]) -> Verdict:
    known = [weights[name] * score for name, score in scores.items() if score is not None]
    if not known:
        return Verdict(None, "no reward function could judge", scores)
    return Verdict(sum(known), "", scores)


class _Function:
    """One reward function, called with texts, or with turns if its first call shows it."""

    def __init__(self, function: RewardFunction) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.what = f"The reward function {self.name}"
        self.wants_turns: bool | None = None  # until its first call has shown it
        try:
            wanted = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            raise RequestError(
                f"{self.what} does not show its parameters. Wrap it: def reward(completions, "
                "**columns)."
            ) from None
        self.takes_all = any(p.kind is p.VAR_KEYWORD for p in wanted)
        named = [p for p in wanted if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        self.parameters = [p.name for p in named]
        self.required = [p.name for p in named if p.default is p.empty]

    def __call__(
        self, problems: Sequence[Problem], completions: Sequence[str], tokenize: Tokenize
    ) -> list[float | None]:
        columns = {
            **_columns(problems),
            "completions": list(completions),
            "completion_ids": [tokenize(text) for text in completions],
        }
        with their_code(self.what):
            returned = awaited(self._called(columns, problems))
            scores = listed(returned, len(completions), self.what)
            return [as_score(score, self.what) for score in scores]

    def _called(self, columns: dict[str, Any], problems: Sequence[Problem]) -> Any:
        missing = [name for name in self.required if name not in columns]
        if missing:
            raise RequestError(
                f"{self.what} asks for {missing[0]}, but it can only be given "
                f"{', '.join(columns)}. Leave it out, give it a default, or add the column to the "
                "rows."
            )
        if self.wants_turns:
            return self._with(_as_turns(columns, problems))
        try:
            returned = self._with(columns)
        except _WANTS_TURNS as error:
            if self.wants_turns is False:
                raise
            try:
                returned = self._with(_as_turns(columns, problems))
            except Exception:
                raise error from None  # it wants texts, and fails on them
            self.wants_turns = True
            return returned
        self.wants_turns = False
        return returned

    def _with(self, columns: dict[str, Any]) -> Any:
        chosen = {name: columns[name] for name in columns if self._takes(name)}
        return awaited(self.function(**chosen))

    def _takes(self, name: str) -> bool:
        return self.takes_all or name in self.parameters


def _as_turns(columns: dict[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
    """Prompts and completions as TRL gives them for a chat model."""
    answers = [[{"role": "assistant", "content": text}] for text in columns["completions"]]
    return {
        **columns,
        "prompts": [chat_of(problem) for problem in problems],
        "completions": answers,
    }


def as_reward(task: Task) -> RewardFunction:
    """The task's grader as a reward function, for TRL's trainers and for `tinylora.train` alike.

    It takes completions as TRL gives them, texts or chats (whose last turn is the answer), and the
    columns of `as_row`. It returns scores, None where the grader could not judge.

    Args:
        task: whose grader judges.

    Raises:
        TinyLoraError: when it is called: there is no column `answer`.
    """

    def reward(
        completions: Sequence[Any], answer: Sequence[str] | None = None, **columns: Any
    ) -> list[float | None]:
        if answer is None:
            raise TinyLoraError(
                f"The reward of {task.name} needs the column answer to grade, but the rows lack "
                "it. Make the rows of the data set with tinylora.tasks.as_row."
            )
        problems = [_problem(gold, i, columns) for i, gold in enumerate(answer)]
        verdicts = grader_of(task)(problems, [last_turn(chat) for chat in completions])
        return [verdict.score for verdict in verdicts]

    reward.__name__ = task.name  # TRL's logs call it by this
    return reward


def as_row(problem: Problem, *, chat: bool = True) -> dict[str, Any]:
    """The problem as a row of a data set for TRL: its prompt, `answer`, and its other columns.

    Args:
        problem: of any task.
        chat: the prompt as turns, which the trainer puts into the chat template; else as text.
    """
    said = chat_of(problem)
    plain = problem.plain or "\n\n".join(turn["content"] for turn in said)
    row = {"prompt": said if chat else plain, "answer": problem.gold}
    return {**problem.columns, "solution": problem.solution, **row}


def chat_of(problem: Problem) -> list[dict[str, str]]:
    """All turns that the model reads."""
    before = [] if problem.system is None else [{"role": "system", "content": problem.system}]
    earlier = [dict(turn) for turn in problem.turns]
    return [*before, *earlier, {"role": "user", "content": problem.prompt}]


def _problem(gold: str, place: int, columns: Mapping[str, Any]) -> Problem:
    """What a row says of its problem; TRL also gives things that are no columns."""
    held = {name: values[place] for name, values in columns.items() if isinstance(values, list)}
    prompt, solution = last_turn(held.pop("prompts", "")), held.pop("solution", None)
    return Problem(prompt, gold, solution, held)


def _columns(problems: Sequence[Problem]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for problem in problems for name in problem.columns)
    return {
        **{name: [problem.columns.get(name) for problem in problems] for name in names},
        "prompts": [problem.prompt for problem in problems],
        "answer": [problem.gold for problem in problems],
        "solution": [problem.solution for problem in problems],
    }
