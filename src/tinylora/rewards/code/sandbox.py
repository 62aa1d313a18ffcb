"""The wall around programs that a model wrote: they are compiled and run in boxes.

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
- limits: CPU time of the whole tree (exact), wall time, address space of each process, memory of
  the tree (looked at ten times a second), number of processes, bytes of output, open files, no
  core dumps; none can be raised;
- the kernel's surface: no ptrace, no new name spaces, no mounts, no io_uring, no bpf, no keys, no
  System V or POSIX queues, nothing younger than Linux 5.1; no /proc, no /sys, no environment.

Not covered:
- faults of the kernel: for code that is hostile rather than clumsy, put the whole runner into a
  virtual machine without secrets and without a network;
- a tree of processes may hold more memory than one process for a tenth of a second;
- a program can see the processor's model, the time, and how busy the machine is;
- machines where user name spaces are forbidden (many containers): there it refuses and says so.
  `unsafe_no_sandbox` then keeps the limits and the system call filter, and no wall: the program
  reads and writes whatever its user may.
"""

import fcntl
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Literal

from tinylora.rewards.code.toolbox import SandboxUnavailable, Toolbox, bwrap, toolbox

__all__ = ["Box", "BoxFailure", "Ended", "RunLimits", "SandboxUnavailable", "Stage", "open_box"]

Mechanism = Literal["bwrap", "none"]
ROOT = "{root}"  # in a stage's command: "" in a box, a temporary folder without one
NOBODY = 65534
NUM_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
_GRACE_S = 20.0  # for the stub beyond a program's wall time, on a busy machine
_LOOK_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")
_slots = BoundedSemaphore(NUM_CORES)  # more boxes than cores would turn into wrong time-outs
_turn = Lock()


class BoxFailure(Exception):
    """The box failed, not the program in it."""


@dataclass(frozen=True)
class RunLimits:
    """What one run may use; `memory_bytes` is the address space of each process."""

    cpu_s: float
    wall_s: float
    memory_bytes: int
    output_bytes: int
    processes: int
    open_files: int = 64

    def packet(self) -> bytes:
        times = (int(self.cpu_s * 1e6), int(self.wall_s * 1e6))
        sizes = (self.memory_bytes, self.output_bytes, self.processes, self.open_files)
        return b"%d %d %d %d %d %d" % (*times, *sizes)


@dataclass(frozen=True)
class Ended:
    """How one run ended.

    Args:
        why: exit (by itself), or the limit at which it was killed: cpu, wall or memory.
        status: the exit code, or minus the signal.
        cpu_s: of the whole tree.
        resident_bytes: the largest resident set of one process.
        product: the file that the stage takes out, where it has one and exited with 0.
    """

    why: str
    status: int
    cpu_s: float
    wall_s: float
    resident_bytes: int
    output: bytes
    errors: bytes
    product: bytes


@dataclass(frozen=True)
class Stage:
    """What a box holds, and the one command that runs in it.

    Args:
        command: the program and its arguments, with `{root}` before paths inside the box.
        files: path inside the box to content; read-only and executable.
        binds: host path to path inside the box, read-only.
        devices: names under /dev.
        tmp_bytes: size of a writable /tmp; 0: nothing is writable.
        product: path inside the box of a file that is taken out after exit code 0.
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
        self, stage: Stage, process: subprocess.Popen[bytes], line: socket.socket, complaints: int
    ):
        self._stage = stage
        self._process = process
        self._line = line
        self._complaints = complaints

    def run(self, data: bytes, limits: RunLimits) -> Ended:
        """Run the command once with `data` as its input.

        Raises:
            BoxFailure: the box broke down, or did not answer in time.
        """
        with ExitStack() as stack:
            given = stack.enter_context(_memory(data, is_sealed=True))
            output, product = (stack.enter_context(_memory()) for _ in range(2))
            errors = stack.enter_context(_memory() if self._stage.keeps_errors else _nowhere())
            report = self._ask(limits, [given, output, errors, product])
            return _ended(report, output, errors, product)

    def _ask(self, limits: RunLimits, descriptors: list[int]) -> str:
        try:
            socket.send_fds(self._line, [limits.packet()], descriptors)
            report, cause = self._answer(limits), ""
        except OSError as error:
            report, cause = "", f" ({error})"
        if not report:
            raise BoxFailure(f"the box broke down{cause}: {self._said() or 'it said nothing'}")
        return report

    def _answer(self, limits: RunLimits) -> str:
        """The stub's report; a tree of processes that holds too much is stopped."""
        deadline = time.monotonic() + limits.wall_s + _GRACE_S
        is_stopped = False
        self._line.settimeout(_LOOK_S)
        while True:
            try:
                return self._line.recv(256).decode()
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
            if not is_stopped and _resident_bytes(self._process.pid) > limits.memory_bytes:
                self._line.send(b"stop")
                is_stopped = True

    def _said(self) -> str:
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return " ".join(_content(self._complaints, 2000).decode(errors="replace").split())

    def close(self) -> None:
        """End the box, and wait until all in it are dead."""
        self._line.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def open_box(stage: Stage, mechanism: Mechanism, alone: bool = False) -> Iterator[Box]:
    """A box with this stage's files; it waits for a free core (`alone`: for all of them).

    Raises:
        SandboxUnavailable: g++ or bubblewrap is missing.
    """
    tools = toolbox()
    with (
        _cores(alone),
        _room(mechanism) as room,
        _placed(stage.files, room) as places,
        _started(tools, stage, places, room) as box,
    ):
        yield box


