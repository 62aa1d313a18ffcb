"""Hostile programs, one for each way out; and the judge where its tools are missing.

Not covered: faults of the kernel. Every program here is one that a careless box would let through.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.judging import (
    HONEST,
    LIMITS,
    ROOT,
    SHARED,
    SUM,
    THEIR_LIMITS,
    Surroundings,
    attacks,
    judged,
)
from tinylora.rewards.code import sandbox, selftest, toolbox
from tinylora.rewards.code.judging import Submission, Test, judge, judge_many
from tinylora.rewards.code.sandbox import BoxFailure, BoxSetup, RunLimits, open_box
from tinylora.rewards.code.toolbox import SandboxUnavailable

OURS = attacks(Path(__file__).parent / "attacks")
THEIRS = attacks(SHARED / "attacks")


@pytest.fixture
def surroundings(box):
    judge(HONEST, SUM, LIMITS)
    return Surroundings()


def survives(attack, limits, surroundings):
    verdict = judged(attack.submission(limits))
    assert verdict.reason in attack.header["expect"].split("|"), verdict
    forbidden = attack.header.get("forbid")
    assert forbidden is None or forbidden not in verdict.details["message"]
    surroundings.check()


@pytest.mark.parametrize("attack", OURS, ids=lambda attack: attack.name)
def test_the_box_holds_against(attack, surroundings):
    survives(attack, LIMITS, surroundings)


@pytest.mark.slow
@pytest.mark.skipif(not THEIRS, reason=f"there are no programs in {SHARED / 'attacks'}")
@pytest.mark.parametrize("attack", THEIRS, ids=lambda attack: attack.name)
def test_the_box_holds_against_programs_of_others(attack, surroundings):
    survives(attack, THEIR_LIMITS, surroundings)


def test_all_attacks_were_found():
    assert len(OURS) == 55


def test_an_honest_program_is_right_while_bombs_go_off(surroundings):
    bombs = {a.name: a.submission(LIMITS) for a in OURS if a.name in ("fork_bomb", "flood_stdout")}
    honest = [Submission(HONEST, (Test(f"{n} 2", f"{n + 2}"),), LIMITS) for n in range(12)]
    with ThreadPoolExecutor(2) as pool:
        exploding = {name: pool.submit(judged, job) for name, job in bombs.items()}
        assert [verdict.reason for verdict in judge_many(honest)] == ["AC"] * 12
        assert exploding["fork_bomb"].result().reason == "TLE"
        assert exploding["flood_stdout"].result().reason == "OLE"
    surroundings.check()


SLEEPER = """
from helpers.judging import SUM
from tinylora.rewards.code import Limits, judge
from tinylora.rewards.code.selftest import mechanism_for
mechanism_for(False)
print("begins", flush=True)
judge("#include <unistd.h>\\nint main() { pause(); }", SUM, Limits(wall_s=600))
"""


def test_the_box_dies_with_the_judge(surroundings, box):
    """Killed while a program sleeps in its box, the judge leaves nothing behind."""
    paths = f"{ROOT / 'tests'}:{ROOT / 'src'}"
    environment = {**os.environ, "PYTHONPATH": paths, "TINYLORA_CACHE": box}
    command = [sys.executable, "-c", SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as judging:
        assert judging.stdout.readline() == b"begins\n"
        wait_until(lambda: "a.out" in names_below(judging.pid))
        judging.kill()
    in_the_box = {"bwrap", "stub", "a.out"}  # orphans come to us, beside what other tests started
    wait_until(lambda: not in_the_box & set(names_below(os.getpid())))


def names_below(pid):
    """The names of all living processes that descend from this one; dead children are reaped."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            about = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        name, state, parent = re.fullmatch(r"\d+ \((.*)\) (.) (\d+) .*\n", about).groups()
        if state == "Z" and int(parent) == os.getpid():
            os.waitpid(int(path.parent.name), 0)
        elif state != "Z":
            parents[int(path.parent.name)], names[int(path.parent.name)] = int(parent), name
    return [names[child] for child in names if is_below(child, pid, parents)]


