"""The addition and the multiplication table of the numbers from 2 to 12.

A pair of numbers is held out as a whole, by a hash of the pair in either order: where 7 * 8 is a
test problem, 8 * 7 and 8 + 7 are none to train on. Every problem occurs once, in an order that a
hash decides, too.

Not covered: differences and quotients, words, larger numbers.
"""

import hashlib
import operator
from typing import Literal

from tinylora.settings.tasks import FormatSettings
from tinylora.tasks.mathematics import Question, ask, graders
from tinylora.tasks.task import Problem, Task
from tinylora.tasks.templates import TEMPLATES

Split = Literal["train", "test"]
OPERATIONS = {"+": operator.add, "*": operator.mul}
SMALLEST, LARGEST = 2, 12
TEST_SHARE = 4  # one pair in four belongs to the test split
MAX_NEW_TOKENS = 24  # an equation and an answer in digits take 14 tokens of SmolLM2


def make(settings: FormatSettings) -> Task:
    """The task; each split holds all its problems."""
    template = TEMPLATES[settings.prompt_template or "calculation"]

    def problems(split: Split) -> list[Problem]:
        return [ask(template, question) for question in questions(split)]

    return Task(
        "tables",
        problems("train"),
        problems("test"),
        max_new_tokens=MAX_NEW_TOKENS,
        **graders(template.answer_format, settings),
    )


def questions(split: Split) -> list[Question]:
    """The questions of a split, all mixed."""
    numbers = range(SMALLEST, LARGEST + 1)
    pairs = [(a, b) for a in numbers for b in numbers if split_of(a, b) == split]
    found = [_question(a, symbol, b) for a, b in pairs for symbol in OPERATIONS]
    return sorted(found, key=lambda question: _digest(question.text))


def split_of(a: int, b: int) -> Split:
    """The split to which a pair belongs, decided by its hash."""
    return "test" if _digest(f"{min(a, b)} {max(a, b)}")[0] % TEST_SHARE == 0 else "train"


def _question(a: int, symbol: str, b: int) -> Question:
    expression, value = f"{a} {symbol} {b}", OPERATIONS[symbol](a, b)
    solution = f"{expression} = {value}\n#### {value}"
    return Question(f"What is {expression}?", str(value), solution, {"operation": symbol})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
