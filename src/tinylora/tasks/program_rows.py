"""Rows of competition problems, in the formats in which data sets and other projects keep them.

A format is the columns that a row has: the hub's CodeContests, rLLM's and SandboxFusion's copies of
it, DeepCoder, TACO, LiveCodeBench (with its packed tests), open-r1/codeforces.
"""

import ast
import base64
import binascii
import io
import json
import math
import pickle
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinylora.rewards.code import Limits, Test
from tinylora.tasks.data import DataRow
from tinylora.tasks.statements import bytes_to_mb, limits, limits_in

_STATEMENTS = ("problem", "description", "question", "content", "question_content")
_TESTS = ("tests", "test", "input_output", "ground_truth", "official_tests", "test_cases")
_KINDS = ("public", "private", "generated")
_STREAMS = ("stdin", "stdin_stdout", "stdio", "", None)
_MAX_UNPACKED = 1 << 28
_PART = {  # of the statement in open-r1/codeforces
    "input_format": "Input", "output_format": "Output", "note": "Note",
}  # fmt: skip


class LeftOut(Exception):
    """Why a row is not a problem that can be judged; in the words of the notes."""


@dataclass(frozen=True)
class Statement:
    """What a row says.

    Args:
        tests: by their source: public (in the statement), private, generated.
        accepted, rejected: a C++ program that the original judge took, and one that it did not.
    """

    text: str
    tests: Mapping[str, Sequence[Test]]
    source: str = "UNKNOWN_SOURCE"
    difficulty: str = "UNKNOWN_DIFFICULTY"
    limits: Limits = field(default_factory=Limits)
    accepted: str | None = None
    rejected: str | None = None


def read_row(row: DataRow) -> Statement:
    """A row of any of these formats.

    Raises:
        LeftOut: its problem cannot be judged.
        LookupError, TypeError, ValueError: it is of none of them.
    """
    if (row.get("starter_code") or "").strip():
        raise LeftOut("that want a function, not a program")
    if row.get("input_file") or row.get("output_file") or row.get("input_mode") == "file":
        raise LeftOut("that read or write files")
    if row.get("generated_checker"):
        raise LeftOut("with several right answers and no checker")
    if row.get("interaction_format"):
        raise LeftOut("interactive")
    text = _statement(row)
    return Statement(text, _tests(row), limits=_limits(row, text))


def _statement(row: DataRow) -> str:
    if not any(name in row for name in _STATEMENTS):
        raise KeyError(" or ".join(_STATEMENTS))
    found = next((row[name] for name in _STATEMENTS if row.get(name)), None)
    if not isinstance(found, str) or not found.strip():
        raise LeftOut("without a statement")
    parts = [found, *(f"{title}\n{row[name]}" for name, title in _PART.items() if row.get(name))]
    for example in row.get("examples") or ():
        parts.append(f"Example\n{example['input']}\n{example['output']}")
    return whole_text("\n\n".join(parts))


def whole_text(text: str) -> str:
    """Without lone surrogates, which no tokenizer takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _tests(row: DataRow) -> dict[str, list[Test]]:
    names: tuple[tuple[str, str], ...]
    if "public_test_cases" in row:  # LiveCodeBench
        names = (("public", "public_test_cases"), ("private", "private_test_cases"))
    elif any(f"{kind}_tests" in row for kind in _KINDS):
        names = tuple((kind, f"{kind}_tests") for kind in _KINDS)
    else:
        found = [("private", name) for name in _TESTS if row.get(name)]
        if not found and not any(name in row for name in _TESTS):
            raise KeyError(" or ".join(_TESTS))
        names = (("public", "examples"), *found[:1])
    return {kind: parse_tests(row.get(name)) for kind, name in names}


def _limits(row: DataRow, text: str) -> Limits:
    """Of the row's own columns; else of its statement."""
    stated = limits_in(text)
    seconds = _seconds(row.get("time_limit"))
    memory = row.get("memory_limit_bytes")
    megabytes = row.get("memory_limit") if memory is None else bytes_to_mb(int(_number(memory)))
    return limits(seconds or stated.cpu_s, int(_number(megabytes)) or stated.memory_mb)


