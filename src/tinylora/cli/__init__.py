"""The command line: one file per verb, loaded when it is called.

Exit status: 0 done; 2 the request is wrong; 1 it failed while running; 130 interrupted.
"""

import errno
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from keyword import iskeyword

from tinylora.errors import RequestError, TinyLoraError

DISK_ERRORS = (  # what a full disk, a folder without rights or a path that cannot be says
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip
VERBS = {
    "train": "train a few numbers on a task, and measure what they did",
    "eval": "accuracy of a model or an adapter, with controls if asked",
    "sweep": "all runs of a grid: points, seeds, learning rates",
    "figures": "the paper's figures from runs, as pictures and CSV",
    "check-rewards": "whether a task's own right answers are right, without a model",
    "inspect": "what a model offers to adapt, or what an adapter file holds",
    "export": "write an adapter for PEFT, vLLM, llama.cpp, or as a merged model",
    "import": "turn a checkpoint of PEFT's TinyLoRA into an adapter file",
}
USAGE = """usage: tinylora VERB [options]

Teach a language model to reason by training as few numbers as you like.

{verbs}

"tinylora VERB --help" lists the options of a verb. Start with "tinylora train": it trains 13
numbers of the embedded model, without a download."""


def run() -> None:
    """The installed command."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one verb; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(version())
        return 0
    verb = argv[0]
    try:
        if verb not in VERBS:
            raise RequestError(_unknown(verb))
        file = f"{verb}_" if iskeyword(verb) else verb.replace("-", "_")  # import_.py
        run_verb: Callable[[Sequence[str]], None] = import_module(f"tinylora.cli.{file}").run
        run_verb(argv[1:])
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
        return 130
    except SystemExit as stop:  # tyro, after its help or its own sentence
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _disk_sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"{error.strerror}{where}, so the file was not written; files that were there are as they "
        "were. Free some space or name another folder; a run that was training goes on with "
        '"tinylora train --resume --output DIR".'
    )


def usage() -> str:
    """The verbs, a line each."""
    verbs = "\n".join(f"  tinylora {verb:<15}{what}" for verb, what in VERBS.items())
    return USAGE.format(verbs=verbs)


def version() -> str:
    """Of the installed package."""
    from importlib.metadata import version as installed

    return f"tinylora {installed('tinylora')}"


def _unknown(verb: str) -> str:
    from tinylora.settings import nearest

    return f"{verb} is no verb.{nearest(verb, VERBS)} Use one of {', '.join(VERBS)}."
