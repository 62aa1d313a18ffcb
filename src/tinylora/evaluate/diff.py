"""What `tinylora diff` computes: where a trained policy differs from its base, token by token.

One of the two answers a task's problems; both read the answers (`divergence.py`), and what differs
is counted. Answers go together, so intervals are over problems.

*Source:* of the question, 2605.06241, which finds 1 to 3 % of the positions changed by RL, and the
promoted token among the base's first five.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tinylora.evaluate.divergence import Position, compare
from tinylora.evaluate.estimators import mean, share
from tinylora.evaluate.measure import asked_problems, load_base, policy_of
from tinylora.models import Base, check_context
from tinylora.policy import UntrainedPolicy
from tinylora.prompts import text_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings.diff import DiffConfig
from tinylora.tasks import load_task
from tinylora.tasks.draw import derive_seed
from tinylora.tasks.graders import grade_groups
from tinylora.tasks.task import Problem, grader_of

RANKS = {"1": 1, "2": 2, "3 to 5": 5, "6 to 10": 10}  # the last rank of each class
LATER = "above 10"
NUM_PLACES = 8  # first tokens of an answer that have a line of their own
NUM_MOVES = 12
TOP_SHARES = (0.01, 0.05, 0.2)  # of the positions, by KL


@dataclass(frozen=True)
class Answer:
    """One answer with what both models say of each of its tokens."""

    problem: Problem
    positions: list[Position]
    is_right: bool | None  # None: could not be judged


@dataclass(frozen=True)
class Diff:
    """All answers, and the tokenizer that writes them."""

    answers: list[Answer]
    tokenizer: Any

    @property
    def positions(self) -> list[Position]:
        return [position for answer in self.answers for position in answer.positions]

    def written(self, token: int) -> str:
        """A token as text, special ones too."""
        return str(self.tokenizer.decode([token]))


def diff(config: DiffConfig) -> tuple[dict[str, Any], Diff]:
    """Let one policy answer, both read, and count; the figures, and the answers themselves.

    Raises:
        RequestError: names do not fit together, or the split is empty.
    """
    task = load_task(config.task, config)
    for note in task.notes:
        print(note)
    base = load_base(config.model, [config.adapter], config.dtype, config.device, config.quantize)
    problems, text = asked_problems(task, config), text_of(base, config)
    budget = config.max_new_tokens or task.max_new_tokens
    prompts = [text.encode(problem) for problem in problems]
    check_context(base.model, prompts, budget)
    sampling = Sampling(config.temperature, budget, text.eos_token_ids)
    seed = derive_seed(config.seed, "evaluate", 0)
    with policy_of(base, config.adapter, config.force) as policy:
        with policy.reference() if config.answers == "base" else policy.rollout():
            engine = TransformersEngine(UntrainedPolicy(base.model))
            completions = [row[0] for row in engine.generate(prompts, 1, sampling, seed)]
        tokens = [completion.token_ids for completion in completions]
        positions = compare(policy, list(zip(prompts, tokens, strict=True)))
    texts = [[text.decode(ids)] for ids in tokens]
    verdicts = [row[0] for row in grade_groups(grader_of(task), problems, texts)]
    judged = [None if verdict.score is None else verdict.is_right for verdict in verdicts]
    answers = [Answer(*one) for one in zip(problems, positions, judged, strict=True)]
    return _result(config, base, task.name, Diff(answers, base.tokenizer))


def _result(config: DiffConfig, base: Base, task: str, found: Diff) -> tuple[dict[str, Any], Diff]:
    about = {
        "model": base.name,
        "adapter": config.adapter,
        "task": task,
        "split": config.split,
        "answers": config.answers,
        "temperature": config.temperature,
        "seed": config.seed,
    }
    return {**about, **counted(found)}, found


def counted(found: Diff) -> dict[str, Any]:
    """The figures of all answers; shares of positions and KL, each in 0..1, and nats.

    Returns:
        `changed` and `kl` with intervals over problems; `kl_of_answer`, the mean sum over an
        answer; `kl_in_top`, the share of all KL in the positions that have most of it; by the
        promoted token's rank in the base: `ranks` of changed positions and the share of KL;
        `places`, by the position in the answer; `moves`, the most frequent changes.
    """
    positions, answers_P = found.positions, [a.positions for a in found.answers]
    judged = [answer.is_right for answer in found.answers if answer.is_right is not None]
    changed = [position for position in positions if position.is_changed]
    total = sum(position.kl for position in positions)
    kl_P = [sum(p.kl for p in answer) / len(answer) for answer in answers_P if answer]
    by_class = _by_rank(positions)
    return {
        "num_answers": len(found.answers),
        "num_right": sum(judged),
        "num_positions": len(positions),
        "num_changed": len(changed),
        "changed": asdict(share([[float(p.is_changed) for p in row] for row in answers_P])),
        "kl": {**asdict(mean(kl_P)), "value": total / len(positions)},
        "kl_of_answer": asdict(mean([sum(p.kl for p in row) for row in answers_P])),
        "kl_in_changed": _part(changed, total),
        "kl_in_top": {str(top): _part(_most(positions, top), total) for top in TOP_SHARES},
        "ranks": {
            name: {
                "changed": sum(p.is_changed for p in members),
                "kl_share": _part(members, total),
            }
            for name, members in by_class.items()
        },
        "places": _places(answers_P),
        "moves": _moves(changed, found),
    }


def _part(positions: Iterable[Position], total: float) -> float:
    return sum(position.kl for position in positions) / total if total else 0.0


def _most(positions: Sequence[Position], top: float) -> list[Position]:
    """The share `top` of the positions, one at least, that have most KL."""
    count = max(1, round(top * len(positions)))
    return sorted(positions, key=lambda position: -position.kl)[:count]


def _by_rank(positions: Iterable[Position]) -> dict[str, list[Position]]:
    """Positions by the class of their promoted token's rank in the base."""
    classes: dict[str, list[Position]] = {name: [] for name in (*RANKS, LATER)}
    for position in positions:
        here = (name for name, last in RANKS.items() if position.promoted_rank <= last)
        classes[next(here, LATER)].append(position)
    return classes


def _places(answers_P: Sequence[Sequence[Position]]) -> list[dict[str, Any]]:
    """The first positions of the answers, and all later ones together."""
    by_place: dict[int, list[Position]] = defaultdict(list)
    for answer in answers_P:
        for place, position in enumerate(answer, start=1):
            by_place[min(place, NUM_PLACES + 1)].append(position)
    return [
        {
            "place": str(place) if place <= NUM_PLACES else f"{place} and later",
            "num_positions": len(members),
            "changed": sum(p.is_changed for p in members) / len(members),
            "kl": sum(p.kl for p in members) / len(members),
        }
        for place, members in sorted(by_place.items())
    ]


def _moves(changed: Iterable[Position], found: Diff) -> list[dict[str, Any]]:
    """The most frequent pairs of first choices, the base's and the trained model's."""
    kl: dict[tuple[int, int], list[float]] = defaultdict(list)
    for position in changed:
        kl[position.base_choices[0][0], position.choices[0][0]].append(position.kl)
    frequent = sorted(kl.items(), key=lambda item: -len(item[1]))[:NUM_MOVES]
    return [
        {
            "base": found.written(before),
            "trained": found.written(after),
            "count": len(values),
            "kl": sum(values) / len(values),
        }
        for (before, after), values in frequent
    ]
