"""`python -m tinylora` is the command."""

from tinylora.cli import run

run()
