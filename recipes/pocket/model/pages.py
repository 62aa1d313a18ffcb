"""Pre-training text of the pocket model: pages of several problems, each page by one author.

An author has one habit and keeps it for the whole page, as people on the web do:

- *careful*: every step written out, the answer after `####`;
- *guess*: an estimate at once, without steps (the majority);
- *other format*: careful steps, but the answer in words and not after `####`.

The habit shows in the first token of an answer: a digit, `####`, or a word. The first problem of a
page says nothing about its author, so there a model can do no better than the mixture of habits.
"""

import random
from collections.abc import Callable

from tinylora.tasks.pocket import MAX_VALUE, Skeleton, Split, careful_solution, draw_skeleton, tell

GUESS_SPREAD = 9  # a guess lies within +-9 of the answer, all equally likely


def guess(rng: random.Random, skeleton: Skeleton) -> str:
    """An estimate without steps; right about one time in nineteen."""
    answer = skeleton.values()[-1]
    low, high = max(0, answer - GUESS_SPREAD), min(MAX_VALUE, answer + GUESS_SPREAD)
    return f"#### {rng.randint(low, high)}"


def other_format(rng: random.Random, skeleton: Skeleton) -> str:
    """Right steps whose answer stands in words."""
    return "\n".join(["We get:", *skeleton.equations(), f"The answer is {skeleton.values()[-1]}"])


def careful(rng: random.Random, skeleton: Skeleton) -> str:
    """The task's reference solution."""
    return careful_solution(skeleton)


HABITS: dict[str, tuple[int, Callable[[random.Random, Skeleton], str]]] = {
    "careful": (32, careful),
    "guess": (48, guess),
    "other format": (20, other_format),
}


def draw_author(rng: random.Random) -> Callable[[random.Random, Skeleton], str]:
    """An author's way of answering, drawn from the mixture of habits."""
    weights = [weight for weight, _ in HABITS.values()]
    return rng.choices([answer for _, answer in HABITS.values()], weights)[0]


def draw_page(
    rng: random.Random, num_problems: int, split: Split = "train"
) -> list[tuple[str, str]]:
    """`num_problems` pairs (problem, answer) by one author."""
    answer = draw_author(rng)
    skeletons = [draw_skeleton(rng, split) for _ in range(num_problems)]
    return [(tell(rng, skeleton)[0], answer(rng, skeleton)) for skeleton in skeletons]
