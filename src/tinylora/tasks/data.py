"""The rows of a task, one by one: from the hub, or from local files (`--data FILE` or a folder).

Local files are JSON lines, a JSON list or Parquet, packed with gzip or not. They are read as they
come, a row (of Parquet: a few rows) at a time, so that a file may be larger than memory. The rows
stay as they are: a reader that makes a table of them would turn texts into dates, add fields that a
row does not have, and name no line.
"""

import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from tinylora.errors import RequestError, install_hint

DataRow = dict[str, Any]
Placed = tuple[str, DataRow]
Item = TypeVar("Item")
SUFFIXES = (".jsonl", ".json", ".parquet")
CHUNK = 1 << 16  # characters of a JSON list that are read at once
TEST_SHARE = 0.1
BATCH_ROWS = 16  # rows of Parquet: those with tests weigh megabytes
_BEFORE = "\ufeff \t\r\n"
_MAYBE_HALF, _HALF = re.compile(r"\\u[dD][89a-fA-F]"), re.compile("[\ud800-\udfff]")
_DECODER = json.JSONDecoder(parse_constant=lambda name: None)  # NaN is a gap, as pandas writes it


class MissingRows(RequestError):
    """A folder holds no rows of one split; the note says it without the cure."""

    def __init__(self, message: str, note: str) -> None:
        super().__init__(message)
        self.note = note


@dataclass(frozen=True)
class Source:
    """Where the rows of one split are.

    Args:
        hub: the data set's id.
        split, config: of the data set on the hub.
        files: what local files of this split are called, the likeliest name first; each as
            `PurePath.match` reads it, without the ending.
        hub_file: a file of the data set, where it is not cut into splits.
        is_huge: read it over the network row by row, in place of a copy in the hub's cache (which
            would be found again without a network).
    """

    hub: str
    split: str
    files: tuple[str, ...]
    config: str | None = None
    hub_file: str | None = None
    is_huge: bool = False


def rows(source: Source, data: str | None, task: str, left_out: list[str]) -> Iterator[Placed]:
    """The rows of one split, each with the words that name it in an error.

    Args:
        data: a local file or folder; None: the hub.
        task: the name to put into errors.
        left_out: gets the places of rows that no tokenizer reads.

    Raises:
        RequestError: there is no such data (MissingRows: in the folder), or a file is malformed.
    """
    if data is None:
        yield from _from_hub(source, task)
        return
    for path in local_files(source, data, task):
        yield from read_rows(path, left_out)


def read_splits(
    train: Sequence[Source],
    test: Sequence[Source],
    data: str | None,
    task: str,
    read: Callable[[Iterator[Placed]], list[Item]],
    text: Callable[[Item], str],
) -> tuple[list[Item], list[Item], list[str]]:
    """Train and test items, and notes on what is not there.

    One file is the test split where its name says so, or where there is nothing to train on; of any
    other file a tenth is held out.

    Args:
        read: rows to items.
        text: of an item; it decides what is held out.

    Raises:
        RequestError: there are no rows of either split.
    """
    left_out: list[str] = []
    if data is None or not Path(data).expanduser().is_file():
        missing: list[MissingRows] = []
        items = [read(_all(sources, data, task, missing, left_out)) for sources in (train, test)]
        if missing and not any(items):
            raise missing[-1]
        return items[0], items[1], [*(error.note for error in missing), *halves_note(left_out)]
    held = read(read_rows(Path(data).expanduser(), left_out))
    stem = PurePosixPath("/") / (stem_of(Path(data).name) or "")
    patterns = [pattern for source in test for pattern in source.files]
    if not train or any(stem.match(pattern) for pattern in patterns):
        return [], held, halves_note(left_out)
    kept, held_out = split(held, text)
    note = f"{len(held_out)} problems of {data} are held out as the test split."
    return kept, held_out, [note, *halves_note(left_out)]


def halves_note(left_out: Sequence[str]) -> list[str]:
    """A sentence on rows that were left out; none where there are none."""
    if not left_out:
        return []
    return [
        f"Left out: {len(left_out)} rows that contain half of a character (a lone surrogate such "
        f"as \\ud800), which no tokenizer reads; the first is {left_out[0]}."
    ]


