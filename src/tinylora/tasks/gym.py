"""`rg:NAME`: any generator of reasoning-gym as a task, graded by its own verifier.

A generator makes problem i of a data set from seed + i. The training problems have the seeds below
20,000 and the test problems those from 1,000,000 on, so that no seed serves both; a generator with
few different problems can repeat one anyway. Partial scores stay as they are.

Both run in a process of their own (`gym_referee.py`): some verifiers evaluate the answer as Python
or as an expression of SymPy, and some generators make other problems in every process, unless the
order of its sets is fixed.
"""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tinylora.errors import RequestError, TinyLoraError, install_hint
from tinylora.processes import STARTING, Child, Ended
from tinylora.rewards.verdict import Verdict
from tinylora.settings import nearest
from tinylora.tasks.gym_referee import TOO_MUCH
from tinylora.tasks.task import MadeProblems, Problem, Task

PREFIX = "rg:"
NUM_TRAIN, NUM_TEST, TEST_SEED = 20_000, 1_000, 1_000_000
NEED_MORE = ("composite",)  # made of other data sets, which its settings name
CPU_S = 5.0  # for an answer
WALL_S = 600.0  # for a question: a process that has just started makes the whole data set first
_PROGRAM = Path(__file__).with_name("gym_referee.py")
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
            f"task = {PREFIX}{generator}, but reasoning-gym has no generator {generator}"
            f"{' that works without settings' if generator in NEED_MORE else ''}."
            f"{nearest(generator, known)} To list its {len(known)} generators: python -c "
            '"from reasoning_gym.factory import DATASETS; print(*sorted(DATASETS))"'
        )


def entries(referee: "Referee", seed: int, length: int) -> MadeProblems:
    """The problems of one split.

    Raises (when a problem is asked for):
        TinyLoraError: the generator failed.
    """

    def make_problem(index: int) -> Problem:
        place = {"seed": seed, "size": length, "index": index}
        entry = referee.ask(place)
        if "failure" in entry:
            raise TinyLoraError(
                f"The generator {referee.generator} of reasoning-gym failed at problem {index}: "
                f"{entry['failure']}. Use another generator."
            )
        gold = entry["answer"]
        solution = None if gold is None else f"<answer>{gold}</answer>"
        return Problem(entry["question"], gold or "", solution, place, system=entry["system"])

    return MadeProblems(make_problem, length)


class Referee:
    """The generator and its verifier, in a process that starts with the first question."""

    def __init__(self, generator: str, cpu_s: float = CPU_S) -> None:
        self.generator = generator
        fixed = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self.child = Child(_PROGRAM, generator, cpu_s, environment=fixed)

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
        """What the process says; if it ends, that is the answer's doing or a `failure`.

        Raises:
            TinyLoraError: the program does not start.
        """
        try:
            return self.child.ask(question, WALL_S)
        except Ended as ended:
            if ended.progress == STARTING:
                raise TinyLoraError(
                    f"The verifier of {PREFIX}{self.generator} did not start ({ended}). "
                    f'To see why: python -c "import reasoning_gym"'
                ) from None
            if ended.by_content and "answer" in question:
                return {"score": 0.0, "reason": TOO_MUCH}
            return {"failure": f"the verifier failed: {ended}"}
