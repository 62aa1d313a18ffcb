"""Adapters by name: what a table or a folder holds, now."""

import logging
import os
from pathlib import Path

import pytest

from helpers.exports import adapter_of
from tinylora.adapter import TinyLora
from tinylora.errors import RequestError
from tinylora.vllm_plugin.names import Names, read_table


@pytest.fixture(scope="module")
def adapter() -> TinyLora:
    return adapter_of()


def later(path: Path) -> None:
    """As if it had been written a second after: some file systems' clocks are coarse."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def test_a_table_gives_texts_and_is_read_again_when_it_changes(
    adapter: TinyLora, tmp_path: Path
) -> None:
    table, line = tmp_path / "names.tsv", adapter.to_text()
    table.write_text(f"# customers\n\nalice\t{line[:20]} {line[20:]}\n", encoding="utf-8")
    names = Names(str(table))
    assert (names.text("alice"), names.text("bob"), len(names)) == (line, None, 1)
    table.write_text(f"alice\t{line}\nbob\t{line}\n", encoding="utf-8")
    later(table)
    assert (names.text("bob"), len(names)) == (line, 2)
    assert names.has_text(line)
    assert not names.has_text(adapter.to_text("fp32") + "A")


def test_a_table_that_breaks_leaves_what_was_there(
    adapter: TinyLora, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, line = tmp_path / "names.tsv", adapter.to_text()
    table.write_text(f"alice\t{line}\n", encoding="utf-8")
    names = Names(str(table))
    table.write_text(f"alice\t{line[:-1]}\n", encoding="utf-8")
    later(table)
    with caplog.at_level(logging.WARNING, "vllm.tinylora"):
        assert names.text("alice") == line
    assert "line 1: " in caplog.text
    table.unlink()
    assert names.text("alice") == line


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("alice", "line 1: a line is a name, a tab, and an adapter's text"),
        ("alice\ttl1:AAAA", r"line 1: tl1:AAAA is a damaged text"),
        ("a\tTEXT\na\tTEXT", "line 2: the name a is there already"),
        ("tl1:x\tTEXT", "line 1: a line is a name"),
    ],
)
def test_wrong_lines_are_named(
    lines: str, sentence: str, adapter: TinyLora, tmp_path: Path
) -> None:
    table = tmp_path / "names.tsv"
    table.write_text(lines.replace("TEXT", adapter.to_text()), encoding="utf-8")
    with pytest.raises(RequestError, match=sentence):
        read_table(table)


def test_a_folder_gives_files_and_runs_as_they_are_now(adapter: TinyLora, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    adapter.save(tmp_path / "run")
    adapter.save(tmp_path / "alice.safetensors")
    names = Names(str(tmp_path))
    assert set(names.texts()) == {"run", "alice"}
    assert names.text("alice") == adapter.to_text()
    half = 0.5 * adapter.v.detach()
    adapter.set_values(half)
    adapter.save(tmp_path / "alice.safetensors")
    later(tmp_path / "alice.safetensors")
    assert names.text("alice") == adapter.to_text() != names.text("run")
    assert names.has_text(adapter.to_text())


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "run/../../secret", ".", ""])
def test_names_never_become_paths(name: str, adapter: TinyLora, tmp_path: Path) -> None:
    adapter.save(tmp_path / "secret.safetensors")
    folder = tmp_path / "served"
    folder.mkdir()
    assert Names(str(folder)).text(name) is None


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"adapters = .*absent does not exist"):
        Names(str(tmp_path / "absent"))
    assert Names(None).text("alice") is None
