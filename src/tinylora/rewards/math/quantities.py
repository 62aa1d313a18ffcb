r"""Numbers with what people write around them: money signs, percent signs, units, "5 apples".

Conventions, where the suites of the field differ:
1. A unit may be left out on either side. Units of one dimension are converted (60 minutes are
   1 hour); units of different dimensions are different answers.
2. A letter that can be a variable is one: `2 m` is a product, `2\text{ m}` and `2 cm` have units.
   Only beside the same unit in words (`2\text{ hours}`) does `2 h` have a unit.
3. p\% is p/100. Without a percent sign, the size of the gold answer says whether the sign was left
   out: up to `LARGEST_SHARE` it is a share (0.6 is 60\%, 2 is 200\%), above it a number of percent
   (50 is 50\%). So no gold answer is right in two readings. An answer may leave the sign out.
4. A decimal of `PLACES` or more places and digits stands for the number that it rounds.
"""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from tinylora.rewards.math import values, words
from tinylora.rewards.math.latex import MONEY, TEXT
from tinylora.rewards.math.units import Unit, unit
from tinylora.rewards.math.values import Value

PLACES = 4
LARGEST_SHARE = 3
_SCALES = {
    name: 10**power
    for names, power in (
        ("hundred hundreds", 2), ("thousand thousands grand", 3), ("lakh lakhs", 5),
        ("million millions", 6), ("crore crores", 7), ("billion billions", 9),
        ("trillion trillions", 12), ("quadrillion", 15), ("万", 4), ("亿", 8),
    )
    for name in names.split()
} | {"dozen": 12, "dozens": 12}  # fmt: skip
_PERCENT = re.compile(r"\s*(?:\\?%|percent(?:age)?|per cent|pct)$", re.IGNORECASE)
_MONEY = re.compile(rf"^(-?)\s*({MONEY}|[£€¥]|\\pounds|\\euro|USD|US{MONEY})\s*(?=[\d.-])")
_AFTER = r"(?<=[\d)}}\s!])"
_UNIT = re.compile(rf"{_AFTER}\s*(\\(?:degree|AA|Omega)|[A-Za-z])[A-Za-z0-9\s^{{}}/\\.-]*+$")
_LABEL = re.compile(rf"{_AFTER}\s*(/?\s*[^\W\d_][^\d\\{{}}()+*=<>^|]*)$")
_SCALED = re.compile(
    rf"{_AFTER}\s*({'|'.join(sorted(_SCALES, key=len, reverse=True))})(?![A-Za-z])"
)
_ARC = re.compile(r"(-?\d+)\s*\\degree\s*(\d+)\s*'(?:\s*([\d.]+)\s*'')?")
_PRIMES = re.compile(r"(?<=\d)\s*'{1,2}$")


@dataclass(frozen=True)
class Quantity:
    """A value, whether a percent sign followed it, its unit (None: it has none), and its text."""

    value: Value
    percent: bool
    unit: Unit | None
    text: str


@lru_cache(maxsize=4096)
def quantity(text: str, lettered: bool = False) -> Quantity | None:
    """A tidied text as a number with its surroundings; None where it is something else.

    Args:
        lettered: read single letters as units, too.

    Raises:
        TooLarge: see `values.value`.
    """
    money = _MONEY.match(text)
    currency = unit("dollar") if money and money[2] in (MONEY, "USD", f"US{MONEY}") else None
    text = _MONEY.sub(r"\1", text).removesuffix("$").strip()
    bare, percents = _PERCENT.subn("", text)
    result = values.value(bare)
    if result is not None:
        return Quantity(result, bool(percents), currency, bare)
    if percents:
        return None
    found = _arc(text) or _scaled(text) or _with_unit(text, lettered) or _labelled(text)
    if found and currency:
        return Quantity(found.value, False, currency, found.text)
    return found


