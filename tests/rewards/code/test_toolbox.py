"""The judge's tools: the precompiled headers are used, and change nothing but the time."""

import os
import shutil
import subprocess

import pytest

from tinylora.rewards.code import toolbox
from tinylora.rewards.code.toolbox import SandboxUnavailable, flags, headers

MACROS = """
#define _GLIBCXX_DEBUG
#include <bits/stdc++.h>
int main() { std::vector<int> v{1}; std::printf("%d", v[7]); }
"""


def compiled(source, *options):
    """The assembly of a source, and what g++ says about the headers that it reads."""
    command = ["g++", *flags("gnu++17"), *options, "-H", "-S", "-o", "-", "-x", "c++", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_the_precompiled_headers_are_used(box):
    source = "#include <bits/stdc++.h>\nint main() { std::sort((int*)0, (int*)0); }"
    assembly, said = compiled(source, "-I", headers("gnu++17"))
    assert f"! {headers('gnu++17')}/bits/stdc++.h.gch" in said
    assert assembly == compiled(source)[0]


def test_a_program_to_which_they_do_not_apply_is_compiled_as_without_them(box):
    assembly, said = compiled(MACROS, "-I", headers("gnu++17"))
    assert f"x {headers('gnu++17')}/bits/stdc++.h.gch" in said
    assert assembly == compiled(MACROS)[0]


def test_tools_that_another_user_could_change_are_refused(tmp_path):
    folder = tmp_path / "judge"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(SandboxUnavailable, match=r"only user .* may be able to write it"):
        toolbox._own_folder(folder)


def test_tools_are_kept_where_the_umask_would_hide_them(tmp_path):
    before = os.umask(0o077)
    try:
        folder = toolbox._own_folder(tmp_path / "judge")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_tool_that_could_not_be_built_leaves_nothing(tmp_path):
    def fail(path):
        path.write_text("half")
        raise SandboxUnavailable("no")

    with pytest.raises(SandboxUnavailable, match="no"):
        toolbox._built(tmp_path / "stub", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["stub.lock"]


def test_without_a_cache_that_can_be_written_they_are_kept_for_the_process(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYLORA_CACHE", str(tmp_path / "file" / "cache"))
    folder = toolbox._temporary_folder()
    try:
        monkeypatch.setattr(toolbox, "_temporary_folder", lambda: folder)
        assert toolbox._home() == folder
    finally:
        shutil.rmtree(folder)
