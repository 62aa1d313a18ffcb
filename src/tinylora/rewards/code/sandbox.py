"""Boxes: the sandbox in which programs that a model wrote are compiled and run.

A box is bubblewrap (as root: under user 65534, because a box of the real root is none) around our
own process 1, `stub.cpp`, which starts the program, keeps its limits, kills and reaps everything
that it started, and reports. The judge holds the other end of a socket. Nothing of the host is
shared but the libraries (to compile: g++ and its headers), read-only; source, program, input and
output go through memory.

Covered:
- files: no host file but libraries; to run, nothing can be written but stdout and stderr; to
  compile, a private /tmp of bounded size in memory;
- network: none, of any family, loopback included;
- processes: own process, IPC, user and host name spaces; at the end of each run all are dead, and
  the box ends with the judge;
- limits: CPU time of the whole tree (exact), time in which it waits for nothing, address space of
  each process, memory of the tree (looked at twenty times a second), number of processes, bytes of
  output, open files, no core dumps; none can be raised;
- the kernel's surface: no ptrace, no new name spaces, no mounts, no io_uring, no bpf, no keys, no
  System V or POSIX queues, nothing younger than Linux 5.1; no /proc, no /sys, no environment;
- between two tests of a program: a run that started processes or threads gets no box after it that
  it has used; limits, priorities and cores of process 1 and times of files cannot be changed.

Not covered:
- faults of the kernel: for code that is hostile rather than clumsy, put the whole runner into a
  virtual machine without secrets and without a network;
- a tree of processes may hold more memory than one process for a twentieth of a second;
- a program can see the processor's model, the time, how busy the machine is, and by its process
  number how many tests came before;
- a program's handler of SIGCHLD is never called;
- machines where user name spaces are forbidden (many containers): there it refuses and says so.
  `unsafe_no_sandbox` then keeps the limits and the system call filter, without a sandbox: the
  program reads and writes whatever its user may.
"""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tinylora.rewards.code import trouble
from tinylora.rewards.code.slots import slots
from tinylora.rewards.code.toolbox import (
    NOBODY,
    SandboxUnavailable,
    Toolbox,
    as_nobody,
    bwrap,
    namespace_options,
    toolbox,
)

__all__ = [
    "NOBODY", "Box", "BoxFailure", "BoxSetup", "RunLimits", "RunReport", "SandboxUnavailable",
    "open_box", "stop_all",
]  # fmt: skip

Mechanism = Literal["bwrap", "none"]
ROOT = "{root}"  # in a box's command: "" in bubblewrap, a temporary folder without it
PATIENCE = 10  # times the wall time: a machine that is so busy cannot judge
_GRACE_S = 20.0  # for the stub beyond that
_is_stopping = threading.Event()
_open_boxes: set["Box"] = set()


class BoxFailure(Exception):
    """The machine or the sandbox failed, not the program in it."""


class JudgingStopped(Exception):
    """Somebody pressed Ctrl-C."""


@dataclass(frozen=True)
class RunLimits:
    """What one run may use.

    Args:
        cpu_s: CPU time of all processes.
        wall_s: time in which the program neither computes nor waits for a processor.
        memory_bytes: address space of each process, and memory of all together.
    """

    cpu_s: float
    wall_s: float
    memory_bytes: int
    output_bytes: int
    processes: int
    open_files: int = 64

    @property
    def patience_s(self) -> float:
        """Real time after which a machine that lets the program starve is given up."""
        return PATIENCE * max(self.wall_s, self.cpu_s)

    def packet(self) -> bytes:
        times = (int(t * 1e6) for t in (self.cpu_s, self.wall_s, self.patience_s))
        sizes = (self.memory_bytes, self.output_bytes, self.processes, self.open_files)
        return b"%d %d %d %d %d %d %d" % (*times, *sizes)


@dataclass(frozen=True)
class RunReport:
    """How one run ended.

    Args:
        why: exit (by itself), or the limit at which it was killed: cpu, wall or memory.
        status: the exit code, or minus the signal.
        cpu_s: of the whole tree.
        resident_bytes: the largest resident set of one process.
        num_others: processes and threads that it started.
        product: the file that the box gives out, where it has one and the command exited with 0.
    """

    why: str
    status: int
    cpu_s: float
    wall_s: float
    resident_bytes: int
    num_others: int
    output: bytes
    errors: bytes
    product: bytes


