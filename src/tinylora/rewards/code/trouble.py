"""Did the machine fail a program? What the kernel has counted tells, and no program can imitate it.

A program that the kernel kills because memory is short, or that is refused a process because the
container may have no more, looks like one that crashed. The kernel counts both.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
OUT_OF_MEMORY, OUT_OF_PROCESSES = "oom_kill", "pids"
_SENTENCES = {
    OUT_OF_MEMORY: "the kernel killed a process because the machine or the container was out of "
    "memory. Give it more memory, or judge on fewer cores (taskset)",
    OUT_OF_PROCESSES: "the container's limit on processes (pids.max, docker run --pids-limit) was "
    "reached. Raise it",
}


def counters() -> Mapping[str, int]:
    """How often this machine had no memory, and this container no process, to give."""
    return {OUT_OF_MEMORY: _number(_VMSTAT, "oom_kill"), OUT_OF_PROCESSES: _refused_processes()}


def since(before: Mapping[str, int]) -> str:
    """What has gone wrong on the machine since `before`, in a sentence without its full stop; or
    nothing."""
    now = counters()
    return next((_SENTENCES[name] for name in now if now[name] > before[name]), "")


def _refused_processes() -> int:
    return sum(_number(path, "max") for path in dict.fromkeys(_pids_files()))


def _pids_files() -> Iterator[Path]:
    """`pids.events` of this process's control group and of those above it, of both versions."""
    for line in _text(_OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "pids"):
            continue
        for mount in (_CGROUPS / "pids",) if controllers else (_CGROUPS, _CGROUPS / "unified"):
            own = mount / path.lstrip("/")
            for folder in (own, *own.parents):
                yield folder / "pids.events"
                if folder == mount:
                    break


def _number(path: Path, name: str) -> int:
    pairs = (line.split() for line in _text(path).splitlines())
    return next((int(pair[1]) for pair in pairs if pair[0] == name), 0)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