def _all(
    sources: Sequence[Source],
    data: str | None,
    task: str,
    missing: list["MissingRows"],
    left_out: list[str],
) -> Iterator[Placed]:
    for source in sources:
        try:
            yield from rows(source, data, task, left_out)
        except MissingRows as error:
            missing.append(error)


def local_files(source: Source, data: str, task: str) -> list[Path]:
    """The file that `data` names, or those of the folder that belong to this split.

    Raises:
        RequestError: there is no such place; MissingRows: none of its files is named so.
    """
    place = Path(data).expanduser()
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise RequestError(
            f"data = {data}, but that file or folder does not exist. Pass a file of rows "
            f"({', '.join(SUFFIXES)}, gzipped or not) or a folder with files of task {task}."
        )
    found = matching(place, source.files)
    part = f"({source.config})" if source.config else ""
    if not found:
        raise MissingRows(
            f"The folder {data} does not contain {source.split} rows of task {task}: none of its "
            f"files is called {' or '.join(source.files)} ({', '.join(SUFFIXES)}, gzipped or "
            "not). Rename one, or name the file itself: --data FILE.",
            f"{data} does not contain {source.split} rows of "
            f"{' '.join(filter(None, (task, part)))}.",
        )
    return found


def matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """The folder's files of the first pattern that matches any, in the order of their names.

    A pattern with a leading slash matches from the folder on, others at any depth.
    """
    names = {}
    for where, _, files in os.walk(folder, followlinks=True):
        for file in files:
            stem = stem_of(file)
            if stem is not None:
                path = Path(where) / file
                names[path] = PurePosixPath("/") / path.relative_to(folder).with_name(stem)
    for pattern in patterns:
        found = sorted(path for path, name in names.items() if name.match(pattern))
        if found:
            return found
    return []


def stem_of(file: str) -> str | None:
    """The name without `.jsonl`, `.json.gz` and the like; None for other kinds of files."""
    name = file[:-3] if file.lower().endswith(".gz") else file
    end = next((end for end in SUFFIXES if name.lower().endswith(end)), None)
    return None if end is None else name[: -len(end)]


def is_rows(file: str) -> bool:
    """Whether a file of this name holds rows."""
    return stem_of(file) is not None


