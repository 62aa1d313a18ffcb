"""The graders of a mathematical task: one answer, and many at once, in worker processes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

from tinylora import distributed
from tinylora.errors import TinyLoraError
from tinylora.rewards import math
from tinylora.rewards.math.extract import AnswerFormat
from tinylora.rewards.verdict import Verdict
from tinylora.settings import TaskConfig
from tinylora.tasks.prompts import written
from tinylora.tasks.task import Grade, Problem

WRONG = "-987654321.5"  # an answer that no problem has


class Graders(TypedDict):
    """What a mathematical task is graded by, as `Task` takes it."""

    grade: Callable[[str, str], Verdict]
    grade_many: Grade
    right_answer: Callable[[Problem], str | None]
    wrong_answer: Callable[[Problem], str | None]


def graders(asked: AnswerFormat, settings: TaskConfig) -> Graders:
    """For answers in the format that the prompt asked for, or (`lenient`) in any."""
    answer_format = asked if settings.reward_format == "strict" else "any"

    def grade_many(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        golds = [problem.gold for problem in problems]
        return math.grade_many(list(zip(golds, completions, strict=True)), answer_format)

    written_as = "hash" if asked == "hash" else "boxed"
    return {
        "grade": partial(math.grade, answer_format=answer_format),
        "grade_many": grade_many,
        "right_answer": lambda problem: written(problem.gold, written_as),
        "wrong_answer": lambda problem: written(WRONG, written_as),
    }


def grade_groups(
    grade: Grade, problems_P: Sequence[Problem], texts_P_G: list[list[str]]
) -> list[list[Verdict]]:
    """Verdicts of all samples, from one call of the grader."""
    num_samples = len(texts_P_G[0])
    repeated = [problem for problem in problems_P for _ in range(num_samples)]
    mine = distributed.share(repeated)
    texts = distributed.share([text for row in texts_P_G for text in row])
    judged = list(grade(mine, texts)) if mine else []
    if len(judged) != len(mine):
        raise TinyLoraError(
            f"The grader gave {len(judged)} verdicts for {len(mine)} completions, so which "
            "belongs to which is unknown. It has to give one for each, None where it cannot judge."
        )
    verdicts = distributed.gather(judged)
    return [verdicts[i : i + num_samples] for i in range(0, len(verdicts), num_samples)]
