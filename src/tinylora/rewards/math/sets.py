r"""Sets of real numbers in each of their spellings, as one sequence of intervals.

`[-2, 7)`, `-2 \le x < 7`, `\{x | x < 3\}`, `x \ne 0`, `\mathbb{R} \setminus \{0\}`, `|x - 1| < 2`,
`]0, 1[`, unions and finite sets; `x > 0 \text{ and } x < 2` is an intersection. The ends are
values, so that `(0, 1] \cup [1, 2)` is `(0, 2)`; with other ends (`x > a`) the spelling of the ends
decides, and the intervals have to be the same ones.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cmp_to_key, lru_cache

from tinylora.rewards.math import values
from tinylora.rewards.math.latex import key, split_top, tokens, unwrap

LIST_WORD = re.compile(r"\s*,?\s*(?<![A-Za-z\\])(?:and|or|AND|OR)(?![A-Za-z])\s*,?\s*")
_OR = re.compile(r"\s*,?\s*(?<![A-Za-z\\])(?:or|OR)(?![A-Za-z])\s*,?\s*|\\(?:lor|vee)(?![A-Za-z])")
_AND = re.compile(
    r"\s*,?\s*(?<![A-Za-z\\])(?:and|AND)(?![A-Za-z])\s*,?\s*|\\(?:land|wedge)(?![A-Za-z])"
)
MAY_BE_SET = re.compile(r"[<>]|\\(?:le|ge|ne|cup|infty|mathbb|setminus)(?![A-Za-z])|^\]|\[$")
_ORDER = ("<", ">", r"\le", r"\ge")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_VARIABLE = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_\w|_\{\w+\})?(?:\([A-Za-z]\))?")
_NOT_VARIABLES = ("e", "i", r"\pi", r"\infty")
_HEAD = re.compile(r"\s*(\\?[A-Za-z]+)\s*(?:\\in\s*\\mathbb\{R\}\s*)?[|:]\s*")
_FRENCH = re.compile(r"([\[\]])([^\[\](){},;]+)[,;]([^\[\](){},;]+)([\[\]])")
_REALS = re.compile(r"\\mathbb\{R\}")
_LOW, _HIGH = r"-\infty", r"\infty"
MAX_PARTS = 64


@dataclass(frozen=True)
class Interval:
    r"""Two ends as they are written (`\infty` is one), and whether they belong to it."""

    low: str
    high: str
    has_low: bool
    has_high: bool


@dataclass(frozen=True)
class RealSet:
    """A union of intervals, and the variable that a condition was in ("" for none)."""

    parts: tuple[Interval, ...]
    variable: str = ""


def is_condition(text: str) -> bool:
    """Whether the text is an inequality, or several."""
    return len(split_top(_described(text)[0], (*_ORDER, r"\ne"))) > 1


@lru_cache(maxsize=4096)
def real_set(text: str) -> RealSet | None:
    """The set that a tidied text stands for; None where it is something else."""
    both = split_top(text, (":",))
    if len(both) == 2 and not unwrap(text)[0]:
        one, other = (_union(part) for part in both)  # `-1 < x \le 1 : (-1, 1]`
        return one if one and other and _agree(one.parts, other.parts) else None
    return _union(text)


def says_more_than_a_pair(text: str) -> bool:
    """A set by its look alone; `(1, 2)` may be a point, `[1, 2]` a row, `{1}` a list."""
    found = real_set(text)
    if found is None:
        return False
    return bool(
        is_condition(text)
        or len(found.parts) > 1
        or any(token in text for token in (r"\cup", r"\infty", r"\mathbb", r"\setminus"))
        or _FRENCH.fullmatch(text)
    )


def equal(
    gold: RealSet, answer: RealSet, same_end: Callable[[str, str], bool | None]
) -> bool | None:
    """Whether two sets are equal; None where an end could not be compared."""
    if gold.variable and answer.variable and gold.variable != answer.variable:
        return False
    return _agree(_joined(gold.parts), _joined(answer.parts), same_end)


def _agree(
    gold: Sequence[Interval],
    answer: Sequence[Interval],
    same_end: Callable[[str, str], bool | None] | None = None,
) -> bool | None:
    """Interval by interval, in any order: where the ends are no numbers nothing sorts them."""
    if len(gold) != len(answer) or len(gold) > MAX_PARTS:
        return False
    same_end = same_end or (lambda one, other: key(one) == key(other))
    left, unsure = list(answer), False
    for part in gold:
        decided = [_same_interval(part, other, same_end) for other in left]
        if True in decided:
            del left[decided.index(True)]
        elif None in decided:
            unsure = True
        else:
            return False
    return None if unsure else True


def _same_interval(
    one: Interval, other: Interval, same_end: Callable[[str, str], bool | None]
) -> bool | None:
    if (one.has_low, one.has_high) != (other.has_low, other.has_high):
        return False
    ends = [same_end(one.low, other.low), same_end(one.high, other.high)]
    return False if False in ends else None if None in ends else True


def _joined(parts: tuple[Interval, ...]) -> tuple[Interval, ...]:
    """Intervals that touch or overlap as one, from left to right; as they are if no numbers."""
    if any(_end(text) is None for part in parts for text in (part.low, part.high)):
        return parts
    by_start = sorted(parts, key=cmp_to_key(_earlier))
    done: list[Interval] = []
    for part in by_start:
        if done and _touches(done[-1], part):
            done[-1] = _merged(done[-1], part)
        else:
            done.append(part)
    return tuple(done)


def _earlier(one: Interval, other: Interval) -> int:
    return _order(one.low, other.low) or other.has_low - one.has_low


def _touches(one: Interval, other: Interval) -> bool:
    order = _order(other.low, one.high)
    return order < 0 or (order == 0 and (one.has_high or other.has_low))


def _merged(one: Interval, other: Interval) -> Interval:
    order = _order(one.high, other.high)
    last = one if order > 0 or (order == 0 and one.has_high) else other
    return Interval(one.low, last.high, one.has_low, last.has_high)


def _order(one: str, other: str) -> int:
    """-1, 0, 1 for two ends that are numbers or infinities."""
    a, b = _end(one), _end(other)
    if isinstance(a, float) or isinstance(b, float):
        sides = [side if isinstance(side, float) else 0.0 for side in (a, b)]
        return (sides[0] > sides[1]) - (sides[0] < sides[1])
    return values.compare(a, b) or 0


@lru_cache(maxsize=4096)
def _end(text: str) -> values.Value | float | None:
    if text in (_LOW, _HIGH):
        return float("-inf" if text == _LOW else "inf")
    try:
        value = values.value(text)
    except values.TooLarge:
        return None
    return None if value is None or values.compare(value, value) is None else value


def _union(text: str) -> RealSet | None:
    r"""Parts joined by `\cup` and "or"; "and" and commas join conditions that hold together."""
    text, variable = _described(text)
    left_out = split_top(text, (r"\setminus",))
    if len(left_out) == 2 and _REALS.fullmatch(left_out[0]):
        return _all_but(unwrap(left_out[1])[1].split(","), variable)
    pieces = [piece for part in split_top(text, (r"\cup",)) for piece in _OR.split(part)]
    found = [_together(piece) for piece in pieces]
    parts = [part for each in found if each for part in each.parts]
    names = {variable, *(each.variable for each in found if each)} - {""}
    if None in found or len(names) > 1:
        return None
    if not any(unwrap(piece)[0] != r"\{" for piece in pieces):
        return None  # finite sets are lists
    return RealSet(tuple(parts), "".join(names))


def _together(text: str) -> RealSet | None:
    """Conditions that hold together; where nothing satisfies both, "and" was meant as "or"."""
    pieces = [piece for part in split_top(text, (",", ";")) for piece in _AND.split(part)]
    if len(pieces) == 1 or unwrap(text)[0] or _FRENCH.fullmatch(text):
        return _simple(text)
    found = [_simple(piece) for piece in pieces]
    if any(
        each is None or not is_condition(piece) for each, piece in zip(found, pieces, strict=True)
    ):
        return None
    result = found[0]
    for each in found[1:]:
        if result is None or each is None or result.variable != each.variable:
            return None
        common = _intersection(result.parts, each.parts)
        if common is None:
            return None
        result = RealSet(common or result.parts + each.parts, result.variable)
    return result


def _intersection(
    one: tuple[Interval, ...], other: tuple[Interval, ...]
) -> tuple[Interval, ...] | None:
    """What is in both; None where an end is not a number."""
    if any(_end(text) is None for part in one + other for text in (part.low, part.high)):
        return None
    common = []
    for a in one:
        for b in other:
            first = a if _earlier(a, b) > 0 else b
            order = _order(a.high, b.high)
            last = a if order < 0 or (order == 0 and not a.has_high) else b
            size = _order(first.low, last.high)
            if size < 0 or (size == 0 and first.has_low and last.has_high):
                common.append(Interval(first.low, last.high, first.has_low, last.has_high))
    return tuple(common)


def _all_but(points: Sequence[str], variable: str = "") -> RealSet | None:
    """The real numbers without some."""
    if any(_end(point.strip()) is None for point in points) and len(points) > 1:
        return None
    ends = [point.strip() for point in points]
    if len(ends) > 1:
        ends.sort(key=cmp_to_key(_order))
    lows, highs = [_LOW, *ends], [*ends, _HIGH]
    return RealSet(
        tuple(Interval(a, b, False, False) for a, b in zip(lows, highs, strict=True)), variable
    )


def _described(text: str) -> tuple[str, str]:
    r"""The condition of `\{x | condition\}` and the right side of `x \in S`, with the variable."""
    sides = split_top(text, (r"\in",))
    variable = ""
    if len(sides) == 2 and _is_variable(sides[0]):
        variable, text = sides[0], sides[1]
    opening, inside, _ = unwrap(text)
    head = _HEAD.match(inside)
    return (inside[head.end() :], variable) if opening == r"\{" and head else (text, variable)


def _is_variable(text: str) -> bool:
    return bool(_VARIABLE.fullmatch(text)) and text not in _NOT_VARIABLES


def _simple(text: str) -> RealSet | None:
    """One interval, one condition, a finite set, or all real numbers."""
    text, variable = _described(text)
    if _REALS.fullmatch(text):
        return RealSet((Interval(_LOW, _HIGH, False, False),), variable)
    for reading in (_bracketed, _points, _inequality, _excluded):
        found = reading(text)
        if found:
            return RealSet(found.parts, variable or found.variable)
    return None


def _bracketed(text: str) -> RealSet | None:
    french = _FRENCH.fullmatch(text)
    if french and (french[1], french[4]) != ("[", "]"):
        low, high = french[2].strip(), french[3].strip()
        return RealSet((Interval(low, high, french[1] == "[", french[4] == "]"),))
    opening, inside, closing = unwrap(text)
    ends = split_top(inside, (",",))
    if opening not in ("(", "[") or len(ends) != 2:
        return None
    return RealSet((Interval(ends[0], ends[1], opening == "[", closing == "]"),))


def _points(text: str) -> RealSet | None:
    r"""`\{1, 2\}`, and `x = 1` as one of several conditions."""
    opening, inside, _ = unwrap(text)
    sides = split_top(text, ("=",))
    if opening == r"\{":
        return RealSet(tuple(Interval(p, p, True, True) for p in split_top(inside, (",",))))
    if len(sides) == 2 and _is_variable(sides[0]) and _end(sides[1]) is not None:
        return RealSet((Interval(sides[1], sides[1], True, True),), sides[0])
    return None


def _excluded(text: str) -> RealSet | None:
    sides = split_top(text, (r"\ne",))
    if len(sides) != 2 or not _is_variable(sides[0]):
        return None
    return _all_but(split_top(sides[1], (",",)), sides[0])


def _inequality(text: str) -> RealSet | None:
    r"""`x < 3`, `-2 \le x < 7`, `|x - 1| < 2`."""
    ends = split_top(text, _ORDER)
    signs = [token for token in tokens(text) if token in _ORDER]
    if len(ends) == 2 and (_is_variable(ends[1]) or ends[1].startswith("|")):
        ends, signs = ends[::-1], [_FLIPPED[signs[0]]]
    if len(ends) == 2 and _is_variable(ends[0]):
        closed = signs[0] in (r"\le", r"\ge")
        if signs[0] in (">", r"\ge"):
            return RealSet((Interval(ends[1], _HIGH, closed, False),), ends[0])
        return RealSet((Interval(_LOW, ends[1], False, closed),), ends[0])
    if len(ends) == 2:
        return _distance(ends[0], signs[0], ends[1])
    if len(ends) != 3:
        return None
    if signs[0] in (">", r"\ge"):
        ends, signs = ends[::-1], [_FLIPPED[sign] for sign in signs[::-1]]
    if not all(sign in ("<", r"\le") for sign in signs):
        return None
    if ends[1].startswith("|"):
        far = _distance(ends[1], _FLIPPED[signs[0]], ends[0])
        near = _distance(ends[1], signs[1], ends[2])
        both = _intersection(far.parts, near.parts) if far and near else None
        return RealSet(both, far.variable) if far and both else None
    if not _is_variable(ends[1]):
        return None
    return RealSet((Interval(ends[0], ends[2], signs[0] == r"\le", signs[1] == r"\le"),), ends[1])


def _distance(inside: str, sign: str, radius: str) -> RealSet | None:
    r"""`|x - a| < r` and `|x + a| \ge r`, with numbers for a and r."""
    match = re.fullmatch(r"\|\s*([A-Za-z])\s*(?:([+-])\s*([^|A-Za-z]+))?\|", inside)
    if (
        match is None
        or _end(radius) is None
        or (values.compare(_end(radius), values.ZERO) or 0) < 1
    ):
        return None
    center = f"-({match[3]})" if match[2] == "+" else match[3] or "0"
    low, high = f"({center})-({radius})", f"({center})+({radius})"
    if _end(low) is None:
        return None
    closed = sign in (r"\le", r"\ge")
    if sign in ("<", r"\le"):
        return RealSet((Interval(low, high, closed, closed),), match[1])
    outside = (Interval(_LOW, low, False, closed), Interval(high, _HIGH, closed, False))
    return RealSet(outside, match[1])
