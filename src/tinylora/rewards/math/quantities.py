r"""Numbers with what people write around them: money signs, percent signs, units, "5 apples".

Conventions, where the suites of the field differ:
1. A unit may be left out on either side; two different known units are different answers.
2. 5.3\% equals 5.3, and 60\% equals 0.6; but 500\% is not 5: as a fraction a percentage counts
   below one only, else an answer could be right in two readings of which one is a mistake.
3. A decimal of `PLACES` or more places and digits stands for the number that it rounds.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from tinylora.rewards.math import values
from tinylora.rewards.math.values import Value

_ALIASES: dict[str, str] = {
    "m": "meter meters metre metres", "cm": "centimeter centimeters centimetre centimetres cms",
    "mm": "millimeter millimeters", "km": "kilometer kilometers kilometre kilometres kms",
    "in": "inch inches", "ft": "foot feet", "yd": "yard yards", "mi": "mile miles",
    "s": "second seconds sec secs", "min": "minute minutes mins", "h": "hour hours hr hrs",
    "day": "days", "week": "weeks", "month": "months", "year": "years yr yrs",
    "g": "gram grams", "kg": "kilogram kilograms kgs", "mg": "milligram milligrams",
    "lb": "pound pounds lbs", "oz": "ounce ounces", "l": "liter liters litre litres L",
    "ml": "milliliter milliliters mL", "degree": "degrees deg", "radian": "radians rad",
    "dollar": "dollars usd USD", "cent": "cents", "euro": "euros", "rupee": "rupees", "mph": "",
    "unit": "units", "N": "newton newtons", "J": "joule joules", "W": "watt watts", "K": "kelvin",
    "Pa": "pascal pascals", "Hz": "hertz", "V": "volt volts", "eV": "", "mol": "mole moles",
    "A": "", "C": "", "T": "", "kJ": "", "kW": "", "kPa": "", "nm": "", "keV": "", "MeV": "",
    "GeV": "", "erg": "ergs", "acre": "acres", "gallon": "gallons", "bit": "bits", "byte": "bytes",
}  # fmt: skip
PLACES = 4
_UNITS = {word: unit for unit, words in _ALIASES.items() for word in (unit, *words.split())}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NEVER_A_LABEL = frozenset({
    "not", "and", "non", "nor", "but", "plus", "minus", "times", "over", "mod", "than", "hundred",
    "dozen", "half", "quarter", "third", "double", "twice", "approximately", "about", "between",
    "down", "remainder", "sqrt", "percent", "base",
})  # fmt: skip
_PERCENT = re.compile(r"\s*(?:\\?%|percent(?:age)?|per cent|pct)$", re.IGNORECASE)
_MONEY = re.compile(r"^(-?)\s*(?:[$£€¥]|\\pounds|\\euro|USD|US\\?\$)\s*(?=[\d.-])")
_FACTOR = r"(?:\\degree|\\AA|[A-Za-z]+)(?:\s*\^\s*(?:-?\d|\{\s*-?\d+\s*\}))?"
_UNIT = re.compile(rf"(?<=[\d)}}\s!])\s*({_FACTOR}(?:\s*(?:/|\\cdot|\s)\s*{_FACTOR})*+)$")
_WORDS = re.compile(r"(?<=[\d)}\s])\s*([A-Za-z]+(?:[ -][A-Za-z]+){0,3})$")
_SQUARE = re.compile(r"^(sq|square|cubic)\s+(\w+)$")


@dataclass(frozen=True)
class Quantity:
    """A value, whether a percent sign followed it, its unit ("" where there is none), its text."""

    value: Value
    percent: bool
    unit: str
    text: str


@lru_cache(maxsize=4096)
def quantity(text: str) -> Quantity | None:
    """A tidied text as a number with its surroundings; None where it is something else.

    Raises:
        TooLarge: see `values.value`.
    """
    text = _MONEY.sub(r"\1", text).removesuffix("$").strip()
    bare, percents = _PERCENT.subn("", text)
    result = values.value(bare)
    if result is not None:
        return Quantity(result, bool(percents), "", bare)
    if percents:
        return None
    return _scaled(text) or _with_unit(text) or _labelled(text)


def equal(gold: Quantity, answer: Quantity) -> bool | None:
    """Whether two quantities are the same answer; None where floats are too coarse to say."""
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if gold.percent != answer.percent:
        percentage, plain = (gold, answer) if gold.percent else (answer, gold)
        if abs(complex(plain.value)) < 1 and values.same(percentage.value / 100, plain.value):
            return True
    decided = values.same(gold.value, answer.value)
    return True if decided is not True and _rounded(gold, answer) else decided


def _rounded(gold: Quantity, answer: Quantity) -> bool:
    """One of them is a long decimal for the other, which is none."""
    if values.is_decimal(gold.text):
        rounded, exact = gold, answer
    else:
        rounded, exact = answer, gold
    return not values.is_decimal(exact.text) and values.rounds_to(exact.value, rounded.text, PLACES)


def _scaled(text: str) -> Quantity | None:
    """`2.5 million`."""
    number, _, word = text.rpartition(" ")
    scale = _SCALES.get(word.lower())
    inner = values.value(number) if scale else None
    return Quantity(inner * scale, False, "", number) if inner is not None and scale else None


def _with_unit(text: str) -> Quantity | None:
    """A number and a unit of the table, or a product of such."""
    match = _UNIT.search(text)
    if not match:
        return None
    factors = re.findall(r"\\degree|\\AA|[A-Za-z]+", _SQUARE.sub(r"\2", match.group(1)))
    number = values.value(text[: match.start()].strip())
    known = all(name.lstrip("\\") in _UNITS or name in ("per", "\\AA") for name in factors)
    if number is None or not known or _is_variable(text, match):
        return None
    return Quantity(number, False, _canonical(match.group(1)), text[: match.start()].strip())


def _is_variable(text: str, match: re.Match[str]) -> bool:
    """A single letter that touches the number is a variable: 6m is a product."""
    unit = match.group(1)
    return len(unit) == 1 and not text[: match.start(1)].endswith(" ")


def _labelled(text: str) -> Quantity | None:
    """`5 red apples`: plain words after a number say what was counted."""
    match = _WORDS.search(text)
    if not match:
        return None
    words = re.split(r"[ -]", match.group(1))
    if any(len(word) < 3 or word.lower() in _NEVER_A_LABEL or word in _SCALES for word in words):
        return None
    number = values.value(text[: match.start()].strip())
    return None if number is None else Quantity(number, False, "", text[: match.start()].strip())


def _canonical(unit: str) -> str:
    """`square meters`, `m^{2}` and `m^2` alike."""
    square = _SQUARE.match(unit)
    if square:
        return _UNITS.get(square.group(2), square.group(2)) + ("^3" if unit[0] == "c" else "^2")
    unit = re.sub(r"[{}\s]", "", re.sub(r"\s*\bper\b\s*", "/", unit.replace(r"\cdot", "*")))
    return re.sub(r"\\?[A-Za-z]+", lambda m: _UNITS.get(m[0].lstrip("\\"), m[0]), unit)
