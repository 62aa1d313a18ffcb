"""Is this output the wanted one? On bytes: text would split at characters that no judge splits at.

`tokens`: the same words, whatever blanks and line ends are between them; letters keep their case,
except in yes and no, which contests take in any case. `exact`: the same lines, byte for byte; only
the last line end and carriage returns before line ends do not count. `float`: as tokens, but
numbers may differ by the tolerance. `auto`: as `float` where the wanted word has a decimal point,
as `tokens` elsewhere; and line by line, with the blanks before and in each, where the wanted output
is a picture of signs, without a letter or a digit.

Two numbers agree if they differ by at most `tolerance * max(1, |wanted|)`. A wanted number that is
written as a whole one is exact where the answer is written so, too; else the answer must also round
to it, or a count would be right up to its millionth part. nan, inf, hexadecimal and `1_0` are not
numbers.

Every comparison takes time in proportion to the outputs, and memory to the wanted one.
"""

import re
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Literal

Compare = Literal["auto", "tokens", "exact", "float"]
_NUMBER = re.compile(rb"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,6})?")  # one way to match
_WHOLE = re.compile(rb"[+-]?\d+")
_WORD = re.compile(rb"[^\W_]")
_MAX_DIGITS = 10_000  # longer words are numbers to no program
_EXACT_DIGITS = 15
_CONTEXT = Context(prec=2 * _MAX_DIGITS, traps=[])


@dataclass(frozen=True)
class Comparison:
    """How outputs are compared.

    Args:
        kind: the module says what each is.
        tolerance: of `float` and `auto`.
        any_case: letters in any case, as some statements promise; not with `exact`.
    """

    kind: Compare = "auto"
    tolerance: float = 1e-6
    any_case: bool = False

    def is_same(self, got: bytes, wanted: bytes) -> bool:
        """Whether `got` answers as `wanted` does."""
        if self.kind == "exact":
            return _lines(got) == _lines(wanted)
        if self.kind == "auto" and _is_picture(wanted):
            return _picture(got) == _picture(wanted)
        if self.any_case:
            got, wanted = got.lower(), wanted.lower()
        wanted_words = wanted.split()
        # One split more than there are wanted words, so that a flood of words takes no memory.
        words = got.split(None, len(wanted_words))
        if words == wanted_words:
            return True
        return len(words) == len(wanted_words) and all(map(self._is_same_word, words, wanted_words))

    def _is_same_word(self, got: bytes, wanted: bytes) -> bool:
        if got == wanted:
            return True
        is_number = self.kind == "float" or (self.kind == "auto" and b"." in wanted)
        return _is_yes_or_no(got, wanted) or (is_number and _is_near(got, wanted, self.tolerance))


def _is_yes_or_no(got: bytes, wanted: bytes) -> bool:
    return len(got) <= 3 and got.lower() == wanted.lower() and got.lower() in (b"yes", b"no")


def _lines(text: bytes) -> list[bytes]:
    return text.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")


def _is_picture(wanted: bytes) -> bool:
    lines = wanted.splitlines()
    return not _WORD.search(wanted) and any(line[:1] in (b" ", b"\t") for line in lines)


def _picture(text: bytes) -> list[bytes]:
    """Lines without blanks at their ends, and without empty lines after the last."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _is_near(got: bytes, wanted: bytes, tolerance: float) -> bool:
    if max(len(got), len(wanted)) > _MAX_DIGITS:
        return False
    if not (_NUMBER.fullmatch(got) and _NUMBER.fullmatch(wanted)):
        return False
    is_whole = bool(_WHOLE.fullmatch(wanted))
    if is_whole and _WHOLE.fullmatch(got):
        return _digits(got) == _digits(wanted)
    if is_whole and len(wanted) > _EXACT_DIGITS:  # doubles would round it
        number, goal = Decimal(got.decode()), Decimal(wanted.decode())
        exact = _CONTEXT.abs(_CONTEXT.subtract(number, goal))
        return bool(exact < Decimal("0.5") and exact <= tolerance * max(1.0, abs(float(wanted))))
    error = abs(float(got) - float(wanted))
    return error <= tolerance * max(1.0, abs(float(wanted))) and (not is_whole or error < 0.5)


def _digits(number: bytes) -> bytes:
    """Without a plus and leading zeros; not by int(), which refuses thousands of digits."""
    digits = number.lstrip(b"+-").lstrip(b"0")
    return b"-" + digits if digits and number.startswith(b"-") else digits
