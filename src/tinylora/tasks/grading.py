"""The graders of a mathematical task: one answer, and many at once, in worker processes."""

from collections.abc import Callable, Sequence
from functools import partial

from tinylora.config import TaskConfig
from tinylora.rewards import math
from tinylora.rewards.extract import AnswerFormat
from tinylora.rewards.verdict import Verdict
from tinylora.tasks.task import Grade, Problem


def graders(
    asked: AnswerFormat, settings: TaskConfig
) -> tuple[Callable[[str, str], Verdict], Grade]:
    """For answers in the format that the prompt asked for, or (`lenient`) in any."""
    answer_format = asked if settings.reward_format == "strict" else "any"

    def grade_many(problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        golds = [problem.gold for problem in problems]
        return math.grade_many(list(zip(golds, completions, strict=True)), answer_format)

    return partial(math.grade, answer_format=answer_format), grade_many
