"""Rows from local files of every kind, found by name, and what is said where there are none."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tinylora.errors import RequestError
from tinylora.tasks.data import CHUNK, Source, halves_note, local_files, matching, read_rows, rows

ROWS: list[dict[str, Any]] = [{"n": i, "text": f"é \u2028 }}, [{i}"} for i in range(40)]
SOURCE = Source("nobody/nothing", "test", ("thing_test*", "main/test*", "/test*"))


def texts(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(path, [])]


def write(path: Path) -> Path:
    """The rows in the form that the name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    text = lines if ".jsonl" in path.name else json.dumps(ROWS, indent=2, ensure_ascii=False)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "json.gz", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    assert texts(write(tmp_path / f"rows.{ending}")) == ROWS


def test_a_json_file_may_hold_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('\ufeff{"a": 1}\n\n{"a": 2}', encoding="utf-8")
    assert texts(path) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("text", ["[]", " [ ] \n", "\ufeff[]"])
def test_an_empty_list_has_no_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    assert texts(tmp_path / "rows.json") == []


def test_rows_stay_as_they_are(tmp_path: Path) -> None:
    """What a reader that makes a table of them would change."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "2020-01-01"}\n{"b": 2.0, "c": "\\ud83d\\ude00"}\n{"d": NaN}\n')
    assert texts(path) == [{"a": "2020-01-01"}, {"b": 2.0, "c": "\U0001f600"}, {"d": None}]


def test_items_longer_than_a_chunk_are_read_whole(tmp_path: Path) -> None:
    long = [{"text": "x" * (3 * CHUNK)}, {"text": "y" * 5}, {"text": "z" * CHUNK}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(long))
    assert texts(path) == long


def test_a_list_is_never_in_memory_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": "x" * 10_000}] * 2_000))  # 20 MB
    tracemalloc.start()
    assert sum(1 for _ in read_rows(path, [])) == 2_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": ', r"a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b"3\n", r"a.jsonl, line 1 is not a JSON object"),
        ("a.json", b'[{"a": 1}, {"a"', r"a.json, row 2 is not JSON"),
        ("a.json", b'[{"a": 1}, 7]', r"a.json, row 2 is not a JSON object"),
        ("a.json", b'[{"a": 1} {"a": 2}]', r"a.json, row 2 is not JSON: it needs a comma or a br"),
        ("a.json", b'[{"a": 1},]', r"a.json, row 2 is not JSON"),
        ("a.json", b'[{"a": 1}', r"a.json, row 2 is not JSON"),
        ("a.json", b'[{"a": 1}] 7', r"a.json is not JSON: something follows the list"),
        ("a.json", b"[null]", r"a.json, row 1 is not a JSON object"),
        ("a.jsonl", b'{"a": 1}{"a": 2}\n', r"a.jsonl, line 1 is not JSON: more than one value"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", r"a.jsonl, line 1 is not JSON: Exceeds the li"),
        ("a.jsonl", b'{"a": ' + b"[" * 99_999, r"a.jsonl, line 1 is not JSON: it is nested too d"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"a": 1}\n', mtime=0)[:-6],
            r"a.jsonl.gz is not a whole gzip file",
        ),
        ("a.jsonl.gz", b"{}\n", r"a.jsonl.gz is not a whole gzip file"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"a": 1}\n', mtime=0)[:10] + b"\xff" * 20,
            r"a.jsonl.gz is not a whole gzip file",
        ),
        ("a.parquet", b"nothing", r"a.parquet cannot be read as Parquet"),
        (
            "a.csv",
            b"a,b\n",
            r"a.csv is not a supported kind of file. Rows are read from .jsonl, .json,",
        ),
    ],
)
def test_a_malformed_file_is_named(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=sentence) as caught:
        texts(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_row_with_half_a_character_is_left_out(tmp_path: Path, name: str) -> None:
    """And a whole one, of two halves, stays: so does what only looks like a half."""
    lines = [r'{"a": 1}', r'{"a": ["x\uDC01"]}', r'{"a": "\ud83d\ude00"}', r'{"a": "\\ud800"}']
    text = "\n".join(lines) if name == "a.jsonl" else f"[{','.join(lines)}]"
    (tmp_path / name).write_text(text)
    left_out: list[str] = []
    kept = [row["a"] for _, row in read_rows(tmp_path / name, left_out)]
    assert kept == [1, "\U0001f600", r"\ud800"]
    assert left_out == [f"{tmp_path / name}, {'line' if name == 'a.jsonl' else 'row'} 2"]
    assert "1 rows that contain half of a character" in halves_note(left_out)[0]


def test_a_folder_is_searched_for_the_likeliest_name_first(tmp_path: Path) -> None:
    generic = write(tmp_path / "test.parquet")
    assert matching(tmp_path, SOURCE.files) == [generic]
    shards = [write(tmp_path / "snap" / "main" / f"test-0000{i}-of-2.parquet") for i in (1, 0)]
    assert matching(tmp_path, SOURCE.files) == shards[::-1]
    own = write(tmp_path / "deep" / "thing_test.jsonl.gz")
    assert matching(tmp_path, SOURCE.files) == [own]


def test_a_name_from_the_root_on_is_no_name_at_any_depth(tmp_path: Path) -> None:
    write(tmp_path / "other" / "test.jsonl")
    assert matching(tmp_path, SOURCE.files) == []


def test_a_folder_without_the_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    with pytest.raises(
        RequestError, match=r"does not contain test rows of task thing: none .*--data FILE"
    ):
        local_files(SOURCE, str(tmp_path), "thing")
    with pytest.raises(
        RequestError, match=r"data = nowhere, but that file or folder does not exist"
    ):
        local_files(SOURCE, "nowhere", "thing")


def test_without_the_hub_data_is_named() -> None:
    with pytest.raises(
        RequestError, match=r"test rows of task thing could not be read from the hub .*Use local f"
    ) as caught:
        list(rows(SOURCE, None, "thing", []))
    assert "--data" in str(caught.value)
    assert "\n" not in str(caught.value)
