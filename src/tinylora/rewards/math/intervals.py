r"""Intervals in each of their spellings: `[-2, 7)`, `-2 \le x < 7`, `\{x | x < 3\}`, and unions."""

import re
from itertools import chain

from tinylora.rewards.math.latex import split_top, tokens, unwrap

LIST_WORD = re.compile(r"\s*,?\s*(?<![A-Za-z\\])(?:and|or|AND|OR)(?![A-Za-z])\s*,?\s*")
_ORDER = ("<", ">", r"\le", r"\ge")


def is_condition(text: str) -> bool:
    return len(split_top(_described(text), (*_ORDER, r"\ne"))) > 1


def union(text: str) -> list[str] | None:
    """The intervals that a union or a condition in one variable stands for."""
    parts = [
        piece for part in split_top(_described(text), (r"\cup",)) for piece in LIST_WORD.split(part)
    ]
    intervals = [_intervals(_described(part)) for part in parts]
    return None if [] in intervals else [*chain(*intervals)]


def _intervals(text: str) -> list[str]:
    r"""One interval, or the two that `x \ne 3` leaves; none where the text is neither."""
    left_out = split_top(text, (r"\ne",))
    if len(left_out) == 2 and re.fullmatch(r"[A-Za-z]", left_out[0]):
        return [rf"(-\infty,{left_out[1]})", rf"({left_out[1]},\infty)"]
    interval = _interval(text)
    return [] if interval is None else [interval]


def _described(text: str) -> str:
    r"""The condition of `\{x | condition\}`, and the right side of `x \in S`."""
    sides = split_top(text, (r"\in",))
    if len(sides) == 2 and re.fullmatch(r"[A-Za-z]", sides[0]):
        text = sides[1]
    opening, inside, _ = unwrap(text)
    head = re.match(r"\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?[|:]\s*", inside)
    return inside[head.end() :] if opening == r"\{" and head else text


def _interval(text: str) -> str | None:
    """An interval in brackets, from brackets or from a chain of inequalities in one letter."""
    opening, inside, _ = unwrap(text)
    if opening in ("(", "[") and opening and len(split_top(inside, (",",))) == 2:
        return text
    ends = split_top(text, _ORDER)
    signs = [token for token in tokens(text) if token in _ORDER]
    if len(ends) == 2 and re.fullmatch(r"[A-Za-z]", ends[1]):
        ends, signs = ends[::-1], [_flipped(signs[0])]
    if len(ends) == 2 and re.fullmatch(r"[A-Za-z]", ends[0]):
        upward = signs[0] in (">", r"\ge")
        closed = signs[0] in (r"\le", r"\ge")
        low = ("[" if closed else "(") + ends[1] + r",\infty)"
        high = r"(-\infty," + ends[1] + ("]" if closed else ")")
        return low if upward else high
    if len(ends) == 3 and re.fullmatch(r"[A-Za-z]", ends[1]):
        if signs[0] in (">", r"\ge"):
            ends, signs = ends[::-1], [_flipped(sign) for sign in signs[::-1]]
        if all(sign in ("<", r"\le") for sign in signs):
            left, right = ("[" if signs[0] == r"\le" else "("), ("]" if signs[1] == r"\le" else ")")
            return f"{left}{ends[0]},{ends[2]}{right}"
    return None


def _flipped(sign: str) -> str:
    return {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}[sign]
