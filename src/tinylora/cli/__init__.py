"""The command line: one file per verb, loaded when it is called.

Exit status: 0 done; 2 the request is wrong; 1 it failed while running; 130 interrupted; 141 nobody
reads the output any longer.
"""

import errno
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from keyword import iskeyword

from tinylora.errors import RequestError, TinyLoraError

DISK_ERRORS = (  # what a full disk, a folder without rights or a path that cannot be says
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip
INTERRUPTED, UNREAD = 130, 141  # as shells report SIGINT and SIGPIPE
VERBS = {
    "train": "train a few parameters on a task, and measure the effect",
    "eval": "measure a model or an adapter, with controls on request",
    "diff": "show at which tokens an adapter's answers differ from its base model's",
    "play": "move the numbers of an adapter on a local web page, and see what changes",
    "chat": "talk to a model or an adapter in the terminal, and move its numbers",
    "sweep": "run a grid of settings, seeds and learning rates",
    "figures": "draw the paper's figures from runs, as pictures and CSV",
    "check-rewards": "check a task's grader on its own reference answers, without a model",
    "inspect": "show what a model offers to adapt, or what an adapter file holds",
    "export": "write an adapter for PEFT, vLLM, llama.cpp, or as a merged model",
    "serve": "serve a base model and any number of its adapters over HTTP, by vLLM",
    "push": "publish an adapter on the hub, with a model card",
    "import": "turn a checkpoint of PEFT's TinyLoRA into an adapter file",
}
USAGE = """usage: tinylora VERB [options]

Teach a language model to reason by training as few parameters as you like.

{verbs}

"tinylora VERB --help" lists the options of a verb, "tinylora --version" the versions. Start with
"tinylora train": it trains 13 numbers of the embedded model, without a download."""


def run() -> None:
    """The installed command: `main`, line by line also into a file or a pipe."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        status = main(sys.argv[1:])
    except BrokenPipeError:
        if not _is_unread():  # then it is another pipe that broke, and a fault
            raise
        # Python flushes at its end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = UNREAD
    sys.exit(status)


def main(argv: Sequence[str]) -> int:
    """Run one verb; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    verb = argv[0]
    try:
        _run_verb(verb, argv[1:])
    except TinyLoraError as error:
        print(f"tinylora {verb}: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"tinylora {verb}: {_disk_sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"\ntinylora {verb}: interrupted. {error}".rstrip(), file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # argparse after its help; rich, when nobody reads any longer
        return UNREAD if stop.code else 0
    return 0


def _run_verb(verb: str, argv: Sequence[str]) -> None:
    if verb == "--version":
        show_versions()
        return
    if verb not in VERBS:
        raise RequestError(_unknown(verb))
    run_verb: Callable[[Sequence[str]], None] = import_module(f"tinylora.cli.{file_of(verb)}").run
    run_verb(argv)


def file_of(verb: str) -> str:
    """The module of a verb: import_.py, because `import` is a word of Python."""
    return f"{verb}_" if iskeyword(verb) else verb.replace("-", "_")


def _is_unread() -> bool:
    """Whether the reader of our output has gone."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return bool(output.poll(0))


def _disk_sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"{error.strerror}{where}, so the file was not written; existing files were not changed. "
        "Free some space, or name another folder. An interrupted training run resumes with "
        '"tinylora train --resume --output DIR".'
    )


def usage() -> str:
    """The verbs, a line each."""
    verbs = "\n".join(f"  tinylora {verb:<15}{what}" for verb, what in VERBS.items())
    return USAGE.format(verbs=verbs)


def show_versions() -> None:
    """The packages by their metadata; the device last, because finding it imports torch."""
    from importlib.metadata import version

    for package in ("tinylora", "torch", "transformers"):
        print(package, version(package))
    import torch

    name = f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"
    print("device", name)


def _unknown(verb: str) -> str:
    from tinylora.settings import nearest

    return f"{verb} is not a verb.{nearest(verb, VERBS)} Use one of {', '.join(VERBS)}."
