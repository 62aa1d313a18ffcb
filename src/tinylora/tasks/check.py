"""Is a task gradable? Its own right answers must be right, and nothing and a wrong one must not.

No model is asked. A problem is *valid* if its right answer is right, in other spellings too where
the task knows some, an empty one scores 0 and a wrong one is not right; *invalid* if the grader
said otherwise; *not judged* if it could not say. Problems without a right answer to try (programs,
where the data has none that was accepted) are counted apart, and are checked with the empty and the
wrong answer alone.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tinylora.rewards.verdict import Verdict
from tinylora.tasks.task import Problem, Task, grader_of

BATCH = 64  # problems that are graded in one call; between two calls the progress is shown
MAX_INVALID_SHARE = 0.01  # of the problems; more, and training would follow the grader's mistakes
RIGHT, RESPELLED, EMPTY = "right", "right, spelled otherwise", "empty"
MAX_UNJUDGED_SHARE = 0.05  # as in training, where a step with more ends the run


@dataclass(frozen=True)
class Finding:
    """A problem that is not valid: which, and what was said about which answer (its kind, and
    what was tried)."""

    index: int
    gold: str
    answer: str
    tried: str
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


def check(
    task: Task, problems: Sequence[Problem], progress: Callable[[int], None] = lambda done: None
) -> Check:
    """Grade every problem's right answer in all its spellings, an empty one, and a wrong one.

    Args:
        progress: is told how many problems are done.
    """
    found = Check()
    for start in range(0, len(problems), BATCH):
        _check_batch(task, problems[start : start + BATCH], start, found)
        progress(found.num_problems)
    return found


def _check_batch(task: Task, problems: Sequence[Problem], start: int, found: Check) -> None:
    answers_P = [answers_of(task, problem) for problem in problems]
    tries = [(p, text) for p, tried in zip(problems, answers_P, strict=True) for _, text in tried]
    verdicts = iter(grader_of(task)([p for p, _ in tries], [text for _, text in tries]))
    for place, (problem, answers) in enumerate(zip(problems, answers_P, strict=True)):
        said = [(kind, text, next(verdicts)) for kind, text in answers]
        _count(problem, start + place, said, found)


def answers_of(task: Task, problem: Problem) -> list[tuple[str, str]]:
    """The answers that are tried, each with its kind: right in one or more spellings, empty and
    wrong, where there are such."""
    right = task.right_answer(problem) if task.right_answer else problem.solution or problem.gold
    wrong = task.wrong_answer(problem) if task.wrong_answer else None
    spelled = task.spellings(problem) if task.spellings and right else ()
    tried = [(RIGHT, right or None), *((RESPELLED, text) for text in spelled)]
    tried += [(EMPTY, ""), ("wrong", wrong)]
    return [(kind, answer) for kind, answer in tried if answer is not None]


def _count(
    problem: Problem, index: int, said: list[tuple[str, str, Verdict]], found: Check
) -> None:
    found.num_problems += 1
    found.num_without_answer += all(kind != RIGHT for kind, _, _ in said)
    unjudged = [entry for entry in said if entry[2].score is None]
    mistaken = [entry for entry in said if not _as_expected(entry[0], entry[2])]
    found.kinds["not judged" if unjudged else "invalid" if mistaken else "valid"] += 1
    for kind, text, verdict in (unjudged or mistaken)[:1]:
        finding = Finding(index, problem.gold, kind, text, verdict.score, verdict.cause)
        found.findings.append(finding)


def _as_expected(kind: str, verdict: Verdict) -> bool:
    if kind in (RIGHT, RESPELLED):
        return verdict.is_right
    return not verdict.is_right and (kind == "wrong" or verdict.score == 0)
