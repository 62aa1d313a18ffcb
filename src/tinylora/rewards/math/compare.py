r"""Whether two answers are equal: strings, numbers, lists, intervals and words here, algebra last.

`equivalent` is used twice. Without `symbolic` it decides what can be decided by reading, which is
nearly everything, and returns None for the rest; a worker process calls it again with math-verify
as `symbolic`. An equation only ever counts by what it says: `6 = 5` is not an answer, `x = 5` is.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import chain

from tinylora.rewards.math import quantities
from tinylora.rewards.math.intervals import LIST_WORD, is_condition, union
from tinylora.rewards.math.latex import ROW, key, split_top, tidy, unwrap
from tinylora.rewards.math.values import TooLarge, rounds_to

Symbolic = Callable[[str, str], bool | None]

MAX_DEPTH = 6
MAX_ITEMS = 64
_RELATIONS = ("=", r"\approx", r"\equiv", r"\in")
_SYNONYMS = {
    "(-\\infty,\\infty)": (
        "all real numbers", "all reals", "real numbers",
        "the set of all real numbers", "\\mathbb{R}",
    ),
    "\\emptyset": (
        "no solution", "no solutions", "no real solution", "no real solutions", "empty set",
        "the empty set", "\\{\\}",
    ),
    "\\infty": ("infinity",),
    "dne": ("does not exist", "undefined"),
}  # fmt: skip
_CANONICAL = {key(word): name for name, words in _SYNONYMS.items() for word in words}
_PHRASE = re.compile(r"[A-Za-z][A-Za-z' -]*[A-Za-z]'?|[A-Za-z]")
_CLOCK = re.compile(r"(\d{1,2})(?::(\d\d))?\s*([aApP])\.?\s*[mM]\.?")
_BASED = re.compile(r"([0-9A-F]+)(?:_\{?(\d+)\}?)?")
_CHOICE = re.compile(r"\(?([A-Z])(?:\)|(?=[.: ]|$))[.:]?(\s*(?!and|or)[A-Za-z][^=,+]*)?", re.DOTALL)
_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_NOT_VARIABLES = {"e", "i", "d"}
_CLAIMS = re.compile(r"\\(?:approx|sim|simeq|ne|not|neg|to|text|ldots)(?![A-Za-z])|\?|%|'")
_NAME = re.compile(
    r"(?:\\.|[A-Za-z '|(),^_{}+:;=/-]|(?<=_)\d|(?<=[_^]\{)-?\d|(?<=[(,])\d++(?=[),]))++", re.DOTALL
)


def equivalent(gold: str, answer: str, symbolic: Symbolic | None = None) -> bool | None:
    """Whether the answer is the gold answer; None where only algebra could tell.

    Args:
        gold, answer: as people or a model wrote them, delimiters included or not.
        symbolic: decides tidied expressions; None from it says that it cannot read the gold one.
    """
    return _equal(tidy(gold), tidy(answer), symbolic, 0)


def _equal(gold: str, answer: str, symbolic: Symbolic | None, depth: int) -> bool | None:
    if not answer or not gold or depth > MAX_DEPTH:
        return False
    gold, answer = _canonical(gold), _canonical(answer)
    if key(gold) == key(answer):
        return True
    for compare in _READINGS:
        decided = compare(gold, answer, symbolic, depth)
        if decided is not None:
            return decided
    return _by_algebra(gold, answer, symbolic)


def _by_algebra(gold: str, answer: str, symbolic: Symbolic | None) -> bool | None:
    """What reading left open; a gold answer that reading understands is never "unreadable"."""
    answer = _in_case_of(gold, answer)
    understood = _quantity(gold) is not None or union(gold) is not None
    if understood and claims_more(gold, answer):
        return False
    decided = symbolic(_spelled_out(gold), answer) if symbolic else None
    return False if symbolic and decided is None and understood else decided


def _spelled_out(gold: str) -> str:
    """A rational number as algebra writes it, without commas, units and signs."""
    meant = _quantity(gold)
    if meant is None or not isinstance(meant.value, Fraction):
        return meant.text if meant else gold
    top, bottom = meant.value.numerator, meant.value.denominator
    return str(top) if bottom == 1 else rf"\frac{{{top}}}{{{bottom}}}"


def claims_more(gold: str, answer: str) -> bool:
    """The answer has letters, relations or words of its own, which nothing equates."""
    return not _letters(answer) <= _letters(gold) or bool(
        set(_CLAIMS.findall(answer)) - set(_CLAIMS.findall(gold))
    )


def _in_case_of(gold: str, answer: str) -> str:
    """The answer with p for P where the gold answer has p alone, and so for each such letter."""
    known, own = _letters(gold), _letters(answer) - _letters(gold)
    swapped = {letter for letter in own if letter.swapcase() in known - _letters(answer)}
    return _LETTER.sub(lambda m: m[0].swapcase() if m[0] in swapped else m[0], answer)


def _letters(text: str) -> set[str]:
    return {token for token in _LETTER.findall(text) if len(token) == 1} - _NOT_VARIABLES


def _canonical(text: str) -> str:
    return _CANONICAL.get(key(text.lower()), _CANONICAL.get(key(text), text))


def _as_words(gold: str, answer: str, symbolic: Symbolic | None, depth: int) -> bool | None:
    """Choices and phrases are compared as they stand, apart from case and brackets."""
    if _CLOCK.fullmatch(gold):
        return _minutes(gold) == _minutes(answer)
    choice, chosen = _CHOICE.fullmatch(gold), _CHOICE.fullmatch(answer)
    if choice and chosen and (choice.group(2) is None or chosen.group(2) is None):
        return choice.group(1) == chosen.group(1)
    if is_phrase(gold):
        return " ".join(gold.lower().split()) == " ".join(answer.lower().split())
    return False if is_phrase(answer) and not is_phrase(gold) else None


def _minutes(text: str) -> int | None:
    """`4:30 p.m.` as minutes of the day."""
    match = _CLOCK.fullmatch(text)
    if not match:
        return None
    hour, minute, half = int(match.group(1)), int(match.group(2) or 0), match.group(3).lower()
    return (hour % 12 + (12 if half == "p" else 0)) * 60 + minute


def is_phrase(text: str) -> bool:
    """Words alone: one of four letters or more, or several; not a product of variables."""
    text = text.strip("() ")
    if not _PHRASE.fullmatch(text):
        return False
    words = text.replace("-", " ").split()
    return (
        max(map(len, words)) >= 4
        or (len(words) > 1 and max(map(len, words)) >= 3)
        or (text.lower() in ("yes", "no", "odd", "even", "dne"))
    )


def _as_based(gold: str, answer: str, symbolic: Symbolic | None, depth: int) -> bool | None:
    """`1011_2`: the digits and the base, which an answer may leave out: the task has it."""
    meant, said = _BASED.fullmatch(key(gold)), _BASED.fullmatch(key(answer))
    if meant is None or said is None or not (meant.group(2) or said.group(2)):
        return None
    return meant.group(1) == said.group(1) and said.group(2) in (None, meant.group(2))


def _as_numbers(gold: str, answer: str, symbolic: Symbolic | None, depth: int) -> bool | None:
    """Both are quantities. A thousands comma might also separate a list: then lists have a say."""
    try:
        expected = quantities.quantity(gold)
    except TooLarge:
        return None if _quantity(answer) is None else False
    try:
        given = quantities.quantity(answer)
    except TooLarge:
        return None if expected is None else False
    if expected is None or given is None:
        return None
    decided = quantities.equal(expected, given)
    return None if decided is False and "," in gold + answer else decided


def _quantity(text: str) -> quantities.Quantity | None:
    try:
        return quantities.quantity(text)
    except TooLarge:
        return None


def _as_relations(gold: str, answer: str, symbolic: Symbolic | None, depth: int) -> bool | None:
    """`x = 5` against 5 or against `x = 5`; equations against equations are algebra."""
    if len(_items(gold)) > 1 or len(_items(answer)) > 1:
        return None
    glossed = _glossed(answer)
    if glossed:
        either = [_equal(gold, reading, symbolic, depth + 1) for reading in glossed]
        return True if True in either else None if None in either else False
    gold_sides, answer_sides = split_top(gold, _RELATIONS), split_top(answer, _RELATIONS)
    if len(gold_sides) == len(answer_sides) == 1:
        return None
    if len(gold_sides) == 1:
        said = _said(answer_sides)
        return False if said is None else _equal(gold, said, symbolic, depth + 1)
    meant = _said(gold_sides)
    if meant is None:
        return None
    if len(answer_sides) == 1:
        return _equal(meant, answer, symbolic, depth + 1)
    if key(gold_sides[0]) == key(answer_sides[0]):
        said = _said(answer_sides)
        return False if said is None else _equal(meant, said, symbolic, depth + 1)
    return None


def _glossed(text: str) -> tuple[str, ...]:
    r"""`\sqrt{3} \approx 1.73` in two, where the decimal rounds what stands before it."""
    exact, _, decimal = (part.strip() for part in text.rpartition(r"\approx"))
    meant = _quantity(split_top(exact, _RELATIONS)[-1])
    return (exact, decimal) if meant is not None and rounds_to(meant.value, decimal) else ()


def _said(sides: Sequence[str]) -> str | None:
    """What a chain `name = a = b` says, None where it says nothing or contradicts itself."""
    named = _NAME.fullmatch(sides[0]) and _quantity(sides[0]) is None
    stated = sides[1:] if named else sides
    values = [_quantity(side) for side in stated]
    for side, value in zip(stated[:-1], values[:-1], strict=True):
        if value is None or values[-1] is None:
            if named and not _quantity_like(side, values[-1]):
                continue
            return None
        if quantities.equal(value, values[-1]) is not True:
            return None
    return stated[-1]


def _quantity_like(side: str, last: quantities.Quantity | None) -> bool:
    """A middle part that is closed but too large to evaluate cannot vouch for the last."""
    try:
        return quantities.quantity(side) is not None and last is None
    except TooLarge:
        return True


def _as_intervals(gold: str, answer: str, symbolic: Symbolic | None, depth: int) -> bool | None:
    """`-2 \\le x < 7`, `{x | -2 \\le x < 7}` and `[-2, 7)`; unions of them in any order."""
    gold_parts, answer_parts = union(gold), union(answer)
    if gold_parts is None or answer_parts is None or gold_parts == answer_parts == [gold, answer]:
        return None
    if not any(is_condition(part) for part in (gold, answer)) and len(gold_parts) == 1:
        return None
    return _unordered(gold_parts, answer_parts, symbolic, depth)


def _as_lists(gold: str, answer: str, symbolic: Symbolic | None, depth: int) -> bool | None:
    """Tuples and intervals in order and with their brackets; sets and bare lists in any order."""
    gold_open, gold_items, gold_close = _listed(gold)
    answer_open, answer_items, answer_close = _listed(answer)
    if len(gold_items) == len(answer_items) == 1:
        if not gold_open and not answer_open:
            return None
        if gold_open != answer_open and "[" in (gold_open, answer_open):
            return None
        return _equal(gold_items[0], answer_items[0], symbolic, depth + 1)
    if len(answer_items) > len(gold_items) > 1:
        answer_items = list({key(item): item for item in answer_items}.values())
    if len(gold_items) != len(answer_items) or len(gold_items) > MAX_ITEMS:
        return False
    brackets = {gold_open, answer_open} - {"", "{"}
    if not {"(", "["} & brackets:
        return _unordered(gold_items, answer_items, symbolic, depth)
    bare = gold_open in ("", "{") or answer_open in ("", "{")
    if not bare and (gold_open, gold_close) != (answer_open, answer_close):
        return False
    return _ordered(gold_items, answer_items, symbolic, depth)


def _listed(text: str) -> tuple[str, list[str], str]:
    r"""Brackets and items; `a \pm b` is two items."""
    opening, inside, closing = unwrap(text)
    items = [both for item in _items(inside) for both in _plus_and_minus(item)]
    return opening, items, closing


def _items(text: str) -> list[str]:
    parts = [piece for part in split_top(text, (",", ";")) for piece in _split_words(part)]
    return [part for part in parts if part] or [text]


def _split_words(text: str) -> list[str]:
    """At `and` and `or` outside brackets."""
    return [text] if unwrap(text)[0] else LIST_WORD.split(text)


def _plus_and_minus(item: str) -> list[str]:
    if item.count(r"\pm") != 1 or unwrap(item)[0]:
        return [item]
    return [re.sub(r"\\pm\s*", sign, item).removeprefix("+").strip() for sign in "+-"]


def _ordered(
    gold: Sequence[str], answer: Sequence[str], symbolic: Symbolic | None, depth: int
) -> bool | None:
    decided = [_equal(g, a, symbolic, depth + 1) for g, a in zip(gold, answer, strict=True)]
    return False if False in decided else None if None in decided else True


def _unordered(
    gold: Sequence[str], answer: Sequence[str], symbolic: Symbolic | None, depth: int
) -> bool | None:
    """A matching: equality is transitive, so taking the first equal partner never errs."""
    if len(gold) != len(answer) or len(gold) > MAX_ITEMS:
        return False
    left, unsure = list(answer), False
    for expected in gold:
        decided = [_equal(expected, given, symbolic, depth + 1) for given in left]
        if True in decided:
            del left[decided.index(True)]
        elif None in decided:
            unsure = True
        else:
            return False
    return None if unsure else True


def _as_matrices(gold: str, answer: str, symbolic: Symbolic | None, depth: int) -> bool | None:
    rows, given = _matrix(gold), _matrix(answer)
    if rows is None or given is None:
        return None
    if [len(row) for row in rows] != [len(row) for row in given]:
        return False
    return _ordered([*chain(*rows)], [*chain(*given)], symbolic, depth)


def _matrix(text: str) -> list[list[str]] | None:
    match = re.fullmatch(r"\\begin\{matrix\}(.*)\\end\{matrix\}", text, re.DOTALL)
    if not match or r"\begin" in match.group(1):
        return None
    rows = [row for row in match.group(1).split(ROW) if row.strip()]
    return [[cell.strip() for cell in row.split("&")] for row in rows]


_READINGS = (
    _as_words, _as_based, _as_numbers, _as_relations, _as_intervals, _as_lists, _as_matrices,
)  # fmt: skip
