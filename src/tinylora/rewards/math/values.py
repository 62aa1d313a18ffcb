r"""Closed expressions as values: exact fractions where they are rational, 60 digits elsewhere.

A grammar of our own, because the texts are a model's: no `eval`, no `sympify`, and no result larger
than `MAX_BITS`. It reads decimals, thousands commas, fractions, mixed numbers, e-notation, powers,
roots, factorials, binomials, and functions of one bracketed argument. What it cannot read, or only
in two ways (`1/2\pi`), is None; letters other than e and i are variables, so None as well.

Irrational numbers are mpmath's, whose exponents have no bounds: e^{-1000} is not 0, and
e^{\pi\sqrt{163}} is not the integer that it nearly is.
"""

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

from mpmath.ctx_mp import MPContext  # type: ignore[import-untyped]

from tinylora.rewards.math.latex import MONEY

Value = Any  # a Fraction, or a real or complex number of `_mp`

MAX_BITS = 200_000  # of one number
MAX_WORK = 600_000  # bits of all large numbers on the way
MAX_DIGITS = 1_000
MAX_DEPTH = 60
MAX_COUNT = 10_000  # of what a factorial is taken
MAX_MAGNITUDE = 64  # bits before the point in the argument of a function
DIGITS = 60
SAME, DIFFERENT = 1e-40, 1e-35  # relative; between the two, the digits do not decide
CANCELLATION = 1e-15
FLOAT_DIGITS = range(15, 18)  # what programs print of a double
FLOAT_ERROR = Fraction(1, 2**52)

_mp: Any = MPContext()  # of our own: mpmath's global one has a precision that others may set
_mp.dps = DIGITS


class TooLarge(Exception):
    """The value has more than `MAX_BITS` bits, so it equals no answer that is written out."""


class _TooMuchWork(Exception):
    """Something on the way has more than `MAX_BITS` bits, or all together have `MAX_WORK`."""


class _Unreadable(Exception):
    pass


_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_TOKEN = re.compile(rf"\s*({_NUMBER}|\\[A-Za-z]+|.)", re.DOTALL)
_E_NOTATION = re.compile(r"(?<=[\d.])[eE]\s*([+-]?\d+)(?![\d.])")
_TIMES_TEN = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)")
_MIXED = re.compile(r"(-?)\s*(\d+)\s+(\d+)\s*/\s*(\d+)")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d{1,20})\}")
_DECIMAL = re.compile(r"-?(?:\d*\.(\d+)|\d+)")
_DOTTED = re.compile(r"(\d*\.\d*?)(\d)\2\2+\s*\\ldots")
_MAY_SHRINK = re.compile(r"[/-]|\\(?:frac|binom|sqrt|log|sin|cos|tan|arc)")
_PAIR = re.compile(r"[(\[].*,.*[)\]]")
_FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    r"\sin": _mp.sin, r"\cos": _mp.cos, r"\tan": _mp.tan, r"\log": _mp.log, r"\exp": _mp.exp,
    r"\arcsin": _mp.asin, r"\arccos": _mp.acos, r"\arctan": _mp.atan, r"\sinh": _mp.sinh,
    r"\cosh": _mp.cosh, r"\tanh": _mp.tanh,
}  # fmt: skip
_CONSTANTS: dict[str, Value] = {r"\pi": +_mp.pi, "e": +_mp.e, "i": _mp.mpc(0, 1)}
ZERO = Fraction(0)
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@lru_cache(maxsize=4096)
def value(text: str) -> Value | None:
    """What a tidied text is worth, None where it is not a closed expression of this grammar.

    Raises:
        TooLarge: its value is larger than anything that is written out.
    """
    text = text.replace(MONEY, "").strip()
    mixed = _MIXED.fullmatch(text)
    if mixed:
        sign, *digits = mixed.groups()
        text = f"{sign}({digits[0]}+{digits[1]}/{digits[2]})"
    if _PAIR.fullmatch(text):
        return None  # (1,234) is a point
    text = _REPEATING.sub(_repeating, _DOTTED.sub(r"\1\\overline{\2}", text))
    text = _TIMES_TEN.sub(r"\\cdot ", _E_NOTATION.sub(r"\\cdot 10^{\1}", text))
    try:
        return _Reader(_TOKEN.findall(text)).whole()
    except _TooMuchWork:
        if _MAY_SHRINK.search(text):
            return None  # a large number divided by a large one may be small
        raise TooLarge from None
    except (_Unreadable, ZeroDivisionError, OverflowError, ValueError, RecursionError):
        return None


def _repeating(match: re.Match[str]) -> str:
    r"""`0.1\overline{6}` as a sum of a decimal and a fraction."""
    whole, once, again = match.groups()
    return f"({whole or 0}.{once}+{again}/{'9' * len(again)}{'0' * len(once)})"


