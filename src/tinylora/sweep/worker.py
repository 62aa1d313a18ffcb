"""The process that `runners.Worker` talks to: a run a line on its input, its state a line back."""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # what a run prints must not be taken for an answer
    os.dup2(2, 1)
    from tinylora.sweep.runs import execute

    for line in sys.stdin:
        settings, sweep, name = json.loads(line)
        answers.write(json.dumps(execute(settings, Path(sweep), name)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
