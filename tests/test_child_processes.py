"""Child processes: one question at a time, an end that is told, nothing left behind."""

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tinylora
from tinylora.processes import STARTING, Child, Children, Ended

PROGRAM = """
    import os, signal, sys, time
    from tinylora.processes import Parent, cpu_limit, limit_memory

    limit_memory(1024)
    parent = Parent()
    print("what it prints is no answer", flush=True)
    for question in parent.questions():
        parent.say("thinking")
        with cpu_limit(0.2):
            if question == "spin":
                while True:
                    pass
            if question == "hog":
                try:
                    bytearray(2 << 30)
                except MemoryError:
                    os.abort()
            if question == "sleep":
                time.sleep(100)
            if question == "exit":
                os._exit(3)
        parent.say({"pid": os.getpid(), "hash": hash("a"), "echo": question})
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return path


@pytest.mark.parametrize(
    ("question", "cause", "by_content"),
    [
        ("spin", "its process ended with status -27", True),
        ("hog", "its process ended with status -6", True),
        ("exit", "its process ended with status 3", False),
        ("sleep", "it gave no answer within 1 s on the clock", False),
    ],
)
def test_an_end_tells_how_and_where(
    question: str, cause: str, by_content: bool, program: Path
) -> None:
    child = Child(program)
    first = child.ask("x")["pid"]
    with pytest.raises(Ended) as ended:
        child.ask(question, timeout_s=None if question == "spin" else 1)
    assert (str(ended.value), ended.value.by_content) == (cause, by_content)
    assert ended.value.progress == "thinking"
    assert child.ask("y")["pid"] != first
    child.close()


def test_a_program_that_does_not_start_has_said_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit(4)")
    with pytest.raises(Ended, match="ended with status 4") as ended:
        Child(tmp_path / "broken.py").ask("x")
    assert ended.value.progress == STARTING


def test_what_it_prints_goes_to_the_log_and_its_environment_is_its_own(
    program: Path, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w") as log:
        one = Child(program, environment={"PYTHONHASHSEED": "0"}, log=log)
        two = Child(program, environment={"PYTHONHASHSEED": "0"}, log=log)
        assert one.ask("x")["hash"] == two.ask("x")["hash"]
        assert (one.close(None), two.close(None)) == (0, 0)  # by themselves, at the hang-up
    assert (tmp_path / "log").read_text() == "what it prints is no answer\n" * 2


def test_children_share_questions(program: Path) -> None:
    children = Children(Child(program) for _ in range(3))
    with ThreadPoolExecutor(3) as threads:
        said = list(threads.map(children.ask, range(30)))
    assert [each["echo"] for each in said] == list(range(30))
    assert len({each["pid"] for each in said}) <= 3
    for child in children.all:
        child.close()


def test_a_thread_that_waits_sees_a_child_killed(program: Path) -> None:
    child = Child(program)
    child.ask("x")
    threading.Timer(0.2, child.kill).start()
    with pytest.raises(Ended, match="status -9"):
        child.ask("sleep")


def test_a_child_ends_with_its_last_user(program: Path) -> None:
    child = Child(program)
    pid = child.ask("x")["pid"]
    del child
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("prelude", ["", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"])
def test_a_script_without_a_guard_runs_once(prelude: str, program: Path, tmp_path: Path) -> None:
    """Also in a process that has told the kernel to forget its children, and in a fork of it."""
    script = f"""
        import os, pathlib, signal
        from tinylora.processes import Child
        {prelude}
        child = Child(pathlib.Path({str(program)!r}))
        first = child.ask("x")["pid"]
        print("parent", first == child.ask("y")["pid"], flush=True)
        if os.fork() == 0:
            print("fork", first == child.ask("z")["pid"], flush=True)
            child.close()
            os._exit(0)
        if {prelude == ""}:
            os.wait()
        print("parent", first == child.ask("z")["pid"], flush=True)
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    source = str(Path(tinylora.__file__).parents[1])
    ended = subprocess.run(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(ended.stdout.splitlines()) == ["fork False", "parent True", "parent True"]
