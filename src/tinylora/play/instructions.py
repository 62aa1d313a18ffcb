"""What a prompt alone can do, beside v: a few are tried on training problems, the best is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tinylora.errors import RequestError
from tinylora.models import check_context
from tinylora.play.steering import Steering
from tinylora.policy import UntrainedPolicy
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.tasks.task import Problem
from tinylora.tasks.turns import Turn

NUM_TRIED = 32  # training problems that a prompt is tried on
NUM_SOURCES, NUM_SAMPLES = 8, 4  # of the model's own worked examples


@dataclass(frozen=True)
class Instruction:
    """What stands before a problem.

    Args:
        system: the system turn; None: the problem's own.
        turns: worked examples, a user's and an assistant's turn each.
    """

    name: str
    system: str | None = None
    turns: tuple[Turn, ...] = ()

    def before(self, problem: Problem) -> Problem:
        """The problem as it is asked with it."""
        if self.system is None and not self.turns:
            return problem
        system = problem.system if self.system is None else self.system
        return replace(problem, system=system, turns=(*self.turns, *problem.turns), plain=None)


@dataclass(frozen=True)
class Tried:
    """An instruction, and what share of training problems the base model then solves."""

    instruction: Instruction
    accuracy: float

    def shown(self) -> dict[str, str | float]:
        """As the page gets it."""
        return {"name": self.instruction.name, "accuracy": self.accuracy}


def best(steering: Steering, train: Sequence[Problem]) -> list[Tried]:
    """All instructions tried, the best one first; of equally good ones the shorter.

    The examples come from other training problems than those it is tried on.
    """
    tried_on = list(train[NUM_SOURCES : NUM_SOURCES + NUM_TRIED]) or list(train)
    zero = torch.zeros_like(steering.adapter.v)[None]
    tried = []
    for instruction in candidates(steering, train[:NUM_SOURCES]):
        asked = [instruction.before(problem) for problem in tried_on]
        if not _fit(steering, asked):
            continue
        letters = steering.measure(zero, asked)[0]
        tried.append(Tried(instruction, letters.count("r") / len(letters)))
    return sorted(tried, key=lambda one: (-one.accuracy, len(str(one.instruction))))


def _fit(steering: Steering, problems: Sequence[Problem]) -> bool:
    """Whether the model's context has room for them and their answers."""
    prompts = [steering.text.encode(problem) for problem in problems]
    try:
        check_context(steering.adapter.model, prompts, steering.budget)
    except RequestError:
        return False
    return True


def candidates(steering: Steering, sources: Sequence[Problem]) -> list[Instruction]:
    """A sentence, a reference solution, and the model's own right answers as examples."""
    own = _own_examples(steering, sources)
    referenced = [(problem, problem.solution) for problem in sources if problem.solution]
    made = [
        Instruction("no prompt"),
        Instruction('"Think step by step."', system="Think step by step."),
        *[Instruction("a reference solution", turns=_turns(referenced[:1]))] * bool(referenced),
        *[Instruction("an answer of its own", turns=_turns(own[:1]))] * bool(own),
        *[Instruction("two answers of its own", turns=_turns(own[:2]))] * (len(own) > 1),
    ]
    return made


def _turns(examples: Sequence[tuple[Problem, str]]) -> tuple[Turn, ...]:
    return tuple(
        turn
        for problem, answer in examples
        for turn in (
            {"role": "user", "content": problem.prompt},
            {"role": "assistant", "content": answer},
        )
    )


def _own_examples(steering: Steering, sources: Sequence[Problem]) -> list[tuple[Problem, str]]:
    """For each problem that the base model solves in a few samples, its longest right answer."""
    engine = TransformersEngine(UntrainedPolicy(steering.adapter.model))
    sampling = Sampling(1.0, steering.budget, steering.text.eos_token_ids)
    prompts = [steering.text.encode(problem) for problem in sources]
    with steering.adapter.disabled():
        completions = engine.generate(prompts, NUM_SAMPLES, sampling, seed=0)
    found = []
    for problem, row in zip(sources, completions, strict=True):
        answers = [steering.text.decode(c.token_ids) for c in row if not c.truncated]
        right = [answer for answer in answers if steering.judge(problem, answer).is_right]
        if right:
            found.append((problem, max(right, key=len)))
    return found
