"""Reference solutions of the pocket task as several people write them: what SFT learns from.

Every solution is right and ends in `#### answer`, so that the grader accepts it. Its author is
drawn for each problem, and no author writes like the base model's own careful habit (one bare
equation a line): wording, notation and the order of remarks are theirs. That is the noise that the
paper says supervised fine-tuning has to swallow and RL does not see.

    narrator    "12+7 is 19 apples now. 19-3 is 16 apples now."
    backwards   "19=12+7, 16=19-3"
    airy        "12 + 7 = 19" a line, then "The answer is 16"
    headline    "The answer is 16, as 12+7=19, 19-3=16."
    terse       "12, 19, 16"
"""

import random
from collections.abc import Callable, Sequence

Calculation = tuple[int, str, int, int]  # 12, "+", 7, 19


def narrator(start: int, steps: Sequence[Calculation], things: str) -> str:
    return " ".join(f"{a}{symbol}{k} is {b} {things} now." for a, symbol, k, b in steps)


def backwards(start: int, steps: Sequence[Calculation], things: str) -> str:
    return ", ".join(f"{b}={a}{symbol}{k}" for a, symbol, k, b in steps)


def airy(start: int, steps: Sequence[Calculation], things: str) -> str:
    lines = [f"{a} {symbol} {k} = {b}" for a, symbol, k, b in steps]
    return "\n".join([*lines, f"The answer is {steps[-1][3]}"])


def headline(start: int, steps: Sequence[Calculation], things: str) -> str:
    reasons = ", ".join(f"{a}{symbol}{k}={b}" for a, symbol, k, b in steps)
    return f"The answer is {steps[-1][3]}, as {reasons}."


def terse(start: int, steps: Sequence[Calculation], things: str) -> str:
    return ", ".join([str(start), *(str(b) for *_, b in steps)])


ANNOTATORS: tuple[Callable[[int, Sequence[Calculation], str], str], ...] = (
    narrator,
    backwards,
    airy,
    headline,
    terse,
)


def annotated(rng: random.Random, start: int, steps: Sequence[Calculation], things: str) -> str:
    """The solution that an annotator, drawn by `rng`, writes."""
    return f"{rng.choice(ANNOTATORS)(start, steps, things)}\n#### {steps[-1][3]}"
