"""The pocket task: endless word problems of two to four steps, graded by exact match after `####`.

A problem is its *skeleton* (a start number and its operations) told with a name and an object.
Train and test are disjoint by construction: a hash of the skeleton alone decides its split, so a
test problem differs from every training problem in its numbers and not merely in its names.

Not covered: fractions, negative results, anything above 49.
"""

import hashlib
import random
import re
from dataclasses import dataclass
from functools import partial
from typing import Literal

from tinylora.rewards.verdict import Verdict
from tinylora.tasks.annotators import Calculation, annotated
from tinylora.tasks.task import MadeProblems, Problem, Task

Split = Literal["train", "test"]
Operation = tuple[str, int]

NAMES = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lily", "Max", "Eva")
OBJECTS = ("apples", "books", "coins", "cards", "stones", "pens", "eggs", "shells")
SENTENCES = {
    "+": ("{name} buys {k} more.", "{name} finds {k} more.", "A friend brings {k} more."),
    "-": ("{name} sells {k}.", "{name} loses {k}.", "{name} gives away {k}."),
    "*": ("Now {name} has {k} times as many.",),
}
QUESTIONS = ("How many {things} now?", "How many {things} in all?")
STEP_COUNTS = (2, 3, 4)
STEP_WEIGHTS = (50, 35, 15)
MAX_VALUE = 49
MAX_CHANGE = 9  # what one step adds or takes away
MAX_PRODUCT = 20
TEST_SHARE = 8  # one skeleton in eight belongs to the test split

ANSWER = re.compile(r"####\s*(-?\d+)")
HABIT_OF_OPENER = {"#": "guess", "W": "other format"}


@dataclass(frozen=True)
class Skeleton:
    """The arithmetic of one problem: a start number and its operations, in order."""

    start: int
    operations: tuple[Operation, ...]

    def values(self) -> list[int]:
        """The running result, from the start number to the answer (num_steps + 1 numbers)."""
        values = [self.start]
        for symbol, k in self.operations:
            values.append(_apply(values[-1], symbol, k))
        return values

    def steps(self) -> list[Calculation]:
        """Each step as (before, symbol, number, after)."""
        values = self.values()
        steps = zip(values, self.operations, values[1:], strict=False)
        return [(before, symbol, k, after) for before, (symbol, k), after in steps]

    def equations(self) -> list[str]:
        """Each step written out, such as `12+7=19`."""
        return [f"{before}{symbol}{k}={after}" for before, symbol, k, after in self.steps()]

    def split(self) -> Split:
        """The split to which these numbers belong, decided by their hash."""
        digest = hashlib.sha256(repr((self.start, self.operations)).encode()).digest()
        return "test" if digest[0] % TEST_SHARE == 0 else "train"


def _apply(value: int, symbol: str, k: int) -> int:
    return {"+": value + k, "-": value - k, "*": value * k}[symbol]


def draw_skeleton(rng: random.Random, split: Split) -> Skeleton:
    """Draw skeletons until one belongs to `split`."""
    while True:
        num_steps = rng.choices(STEP_COUNTS, STEP_WEIGHTS)[0]
        start = rng.randint(2, 20)
        operations: list[Operation] = []
        value = start
        for _ in range(num_steps):
            symbol, k = _draw_operation(rng, value)
            operations.append((symbol, k))
            value = _apply(value, symbol, k)
        skeleton = Skeleton(start, tuple(operations))
        if skeleton.split() == split:
            return skeleton


def _draw_operation(rng: random.Random, value: int) -> Operation:
    symbol = rng.choices("+-*", (40, 40, 20))[0]
    if symbol == "*" and 2 <= value <= MAX_PRODUCT // 2:
        return "*", rng.randint(2, min(5, MAX_PRODUCT // value))
    if value >= MAX_VALUE or (symbol == "-" and value >= 2):
        return "-", rng.randint(1, min(MAX_CHANGE, value - 1))
    return "+", rng.randint(1, min(MAX_CHANGE, MAX_VALUE - value))


def tell(rng: random.Random, skeleton: Skeleton) -> tuple[str, str]:
    """The skeleton as a story with a question, and the things that it counts."""
    name, things = rng.choice(NAMES), rng.choice(OBJECTS)
    lines = [f"{name} has {skeleton.start} {things}."]
    for symbol, k in skeleton.operations:
        lines.append(rng.choice(SENTENCES[symbol]).format(name=name, k=k))
    lines.append(rng.choice(QUESTIONS).format(name=name, things=things))
    return " ".join(lines), things


def careful_solution(skeleton: Skeleton) -> str:
    """The base model's careful habit: every step written out, the answer after `####`."""
    return "\n".join([*skeleton.equations(), f"#### {skeleton.values()[-1]}"])


def make_problem(seed: int, split: Split, index: int) -> Problem:
    """Problem number `index` of a split: the same on every machine."""
    rng = random.Random(f"pocket {seed} {split} {index}")
    skeleton = draw_skeleton(rng, split)
    prompt, things = tell(rng, skeleton)
    annotator = random.Random(f"pocket annotator {seed} {split} {index}")
    return Problem(
        prompt=prompt,
        gold=str(skeleton.values()[-1]),
        solution=annotated(annotator, skeleton.start, skeleton.steps(), things),
        columns={"careful": careful_solution(skeleton)},
    )


def problems(seed: int, split: Split, length: int) -> MadeProblems:
    """The first problems of a split."""
    return MadeProblems(partial(make_problem, seed, split), length)


def answer_of(completion: str) -> str | None:
    """The first number after `####`."""
    match = ANSWER.search(completion)
    return None if match is None else str(int(match[1]))


def grade(gold: str, completion: str) -> Verdict:
    """1 if the first number after `####` is the gold answer, else 0."""
    answer = answer_of(completion)
    if answer is None:
        return Verdict(0.0, "no answer after ####", {"answer": None})
    is_right = int(answer) == int(gold)
    return Verdict(float(is_right), "right" if is_right else "wrong", {"answer": answer})


def habit(completion: str) -> str:
    """The habit that a completion's first character shows: careful, guess, other format or none."""
    opener = completion[:1]
    return "careful" if opener.isdigit() else HABIT_OF_OPENER.get(opener, "none")


def make(seed: int = 0) -> Task:
    """The pocket task."""
    return Task(
        name="pocket",
        train=problems(seed, "train", 1_000_000),
        test=problems(seed, "test", 4096),
        grade=grade,
        max_new_tokens=64,
        label=habit,
        answer_of=answer_of,
    )
