r"""The program of a worker process: algebra by math-verify, a question after another.

It runs by its path, in a process of its own, because nothing here can be trusted to end: the
kernel kills it with SIGPROF after `cpu_s` seconds of processor time on one question, and refuses it
more than `memory_mb` of address space.

Of math-verify only the LaTeX grammar is used. Its plain-expression grammar calls sympy's
`parse_expr`, which is `eval`; its own time-outs need SIGALRM and the main thread.
"""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from tinylora.processes import Parent, cpu_limit, limit_memory
from tinylora.rewards.math.compare import claims_more, equivalent
from tinylora.rewards.math.latex import ROW

CACHED_GOLDS = 64
PRECISION = 2e-6
EXACT = 1e-30
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
# What the grammar cannot read or reads as something else, and letters that it can.
_LETTERS_FOR = (
    (re.compile(r"(?<!\\)(?<![A-Za-z])E(?![A-Za-z])"), r"\\Xi "),
    (re.compile(r"\\odot(?![A-Za-z])"), "sun"),
    (re.compile(r"\\oplus(?![A-Za-z])"), "earth"),
)


def main() -> None:
    """Answer questions until the parent hangs up."""
    cpu_s, memory_mb = float(sys.argv[3]), int(sys.argv[4])
    limit_memory(memory_mb)
    with suppress(ImportError):  # each question tells
        import math_verify  # type: ignore[import-untyped]  # noqa: F401
    parent = Parent()
    for gold, answer in parent.questions():
        with cpu_limit(cpu_s):
            said = _answer(gold, answer, parent.say)
        parent.say(said)


def _answer(gold: str, answer: str, say: Callable[[str], None]) -> dict[str, Any]:
    reading = "answer"

    def read(what: str) -> None:
        nonlocal reading
        reading = what
        say(what)

    def symbolic(expected: str, given: str) -> bool | None:
        read("gold")
        meant = _parse(expected)
        read("answer")
        if not meant:
            return None
        return not claims_more(expected, given) and _verified(meant, given)

    try:
        return {"equal": equivalent(gold, answer, symbolic)}
    except (MemoryError, RecursionError):
        return {"limit": reading}
    except ImportError as error:
        return {"failed": f"math-verify cannot be imported ({error})"}
    except Exception as error:  # this program classifies failures: the judge's is no verdict
        return {"failed": f"the comparison failed: {type(error).__name__} in the algebra"}


@lru_cache(maxsize=CACHED_GOLDS)
def _parse(text: str) -> list[Any]:
    """The expressions that math-verify reads in a tidied text; empty where it reads none."""
    from latex2sympy2_extended.latex2sympy2 import (  # type: ignore[import-untyped]
        NormalizationConfig,
    )
    from math_verify import LatexExtractionConfig, parse

    spelling = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    )
    config = LatexExtractionConfig(normalization_config=spelling, boxed_match_priority=-1)
    text = text.replace(ROW, r" \\ ").replace("{matrix}", "{pmatrix}")
    angle = r"\cdot\frac{\pi}{180}" if _TRIGONOMETRY.search(text) else ""
    text = text.replace(r"\degree", angle)
    for pattern, letters in _LETTERS_FOR:
        text = pattern.sub(letters.replace("\\", "\\\\"), text)
    expressions: list[Any] = parse(
        f"${text}$",
        [config],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return expressions


def _verified(meant: list[Any], given: str) -> bool:
    """math-verify's verdict, where two values of the variables do not tell the two apart."""
    from math_verify import verify

    said = _parse(given)
    if not said or _told_apart(meant[0], said[0]):
        return False
    if not verify(meant, said, timeout_seconds=None):
        return _same_symbol(meant[0], said[0])
    return _close(meant[0], said[0])


def _same_symbol(meant: Any, said: Any) -> bool:
    """math-verify compares a lone symbol by its name, so that 2x - x is not x."""
    from sympy import Expr, Symbol, simplify  # type: ignore[import-untyped]

    if not (isinstance(meant, Symbol) and isinstance(said, Expr)):
        return False
    return bool(simplify(meant - said) == 0)


def _told_apart(meant: Any, said: Any) -> bool:
    """Plain expressions in the same variables that differ at a point: simplifying is slower."""
    from sympy import Derivative, Expr, Integral, Product, Rational, Sum
    from sympy.core.function import AppliedUndef  # type: ignore[import-untyped]

    opaque = (Derivative, Integral, Product, Sum, AppliedUndef)
    for side in (meant, said):
        if not isinstance(side, Expr) or side.has(*opaque) or not side.free_symbols:
            return False
    if meant.free_symbols != said.free_symbols:
        return False
    names = sorted(meant.free_symbols, key=str)
    for start in (137, 291):
        point = {name: Rational(start + 61 * i, 100) for i, name in enumerate(names)}
        try:
            a, b = complex(meant.evalf(subs=point)), complex(said.evalf(subs=point))
        except (AttributeError, TypeError, ValueError, ArithmeticError):
            return False  # sympy has no value there: algebra decides
        if abs(a - b) > 1e-6 * max(abs(a), abs(b), 1e-6):
            return True
    return False


def _close(meant: Any, said: Any) -> bool:
    """Numbers agree in size: rounded to six places, as math-verify has it, 1e-9 is 2e-9.

    sympy's own numbers have exponents without bounds: as doubles, 1/2004! would be 0. Where neither
    side has a decimal, nothing is rounded and `EXACT` digits have to agree.
    """
    from sympy import Expr, Float

    try:
        is_plain = isinstance(meant, Expr) and isinstance(said, Expr)
        if not is_plain or meant.free_symbols or said.free_symbols:
            return True
        precision = PRECISION if meant.has(Float) or said.has(Float) else EXACT
        distance, sizes = abs((meant - said).evalf(50)), [abs(x.evalf(50)) for x in (meant, said)]
        return bool(distance <= precision * max(sizes))
    except (AttributeError, TypeError, ValueError):
        return True


if __name__ == "__main__":
    main()