def equal(gold: Quantity, answer: Quantity) -> bool | None:
    """Whether two quantities are the same answer; None where the digits are too few to say."""
    gold, answer = _in_degrees(gold, answer), _in_degrees(answer, gold)
    given = answer.value
    if gold.unit and answer.unit:
        if gold.unit.dimensions != answer.unit.dimensions:
            return False
        if gold.unit.size != answer.unit.size:
            ratio = answer.unit.size / gold.unit.size
            return values.same(gold.value, values.times(given, ratio))
    if answer.percent and not gold.percent:
        is_share = values.compare(gold.value, Fraction(LARGEST_SHARE)) in (-1, 0)
        given = values.times(given, Fraction(1, 100)) if is_share else given
    is_bare = gold.percent and not answer.percent
    if is_bare and values.same(values.times(gold.value, Fraction(1, 100)), given):
        return True
    decided = values.same(gold.value, given)
    return True if decided is not True and _rounded(gold, answer) else decided


def _in_degrees(quantity: Quantity, other: Quantity) -> Quantity:
    r"""The quantity, converted from radians if the other one has degrees; a bare \pi is radians."""
    radians = quantity.unit.is_one("radian") if quantity.unit else r"\pi" in quantity.text
    if not (radians and other.unit and other.unit.is_one("angle")):
        return quantity
    return replace(quantity, value=values.in_degrees(quantity.value), unit=unit("degree"))


def _rounded(gold: Quantity, answer: Quantity) -> bool:
    """One of them is a long decimal for the other, which is none."""
    if gold.percent != answer.percent:
        return False
    if values.is_decimal(gold.text):
        rounded, exact = gold, answer
    else:
        rounded, exact = answer, gold
    return not values.is_decimal(exact.text) and values.rounds_to(exact.value, rounded.text, PLACES)


def _arc(text: str) -> Quantity | None:
    """`60^\\circ 42'`: degrees, minutes and seconds of arc; `18''` is 18 with a mark of length."""
    arc = _ARC.fullmatch(text)
    if arc is None:
        number = _PRIMES.sub("", text)
        plain = values.value(number) if number != text else None
        return None if plain is None else Quantity(plain, False, None, number)
    degrees = Fraction(arc[1])
    parts = Fraction(arc[2]) / 60 + Fraction(arc[3] or 0) / 3600
    total = degrees - parts if arc[1].startswith("-") else degrees + parts
    return Quantity(total, False, unit("degree"), text)


def _scaled(text: str) -> Quantity | None:
    """`2.5 million`, `5 million dollars`."""
    match = _SCALED.search(text)
    if match is None:
        return None
    number = values.value(text[: match.start()])
    rest = text[match.end() :]
    if number is None:
        return None
    measured = unit(rest.strip())
    if rest.strip() and measured is None and not words.is_label(rest, set_as_text=TEXT in text):
        return None
    scaled = values.times(number, Fraction(_SCALES[match[1]]))
    return Quantity(scaled, False, measured, text[: match.start()].strip())


def _with_unit(text: str, lettered: bool) -> Quantity | None:
    """A number and a product of known units."""
    match = _UNIT.search(text)
    measured = unit(match[0].strip().rstrip(".")) if match else None
    if match is None or measured is None:
        return None
    if measured.is_lettered and not (lettered or _is_set_as_text(text, match)):
        return None
    number = values.value(text[: match.start()])
    bare = text[: match.start()].strip()
    known = None if "unit" in dict(measured.dimensions) else measured
    return None if number is None else Quantity(number, False, known, bare)


def _labelled(text: str) -> Quantity | None:
    """`5 red apples`: plain words after a number say what was counted."""
    match = _LABEL.search(text)
    if match is None or not words.is_label(match[1], set_as_text=_is_set_as_text(text, match)):
        return None
    number = values.value(text[: match.start()])
    bare = text[: match.start()].strip()
    return None if number is None else Quantity(number, False, None, bare)


def _is_set_as_text(text: str, match: re.Match[str]) -> bool:
    return TEXT in text[match.start() : match.start(1) + 1]
