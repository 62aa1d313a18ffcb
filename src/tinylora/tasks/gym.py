"""`rg:NAME`: any generator of reasoning-gym as a task, graded by its own verifier.

A generator makes problem i of a data set from seed + i. The training problems have the seeds below
20,000 and the test problems those from 1,000,000 on, so that no seed serves both; a generator with
few different problems can repeat one anyway. Partial scores stay as they are.

Both run in a process of their own (`gym_referee.py`): some verifiers evaluate the answer as Python
or as an expression of SymPy, and some generators make other problems in every process, unless the
order of its sets is fixed.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinylora.errors import RequestError, TinyLoraError, install_hint
from tinylora.rewards.verdict import Verdict
from tinylora.settings import nearest
from tinylora.tasks.gym_referee import TOO_MUCH
from tinylora.tasks.task import MadeProblems, Problem, Task

PREFIX = "rg:"
NUM_TRAIN, NUM_TEST, TEST_SEED = 20_000, 1_000, 1_000_000
NEED_MORE = ("composite",)  # made of other data sets, which its settings name
CPU_S = 5.0  # for an answer
WALL_S = 600.0  # for a question: a referee that has just started makes the whole data set first
ENDING_S = 5.0
_PROGRAM = Path(__file__).with_name("gym_referee.py")
_ANSWERS_DOING = (signal.SIGPROF, signal.SIGSEGV, signal.SIGABRT)  # time, stack, memory
_ANSWER = re.compile(r"<answer>\s?(.*?)\s?</answer>", re.DOTALL)


def make(name: str) -> Task:
    """The task of the generator that follows `rg:`.

    Raises:
        RequestError: reasoning-gym is not installed, or has no such generator.
    """
    generator = name.removeprefix(PREFIX)
    _check(generator)
    referee = Referee(generator)
    train, test = entries(referee, 0, NUM_TRAIN), entries(referee, TEST_SEED, NUM_TEST)
    return Task(
        name,
        train,
        test,
        None,
        1024,
        grade_many=referee.grade,
        right_answer=lambda problem: problem.solution,
        wrong_answer=lambda problem: "<answer></answer>",
        answer_of=answer_of,
    )


def answer_of(completion: str) -> str | None:
    """The last answer in tags."""
    answers = _ANSWER.findall(completion)
    return answers[-1].strip() if answers else None


def _check(generator: str) -> None:
    if find_spec("reasoning_gym") is None:
        raise RequestError(
            f"task = {PREFIX}{generator} needs reasoning-gym, which is not installed. "
            f"{install_hint('rg')}."
        )
    from reasoning_gym.factory import DATASETS  # type: ignore[import-untyped]

    known = sorted(set(DATASETS) - set(NEED_MORE))
    if generator not in known:
        raise RequestError(
            f"reasoning-gym has no generator {generator} that works by itself."
            f"{nearest(generator, known)} It has {', '.join(known)}."
        )


def entries(referee: "Referee", seed: int, length: int) -> MadeProblems:
    """The problems of one split.

    Raises (when a problem is asked for):
        TinyLoraError: the generator did not make it.
    """

    def make_problem(index: int) -> Problem:
        place = {"seed": seed, "size": length, "index": index}
        entry = referee.ask(place)
        if "failure" in entry:
            raise TinyLoraError(
                f"The generator {referee.generator} of reasoning-gym made no problem {index}: "
                f"{entry['failure']}. Use another one."
            )
        gold = entry["answer"]
        solution = None if gold is None else f"<answer>{gold}</answer>"
        return Problem(entry["question"], gold or "", solution, place, system=entry["system"])

    return MadeProblems(make_problem, length)


class Referee:
    """The process with the generator and its verifier; it starts with the first question."""

    def __init__(self, generator: str, cpu_s: float = CPU_S) -> None:
        self.generator, self.cpu_s = generator, cpu_s
        self.process: subprocess.Popen[bytes] | None = None

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        """A verdict for each completion: its last answer in tags counts."""
        return [
            self._verdict(problem, _ANSWER.findall(text))
            for problem, text in zip(problems, completions, strict=True)
        ]

    def _verdict(self, problem: Problem, answers: list[str]) -> Verdict:
        if not answers:
            return Verdict(0.0, "no <answer>")
        answer = answers[-1].strip()
        details = {"answer": answer}
        said = self.ask({**problem.columns, "answer": answer})
        if "failure" in said:
            return Verdict(None, str(said["failure"]), details)
        return Verdict(min(max(float(said["score"]), 0.0), 1.0), said["reason"], details)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """What the process says; if it ends, that is the answer's doing or a `failure`."""
        process = self.process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # a dead process: the end of its output tells
            process.stdin.write((json.dumps(question) + "\n").encode())
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], WALL_S)
        line = process.stdout.readline() if ready else b""
        if line:
            said: dict[str, Any] = json.loads(line)
            return said
        self.process = None
        return _end(process) if ready else _end(process, f"it said nothing within {WALL_S:g} s")

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(folder for folder in sys.path if folder)
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), self.generator, str(self.cpu_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
        )
        weakref.finalize(self, _stop, self.process)
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise TinyLoraError(
                f"The verifier of {PREFIX}{self.generator} did not start "
                f"(exit status {self.process.wait()}). Try: python {_PROGRAM} {self.generator} 5"
            )
        return self.process


def _end(process: subprocess.Popen[bytes], cause: str = "") -> dict[str, Any]:
    """A verdict on what ended the process: its limits on the answer, or something else."""
    if not cause:
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_S)
    _stop(process)
    if not cause and -process.returncode in _ANSWERS_DOING:
        return {"score": 0.0, "reason": TOO_MUCH}
    cause = cause or f"it ended with status {process.returncode}"
    return {"failure": f"the verifier's process failed: {cause}"}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
