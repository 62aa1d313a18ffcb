"""A user's reward function (TRL's signature) as a grader.

TRL calls `f(prompts, completions, completion_ids, **columns)` with one list entry a completion and
expects as many numbers, None where the function cannot judge.

Departures from TRL: completions are texts here, also for chat models; `completion_ids` are the
tokens of these texts, without the token that ended the answer.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

from tinylora.errors import TinyLoraError
from tinylora.rewards.verdict import Verdict
from tinylora.tasks.task import Grade, Problem

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
