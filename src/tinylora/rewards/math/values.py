r"""Closed expressions as values: exact fractions where they are rational, complex floats elsewhere.

A grammar of our own, because the texts are a model's: no `eval`, no `sympify`, and no result larger
than `MAX_BITS`. It reads decimals, thousands commas, fractions, mixed numbers, e-notation, powers,
roots, factorials, binomials, and functions of one bracketed argument. What it cannot read, or only
in two ways (`1/2\pi`), is None; letters other than e and i are variables, so None as well.
"""

import cmath
import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

Value = Fraction | complex

MAX_BITS = 20_000
MAX_DIGITS = 1_000
MAX_DEPTH = 60
SAME, DIFFERENT = 1e-12, 1e-9  # relative; between the two, floats do not decide


class TooLarge(Exception):
    """The value has more than `MAX_BITS` bits, so it equals no answer that is written out."""


class _Unreadable(Exception):
    pass


_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+"
_TOKEN = re.compile(rf"\s*({_NUMBER}|\\[A-Za-z]+|.)", re.DOTALL)
_E_NOTATION = re.compile(r"(?<=[\d.])[eE]\s*([+-]?\d+)(?![\d.])")
_TIMES_TEN = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)")
_MIXED = re.compile(r"(-?)\s*(\d+)\s+(\d+)\s*/\s*(\d+)")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d{1,20})\}")
_DECIMAL = re.compile(r"-?(?:\d*\.(\d+)|\d+)")
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    r"\sin": cmath.sin, r"\cos": cmath.cos, r"\tan": cmath.tan, r"\log": cmath.log,
    r"\exp": cmath.exp, r"\arcsin": cmath.asin, r"\arccos": cmath.acos, r"\arctan": cmath.atan,
    r"\sinh": cmath.sinh, r"\cosh": cmath.cosh, r"\tanh": cmath.tanh,
}  # fmt: skip
_CONSTANTS: dict[str, complex] = {r"\pi": math.pi, "e": math.e, "i": 1j}
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@lru_cache(maxsize=4096)
def value(text: str) -> Value | None:
    """What a tidied text is worth, None where it is no closed expression of this grammar.

    Raises:
        TooLarge: its value is larger than anything that is written out.
    """
    mixed = _MIXED.fullmatch(text)
    if mixed:
        sign, *digits = mixed.groups()
        text = f"{sign}({digits[0]}+{digits[1]}/{digits[2]})"
    text = _REPEATING.sub(_repeating, text)
    text = _TIMES_TEN.sub(r"\\cdot ", _E_NOTATION.sub(r"\\cdot 10^{\1}", text))
    try:
        return _Reader(_TOKEN.findall(text.strip())).whole()
    except (_Unreadable, ZeroDivisionError, OverflowError, ValueError, RecursionError):
        return None


def _repeating(match: re.Match[str]) -> str:
    r"""`0.1\overline{6}` as a sum of a decimal and a fraction."""
    whole, once, again = match.groups()
    return f"({whole or 0}.{once}+{again}/{'9' * len(again)}{'0' * len(once)})"


def same(a: Value, b: Value) -> bool | None:
    """Whether two values are equal; None where floats are too coarse to say."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    try:
        a, b = complex(a), complex(b)
    except OverflowError:
        return None
    distance, size = abs(a - b), max(abs(a), abs(b))
    if not math.isfinite(distance):
        return None
    if distance <= SAME * size:
        return True
    return False if distance > DIFFERENT * size else None


def rounds_to(exact: Value, text: str, places: int = 0) -> bool:
    """Whether the text is a decimal of at least so many places that `exact` rounds to."""
    match = _DECIMAL.fullmatch(text)
    shown_places = len(match.group(1) or "") if match else -1
    if not places <= shown_places <= 14:
        return False
    if isinstance(exact, complex):
        if exact.imag or not math.isfinite(exact.real):
            return False
        exact = Fraction(exact.real)
    unit = Fraction(1, 10**shown_places)
    return abs(exact) >= unit * 10 ** (places - 1) and 2 * abs(exact - Fraction(text)) <= unit


def is_decimal(text: str) -> bool:
    """Digits, perhaps with a point: the value is what stands there."""
    return _DECIMAL.fullmatch(text) is not None


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = [token for token in tokens if token.strip()]
        self.position = 0
        self.depth = 0
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
            total = _add(total, self.product() * sign)
        self.depth -= 1
        return total

    def product(self) -> Value:
        total, after_slash = self.signed(), False
        while token := self.peek():
            if token == r"\cdot":
                self.take()
                total, after_slash = _multiply(total, self.signed()), False
            elif token == "/":
                self.take()
                total, after_slash = _divide(total, self.signed()), True
            elif token in _CLOSING or token.startswith("\\") or token in _CONSTANTS:
                if after_slash:
                    raise _Unreadable  # 1/2\pi: of two readings, neither
                total = _multiply(total, self.power())
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
        return _power(base, exponent)

    def factorial(self) -> Value:
        base = self.atom()
        while self.peek() == "!":
            self.take()
            base = Fraction(math.factorial(_count(base)))
        if self.in_function and self.peek() == r"\degree":
            self.take()
            base = complex(base) * math.pi / 180
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
            return _divide(self.group(), self.group())
        if token == r"\sqrt":
            return self.root()
        if token == r"\binom":
            return Fraction(math.comb(_count(self.group()), _count(self.group())))
        if token in _FUNCTIONS:
            return self.function(token)
        raise _Unreadable

    def mixed(self, token: str) -> Value:
        r"""A number; `2\frac{5}{8}` is two and five eighths."""
        if len(token) > MAX_DIGITS or not token.isascii():
            raise TooLarge
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
        result = _FUNCTIONS[name](complex(argument))
        if result and abs(result) < 1e-12:
            raise _Unreadable  # \sin(\pi) is not 1e-16
        return _power(result, exponent)

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
    if number > 1000:
        raise TooLarge
    return int(number)


def _bounded(number: Value) -> Value:
    if isinstance(number, Fraction):
        if max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS:
            raise TooLarge
    elif not cmath.isfinite(number):
        raise _Unreadable
    return number


def _add(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a + b)
    total = complex(a) + complex(b)
    if abs(total) < 1e-4 * abs(complex(a)):
        raise _Unreadable  # cancellation ate the digits that the comparison needs
    return _bounded(total)


def _multiply(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a * b)
    return _bounded(complex(a) * complex(b))


def _divide(a: Value, b: Value) -> Value:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _bounded(a / b)
    return _bounded(complex(a) / complex(b))


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction):
        if exponent.denominator == 1:
            return _integer_power(base, exponent.numerator)
        root = _exact_root(base, exponent.denominator)
        if root is not None:
            return _integer_power(root, exponent.numerator)
    return _bounded(complex(base) ** complex(exponent))


def _integer_power(base: Fraction, exponent: int) -> Fraction:
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits > 1 and abs(exponent) * bits > MAX_BITS:
        raise TooLarge
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