def is_below(child, pid, parents):
    while child in parents:
        child = parents[child]
        if child == pid:
            return True
    return False


def wait_until(is_so):
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.mark.slow
def test_it_works_for_a_user_who_is_not_root(box):
    if os.geteuid() != 0:
        pytest.skip("this is not root, so the other tests have shown it")
    folder = Path(tempfile.mkdtemp(prefix="tinylora-nobody-", dir="/var/tmp"))
    try:
        shutil.chown(folder, 65534, 65534)
        shutil.copytree(ROOT / "src/tinylora", folder / "src/tinylora", symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", folder / "src"], check=True)
        script = f"""
import sys, os
from tinylora.rewards.code import Test, judge
os.chdir("/")
print(judge({HONEST!r}, [Test("1 2", "3")]).reason, os.geteuid())
"""
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c",
             script],
            capture_output=True, text=True, cwd=folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{folder}/src", "HOME": str(folder),
                 "TINYLORA_CACHE": f"{folder}/cache"},
        )  # fmt: skip
        if "Permission denied" in done.stderr and sys.executable in done.stderr:
            pytest.skip(f"user 65534 may not run {sys.executable}")
        assert done.stdout == "AC 65534\n", done.stderr
    finally:
        shutil.rmtree(folder)


# ---- where it cannot be had


@pytest.fixture
def unproved(monkeypatch):
    """As in a new process: nothing is known about this machine yet."""
    caches = (
        selftest._prove, toolbox.bwrap, toolbox._toolbox, toolbox._headers,
        toolbox.namespace_options,
    )  # fmt: skip
    for cached in caches:
        cached.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def public_folder():
    """pytest's own folders are closed to the user that the box runs under."""
    with tempfile.TemporaryDirectory(prefix="tinylora-tests-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def fake(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_without_bubblewrap_it_refuses_with_the_cure(unproved, tmp_path):
    unproved.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SandboxUnavailable, match=r"bubblewrap .* is not on PATH.*apt-get install bubblewrap"
    ):
        judge(HONEST, SUM)


def test_an_old_bubblewrap_is_refused(unproved, tmp_path):
    fake(tmp_path, "bwrap", "echo bubblewrap 0.6.1")
    unproved.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match=r"bubblewrap 0\.6\.1, but the judge needs 0\.8"):
        judge(HONEST, SUM)


def test_without_a_compiler_it_refuses_with_the_cure(unproved, tmp_path):
    fake(tmp_path, "bwrap", "echo bubblewrap 0.8.0")
    unproved.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match=r"g\+\+ is not on PATH.*apt-get install g\+\+"):
        judge(HONEST, SUM)


def test_forbidden_name_spaces_are_refused_with_the_cure(box, unproved, public_folder):
    """What bubblewrap says in a stock container is passed on, and nothing runs."""
    said = "bwrap: No permissions to create new namespace"
    script = f'[ "$1" = --version ] && echo bubblewrap 0.8.0 && exit 0; echo "{said}" >&2; exit 1'
    fake(public_folder, "bwrap", script)
    unproved.setenv("PATH", f"{public_folder}:{os.environ['PATH']}")
    with pytest.raises(SandboxUnavailable, match=f"{said}.*seccomp=unconfined"):
        judge(HONEST, SUM)


def test_a_sandbox_that_does_not_hold_is_refused(box, unproved, public_folder):
    """A bubblewrap that lets its program out is found by the self-test, before any program runs."""
    real = shutil.which("bwrap")
    opened = '[ "$1" = --version ] || set -- --unshare-user --ro-bind /etc /etc "$@"'
    fake(public_folder, "bwrap", f'{opened}; exec {real} "$@"')
    unproved.setenv("PATH", f"{public_folder}:{os.environ['PATH']}")
    with pytest.raises(SandboxUnavailable, match=r'does not hold: its test "escape"'):
        judge(HONEST, SUM)


