"""Programs that name their verdict, and what they must leave as it was."""

import contextlib
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from tinylora.rewards.code.judging import Comparison, Limits, Submission, Test, judge_many

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
HONEST = """
#include <cstdio>
int main() { long a, b; scanf("%ld%ld", &a, &b); printf("%ld\\n", a + b); }
"""
SUM = (Test("1 2\n", "3\n"),)
LIMITS = Limits(cpu_s=0.5, wall_s=3, memory_mb=128, output_mb=1, compile_cpu_s=2)
THEIR_LIMITS = Limits(cpu_s=1, wall_s=3, memory_mb=256, output_mb=1, compile_cpu_s=10)
_SUBREAPER = 36


@dataclass(frozen=True)
class Attack:
    """A program whose first lines say what must come of it.

    `// expect: AC|WA`, and perhaps `// want: output`, `// cmp: float`, `// stdin: big`,
    `// forbid: text that no message may hold`.
    """

    name: str
    source: bytes
    header: dict[str, str]

    def submission(self, limits: Limits) -> Submission:
        given = "1 2\n" + "7 " * 10_000_000 if self.header.get("stdin") == "big" else "1 2\n"
        tests = [Test(given, self.header.get("want", "3"))] * int(self.header.get("repeat", 1))
        comparison = Comparison(self.header.get("cmp", "tokens"))
        return Submission(self.source, tuple(tests), limits, comparison)


def attacks(folder: Path) -> list[Attack]:
    return [_attack(path) for path in sorted(folder.glob("*.cpp"))]


def _attack(path: Path) -> Attack:
    source = path.read_bytes()
    lines = [line[3:] for line in source.decode("latin1").splitlines() if line.startswith("// ")]
    header = dict(line.split(": ", 1) for line in lines if ": " in line)
    return Attack(path.stem, source, header)


def judged(submission: Submission):
    return judge_many([submission])[0]


class Surroundings:
    """What must be the same before and after a hostile program."""

    def __init__(self) -> None:
        # Orphans come to this process, so nothing that outlives its box can hide.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        self.before = self.seen()

    def seen(self) -> dict[str, object]:
        folders = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/", os.getcwd())
        names = {(f, n) for f in folders if os.path.isdir(f) for n in os.listdir(f)}
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "children": _children(),
            "files": {path for path in names if _may_be_ours(os.path.join(*path))},
        }

    def check(self) -> None:
        assert self.seen() == self.before
        assert judged(Submission(HONEST, SUM, LIMITS)).reason == "AC"


def _children() -> list[str]:
    found: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found += (task / "children").read_text().split()
    return found


def _may_be_ours(path: str) -> bool:
    """Written by the user that the box runs under."""
    try:
        return os.lstat(path).st_uid == (65534 if os.geteuid() == 0 else os.geteuid())
    except FileNotFoundError:
        return False