def same(a: Value, b: Value) -> bool | None:
    """Whether two values are equal; None where `DIGITS` digits are too few to say."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    a, b = _approximate(a), _approximate(b)
    distance, size = abs(a - b), max(abs(a), abs(b))
    if distance <= SAME * size:
        return True
    return False if distance > DIFFERENT * size else None


def times(number: Value, factor: Fraction) -> Value:
    """The product of a value and a fraction."""
    return _multiply(number, factor)


def in_degrees(radians: Value) -> Value:
    """An angle in radians as one in degrees."""
    return _divide(_multiply(radians, Fraction(180)), _CONSTANTS[r"\pi"])


def rounds_to(exact: Value, text: str, places: int = 0) -> bool:
    """Whether the text is a decimal of at least so many places that `exact` rounds to.

    A decimal as long as a double is printed may be off by what a double is.
    """
    match = _DECIMAL.fullmatch(text)
    shown_places = len(match.group(1) or "") if match else -1
    if not places <= shown_places <= MAX_DIGITS:
        return False
    real = _real(exact)
    if real is None:
        return False
    unit = Fraction(1, 10**shown_places)
    num_digits = len(re.sub(r"[-.]", "", text).lstrip("0"))
    allowed = unit / 2
    if num_digits in FLOAT_DIGITS:
        allowed = max(unit, FLOAT_ERROR * abs(real))
    return abs(real) >= unit * 10 ** (places - 1) and abs(real - Fraction(text)) <= allowed


def _real(number: Value) -> Fraction | None:
    """A real value as a fraction, None where it is complex or too large or small for that."""
    if isinstance(number, Fraction):
        return number
    if isinstance(number, _mp.mpc):
        if number.imag:
            return None
        number = number.real
    if number and abs(_mp.mag(number)) > 4 * MAX_DIGITS:
        return None
    sign, mantissa, exponent, _ = number._mpf_
    return Fraction((-1) ** sign * int(mantissa)) * Fraction(2) ** int(exponent)


def compare(a: Value, b: Value) -> int | None:
    """-1, 0 or 1 as a is less than b, equal, or more; None where one of them is not real."""
    if _real(a) is None or _real(b) is None:
        return None
    if same(a, b):
        return 0
    return -1 if _approximate(a) < _approximate(b) else 1


def is_decimal(text: str) -> bool:
    """Digits, perhaps with a point: the value is what is written."""
    return _DECIMAL.fullmatch(text) is not None


class _Reader:
    r"""Recursive descent over the tokens of one expression; each method reads one line of this.

    sum      = product (("+" | "-") product)*
    product  = signed (("\cdot" | "/") signed | power)*       a power that touches is multiplied
    signed   = ("+" | "-") power | power
    power    = factorial ("^" (sign power | atom))?
    factorial = atom "!"*
    atom     = number | bracket | constant | frac | root | binom | function
    """

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = [token for token in tokens if token.strip()]
        self.position = 0
        self.depth = 0
        self.work = 0
        self.in_function = 0

    def whole(self) -> Value:
        result = self.sum()
        if self.peek():
            raise _Unreadable
        return result

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.peek()
        if not token or (expected and token != expected):
            raise _Unreadable
        self.position += 1
        return token

    def sum(self) -> Value:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unreadable
        total = self.product()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            total = self.bounded(_add(total, self.product() * sign))
        self.depth -= 1
        return total

    def product(self) -> Value:
        total, after_slash = self.signed(), False
        while token := self.peek():
            if token == r"\cdot":
                self.take()
                total, after_slash = self.bounded(_multiply(total, self.signed())), False
            elif token == "/":
                self.take()
                total, after_slash = self.bounded(_divide(total, self.signed())), True
            elif token in _CLOSING or token.startswith("\\") or token in _CONSTANTS:
                if after_slash:
                    raise _Unreadable  # 1/2\pi: of two readings, neither
                total = self.bounded(_multiply(total, self.power()))
            else:
                break
        return total

    def signed(self) -> Value:
        if self.peek() in ("+", "-"):
            return self.signed_once()
        return self.power()

    def signed_once(self) -> Value:
        sign = -1 if self.take() == "-" else 1
        return self.power() * sign

    def power(self) -> Value:
        base = self.factorial()
        if self.peek() != "^":
            return base
        self.take()
        exponent = self.signed_once() if self.peek() in ("+", "-") else self.atom()
        return self.bounded(_power(base, exponent))

    def factorial(self) -> Value:
        base = self.atom()
        while self.peek() == "!":
            self.take()
            base = self.bounded(Fraction(math.factorial(_count(base))))
        if self.in_function and self.peek() == r"\degree":
            self.take()
            base = _multiply(base, _CONSTANTS[r"\pi"] / 180)
        return base

    def atom(self) -> Value:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            return self.mixed(token)
        if token in _CLOSING:
            inside = self.sum()
            self.take(_CLOSING[token])
            return inside
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if token == r"\frac":
            return self.bounded(_divide(self.group(), self.group()))
        if token == r"\sqrt":
            return self.root()
        if token == r"\binom":
            return self.bounded(Fraction(math.comb(_count(self.group()), _count(self.group()))))
        if token in _FUNCTIONS:
            return self.function(token)
        raise _Unreadable

    def mixed(self, token: str) -> Value:
        r"""A number; `2\frac{5}{8}` is two and five eighths."""
        if len(token) > MAX_DIGITS or not token.isascii():
            raise _TooMuchWork
        number = Fraction(token.replace(",", ""))
        start = self.position
        if token.isdigit() and self.peek() == r"\frac":
            self.take()
            top, bottom = self.group(), self.group()
            if all(isinstance(part, Fraction) and part.denominator == 1 for part in (top, bottom)):
                return number + _divide(top, bottom)
            self.position = start
        return number

    def group(self) -> Value:
        self.take("{")
        inside = self.sum()
        self.take("}")
        return inside

    def root(self) -> Value:
        degree = Fraction(2)
        if self.peek() == "[":
            self.take()
            index = self.sum()
            self.take("]")
            degree = Fraction(_count(index))
        return _power(self.group() if self.peek() == "{" else self.atom(), 1 / degree)

    def function(self, name: str) -> Value:
        r"""Of a bracketed argument, or of one atom alone (`\sin 2x` would be two readings)."""
        exponent = self.function_power()
        bracketed = self.peek() in _CLOSING
        self.in_function += 1
        argument = self.factorial()
        self.in_function -= 1
        if not bracketed and self.peek() not in ("", "+", "-", ")", "}"):
            raise _Unreadable
        argument = _approximate(argument)
        if _mp.mag(argument) > MAX_MAGNITUDE:
            raise _Unreadable
        result = _FUNCTIONS[name](argument)
        if name not in (r"\exp", r"\log") and result and not SAME < abs(result) < 1 / SAME:
            raise _Unreadable  # \sin(\pi) is not 1e-61
        return _power(result, exponent)

    def bounded(self, number: Value) -> Value:
        """The number, unless it or all numbers so far are too large to go on with."""
        if not isinstance(number, Fraction):
            if not _mp.isfinite(number):
                raise _Unreadable
            return number
        size = _size(number)
        self.work += size if size > MAX_DIGITS else 0
        if size > MAX_BITS or self.work > MAX_WORK:
            raise _TooMuchWork
        return number

    def function_power(self) -> Fraction:
        r"""2 in `\sin^2(x)`; `\sin^{-1}` is another function."""
        if self.peek() != "^":
            return Fraction(1)
        self.take()
        exponent = self.atom()
        if not isinstance(exponent, Fraction) or exponent < 1:
            raise _Unreadable
        return exponent


def _count(number: Value) -> int:
    if not isinstance(number, Fraction) or number.denominator != 1 or number < 0:
        raise _Unreadable
    if number > MAX_COUNT:
        raise _TooMuchWork
    return int(number)


def _size(number: Fraction) -> int:
    return max(number.numerator.bit_length(), number.denominator.bit_length())


def _approximate(number: Value) -> Value:
    """A value with `DIGITS` digits."""
    if isinstance(number, Fraction):
        return _mp.mpf(number.numerator) / _mp.mpf(number.denominator)
    return number


def _add(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a + b
    total = _approximate(a) + _approximate(b)
    if abs(total) < CANCELLATION * abs(_approximate(a)):
        raise _Unreadable  # cancellation ate the digits that the comparison needs
    return total


def _multiply(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    return _approximate(a) * _approximate(b)


def _divide(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a / b
    return _approximate(a) / _approximate(b)


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            return _integer_power(base, exponent.numerator)
        root = _exact_root(base, exponent.denominator)
        if root is not None:
            return _integer_power(root, exponent.numerator)
    base, exponent = _approximate(base), _approximate(exponent)
    if _mp.mag(exponent) > MAX_MAGNITUDE:
        raise _Unreadable
    return _mp.power(base, exponent)


def _integer_power(base: Fraction, exponent: int) -> Fraction:
    bits = _size(base)
    if bits > 1 and abs(exponent) * (bits - 1) > MAX_BITS:
        raise _TooMuchWork
    return Fraction(base**exponent) if abs(exponent) <= MAX_BITS else base ** (exponent % 2)


def _exact_root(base: Fraction, degree: int) -> Fraction | None:
    """The rational root, where there is one."""
    if base < 0 and degree % 2 == 0:
        return None
    parts = []
    for part in (abs(base.numerator), base.denominator):
        near = round(part ** (1 / degree)) if part < 2**900 else math.isqrt(part)
        if degree * max(near.bit_length(), 1) > MAX_BITS or near**degree != part:
            return None
        parts.append(near)
    return Fraction(-parts[0] if base < 0 else parts[0], parts[1])