@contextmanager
def _started(tools: Toolbox, stage: Stage, places: Mapping[str, int], room: str) -> Iterator[Box]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there, _memory() as complaints:
        stub = _stub_command(tools.stub if room else "/stub", there, stage, room)
        wall = [] if room else _wall(tools, stage, places)
        try:
            process = subprocess.Popen(
                [*wall, *stub], stdin=subprocess.DEVNULL, stdout=complaints, stderr=complaints,
                pass_fds=(there.fileno(), *places.values()), cwd=f"{room}/tmp" if room else "/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TMPDIR": f"{room}/tmp"},
            )  # fmt: skip
        except OSError as error:
            raise BoxFailure(f"the box could not be started: {error}") from None
        there.close()  # only the stub holds its end now, so each end sees when the other is gone
        box = Box(stage, process, here, complaints)
        try:
            yield box
        finally:
            box.close()


@contextmanager
def _cores(all_of_them: bool) -> Iterator[None]:
    wanted = NUM_CORES if all_of_them else 1
    with _turn if all_of_them else nullcontext():  # two that collect cores would wait for ever
        for _ in range(wanted):
            _slots.acquire()
    try:
        yield
    finally:
        for _ in range(wanted):
            _slots.release()


@contextmanager
def _room(mechanism: Mechanism) -> Iterator[str]:
    """A temporary folder where there is no wall; a box has a root of its own: "" stands for it."""
    if mechanism == "bwrap":
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="tinylora-judge-") as room:
        Path(room, "tmp").mkdir()
        yield room


@contextmanager
def _placed(files: Mapping[str, bytes], room: str) -> Iterator[dict[str, int]]:
    """Path inside the box -> descriptor of its content; without a wall, the files are written."""
    with ExitStack() as stack:
        if not room:
            yield {path: stack.enter_context(_memory(files[path])) for path in files}
            return
        for path, content in files.items():
            Path(room + path).write_bytes(content)
            Path(room + path).chmod(0o500)
        yield {}


def _stub_command(stub: str, line: socket.socket, stage: Stage, room: str) -> list[str]:
    product = f"{room}{stage.product}" if stage.product else "-"
    command = [part.replace(ROOT, room) for part in stage.command]
    return [stub, str(line.fileno()), product, *command]


def _wall(tools: Toolbox, stage: Stage, places: Mapping[str, int]) -> list[str]:
    """Bubblewrap's command line, up to the command that it runs."""
    command = [bwrap(), "--unshare-user", "--unshare-all", "--disable-userns", "--as-pid-1"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "box"]
    command += ["--clearenv", "--setenv", "PATH", "/usr/bin:/bin"]
    for host, inside in {**stage.binds, tools.stub: "/stub"}.items():
        command += ["--ro-bind", host, inside]
    for device in stage.devices:
        command += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for path, descriptor in places.items():
        command += ["--perms", "0555", "--ro-bind-data", str(descriptor), path]
    size = ["--size", str(stage.tmp_bytes), "--tmpfs"] if stage.tmp_bytes else ["--dir"]
    return [*_as_nobody(), *command, *size, "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]


def _as_nobody() -> list[str]:
    """Root's box would be root outside as well; in the command line, as Python would have to fork
    this whole process to change the user itself."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def _ended(report: str, output: int, errors: int, product: int) -> Ended:
    why, status, cpu_us, wall_us, resident_kb = report.split()
    if why == "broken":
        raise BoxFailure("a program could not be started within its limits")
    return Ended(
        why="memory" if why == "stopped" else why,
        status=os.waitstatus_to_exitcode(int(status)),
        cpu_s=int(cpu_us) / 1e6,
        wall_s=int(wall_us) / 1e6,
        resident_bytes=int(resident_kb) * 1024,
        output=_content(output),
        errors=_content(errors, 1 << 16),
        product=_content(product),
    )


def _resident_bytes(pid: int | str) -> int:
    """What a process and all below it hold; shared pages count for each."""
    try:
        total = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (OSError, IndexError):  # it has ended
        return 0
    return total + sum(_resident_bytes(child) for text in lists for child in text.split())


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
