"""Grading all samples of a step or of an evaluation, shared out among the processes of a run."""

from collections.abc import Sequence

from tinylora import distributed
from tinylora.errors import TinyLoraError
from tinylora.rewards.verdict import Verdict
from tinylora.tasks.task import Grade, Problem


def grade_groups(
    grade: Grade, problems_P: Sequence[Problem], texts_P_G: list[list[str]]
) -> list[list[Verdict]]:
    """Verdicts of all samples, from one call of the grader in each process.

    The samples of a problem stay together, for graders that compare them.
    """
    mine = distributed.share(list(zip(problems_P, texts_P_G, strict=True)))
    problems = [problem for problem, texts in mine for _ in texts]
    texts = [text for _, group in mine for text in group]
    judged = list(grade(problems, texts)) if mine else []
    if len(judged) != len(texts):
        raise TinyLoraError(
            f"The grader gave {len(judged)} verdicts for {len(texts)} completions, so they cannot "
            "be matched up. It must give one for each, None where it cannot judge."
        )
    verdicts = iter(judged)
    return distributed.gather([[next(verdicts) for _ in group] for _, group in mine])
