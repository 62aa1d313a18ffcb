"""A file is whole or not there, also where the disk is full."""

import errno
import os
from pathlib import Path

import pytest

from tinylora.atomic import write_atomically
from tinylora.cli import main


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path, is_shared: bool) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"one", is_shared=is_shared)
    write_atomically(path, b"two", is_shared=is_shared)
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_after_a_failure_the_old_file_is_there_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_where_a_folder_should_be_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    where = tmp_path / "file" / "new"
    monkeypatch.setattr("tinylora.cli.inspect.run", lambda argv: write_atomically(where, b""))
    assert main(["inspect", "pocket"]) == 1
    assert capsys.readouterr().err.startswith("tinylora inspect: File exists")


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/a/summary.json")

    monkeypatch.setattr("tinylora.cli.inspect.run", full)
    assert main(["inspect", "pocket"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("tinylora inspect: No space left on device (runs/a/summary.json)")
    assert len(said.strip().splitlines()) == 1
