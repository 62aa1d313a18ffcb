"""What the judge needs from the machine: g++, bubblewrap, the stub, precompiled headers.

The stub (`stub.cpp`) is compiled and `bits/stdc++.h` is precompiled once, in
`<cache folder>/judge/<key>`, where the key is made of the compiler's version, its files and the
flags. The precompiled header is in a folder of its own that is searched first, and g++ falls
back to the text where it does not apply: it changes how long a compilation takes, never what
comes out.

Everything here must belong to whoever runs the judge, and nobody else may write to it. As root
the box runs under another user, who may not enter a cache that only root may enter: then it is
`/var/tmp/tinylora-0`.
"""

import atexit
import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from threading import Lock

from tinylora.errors import RequestError
from tinylora.folders import cache_folder

_VERSION = "2"  # raise it when something else is built, or in another way
STANDARDS = ("gnu++14", "gnu++17", "gnu++20", "c++14", "c++17", "c++20")
_NEEDED_TOOLS = ("as", "ld", "cc1plus", "collect2")
_OLDEST_BWRAP = (0, 8)  # --disable-userns
NOBODY = 65534
_NO_COMPILER = ("ccache", "distcc", "sccache", "icecc")
_lock = Lock()


class SandboxUnavailable(RequestError):
    """Programs cannot be judged on this machine as it is; the message says what to do."""


@dataclass(frozen=True)
class Toolbox:
    """Paths on this machine.

    Args:
        gxx: the compiler, by its resolved place on PATH.
        stub: process 1 of every box.
        libraries: what a dynamically linked program loads.
        toolchain: files and folders that g++ itself needs.
        folder: where stub and headers are kept.
    """

    gxx: str
    stub: str
    libraries: tuple[str, ...]
    toolchain: tuple[str, ...]
    folder: Path


def flags(standard: str) -> tuple[str, ...]:
    """How programs are compiled; the precompiled header needs the very same flags."""
    return ("-O2", f"-std={standard}", "-pipe", "-w", "-DONLINE_JUDGE")


def toolbox() -> Toolbox:
    """Found and built once for each process (and kept on disk), and again if it was removed.

    Raises:
        SandboxUnavailable: there is no g++, or it cannot compile the stub.
    """
    with _lock:
        tools = _toolbox()
        if not Path(tools.stub).exists():
            _forget()
            tools = _toolbox()
        return tools


def headers(standard: str) -> str:
    """The folder that holds `bits/stdc++.h.gch` for this standard; built when first asked for.

    Raises:
        RequestError: an unknown standard.
        SandboxUnavailable: the header cannot be compiled.
    """
    if standard not in STANDARDS:
        raise RequestError(
            f'standard = "{standard}", but g++ is asked for one of {", ".join(STANDARDS)}.'
        )
    with _lock:
        folder = _headers(standard)
        if not Path(folder).exists():
            _forget()
            folder = _headers(standard)
        return folder


def _forget() -> None:
    _toolbox.cache_clear()
    _headers.cache_clear()


def _after_fork() -> None:
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_after_fork)


@cache
def bwrap() -> str:
    """Bubblewrap's path.

    Raises:
        SandboxUnavailable: it is missing or too old.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxUnavailable(
            "bubblewrap (bwrap) is not on PATH, and programs that a model wrote are not run "
            "without a sandbox. Install it (Debian, Ubuntu: apt-get install bubblewrap)."
        )
    said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    version = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
    if version < _OLDEST_BWRAP:
        raise SandboxUnavailable(
            f"{found} is {said.strip() or 'of an unknown version'}, but the judge needs 0.8 or "
            "newer (--disable-userns). Install a newer bubblewrap."
        )
    return found


def as_nobody() -> list[str]:
    """What drops root's rights: root's box would be root outside as well. A command line, as Python
    would have to fork this whole process to change the user itself."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@cache
