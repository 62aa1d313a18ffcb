r"""From a gold answer and a completion to a verdict on mathematics.

`grade` and `grade_many` find the answer (`extract.py`), compare strings and numbers in this process
(`compare.py`), and send what is left to math-verify in worker processes with limits (`workers.py`).
Three outcomes: 1; 0, which is only ever the model's fault (no answer, another answer, an answer too
long or too large to compare); None where the gold answer is empty, is prose or cannot be read, or
the comparison could not be run.

Not covered: equality that algebra within seconds does not show, and free text other than its
own words.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from tinylora.rewards.math import extract, workers
from tinylora.rewards.math.compare import equivalent, is_phrase
from tinylora.rewards.math.extract import AnswerFormat
from tinylora.rewards.math.latex import key, tidy
from tinylora.rewards.math.workers import Judged
from tinylora.rewards.verdict import Verdict

# A larger answer equals a gold answer literally or not at all.
MAX_ANSWER = 1_500  # characters
MAX_NESTING = 40  # brackets in each other

_PROSE_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{3,}")
PROSE_WORDS = 4
_SOLUTION = re.compile(r"####|\\boxed|\banswer is\b|\nA:", re.IGNORECASE)

_NO_ANSWER = Judged(False, "no answer in the completion")


def grade(gold: str, completion: str, answer_format: AnswerFormat = "any") -> Verdict:
    """Grade one completion.

    Args:
        gold: the right answer, bare or in `$...$` or as a solution that ends in it.
        completion: the text to grade.
        answer_format: what the prompt asked for: boxed, hash, or any form.

    Returns:
        A verdict, as `grade_many` gives them.
    """
    return grade_many([(gold, completion)], answer_format)[0]


def grade_many(
    pairs: Sequence[tuple[str, str]], answer_format: AnswerFormat = "any"
) -> list[Verdict]:
    r"""Grade (gold, completion) pairs; one that hangs or crashes the algebra delays no other.

    Args:
        pairs: the gold answer, bare or in `$...$` or as a solution that ends in it, and the text.
        answer_format: what the prompt asked for. "boxed" and "hash" score the strict answer, the
            last `\boxed{...}` or `####` line; "any" scores the lenient one.

    Returns:
        Verdicts whose details hold `strict` and `lenient` (1.0, 0.0, or None: could not judge) and
        `answer`: what was found, in one spelling, None where nothing was.
    """
    if answer_format not in ("any", "boxed", "hash"):
        raise ValueError(
            f'answer_format = "{answer_format}", but an answer format is one of any, boxed, hash.'
        )
    found = [
        (_gold(gold), extract.strict(text, answer_format), extract.lenient(text))
        for gold, text in pairs
    ]
    questions = {(gold, answer) for gold, *answers in found for answer in answers}
    judged = _judge_all(sorted(questions, key=str))
    return [
        _verdict(answer_format, judged[gold, strict], judged[gold, lenient], strict, lenient)
        for gold, strict, lenient in found
    ]


def _verdict(
    answer_format: AnswerFormat,
    strict: Judged,
    lenient: Judged,
    formal: str | None,
    any_: str | None,
) -> Verdict:
    scored, answer = (lenient, any_) if answer_format == "any" else (strict, formal)
    details = {
        "strict": _score(strict),
        "lenient": _score(lenient),
        "answer": None if answer is None else key(tidy(answer[:MAX_ANSWER])),
    }
    return Verdict(_score(scored), scored.reason, details)


def _score(judged: Judged) -> float | None:
    return None if judged.equal is None else float(judged.equal)


def _judge_all(
    questions: Sequence[tuple[str, str | None]],
) -> dict[tuple[str, str | None], Judged]:
    judged = {question: _by_reading(*question) for question in questions}
    undecided = [(g, a) for (g, a), verdict in judged.items() if verdict is None and a is not None]
    by_algebra = dict(zip(undecided, workers.judge(undecided) if undecided else [], strict=True))
    return {question: verdict or by_algebra[question] for question, verdict in judged.items()}  # type: ignore[index]


@lru_cache(maxsize=8192)
def _by_reading(gold: str, answer: str | None) -> Judged | None:
    """What needs no algebra; None for the rest."""
    if not gold:
        return Judged(None, "the gold answer is empty")
    if answer is None or not tidy(answer[:MAX_ANSWER]):
        return _NO_ANSWER
    excess = _excess(answer)
    if excess:
        same = len(answer) < 10 * len(gold) and key(tidy(answer)) == key(tidy(gold))
        return Judged(same, "equal" if same else f"limit: {excess}")
    decided = equivalent(gold, answer)
    if decided is not True and _is_prose(tidy(gold)) and not _is_short(gold, answer):
        return Judged(None, "the gold answer is prose, which only its own words can match")
    if decided is None:
        return None
    return Judged(decided, "equal" if decided else "not equal")


def _excess(answer: str) -> str:
    """In what the answer is too large to compare, "" where it is not."""
    if len(answer) > MAX_ANSWER:
        return f"an answer of {len(answer)} characters"
    depth = deepest = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return f"an answer with {deepest} brackets in each other" if deepest > MAX_NESTING else ""


def _is_prose(gold: str) -> bool:
    return len(_PROSE_WORD.findall(gold.replace("{matrix}", ""))) >= PROSE_WORDS


def _is_short(gold: str, answer: str) -> bool:
    """An answer of far fewer words than a gold phrase is no paraphrase of it."""
    return is_phrase(tidy(gold)) and 2 * len(answer.split()) <= len(gold.split())


@lru_cache(maxsize=8192)
def _gold(gold: str) -> str:
    """The answer in the gold text: itself, or what a solution ends in."""
    found = extract.lenient(gold) if _SOLUTION.search(gold) else gold
    answer = gold if found is None else found
    return answer if tidy(answer) else ""
