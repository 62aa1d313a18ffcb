"""The program that does runs for `runners.local`: one after the other, so imports are paid once."""

from pathlib import Path

from tinylora.processes import Parent


def main() -> None:
    """Do runs until the parent hangs up."""
    from tinylora.sweep.outcomes import execute

    parent = Parent()
    for settings, sweep, name in parent.questions():
        parent.say({"state": execute(settings, Path(sweep), name)})


if __name__ == "__main__":
    main()