@dataclass(frozen=True)
class BoxSetup:
    """What a box holds, and the one command that runs in it.

    Args:
        command: the program and its arguments, with `{root}` before paths inside the box.
        files: path inside the box to content; read-only and executable.
        binds: host path to path inside the box, read-only.
        devices: names under /dev.
        tmp_bytes: size of a writable /tmp; 0: nothing is writable.
        product: path inside the box of a file that is given out after exit code 0.
        keeps_errors: stderr is kept, and its size limited; else it goes nowhere.
    """

    command: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    binds: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ("null",)
    tmp_bytes: int = 0
    product: str = ""
    keeps_errors: bool = False


class Box:
    """An open box; its command can be run any number of times, one after another."""

    def __init__(
        self, setup: BoxSetup, process: subprocess.Popen[bytes], line: socket.socket, words: int
    ):
        self._setup = setup
        self._process = process
        self._line = line
        self._words = words  # a memory file with what bubblewrap and the stub have to say
        self._counted = trouble.counters()

    def run(self, data: bytes, limits: RunLimits) -> RunReport:
        """Run the command once with `data` as its input.

        Raises:
            BoxFailure: the box broke down, did not answer in time, or got no time to compute.
        """
        try:
            with ExitStack() as stack:
                given = stack.enter_context(_memory(data, is_sealed=True))
                output, product = (stack.enter_context(_memory()) for _ in range(2))
                errors = stack.enter_context(_memory() if self._setup.keeps_errors else _nowhere())
                report = self._ask(limits, [given, output, errors, product])
                return _read(report, output, errors, product)
        except (OSError, MemoryError) as error:
            raise BoxFailure(f"a program could not be given its input: {_cause(error)}") from None

    def trouble(self) -> str:
        """What the machine has failed to give since this box was opened; or nothing."""
        return trouble.since(self._counted)

    def _ask(self, limits: RunLimits, descriptors: list[int]) -> str:
        self._line.settimeout(limits.patience_s + _GRACE_S)
        try:
            socket.send_fds(self._line, [limits.packet()], descriptors)
            report, cause = self._line.recv(256).decode(), ""
        except OSError as error:
            report, cause = "", f" ({error})"
        if not report:
            self.stop()
            raise BoxFailure(f"the sandbox broke down{cause}: {self._said() or 'it said nothing'}")
        return report

    def _said(self) -> str:
        self._end()
        return printable(_content(self._words, 2000))

    def stop(self) -> None:
        """Whoever waits for the program gets a BoxFailure, and the stub ends."""
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)  # a child of a fork may hold a copy of it

    def close(self) -> None:
        """End the box, and wait until all in it are dead."""
        self.stop()
        self._line.close()
        self._end()

    def _end(self) -> None:
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # bubblewrap may not have opened yet
            self._process.wait()


@contextmanager
def open_box(setup: BoxSetup, mechanism: Mechanism, alone: bool = False) -> Iterator[Box]:
    """A box with these files; it waits for a free core of the machine (`alone`: for all of them).

    Raises:
        BoxFailure: no box could be made: no descriptors, no memory, no processes.
        SandboxUnavailable: g++ or bubblewrap is missing.
    """
    if _is_stopping.is_set():
        raise JudgingStopped
    tools = toolbox()
    with ExitStack() as stack:
        try:
            stack.enter_context(slots(alone))
            folder = stack.enter_context(_folder(mechanism))
            places = stack.enter_context(_placed(setup.files, folder))
            box = stack.enter_context(_started(tools, setup, places, folder))
        except (OSError, MemoryError) as error:
            raise BoxFailure(f"no sandbox could be opened: {_cause(error)}") from None
        yield box


def stop_all() -> None:
    """Kill all boxes, and open none until `go_on`."""
    _is_stopping.set()
    for box in list(_open_boxes):
        box.stop()


def go_on() -> None:
    """Boxes may be opened again."""
    _is_stopping.clear()


def _after_fork() -> None:
    """The boxes belong to the parent, and an event may have been copied while it was held."""
    global _is_stopping
    _is_stopping = threading.Event()
    _open_boxes.clear()


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _started(
    tools: Toolbox, setup: BoxSetup, places: Mapping[str, int], folder: str
) -> Iterator[Box]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there, _memory() as words, _proc() as proc:
        path = tools.stub if folder else "/stub"
        stub = _stub_command(path, (there.fileno(), proc), setup, folder)
        bubblewrap = [] if folder else _bubblewrap(tools, setup, places)
        process = subprocess.Popen(
            [*_default_signals(), *bubblewrap, *stub],
            stdin=subprocess.DEVNULL, stdout=words, stderr=words,
            pass_fds=(there.fileno(), *places.values(), *([proc] if proc >= 0 else [])),
            cwd=f"{folder}/tmp" if folder else "/", start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TMPDIR": f"{folder}/tmp"},
        )  # fmt: skip
        there.close()  # only the stub holds its end now, so each end sees when the other is gone
        box = Box(setup, process, here, words)
        _open_boxes.add(box)
        try:
            yield box
        finally:
            _open_boxes.discard(box)
            box.close()