def namespace_options() -> tuple[str, ...]:
    """Name spaces of its own for a box, and none for what runs in it.

    `--disable-userns` writes to /proc/sys, which containers mount read-only. There the system call
    filter alone forbids new name spaces, as it does everywhere.
    """
    basic, strict = ("--unshare-user", "--unshare-all"), ("--disable-userns",)
    trial = [*as_nobody(), bwrap(), *basic, *strict, "--ro-bind", "/", "/", "true"]
    is_strict = subprocess.run(trial, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
    return basic + strict if is_strict else basic


@cache
def _toolbox() -> Toolbox:
    gxx = _compiler()
    folder = _own_folder(_home() / _key(gxx))
    stub = _built(folder / "stub", lambda to: _build_stub(gxx, to))
    probe = _built(folder / "probe", lambda to: _build_probe(gxx, to))
    return Toolbox(gxx, str(stub), _libraries(probe), _toolchain(gxx), folder)


@cache
def _headers(standard: str) -> str:
    tools = _toolbox()
    folder = _own_folder(tools.folder / standard)
    _own_folder(folder / "bits")
    _built(folder / "bits/stdc++.h.gch", lambda to: _build_header(tools.gxx, standard, to))
    return str(folder)


def _compiler() -> str:
    """The first g++ on PATH that is the compiler itself: a box has nothing that a wrapper needs."""
    found = [
        path for folder in os.get_exec_path() if (path := shutil.which("g++", path=folder or "."))
    ]
    for path in found:
        with Path(path).open("rb") as file:
            is_script = file.read(2) == b"#!"
        if not is_script and Path(path).resolve().name not in _NO_COMPILER:
            return path
    if found:
        raise SandboxUnavailable(
            f"{found[0]} is a wrapper around a compiler, and wrappers do not run in the sandbox. "
            "Put the folder of the real g++ on PATH."
        )
    raise SandboxUnavailable(
        "g++ is not on PATH, so C++ programs cannot be judged. Install it (Debian, Ubuntu: "
        "apt-get install g++)."
    )


# ---- building


def _built(path: Path, build: Callable[[Path], None]) -> Path:
    """`path`, built aside and moved into place if it is not there; one process builds."""
    with _alone(path.with_name(path.name + ".lock")):
        if not path.exists():
            scratch = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            try:
                build(scratch)
                scratch.chmod(0o755)
                os.replace(scratch, path)
            finally:
                scratch.unlink(missing_ok=True)
    _check_owner(path)
    return path


def _build_stub(gxx: str, to: Path) -> None:
    """Static where the C library comes as an archive: it starts faster."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "stub.cpp")
        source.write_bytes(files("tinylora.rewards.code").joinpath("stub.cpp").read_bytes())
        command = [gxx, "-O2", "-std=gnu++17", "-o", str(to), str(source)]
        try:
            _compile([*command, "-static"])
        except SandboxUnavailable:
            _compile(command)


def _build_probe(gxx: str, to: Path) -> None:
    """A program that is linked with all that a program may be linked with."""
    needs_all = ["-Wl,--no-as-needed", "-lm", "-lgcc_s", "-pthread"]
    _compile([gxx, "-x", "c++", "-", "-o", str(to), *needs_all], "int main() {}")


def _build_header(gxx: str, standard: str, to: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "all.h")
        source.write_text("#include <bits/stdc++.h>\n", encoding="utf-8")
        _compile([gxx, *flags(standard), "-x", "c++-header", str(source), "-o", str(to)])


def _compile(command: list[str], source: str = "") -> None:
    done = subprocess.run(
        command, input=source, capture_output=True, text=True, errors="replace", check=False
    )
    is_made = Path(command[command.index("-o") + 1]).exists()
    if done.returncode or not is_made:  # a caller that ignores SIGCHLD makes every status 0
        said = " ".join(done.stderr.split())[:300]
        cure = (
            "Free some space, or set TINYLORA_CACHE to another folder."
            if "No space left" in said
            else "Is the C++ library installed with its headers (Debian, Ubuntu: apt-get install "
            "g++)?"
        )
        raise SandboxUnavailable(
            f"{command[0]} could not compile the judge's own tools: {said or 'it said nothing'} "
            f"{cure}"
        )


# ---- looking around


def _libraries(program: Path) -> tuple[str, ...]:
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
    found = re.findall(r"(/\S+) \(0x", said)
    if not found:
        raise SandboxUnavailable(
            f"ldd {program} does not list its libraries: {said.strip() or 'it said nothing'}. A "
            "static C library alone is not enough; install the shared one."
        )
    cached = ["/etc/ld.so.cache"] if Path("/etc/ld.so.cache").exists() else []
    return (*found, *cached)


def _toolchain(gxx: str) -> tuple[str, ...]:
    """The compiler's programs, and the folders that they read, under /, /usr and its own prefix."""
    programs = [_asked(gxx, f"-print-prog-name={name}") for name in _NEEDED_TOOLS]
    places = [gxx, *(shutil.which(name) or name for name in programs)]
    arch = _asked(gxx, "-print-multiarch")
    folders = ["lib64", *([f"lib/{arch}"] if arch else [])]
    places += [f"/{name}" for name in folders]
    for prefix in {Path("/usr"), Path(gxx).parent.parent}:
        places += [str(prefix / name) for name in (*folders, "lib/gcc", "libexec/gcc", "include")]
    return tuple(place for place in dict.fromkeys(places) if Path(place).exists())


def _asked(gxx: str, question: str) -> str:
    return subprocess.run([gxx, question], capture_output=True, text=True).stdout.strip()


def _key(gxx: str) -> str:
    """Another compiler, another C library, another stub or other flags: another folder."""
    ours = files("tinylora.rewards.code")
    parts = [_VERSION, _asked(gxx, "--version"), _asked(gxx, "-dumpmachine"), *flags("")]
    parts.append(ours.joinpath("stub.cpp").read_text("utf-8"))
    for path in (_asked(gxx, "-print-prog-name=cc1plus"), "/usr/include/features.h"):
        about = Path(path).stat() if Path(path).exists() else None
        parts.append(f"{path} {about and (about.st_size, about.st_mtime_ns)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


# ---- a folder of one's own


def _home() -> Path:
    """The cache's own folder for the judge; a temporary one where no cache will do."""
    with suppress(OSError, RuntimeError):  # it cannot be written; nobody knows this user's home
        chosen = cache_folder()
        folder = _own_folder(chosen.absolute() / "judge") if chosen else _temporary_folder()
        if os.geteuid() == 0 and not _anyone_may_enter(folder):
            folder = _own_folder(Path("/var/tmp/tinylora-0"))
        if may_execute(folder):
            return folder
    return _checked(_temporary_folder())


def _checked(folder: Path) -> Path:
    if not may_execute(folder):
        raise SandboxUnavailable(
            f"{folder} is on a file system that is mounted noexec, but the judge has to execute "
            "its tools from there. Set TINYLORA_CACHE or TMPDIR to another folder."
        )
    return folder


def may_execute(folder: Path | str) -> bool:
    """Whether programs in this folder may be executed, as far as the mount is concerned."""
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="tinylora-judge-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.chmod(folder, 0o755)
    return Path(folder)


def _anyone_may_enter(folder: Path) -> bool:
    path = folder.resolve()
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents))


def _own_folder(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
        folder.chmod(0o755)  # whatever the umask is: the box has to enter it
    except FileExistsError:
        pass
    _check_owner(folder)
    return folder


def _check_owner(path: Path) -> None:
    """What is executed later must not be another user's."""
    about = path.lstat()
    is_ours = about.st_uid == os.geteuid() and not stat.S_ISLNK(about.st_mode)
    if not is_ours or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SandboxUnavailable(
            f"{path} belongs to user {about.st_uid} with mode {stat.filemode(about.st_mode)}, but "
            f"the judge executes what is in it: only user {os.geteuid()} may be able to write "
            "it. Remove it, or set TINYLORA_CACHE to another folder."
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
