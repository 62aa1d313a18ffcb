"""Reward functions of TRL's signature: a user's as a grader here, a task's grader as one for TRL.

TRL calls `f(prompts, completions, completion_ids, **columns)` with one list entry a completion and
expects as many numbers, None where the function cannot judge.

Departures from TRL, where a user's function is called here: completions are texts, also for chat
models; `completion_ids` are the tokens of these texts, without the token that ended the answer.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tinylora.errors import TinyLoraError
from tinylora.rewards.verdict import Verdict
from tinylora.tasks.task import Grade, Problem, Task, grader_of

RewardFunction = Callable[..., Sequence[float | None]]


def as_grade(reward: RewardFunction, tokenize: Callable[[str], list[int]]) -> Grade:
    """The function as a grader of many completions in one call.

    It gets, by name, what it names (everything, if it takes `**kwargs`): `prompts`, `completions`,
    `completion_ids`, `answer`, `solution`, and every other field of the problems' rows.

    Args:
        tokenize: a completion's text to its token ids.
    """
    wanted = inspect.signature(reward).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in wanted.values())
    name = getattr(reward, "__name__", type(reward).__name__)

    def grade(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        columns = {
            **_columns(problems),
            "completions": list(completions),
            "completion_ids": [tokenize(text) for text in completions],
        }
        scores = reward(**{key: columns[key] for key in columns if takes_all or key in wanted})
        return [_verdict(score, name) for score in _listed(scores, len(completions), name)]

    return grade


def as_reward(task: Task) -> RewardFunction:
    """The task's grader as a reward function, for TRL's trainers and for `tinylora.train` alike.

    It takes completions as TRL gives them, texts or chats (whose last turn is the answer), and the
    columns of `as_row`. It returns scores, None where the grader could not judge.

    Raises:
        TinyLoraError: when it is called: there is no column `answer`.
    """

    def reward(
        completions: Sequence[Any], answer: Sequence[str] | None = None, **columns: Any
    ) -> list[float | None]:
        if answer is None:
            raise TinyLoraError(
                f"The reward of {task.name} was given no column answer, so there is nothing to "
                "grade by. Make the rows of the data set with tinylora.tasks.as_row."
            )
        problems = [_problem(gold, i, columns) for i, gold in enumerate(answer)]
        verdicts = grader_of(task)(problems, [_last_turn(chat) for chat in completions])
        return [verdict.score for verdict in verdicts]

    reward.__name__ = task.name  # TRL's logs call it by this
    return reward


def as_row(problem: Problem, *, chat: bool = True) -> dict[str, Any]:
    """The problem as a row of a data set for TRL: its prompt, `answer`, and its other columns.

    Args:
        chat: the prompt as turns, which the trainer puts into the chat template; else as text.
    """
    turns = [("system", problem.system), ("user", problem.prompt)]
    said = [{"role": role, "content": text} for role, text in turns if text is not None]
    plain = problem.plain or "\n\n".join(turn["content"] for turn in said)
    row = {"prompt": said if chat else plain, "answer": problem.gold}
    return {**problem.columns, "solution": problem.solution, **row}


def _problem(gold: str, place: int, columns: Mapping[str, Any]) -> Problem:
    """What a row says of its problem; TRL also gives things that are no columns."""
    held = {name: values[place] for name, values in columns.items() if isinstance(values, list)}
    prompt, solution = _last_turn(held.pop("prompts", "")), held.pop("solution", None)
    return Problem(prompt, gold, solution, held)


def _last_turn(chat: Any) -> str:
    """A text as it is; of turns the text of the last, whose content may come in parts."""
    if isinstance(chat, str):
        return chat
    content = chat[-1]["content"] if chat else None
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def _columns(problems: Sequence[Problem]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for problem in problems for name in problem.columns)
    return {
        **{name: [problem.columns.get(name) for problem in problems] for name in names},
        "prompts": [problem.prompt for problem in problems],
        "answer": [problem.gold for problem in problems],
        "solution": [problem.solution for problem in problems],
    }


def _listed(scores: Any, count: int, name: str) -> list[Any]:
    """One entry for each completion."""
    try:
        listed = list(scores)
    except TypeError:
        what = "None" if scores is None else f"a {type(scores).__name__}"
    else:
        if len(listed) == count:
            return listed
        what = f"{len(listed)} scores"
    raise TinyLoraError(
        f"The reward function {name} returned {what} for {count} completions. It has to return a "
        "list with a number for each, None where it cannot judge."
    )


def _verdict(score: Any, name: str) -> Verdict:
    """NaN means None, as in TRL; anything that is a number counts as one."""
    if score is None:
        return Verdict(None, f"{name} returned None")
    try:
        number = float(score)
    except (TypeError, ValueError):
        raise TinyLoraError(
            f"The reward function {name} returned {score!r} for a completion. It has to return a "
            "list of numbers, None where it cannot judge."
        ) from None
    return Verdict(None, f"{name} returned NaN") if math.isnan(number) else Verdict(number)