def _default_signals() -> list[str]:
    """Children inherit an ignored SIGCHLD, and bubblewrap would wait for its own for ever."""
    is_ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    return ["env", "--default-signal=CHLD"] if is_ignored else []


@contextmanager
def _folder(mechanism: Mechanism) -> Iterator[str]:
    """A temporary folder where there is no sandbox; a box has a root of its own: "" stands for
    it."""
    if mechanism == "bwrap":
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="tinylora-judge-") as folder:
        Path(folder, "tmp").mkdir()
        yield folder


@contextmanager
def _placed(files: Mapping[str, bytes], folder: str) -> Iterator[dict[str, int]]:
    """Path inside the box -> descriptor of its content; without a box, the files are written."""
    with ExitStack() as stack:
        if not folder:
            yield {path: stack.enter_context(_memory(files[path])) for path in files}
            return
        for path, content in files.items():
            Path(folder + path).write_bytes(content)
            Path(folder + path).chmod(0o500)
        yield {}


def _stub_command(
    stub: str, descriptors: tuple[int, int], setup: BoxSetup, folder: str
) -> list[str]:
    product = f"{folder}{setup.product}" if setup.product else "-"
    command = [part.replace(ROOT, folder) for part in setup.command]
    return [stub, *map(str, descriptors), product, *command]


def _bubblewrap(tools: Toolbox, setup: BoxSetup, places: Mapping[str, int]) -> list[str]:
    """Bubblewrap's command line, up to the command that it runs."""
    command = [bwrap(), *namespace_options(), "--as-pid-1"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "box"]
    command += ["--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    for host, inside in {**setup.binds, tools.stub: "/stub"}.items():
        command += ["--ro-bind", host, inside]
    for device in setup.devices:
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for path, descriptor in places.items():
        command += ["--perms", "0555", "--ro-bind-data", str(descriptor), path]
    size = ["--size", str(setup.tmp_bytes), "--tmpfs"] if setup.tmp_bytes else ["--dir"]
    return [*as_nobody(), *command, *size, "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]


def _read(report: str, output: int, errors: int, product: int) -> RunReport:
    why, status, cpu_us, wall_us, resident_kb, num_others = report.split()
    cpu_s, wall_s = int(cpu_us) / 1e6, int(wall_us) / 1e6
    if why == "broken":
        raise BoxFailure("a program could not be started within its limits")
    if why in ("starved", "stopped"):
        raise BoxFailure(f"the machine is too busy: {cpu_s:.2f} s of CPU time in {wall_s:.0f} s")
    return RunReport(
        why=why,
        status=os.waitstatus_to_exitcode(int(status)),
        cpu_s=cpu_s,
        wall_s=wall_s,
        resident_bytes=int(resident_kb) * 1024,
        num_others=int(num_others),
        output=_content(output),
        errors=_content(errors, 1 << 16),
        product=_content(product),
    )


def _cause(error: OSError | MemoryError) -> str:
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror}. Raise the limit (ulimit -n)"
    return str(error) or "this process has no memory left"


def printable(text: bytes) -> str:
    """In one line, without what would move a terminal's cursor or colour its text."""
    words = text.decode(errors="replace").split()
    return "".join(c for c in " ".join(words) if c.isprintable())


# ---- memory files


@contextmanager
def _memory(data: bytes = b"", is_sealed: bool = False) -> Iterator[int]:
    """A file in memory; a sealed one can never be changed again, whoever holds it."""
    flags = os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if is_sealed else 0)
    descriptor = os.memfd_create("judge", flags)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        if is_sealed:
            seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _proc() -> Iterator[int]:
    """The host's /proc, for the stub's eyes; -1 where there is none."""
    try:
        descriptor = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield -1
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _nowhere() -> Iterator[int]:
    descriptor = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _content(descriptor: int, at_most: int | None = None) -> bytes:
    size = os.fstat(descriptor).st_size
    wanted = size if at_most is None else min(size, at_most)
    return os.pread(descriptor, wanted, 0)
