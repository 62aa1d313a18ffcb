"""The two ways in which a request can end badly; the command line turns them into exit statuses.

A message says what happened with the value, why it matters, and how to fix it.
"""

import re


class TinyLoraError(Exception):
    """It failed while running."""

    exit_status = 1


class RequestError(TinyLoraError, ValueError):
    """The request is wrong: a setting, a name, a file. Nothing was computed."""

    exit_status = 2


def install_hint(extra: str) -> str:
    """The sentence that installs what an extra of this package needs.

    It names the libraries themselves, read from the installed package, so that it holds for a
    checkout and for a wheel, and never asks a registry for a distribution called tinylora.
    """
    from importlib.metadata import PackageNotFoundError, requires

    try:
        wanted = requires("tinylora") or []
    except PackageNotFoundError:
        wanted = []
    pattern = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
    names = [line.split(";")[0].strip() for line in wanted if pattern.search(line)]
    if not names:
        return f'Install the libraries that pyproject.toml lists for the extra "{extra}".'
    return "Install it: pip install " + " ".join(f'"{name}"' for name in names)