def _seconds(value: Any) -> float:
    """Of seconds and nanos, of a number, or of a text such as 2s."""
    if isinstance(value, Mapping):
        return _number(value.get("seconds")) + _number(value.get("nanos")) / 1e9
    return _number(value)


def _number(value: Any) -> float:
    """0 where there is none: an absent limit, NaN from a table, words."""
    if isinstance(value, str):
        value = value.strip().lower().rstrip("abcdefghijklmnopqrstuvwxyz ")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def parse_tests(value: Any) -> list[Test]:
    """Tests in any of the forms that the data sets have: packed, a text of JSON or Python, or its
    content; as a list of inputs with their outputs, as pairs, or as two lists.

    Raises:
        LeftOut: they all call a function, in place of running a program, or do not fit together.
        ValueError: a text is of no known form.
    """
    held = _unpacked(value) if isinstance(value, str) else value
    if not held:
        return []
    if isinstance(held, Mapping) and ("type" in held or "testtype" in held):
        held = [held]  # one test, without its list
    if isinstance(held, Mapping):
        if held.get("fn_name"):
            raise LeftOut("that want a function, not a program")
        inputs = held.get("inputs", held.get("input", []))
        outputs = held.get("outputs", held.get("output", []))
        held = [{"input": i, "output": o} for i, o in _pairs(inputs, outputs)]
    elif not isinstance(held, Sequence):
        raise TypeError(f"tests are {type(held).__name__}, not a list")
    programs = [item for item in map(_item, held) if not _is_of_function(item)]
    if held and not programs:
        raise LeftOut("that want a function, not a program")
    return [
        Test(_text(item["input"]), _text(item["output"]))
        for item in programs
        if item["output"] is not None
    ]


def _pairs(inputs: Any, outputs: Any) -> list[tuple[Any, Any]]:
    if len(inputs) != len(outputs):
        raise LeftOut("with more inputs than outputs, or fewer")
    return list(zip(inputs, outputs, strict=True))


def _item(item: Any) -> Mapping[str, Any]:
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 2:
        return {"input": item[0], "output": item[1]}
    if not isinstance(item, Mapping):
        raise TypeError(f"a test is {str(item)[:80]!r}, not an input with its output")
    return item


def _is_of_function(item: Mapping[str, Any]) -> bool:
    kind = item.get("type", item.get("testtype"))
    return bool(item.get("fn_name")) or kind not in _STREAMS


def _text(value: Any) -> str:
    """A text, a number, lines of them, or a mapping that names the stream."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "\n".join(_text(line) for line in value)
    if isinstance(value, Mapping):
        return _text(value.get("stdin", value.get("stdout")))
    raise TypeError(f"a test holds {value!r}, not a text")


def _unpacked(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(_inflated(text))
    except (ValueError, zlib.error, pickle.UnpicklingError, EOFError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"tests are neither JSON nor Python: {text[:80]!r}") from None


def _inflated(text: str) -> str:
    """LiveCodeBench packs a text of JSON by pickle, zlib and base64."""
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    inflater = zlib.decompressobj()
    pickled = inflater.decompress(packed, _MAX_UNPACKED)
    if inflater.unconsumed_tail:
        raise ValueError(f"tests of more than {_MAX_UNPACKED} bytes")
    held = _OnlyTexts(io.BytesIO(pickled)).load()
    if not isinstance(held, str):
        raise ValueError(f"packed tests are {type(held).__name__}, not a text")
    return held


class _OnlyTexts(pickle.Unpickler):
    """A pickle may call any function of any module; this one may name none."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"packed tests name {module}.{name}, but they are a text")
