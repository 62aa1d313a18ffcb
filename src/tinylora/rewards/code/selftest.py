"""The wall is tried before it is trusted: once in each process, about a second."""

import warnings
from functools import cache
from threading import Lock

from tinylora.rewards.code.compile import compile_source
from tinylora.rewards.code.runs import Limits, Test, Trial, run_tests
from tinylora.rewards.code.sandbox import BoxFailure, Mechanism
from tinylora.rewards.code.toolbox import SandboxUnavailable, bwrap

_LIMITS = Limits(cpu_s=0.4, wall_s=4.0, memory_mb=16, output_mb=0.25)
_TRIALS = (  # input, wanted output, verdict
    ("sum 1 2", "3", "AC"),
    ("escape", "tight", "AC"),
    ("spin", "", "TLE"),
    ("eat", "", "MLE"),
    ("flood", "", "OLE"),
    ("crash", "", "RE"),
    ("sum 3 4", "7", "AC"),
)
_SOURCE = r"""
#include <fcntl.h>
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

int main() {
    std::string what;
    std::cin >> what;
    long a, b;
    if (what == "sum" && std::cin >> a >> b) std::cout << a + b << "\n";
    if (what == "escape") escape();
    if (what == "spin") for (volatile long i = 0;; i++) {}
    if (what == "eat") for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    if (what == "flood") for (;;) puts("flood");
    if (what == "crash") raise(SIGSEGV);
}
"""
_lock = Lock()


def mechanism_for(unsafe_no_sandbox: bool) -> Mechanism:
    """The proved mechanism, or the none that was asked for, with a warning.

    Raises:
        SandboxUnavailable: what is needed is missing, or the wall did not hold; with the cure.
    """
    if unsafe_no_sandbox:
        _warn()
        return "none"
    with _lock:
        _prove()
    return "bwrap"


@cache
def _warn() -> None:
    warnings.warn(
        "unsafe_no_sandbox is set: programs that a model wrote run without a wall, with all the "
        'rights of this user. Every verdict says "sandbox": "none".',
        stacklevel=4,
    )


@cache
def _prove() -> None:
    bwrap()
    try:
        compiled = compile_source(_SOURCE.encode(), "gnu++17", 20.0, "bwrap")
        if not compiled.program:
            raise SandboxUnavailable(
                f"g++ works outside of the box, but not in it: {compiled.message[:500]}"
            )
        tests = [Test(given, wanted) for given, wanted, _ in _TRIALS]
        trial = Trial(tests, _LIMITS, "tokens", 0.0, stops_early=False)
        results = run_tests(compiled.program, trial, "bwrap")
    except BoxFailure as failure:
        raise SandboxUnavailable(f"The sandbox cannot be opened: {failure}. {_CURE}") from None
    for (given, _, reason), result in zip(_TRIALS, results, strict=True):
        if result.reason != reason:
            raise SandboxUnavailable(
                f'The sandbox does not hold: its trial "{given}" ended with {result.reason} '
                f"({result.message or 'wrong output'}) in place of {reason}. {_CURE}"
            )


_CURE = (
    "Programs are judged where user name spaces are allowed. In a container: docker run "
    "--security-opt seccomp=unconfined --security-opt apparmor=unconfined. On Ubuntu 24.04: sysctl "
    "kernel.apparmor_restrict_unprivileged_userns=0. On old Debian: sysctl "
    "kernel.unprivileged_userns_clone=1. Where the programs may do what this user may, "
    "unsafe_no_sandbox goes on without a wall."
)
