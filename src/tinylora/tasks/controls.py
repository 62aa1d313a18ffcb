"""Rewards that carry other information than the true one, or none: what a gain is compared with.

A model may gain under rewards that know nothing of the right answer, because training sharpens what
it does already. A run under such a reward shows how much. Each control is a function of (seed,
problem, completion) alone, but `majority`, which needs the problem's other completions.

    random      1 or 0 with equal probability, whatever the completion says
    format      1 where the completion gives an answer in the format that is asked for
    incorrect   1 where it gives such an answer, and a wrong one
    shuffled    the true grader, with the gold answer of another training problem
    majority    1 where its answer is the most frequent one among the problem's completions

*Source:* Shao et al., 2025, "Spurious Rewards"; `majority` is also TTRL's reward. Departure: for
`incorrect` and `majority` they use labels that the base model voted on before training; here the
grader and the group decide.

A control is for training. Accuracies are measured with the task as it was.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

from tinylora.errors import RequestError
from tinylora.rewards.verdict import Verdict
from tinylora.tasks.task import Problem, Task, grader_of

Control = Literal["random", "format", "incorrect", "shuffled", "majority"]
Score = Callable[[Problem, str, Verdict], float]


def controlled(task: Task, control: str, seed: int) -> Task:
    """The task under this reward; every verdict's details have `control` and `true_score`.

    A completion that the true grader cannot judge scores all the same where the control does not
    ask it (`random`, `format`, `majority`), and is not judged under the others.

    Args:
        task: whose problems are asked, and whose grader gives the true score.
        control: random, format, incorrect, shuffled or majority.
        seed: of what is drawn.

    Raises:
        RequestError: there is no such control, or the task does not say what the answer in a
            completion is.
    """
    if control not in get_args(Control):
        raise RequestError(
            f"reward_control = {control}, but it must be {', '.join(get_args(Control))}."
        )
    if control in ("format", "incorrect", "majority") and task.answer_of is None:
        raise RequestError(
            f"reward_control = {control} needs the answer in a completion, but task {task.name} "
            "cannot find it. Pass answer_of=function to its Task, or use random or shuffled."
        )
    true = grader_of(task)

    def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        known = true(problems, texts)
        scores = _scores(task, control, seed, problems, texts, known)
        return [
            _verdict(control, score, verdict) for score, verdict in zip(scores, known, strict=True)
        ]

    return replace(task, grade=None, grade_many=grade)


def _scores(
    task: Task,
    control: str,
    seed: int,
    problems: Sequence[Problem],
    texts: Sequence[str],
    known: Sequence[Verdict],
) -> list[float | None]:
    """The control's score of every completion."""
    if control == "shuffled":
        partners = [partner_of(problem, task.train, seed) for problem in problems]
        return [verdict.score for verdict in grader_of(task)(partners, texts)]
    if control == "random":
        pairs = zip(problems, texts, strict=True)
        return [float(_hash(seed, problem, text) % 2) for problem, text in pairs]
    assert task.answer_of is not None
    answers = [task.answer_of(text) for text in texts]
    if control == "format":
        return [float(answer is not None) for answer in answers]
    if control == "incorrect":
        return [_incorrect(*pair) for pair in zip(answers, known, strict=True)]
    return _agreement(
        seed, problems, [_one_spelling(*pair) for pair in zip(answers, known, strict=True)]
    )


def partner_of(problem: Problem, train: Sequence[Problem], seed: int) -> Problem:
    """Another training problem, whose gold answer counts for this one, always the same."""
    place = _hash(seed, problem, "") % len(train)
    found = train[place]
    return train[place - 1] if found.identity == problem.identity else found


def _incorrect(answer: str | None, verdict: Verdict) -> float | None:
    if verdict.score is None:
        return None
    return float(answer is not None and not verdict.is_right)


def _one_spelling(answer: str | None, verdict: Verdict) -> str | None:
    """The answer as the grader writes it, where it says so: 1/2 and 0.5 are two answers, but
    `\\frac12` and `\\frac{1}{2}` are one."""
    return None if answer is None else str(verdict.details.get("answer") or answer.strip())


def _agreement(
    seed: int, problems: Sequence[Problem], answers: Sequence[str | None]
) -> list[float | None]:
    """1 for the most frequent answer to each problem; of equally frequent ones a hash decides."""
    votes: defaultdict[object, Counter[str]] = defaultdict(Counter)
    for problem, answer in zip(problems, answers, strict=True):
        if answer is not None:
            votes[problem.identity][answer] += 1
    asked = {problem.identity: problem for problem in problems}
    elected = {
        identity: max(counted, key=lambda a: (counted[a], _hash(seed, asked[identity], a)))  # type: ignore[index]
        for identity, counted in votes.items()
    }
    return [
        float(answer is not None and elected[problem.identity] == answer)
        for problem, answer in zip(problems, answers, strict=True)
    ]


def _verdict(control: str, score: float | None, true: Verdict) -> Verdict:
    """The control's score with the true one beside it; a factor belongs to the true one."""
    details = {name: value for name, value in true.details.items() if name != "factor"}
    reason = true.reason if score is None else f"control: {control}"
    return Verdict(score, reason, {**details, "control": control, "true_score": true.score})


def _hash(seed: int, problem: Problem, text: str) -> int:
    said = repr((seed, problem.identity, text)).encode()
    return int.from_bytes(hashlib.sha256(said).digest()[:8], "big")
