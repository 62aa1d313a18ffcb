r"""The program of a worker process: algebra by math-verify, one JSON line in, one or more out.

It runs by its path, in a process of its own, because nothing here can be trusted to end: the
kernel kills it with SIGPROF after `cpu_s` seconds of processor time on one question, and refuses it
more than `memory_mb` of address space. It ends when its standard input does, or its parent.

Of math-verify only the LaTeX grammar is used. Its plain-expression grammar calls sympy's
`parse_expr`, which is `eval`; its own time-outs need SIGALRM and the main thread.
"""

import json
import os
import re
import resource
import select
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from tinylora.rewards.compare import equivalent
from tinylora.rewards.latex import ROW

Tell = Callable[..., None]

CACHED_GOLDS = 64
PARENT_CHECK_S = 5.0
PRECISION = 1e-9
_WORDS = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_CLAIMS = re.compile(r"\\(?:approx|sim|simeq|ne|not|neg|to|text|ldots)(?![A-Za-z])|\?|%")


class GoldUnreadable(Exception):
    """math-verify cannot read the gold answer, so nothing can be compared with it."""


def main() -> None:
    """Answer questions until the input ends."""
    cpu_s, memory_mb, parent = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tell = _open_channel()
    try:
        import math_verify  # type: ignore[import-untyped]  # noqa: F401
    except ImportError as error:
        tell(broken=f"math-verify cannot be imported ({error})")
        return
    tell(ready=True)
    while (line := _next_line(parent)) is not None:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        _answer(question["gold"], question["answer"], tell)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _open_channel() -> Tell:
    """Lines to the parent; whatever else prints goes nowhere."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)

    def tell(**event: Any) -> None:
        channel.write(json.dumps(event) + "\n")
        channel.flush()

    return tell


def _next_line(parent: int) -> str | None:
    """The next line of the input; None once it has ended or the parent is gone."""
    while not select.select([sys.stdin], [], [], PARENT_CHECK_S)[0]:
        if os.getppid() != parent:
            return None
    return sys.stdin.readline() or None


def _answer(gold: str, answer: str, tell: Tell) -> None:
    def symbolic(expected: str, given: str) -> bool:
        tell(reading="gold")
        meant = _parse(expected)
        if not meant:
            raise GoldUnreadable
        tell(reading="answer")
        return _verified(expected, meant, given)

    try:
        tell(equal=bool(equivalent(gold, answer, symbolic)))
    except GoldUnreadable:
        tell(unreadable=True)
    except (MemoryError, RecursionError):
        tell(limit=True)


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
    expressions: list[Any] = parse(
        f"${text}$",
        [config],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return expressions


def _verified(expected: str, meant: list[Any], given: str) -> bool:
    """math-verify's verdict, where the answer has no words, claims or letters of its own."""
    from math_verify import verify

    if not _letters(given) <= _letters(expected) or set(_CLAIMS.findall(given)) - set(
        _CLAIMS.findall(expected)
    ):
        return False
    said = _parse(given)
    if not said or not verify(meant, said, timeout_seconds=None):
        return False
    return _close(meant[0], said[0])


def _letters(text: str) -> set[str]:
    return {
        token for token in _WORDS.findall(text) if not token.startswith("\\") and token not in "eid"
    }


def _close(meant: Any, said: Any) -> bool:
    """Numbers agree in size: rounded to six places, as math-verify has it, 1e-9 is 2e-9."""
    try:
        if meant.free_symbols or said.free_symbols:
            return True
        a, b = complex(meant.evalf()), complex(said.evalf())
    except (AttributeError, TypeError, ValueError):
        return True
    return abs(a - b) <= max(PRECISION * max(abs(a), abs(b)), 0.0) or abs(a - b) < 1e-6 <= abs(a)


if __name__ == "__main__":
    main()
