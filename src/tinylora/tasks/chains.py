"""Chains of random arithmetic: problems made after every model, so that no model can know them.

*Idea:* RandomCalculation (Wu et al., 2025, "Reasoning or Memorization?"): where a benchmark may be
in a model's training data, a gain on it may be recall. Here an expression of n steps is drawn from
a seed. Every intermediate result is a whole number below 10,000 in size, and each division leaves
no remainder. Levels 1 to 5 have 1-2, 3-4, 5-7, 8-12 and 13-20 steps.

Train and test are disjoint by construction: a hash of the expression decides its split.

Not covered: fractions, powers, words.
"""

import hashlib
import random
from functools import partial
from typing import Literal

from tinylora.errors import RequestError
from tinylora.settings.tasks import ChainSettings
from tinylora.tasks.levels import band_of
from tinylora.tasks.mathematics import Question, ask, graders
from tinylora.tasks.task import MadeProblems, Problem, Task
from tinylora.tasks.templates import TEMPLATES

Split = Literal["train", "test"]
STEPS = {1: (1, 2), 2: (3, 4), 3: (5, 7), 4: (8, 12), 5: (13, 20)}  # level -> fewest, most
LARGEST = 9_999  # in size, of any intermediate result
MAX_NUMBER, MAX_FACTOR = 99, 12
TEST_SHARE = 8  # one expression in eight belongs to the test split
NUM_TRAIN, NUM_TEST = 1_000_000, 4_096


def make(settings: ChainSettings, seed: int = 0) -> Task:
    """The task, with chains of the levels that the settings name.

    Raises:
        RequestError: the level is `simplerl`, which names a set of MATH.
    """
    if settings.level == "simplerl":
        raise RequestError(
            "level = simplerl names a set of task math. Task chains has the levels 1 to 5: use "
            "one, a range such as 3-5, or none."
        )
    template = TEMPLATES[settings.prompt_template or "hash"]
    levels = band_of(settings.level or "1-5")

    def problem(split: Split, index: int) -> Problem:
        return ask(template, chain(seed, split, index, levels))

    return Task(
        "chains",
        MadeProblems(partial(problem, "train"), NUM_TRAIN),
        MadeProblems(partial(problem, "test"), NUM_TEST),
        max_new_tokens=1024,
        **graders(template.answer_format, settings),
    )


def chain(seed: int, split: Split, index: int, levels: tuple[int, int]) -> Question:
    """Question number `index` of a split: the same on every machine."""
    rng = random.Random(f"chains {seed} {split} {levels} {index}")
    while True:
        level = rng.randint(*levels)
        expression, equations, value = draw(rng, rng.randint(*STEPS[level]))
        if split_of(expression) == split:
            break
    solution = "\n".join([*equations, f"#### {value}"])
    columns = {"level": level, "num_steps": len(equations)}
    return Question(f"What is {expression}?", str(value), solution, columns)


def draw(rng: random.Random, num_steps: int) -> tuple[str, list[str], int]:
    """An expression of so many steps, each step as an equation, and its value."""
    value = rng.randint(2, MAX_NUMBER)
    expression, equations = str(value), []
    for number in range(num_steps):
        symbol, k = _operation(rng, value)
        after = {"+": value + k, "-": value - k, "*": value * k, "/": value // k}[symbol]
        inner = f"({expression})" if number else expression
        expression = f"{inner} {symbol} {k}"
        equations.append(f"{value} {symbol} {k} = {after}")
        value = after
    return expression, equations, value


def _operation(rng: random.Random, value: int) -> tuple[str, int]:
    """One of the four that keeps the value whole and small."""
    symbol = rng.choice("+-*/")
    factors = range(2, MAX_FACTOR + 1)
    if symbol == "*" and 0 < abs(value) <= LARGEST // MAX_FACTOR:
        return symbol, rng.choice(factors)
    divisors = [k for k in factors if value and value % k == 0]
    if symbol == "/" and divisors:
        return symbol, rng.choice(divisors)
    k = rng.randint(2, MAX_NUMBER)
    if abs(value) + k > LARGEST:  # towards zero
        return ("-" if value > 0 else "+"), k
    return (symbol if symbol in "+-" else rng.choice("+-")), k


def split_of(expression: str) -> Split:
    """The split to which an expression belongs, decided by its hash."""
    digest = hashlib.sha256(expression.encode()).digest()
    return "test" if digest[0] % TEST_SHARE == 0 else "train"
