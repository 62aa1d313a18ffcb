"""What the machine does to programs is not their fault: busy cores, no memory, forks.

No test here looks at a clock; where one would wait for ever, the fault that it tests is back.
"""

import errno
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.judging import HONEST, LIMITS, ROOT, SUM
from tinylora.rewards.code import compile, outputs, sandbox, selftest, slots, toolbox, trouble
from tinylora.rewards.code.judging import Limits, Submission, Test, judge, judge_many
from tinylora.rewards.code.sandbox import Box

SPIN = "int main() { for (volatile long i = 0;; i = i + 1) {} }"
KILLED = "#include <csignal>\nint main() { raise(SIGKILL); }"
WORKS = """
#include <cstdio>
#include <ctime>
int main() { while (clock() < CLOCKS_PER_SEC / 4) {} puts("3"); }
"""
BUSY = "import os\nprint(flush=True)\nwhile os.getppid() == {}: pass"


@pytest.fixture
def busy_core(box):
    """One core for this process and all that it starts, and six others that want it as well."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    script = BUSY.format(os.getpid())
    others = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(6)
    ]
    try:
        for one in others:
            one.stdout.readline()
        yield
    finally:
        for one in others:
            one.kill()
            one.communicate()
        os.sched_setaffinity(0, before)


def test_a_program_that_waits_for_a_core_is_not_late(busy_core):
    """It needs 0.25 s of CPU time, gets a seventh of a core, and may sleep for 0.4 s."""
    verdict = judge(WORKS, SUM, Limits(cpu_s=2, wall_s=0.4))
    assert verdict.reason == "AC", verdict


def test_a_program_that_sleeps_is_late_on_a_busy_core_too(busy_core):
    verdict = judge("#include <unistd.h>\nint main() { pause(); }", SUM, Limits(2, wall_s=0.2))
    assert (verdict.reason, verdict.score) == ("TLE", 0.0)
    assert verdict.details["cpu_s"] < 0.1


def test_a_machine_that_lets_a_program_starve_gives_no_verdict(box, monkeypatch):
    monkeypatch.setattr(sandbox, "PATIENCE", 0.01)
    verdict = judge(SPIN, SUM, Limits(cpu_s=10, wall_s=10))
    assert (verdict.score, verdict.reason) == (None, "IE")
    assert "the machine is too busy" in verdict.details["message"]


HOLDER = """
from tinylora.rewards.code import slots
with slots.slots(alone=True):
    print("held", flush=True)
    input()
