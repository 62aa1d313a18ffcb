"""Is this output the wanted one? On bytes: text would split at characters that no judge splits at.

`tokens`: the same words, whatever blanks and line ends are between them; letters keep their case,
save in yes and no, which contests take in any case. `exact`: the same lines,
byte for byte; only the last line end and carriage returns before line ends do not count.
`float`: as tokens, and two numbers may differ by `tolerance * max(1, |wanted|)`, unless both are
written as whole numbers: a count is right or wrong. nan, inf, hexadecimal and `1_0` are no numbers.
"""

import re
from typing import Literal

Compare = Literal["tokens", "exact", "float"]
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(rb"[+-]?\d+")


def is_same(got: bytes, wanted: bytes, compare: Compare, tolerance: float) -> bool:
    """Whether `got` answers as `wanted` does."""
    if compare == "exact":
        return _lines(got) == _lines(wanted)
    words, wanted_words = got.split(), wanted.split()
    if words == wanted_words:
        return True
    return len(words) == len(wanted_words) and all(
        _is_yes_or_no(*pair) or (compare == "float" and _is_near(*pair, tolerance))
        for pair in zip(words, wanted_words, strict=True)
        if pair[0] != pair[1]
    )


def _is_yes_or_no(got: bytes, wanted: bytes) -> bool:
    return got.lower() == wanted.lower() and got.lower() in (b"yes", b"no")


def _lines(text: bytes) -> list[bytes]:
    return text.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")


def _is_near(got: bytes, wanted: bytes, tolerance: float) -> bool:
    if not (_NUMBER.fullmatch(got) and _NUMBER.fullmatch(wanted)):
        return False
    if _WHOLE.fullmatch(got) and _WHOLE.fullmatch(wanted):
        return _digits(got) == _digits(wanted)
    return abs(float(got) - float(wanted)) <= tolerance * max(1.0, abs(float(wanted)))


def _digits(number: bytes) -> bytes:
    """Without a plus and leading zeros; not by int(), which refuses thousands of digits."""
    digits = number.lstrip(b"+-").lstrip(b"0")
    return b"-" + digits if digits and number.startswith(b"-") else digits