def read_rows(path: Path, left_out: list[str]) -> Iterator[Placed]:
    """The rows of one file, one after the other, each with its place.

    Args:
        left_out: gets the places of rows that contain half of a character, which are left out.

    Raises:
        RequestError: the file is not of a known kind, or malformed; the line or row is named.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        yield from _parquet(path)
        return
    kind = name.removesuffix(".gz")
    if not kind.endswith((".jsonl", ".json")):
        raise RequestError(
            f"{path} is not a supported kind of file. Rows are read from {', '.join(SUFFIXES)}, "
            "gzipped or not."
        )
    opener: Any = gzip.open if name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as file:
            read = _lines if _is_lines(file, kind) else _items
            for row, text, place in read(file, path):
                if _has_half(row, text):
                    left_out.append(place)
                else:
                    yield _placed(row, place)
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not UTF-8 ({error.reason}). Save it as UTF-8.") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RequestError(f"{path} is not a whole gzip file ({error}). Copy it again.") from None


def _is_lines(file: IO[str], kind: str) -> bool:
    """A `.json` file may hold lines too: a list opens with a bracket."""
    opening = file.read(CHUNK).lstrip(_BEFORE)[:1]
    file.seek(0)
    return kind.endswith(".jsonl") or opening != "["


def _lines(file: IO[str], path: Path) -> Iterator[tuple[Any, str, str]]:
    """Lines end where JSON lines end: U+2028 is a character like others."""
    for number, line in enumerate(file, start=1):
        place, text = f"{path}, line {number}", line.strip(_BEFORE)
        if text:
            try:
                row, end = _decode(text)
            except ValueError as error:
                raise RequestError(f"{place} is not JSON: {error}.") from None
            if text[end:].strip():
                raise RequestError(
                    f"{place} is not JSON: more than one value. Write one row per line."
                )
            yield row, text, place


def _items(file: IO[str], path: Path) -> Iterator[tuple[Any, str, str]]:
    """The items of a JSON list, without the list: what is left of one chunk meets the next."""
    text, count, is_over = "", 0, False
    row: Any
    while True:
        try:
            row, end = _item(text, count)
        except ValueError as error:  # not JSON, or not yet whole
            chunk = "" if is_over else file.read(max(CHUNK, len(text)))
            is_over = not chunk
            if is_over:
                raise RequestError(f"{path}, row {count + 1} is not JSON: {error}.") from None
            text += chunk
            continue
        if row is None:
            break
        count += 1
        yield row, text[:end], f"{path}, row {count}"
        text = text[end:]
    if (text[end:] + file.read()).strip():
        raise RequestError(f"{path} is not JSON: something follows the list. Remove it.")


def _item(text: str, count: int) -> tuple[Any, int]:
    """The next item and its end, or None and the end of the list, after `count` items.

    Raises:
        ValueError: the text is not the rest of a list, or not whole.
    """
    comma = r"\[" if count == 0 else ","
    opening = re.match(rf"[{_BEFORE}]*(?:({comma})[ \t\r\n]*)?", text)
    assert opening is not None
    start = opening.end()
    if text[start : start + 1] == "]" and (count == 0) == (opening[1] is not None):
        return None, start + 1
    if opening[1] is None:
        raise ValueError(f"it needs {'a bracket' if count == 0 else 'a comma or a bracket'} here")
    row, end = _decode(text, start)
    return ("null" if row is None else row), end


def _decode(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and its end.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _has_half(row: Any, text: str) -> bool:
    """Whether a lone surrogate is in a row, which is looked for only where its text has one."""
    if not _MAYBE_HALF.search(text):
        return False
    return _HALF.search(json.dumps(row, ensure_ascii=False)) is not None


def _placed(row: Any, place: str) -> Placed:
    if not isinstance(row, dict):
        raise RequestError(f"{place} is not a JSON object, but a row has fields.")
    return place, row


def _parquet(path: Path) -> Iterator[Placed]:
    try:
        import pyarrow.parquet as parquet  # type: ignore[import-untyped]
        from pyarrow import ArrowException
    except ImportError:
        raise RequestError(
            f"{path} is a Parquet file, which needs pyarrow, and that is not installed. "
            f"{install_hint('data')}, or turn the file into JSON lines."
        ) from None

    try:
        batches = parquet.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS)
        found = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(found, start=1):
            yield f"{path}, row {number}", row
    except ArrowException as error:
        cause = str(error).split("\n")[0]
        raise RequestError(f"{path} cannot be read as Parquet ({cause}).") from None


def _from_hub(source: Source, task: str) -> Iterator[Placed]:
    try:
        from datasets import load_dataset  # type: ignore[import-untyped]
    except ImportError:
        raise RequestError(
            f"Task {task} is read from the hub ({source.hub}), which needs the package datasets, "
            f"and that is not installed. {install_hint('data')}, or use local files: --data FILE "
            "or --data DIR."
        ) from None

    from tinylora.adapter.hub import offline_without_hub

    try:
        with offline_without_hub():
            data_set = load_dataset(
                source.hub,
                source.config,
                data_files=None if source.hub_file is None else {source.split: source.hub_file},
                split=source.split,
                streaming=source.is_huge,
            )
        for number, row in enumerate(data_set, start=1):
            yield f"{source.hub} ({source.split}), row {number}", row
    except (OSError, ValueError) as error:
        cause = str(error).strip().split("\n")[0].rstrip(".")
        raise RequestError(
            f"The {source.split} rows of task {task} could not be read from the hub "
            f"({source.hub}: {cause}). Use local files: --data FILE or --data DIR."
        ) from error


def split(items: list[Item], text: Callable[[Item], str]) -> tuple[list[Item], list[Item]]:
    """Train and test items: a tenth is held out, by the hash of its text, so that the order of the
    items does not matter and equal texts stay together."""
    texts = sorted({text(item) for item in items}, key=_hash)
    held_out = set(texts[: max(1, round(TEST_SHARE * len(texts)))])
    train = [item for item in items if text(item) not in held_out]
    return train, [item for item in items if text(item) in held_out]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