"""


def test_slots_are_shared_by_all_processes():
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=environment,
    )  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    assert [slots.try_slot(core) for core in slots.CORES] == [None] * slots.NUM_CORES
    holder.communicate(b"\n")
    with slots.slots(alone=True):
        assert slots.try_slot(slots.CORES[0]) is None


# ---- host trouble


@pytest.fixture
def short_machine(monkeypatch):
    """A machine on which the kernel has killed another process each time one looks."""
    counts = iter(range(1000))
    found = lambda: {trouble.OUT_OF_MEMORY: next(counts), trouble.OUT_OF_PROCESSES: 0}  # noqa: E731
    monkeypatch.setattr(trouble, "counters", found)


def test_a_program_that_the_machine_killed_gets_no_verdict(box, short_machine):
    verdict = judge(KILLED, SUM, LIMITS)
    assert (verdict.score, verdict.reason) == (None, "IE")
    assert "out of memory. Give it more memory" in verdict.details["message"]


def test_a_program_that_kills_itself_or_is_right_all_the_same_is_judged(box, short_machine):
    assert judge(HONEST, SUM, LIMITS).reason == "AC"


def test_a_program_that_kills_itself_is_wrong(box):
    assert judge(KILLED, SUM, LIMITS).reason == "RE"


def test_the_kernels_counts_are_found_in_containers_of_both_versions(tmp_path, monkeypatch):
    own, vmstat = tmp_path / "cgroup", tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 7\noom_kill 3\n")
    monkeypatch.setattr(trouble, "_OWN_CGROUPS", own)
    monkeypatch.setattr(trouble, "_CGROUPS", tmp_path)
    monkeypatch.setattr(trouble, "_VMSTAT", vmstat)
    for place, number in (("pids", 1), ("pids/a", 2), ("b/c", 4), ("b", 8)):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "pids.events").write_text(f"max {number}\n")
    own.write_text("4:memory:/x\n8:pids:/a\n")
    assert trouble.counters() == {"oom_kill": 3, "pids": 1 + 2}
    own.write_text("0::/b/c\n")
    assert trouble.counters() == {"oom_kill": 3, "pids": 4 + 8}
    before = trouble.counters()
    assert trouble.since(before) == ""
    (tmp_path / "b" / "pids.events").write_text("max 9\n")
    assert "limit on processes (pids.max" in trouble.since(before)


def test_a_compiler_without_space_gives_no_verdict(box, monkeypatch):
    monkeypatch.setattr(compile, "_TMP_BYTES", 4096)
    verdict = judge(HONEST + "// no space\n", SUM, LIMITS)
    assert (verdict.score, verdict.reason) == (None, "IE"), verdict
    assert "g++ could not work" in verdict.details["message"]


def test_without_descriptors_there_is_no_verdict_and_a_cure(box, monkeypatch):
    def none_left(*arguments):
        raise OSError(errno.EMFILE, "Too many open files")

    judge(HONEST, SUM, LIMITS)
    monkeypatch.setattr(os, "memfd_create", none_left)
    verdict = judge(HONEST + "// new\n", SUM, LIMITS)
    assert (verdict.score, verdict.reason) == (None, "IE")
    assert "Too many open files. Raise the limit (ulimit -n)" in verdict.details["message"]


def test_no_exception_leaves_the_judge(box, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(outputs.Comparison, "is_same", fail)
    (verdict,) = judge_many([Submission(HONEST, SUM, LIMITS)])
    assert (verdict.score, verdict.reason) == (None, "IE")
    assert "the judge failed with MemoryError" in verdict.details["message"]


def test_without_threads_programs_are_judged_one_by_one(box, monkeypatch):
    def none_left(*arguments):
        raise RuntimeError("can't start new thread")

    judge(HONEST, SUM, LIMITS)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", none_left)
    assert judge_many([Submission(HONEST, SUM, LIMITS)])[0].reason == "AC"


# ---- what the judge's own process may do


def test_an_ignored_sigchld_of_the_caller_changes_no_verdict(box):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert judge(HONEST + "// 1", SUM, LIMITS).reason == "AC"
        late = '#include <cstdio>\nint main() { puts("3"); return 1; }'
        assert judge(late, SUM, LIMITS).reason == "RE"
        assert judge("int main( {", SUM, LIMITS).reason == "CE"
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_can_judge_whatever_its_parent_was_doing(box):
    judge(HONEST, SUM, LIMITS)
    with toolbox._lock, selftest._lock, slots._queue, compile._kept._lock:
        child = os.fork()
        if child == 0:
            reason = judge(HONEST + "// child", SUM, LIMITS).reason
            os._exit(0 if reason == "AC" else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_does_not_keep_its_parents_slot():
    with slots.slots(alone=True):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        with slots.slots(alone=True):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_ctrl_c_does_not_wait_for_programs(box):
    """The program may sleep for 600 s."""
    sleeps = "#include <unistd.h>\nint main() { pause(); }"
    submission = Submission(sleeps, SUM, Limits(wall_s=600))
    compile.compile_source(sleeps.encode(), "gnu++17", 20.0, "bwrap")
    is_running = threading.Event()
    real = Box._ask

    def ask(self, *arguments):
        is_running.set()
        return real(self, *arguments)

    def interrupt():
        is_running.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs may be deaf to it
    try:
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Box, "_ask", ask)
            with pytest.raises(KeyboardInterrupt):
                judge_many([submission])
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert judge(HONEST, SUM, LIMITS).reason == "AC"


def test_tools_that_were_removed_are_built_again(box):
    judge(HONEST, SUM, LIMITS)
    Path(toolbox.toolbox().stub).unlink()
    assert judge(HONEST + "// again", SUM, LIMITS).reason == "AC"


def test_programs_are_forgotten_while_others_are_compiled(monkeypatch):
    monkeypatch.setattr(compile, "_KEPT_BYTES", 10)
    kept = compile._Kept()
    made = []

    def make(key, size):
        made.append(key)
        if key == b"outer":
            kept.get(b"inner", lambda: make(b"inner", 6))
        return compile.Compiled(b"x" * size, "", 0.0)

    for key, size in ((b"outer", 6), (b"huge", 100), (b"outer", 6), (b"small", 3)):
        assert len(kept.get(key, lambda key=key, size=size: make(key, size)).program) == size
    assert made == [b"outer", b"inner", b"huge", b"outer", b"inner", b"small"]
    assert kept._num_bytes == 9


def test_a_program_that_hangs_is_not_run_on_every_test(box, monkeypatch):
    asked = []
    real = Box._ask
    monkeypatch.setattr(Box, "_ask", lambda self, *rest: (asked.append(1), real(self, *rest))[1])
    limits = Limits(cpu_s=0.1, wall_s=5)
    compile.compile_source(SPIN.encode(), "gnu++17", 20.0, "bwrap")
    asked.clear()
    verdict = judge(SPIN, [Test(str(n), "3") for n in range(9)], limits, scheme="graded")
    assert (verdict.score, verdict.reason) == (0.5, "TLE")
    assert len(asked) == 2


def test_messages_do_not_move_a_terminals_cursor(box):
    verdict = judge('#error "\x1b[31m\x07red"\nint main() {}', SUM, LIMITS)
    assert verdict.reason == "CE"
    assert "red" in verdict.details["message"]
    assert "\x1b" not in verdict.details["message"]