def test_without_a_sandbox_it_warns_and_every_verdict_says_so(box):
    selftest._warn.cache_clear()
    with pytest.warns(UserWarning, match="without the sandbox"):
        verdict = judge(HONEST, SUM, LIMITS, unsafe_no_sandbox=True)
    assert (verdict.reason, verdict.details["sandbox"]) == ("AC", "none")
    spinning = judge("int main() { for (;;) {} }", SUM, LIMITS, unsafe_no_sandbox=True)
    assert (spinning.reason, spinning.details["sandbox"]) == ("TLE", "none")
    assert judge("int main( {", SUM, LIMITS, unsafe_no_sandbox=True).reason == "CE"


def test_without_a_sandbox_daemons_die_as_well(surroundings):
    daemon = next(attack for attack in OURS if attack.name == "daemon")
    submission = daemon.submission(LIMITS)
    with warnings.catch_warnings(action="ignore"):
        assert (
            judge(submission.source, submission.tests, LIMITS, unsafe_no_sandbox=True).reason
            == "AC"
        )
    surroundings.check()


def test_without_a_sandbox_a_folder_that_executes_nothing_is_refused(monkeypatch):
    """There every program would seem to crash."""
    monkeypatch.setattr(selftest, "may_execute", lambda folder: False)
    refused = pytest.raises(SandboxUnavailable, match=r"is mounted noexec.*Set TMPDIR")
    with warnings.catch_warnings(action="ignore"), refused:
        judge(HONEST, SUM, LIMITS, unsafe_no_sandbox=True)


def test_containers_whose_proc_sys_is_read_only_are_accepted(box, unproved, public_folder):
    """There --disable-userns fails; the system call filter alone forbids new name spaces."""
    real = shutil.which("bwrap")
    fails = 'case "$*" in *--disable-userns*) echo "cannot open /proc/sys" >&2; exit 1;; esac'
    fake(public_folder, "bwrap", f'{fails}; exec {real} "$@"')
    unproved.setenv("PATH", f"{public_folder}:{os.environ['PATH']}")
    assert judge(HONEST, SUM).reason == "AC"


def test_a_wrapper_around_the_compiler_is_passed_over(box, unproved, public_folder):
    fake(public_folder, "g++", 'exec ccache g++ "$@"')
    unproved.setenv("PATH", f"{public_folder}:{os.environ['PATH']}")
    assert toolbox._compiler() == shutil.which("g++", path=os.environ["PATH"].split(":", 1)[1])
    unproved.setenv("PATH", str(public_folder))
    with pytest.raises(SandboxUnavailable, match=r"g\+\+ is a wrapper around a compiler"):
        toolbox._compiler()


def test_hard_limits_that_are_too_low_are_named(unproved):
    unproved.setattr(selftest.resource, "getrlimit", lambda which: (1000, 1000))
    with pytest.raises(SandboxUnavailable, match=r"hard limit \(ulimit -H -v\) is 1000, but"):
        judge(HONEST, SUM)


# ---- when the box itself breaks


def test_a_box_that_breaks_is_no_verdict(surroundings, monkeypatch):
    """Three times, then IE without a score; and nothing of it is remembered."""
    source = HONEST + "// broken box\n"
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "as_nobody", lambda: ["false"])
        verdict = judge(source, SUM, LIMITS)
    assert (verdict.score, verdict.reason) == (None, "IE")
    assert "the sandbox broke down" in verdict.details["message"]
    assert judge(source, SUM, LIMITS).reason == "AC"
    surroundings.check()


def test_limits_that_cannot_be_set_are_the_judge_s_fault(surroundings):
    stage = BoxSetup(("/nothing",))
    with open_box(stage, "bwrap") as opened, pytest.raises(BoxFailure, match="within its limits"):
        opened.run(b"", RunLimits(1, 1, 1 << 30, 1 << 20, 16, open_files=1 << 40))
    surroundings.check()
