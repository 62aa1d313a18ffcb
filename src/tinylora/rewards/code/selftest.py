"""Tests the sandbox once in each process, in about a second, before any program is judged in it."""

import os
import resource
import tempfile
import warnings
from functools import cache
from threading import Lock

from tinylora.rewards.code.compile import compile_source
from tinylora.rewards.code.outputs import Comparison
from tinylora.rewards.code.runs import Limits, Test, TestPlan, run_tests
from tinylora.rewards.code.sandbox import BoxFailure, Mechanism
from tinylora.rewards.code.toolbox import SandboxUnavailable, bwrap, may_execute

_LIMITS = Limits(cpu_s=0.4, wall_s=4.0, memory_mb=16, output_mb=0.25)
_TRIALS = (  # input, wanted output, verdict
    ("sum 1 2", "3", "AC"),
    ("threads", "15", "AC"),
    ("escape", "tight", "AC"),
    ("spin", "", "TLE"),
    ("eat", "", "MLE"),
    ("flood", "", "OLE"),
    ("crash", "", "RE"),
    ("sum 3 4", "7", "AC"),
)
_SOURCE = r"""
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

static bool is_tight = true;
static void must_fail(const char *what, bool worked) {
    if (worked) is_tight = false, printf("%s worked\n", what);
}

static void escape() {
    for (auto path : {"/etc/passwd", "/proc/self/status", "/bin/sh", "/usr/bin", "/home", "/root"})
        must_fail(path, access(path, F_OK) == 0);
    for (auto path : {"/x", "/tmp/x", "/dev/x", "/a.out", "/stub"})
        must_fail(path, open(path, O_WRONLY | O_CREAT, 0600) >= 0);
    for (int family : {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, 40 /* AF_VSOCK */})
        must_fail("socket", socket(family, SOCK_STREAM, 0) >= 0);
    must_fail("unshare", unshare(CLONE_NEWUSER) == 0);
    must_fail("mount", mount("x", "/tmp", "tmpfs", 0, nullptr) == 0);
    must_fail("stdin", write(0, "9", 1) > 0 || ftruncate(0, 0) == 0);
    rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    must_fail("setrlimit", setrlimit(RLIMIT_AS, &none) == 0);
    must_fail("descriptor", fcntl(3, F_GETFD) >= 0);
    must_fail("user", getuid() == 0 || getppid() != 1);
    kill(1, SIGKILL);
    kill(-1, SIGKILL);
    int num_children = 0;
    for (int i = 0; i < 64; i++) {
        int child = fork();
        if (child == 0) setsid(), sleep(60), _exit(0);
        num_children += child > 0;
    }
    must_fail("fork without end", num_children > 40);
    if (is_tight) puts("tight");
}

static void threads() {  // as many at once as are allowed beside this one
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    int count = 0;
    for (int i = 0; i < 15; i++) {
        pthread_t one;
        auto wait = [](void *) -> void * { return pause(), nullptr; };
        count += !pthread_create(&one, &small, wait, nullptr);
    }
    std::cout << count << "\n";
}

int main() {
    std::string what;
    std::cin >> what;
    long a, b;
    if (what == "sum" && std::cin >> a >> b) std::cout << a + b << "\n";
    if (what == "threads") threads();
    if (what == "escape") escape();
    if (what == "spin") for (volatile long i = 0;; i++) {}
    if (what == "eat") for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    if (what == "flood") for (;;) puts("flood");
    if (what == "crash") raise(SIGSEGV);
}
"""
_lock = Lock()


def mechanism_for(unsafe_no_sandbox: bool) -> Mechanism:
    """The sandbox, tested; or none, as was asked for, with a warning.

    Raises:
        SandboxUnavailable: what is needed is missing, or the sandbox does not hold; with the cure.
    """
    if unsafe_no_sandbox:
        _warn()
        _check_temporary_folder()
        return "none"
    with _lock:
        _prove()
    return "bwrap"


def _after_fork() -> None:
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_after_fork)


@cache
def _warn() -> None:
    warnings.warn(
        "unsafe_no_sandbox is set: programs that a model wrote run without the sandbox, with all "
        'the permissions of this user. Every verdict says "sandbox": "none".',
        stacklevel=4,
    )


def _check_temporary_folder() -> None:
    folder = tempfile.gettempdir()
    if not may_execute(folder):
        raise SandboxUnavailable(
            f"The temporary folder {folder} is mounted noexec, and without the sandbox programs "
            "are executed there: all would seem to crash. Set TMPDIR to another folder."
        )


@cache
def _prove() -> None:
    bwrap()
    _check_hard_limits()
    try:
        compiled = compile_source(_SOURCE.encode(), "gnu++17", 20.0, "bwrap")
        if not compiled.program:
            raise SandboxUnavailable(
                f"g++ works outside of the sandbox, but not in it: {compiled.message[:500]}"
            )
        tests = [Test(given, wanted) for given, wanted, _ in _TRIALS]
        plan = TestPlan(tests, _LIMITS, Comparison("tokens"), stops_early=False)
        results = run_tests(compiled.program, plan, "bwrap")
    except BoxFailure as failure:
        raise SandboxUnavailable(
            f"The sandbox cannot be opened: {failure}. {_cure(str(failure))}"
        ) from None
    for (given, _, reason), result in zip(_TRIALS, results, strict=True):
        if result.reason != reason:
            raise SandboxUnavailable(
                f'The sandbox does not hold: its test "{given}" ended with {result.reason} '
                f"({result.message or 'wrong output'}) instead of {reason}. {_cure(given)}"
            )


def _check_hard_limits() -> None:
    """A program's limits can only be lowered from this process's own."""
    needed = {
        "-v": (resource.RLIMIT_AS, 2 << 30),  # g++'s address space, in bytes
        "-f": (resource.RLIMIT_FSIZE, 64 << 20),
        "-t": (resource.RLIMIT_CPU, 22),
        "-n": (resource.RLIMIT_NOFILE, 64),
        "-u": (resource.RLIMIT_NPROC, 64),
    }
    for letter, (which, at_least) in needed.items():
        hard = resource.getrlimit(which)[1]
        if resource.RLIM_INFINITY != hard < at_least:
            raise SandboxUnavailable(
                f"This process's hard limit (ulimit -H {letter}) is {hard}, but the judge has to "
                f"set one of {at_least} for the compiler. Raise it, or start from a shell without "
                "it."
            )


def _cure(said: str) -> str:
    if said == "threads":
        return "A user's limit on processes may be the cause: raise it (ulimit -u)."
    if "within its limits" in said or "no sandbox could be opened" in said:
        return "A limit of this process may be the cause: look at ulimit -a."
    return (
        "Programs are judged where user name spaces are allowed. In a container: docker run "
        "--security-opt seccomp=unconfined --security-opt apparmor=unconfined. On Ubuntu 24.04: "
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0. On old Debian: sysctl "
        "kernel.unprivileged_userns_clone=1. To run them without the sandbox, with this user's "
        "permissions, set unsafe_no_sandbox."
    )
