"""What a user's own code does when it is called: its failures, its coroutines, its numbers.

A failure becomes one sentence with the file and line of their code. A failure in ours stays as it
is, and so does one in a library that ours called.
"""

import asyncio
import inspect
import math
import sysconfig
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinylora.errors import TinyLoraError

MAX_SCORE = 1e15  # the squares of larger ones overflow in fp32
_NOT_THEIRS = tuple(
    str(folder.resolve())
    for folder in (
        Path(__file__).parents[1],
        *(Path(sysconfig.get_paths()[name]) for name in ("stdlib", "platstdlib", "purelib")),
    )
)


@contextmanager
def their_code(what: str, error_class: type[TinyLoraError] = TinyLoraError) -> Iterator[None]:
    """Inside, an exception of the user's code is one sentence that begins with `what`."""
    try:
        yield
    except TinyLoraError:
        raise
    except Exception as error:
        place = place_of(error)
        if place is None:
            raise
        raise error_class(f"{what} raised {described(error)} ({place}). Fix it there.") from error


def place_of(error: BaseException) -> str | None:
    """`FILE, line N`: the last line of the user's code on the way to the error; None: there is
    none."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}" if error.filename else "its source"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _is_theirs(frame.filename)]
    return f"{theirs[-1].filename}, line {theirs[-1].lineno}" if theirs else None


def _is_theirs(file: str) -> bool:
    path = str(Path(file).resolve())
    return not file.startswith("<frozen") and not path.startswith(_NOT_THEIRS)


def described(error: BaseException) -> str:
    """`KeyError: 'x'`, on one line."""
    said = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def awaited(value: Any) -> Any:
    """What an async function returns once it has run, and anything else as it is."""
    if not inspect.isawaitable(value):
        return value

    async def wait() -> Any:
        return await value

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    with ThreadPoolExecutor(1) as thread:  # a notebook's loop runs in this one
        return thread.submit(asyncio.run, wait()).result()


def as_score(value: Any, what: str) -> float | None:
    """A number of any kind as a float; None and NaN mean "could not judge".

    Raises:
        TinyLoraError: it is not a number, or so large that training cannot use it.
    """
    if value is None:
        return None
    try:
        number = math.inf if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.inf
    if math.isnan(number):
        return None
    if abs(number) > MAX_SCORE:
        raise TinyLoraError(
            f"{what} returned {shown(value)} for a completion. It must return a number between "
            f"-{MAX_SCORE:g} and {MAX_SCORE:g} for each, None where it cannot judge."
        )
    return number


def listed(values: Any, count: int, what: str) -> list[Any]:
    """One entry for each of `count` completions.

    Raises:
        TinyLoraError: it is not a list, or of another length.
    """
    found = "None" if values is None else f"a {type(values).__name__}"
    if not isinstance(values, str | bytes | dict | set | frozenset):
        try:
            entries = list(values)
        except TypeError:
            entries = None
        if entries is not None and len(entries) == count:
            return entries
        found = found if entries is None else f"{len(entries)} scores"
    raise TinyLoraError(
        f"{what} returned {found} for {count} completions. It must return a list with a number "
        "for each, None where it cannot judge."
    )


def shown(value: Any) -> str:
    """A value in a sentence."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
