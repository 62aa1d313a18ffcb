"""Is a task gradable? Its own right answers must be right, and nothing and a wrong one must not.

No model is asked. A problem is *valid* if its right answer is right, an empty one scores 0 and a
wrong one is not right; *invalid* if the grader said otherwise; *not judged* if it could not say.
Problems without a right answer to try (programs, where the data has none that was accepted) are
counted apart, and are checked with the empty and the wrong answer alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tinylora.rewards.verdict import Verdict
from tinylora.tasks.task import Problem, Task, grader_of

BATCH = 256
MAX_INVALID_SHARE = 0.01  # of the problems; more, and training would follow the grader's mistakes
MAX_UNJUDGED_SHARE = 0.05  # as in training, where a step with more ends the run


@dataclass(frozen=True)
class Finding:
    """A problem that is not valid: which, and what was said about which answer."""

    index: int
    gold: str
    answer: str
    score: float | None
    reason: str


@dataclass
class Check:
    """What was found in one split."""

    num_problems: int = 0
    num_without_answer: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def has_no_answers(self) -> bool:
        """Whether there was no right answer to try."""
        return self.num_problems == self.num_without_answer

    @property
    def is_gradable(self) -> bool:
        """Whether almost all problems are valid, and at least one right answer was tried."""
        if self.has_no_answers:
            return False
        return (
            self.kinds["invalid"] <= MAX_INVALID_SHARE * self.num_problems
            and self.kinds["not judged"] <= MAX_UNJUDGED_SHARE * self.num_problems
        )


def check(task: Task, problems: Sequence[Problem]) -> Check:
    """Grade every problem's right answer, an empty one, and a wrong one."""
    found = Check()
    for start in range(0, len(problems), BATCH):
        _check_batch(task, problems[start : start + BATCH], start, found)
    return found


def _check_batch(task: Task, problems: Sequence[Problem], start: int, found: Check) -> None:
    tries = [
        (place, problem, kind, answer)
        for place, problem in enumerate(problems)
        for kind, answer in answers_of(task, problem).items()
    ]
    verdicts = grader_of(task)(
        [problem for _, problem, _, _ in tries], [answer for _, _, _, answer in tries]
    )
    said: list[dict[str, Verdict]] = [{} for _ in problems]
    for (place, _, kind, _), verdict in zip(tries, verdicts, strict=True):
        said[place][kind] = verdict
    for place, problem in enumerate(problems):
        _count(problem, start + place, said[place], found)


def answers_of(task: Task, problem: Problem) -> dict[str, str]:
    """The answers that are tried: `right` and `wrong`, where there are such, and `empty`."""
    right = task.right_answer(problem) if task.right_answer else problem.solution or problem.gold
    wrong = task.wrong_answer(problem) if task.wrong_answer else None
    tried = {"right": right or None, "empty": "", "wrong": wrong}
    return {kind: answer for kind, answer in tried.items() if answer is not None}


def _count(problem: Problem, index: int, said: dict[str, Verdict], found: Check) -> None:
    found.num_problems += 1
    found.num_without_answer += "right" not in said
    unjudged = [kind for kind, verdict in said.items() if verdict.score is None]
    mistaken = [kind for kind, verdict in said.items() if not _as_expected(kind, verdict)]
    found.kinds["not judged" if unjudged else "invalid" if mistaken else "valid"] += 1
    for kind in (unjudged or mistaken)[:1]:
        verdict = said[kind]
        found.findings.append(Finding(index, problem.gold, kind, verdict.score, verdict.cause))


def _as_expected(kind: str, verdict: Verdict) -> bool:
    if kind == "right":
        return verdict.is_right
    return not verdict.is_right and (kind == "wrong" or verdict.score == 0)
