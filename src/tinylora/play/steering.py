"""What the playground computes: answers with and without v, and which problems come out right.

A model answers one request at a time; whoever calls from several threads takes turns (`server.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from tinylora.adapter import TinyLora
from tinylora.algorithms.batching import (
    Sample,
    completion_logprobs,
    default_micro_batch_tokens,
    lays_end_to_end,
    micro_batches,
    pack,
    split_rows,
)
from tinylora.errors import RequestError
from tinylora.models import check_context, evaluation_mode
from tinylora.prompts import Text
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.streaming import Spelling
from tinylora.rollout.transformers import TransformersEngine, draw, noise_of_places
from tinylora.tasks.task import Problem, Task, grader_of

BROKEN_NATS = 2.0  # a token: to the base model, one guess among seven or more at each of them
CIRCLE_TOKENS = 64
SIDES = ("base", "steered")


class Interrupted(Exception):
    """Nobody waits for the result any longer."""


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Args:
        text: what it adds to the answer; of a token that ends it, "".
        logprob: of the one who wrote it, at temperature 1, in nats.
        change: its log-probability under v minus that under zero, after the same tokens.
    """

    text: str
    logprob: float
    change: float


@dataclass(frozen=True)
class Judged:
    """A greedy answer to a problem.

    Args:
        base_logprob: what the base model gives its tokens in the mean, in nats.
    """

    verdict: Verdict
    completion: Completion
    base_logprob: float

    @property
    def letter(self) -> str:
        """r right, w wrong, b broken, ? could not be judged."""
        if self.verdict.score is None:
            return "?"
        if self.verdict.is_right:
            return "r"
        is_odd = not self.base_logprob >= -BROKEN_NATS  # nan is odd
        return "b" if is_odd or self._runs_in_circles else "w"

    @property
    def _runs_in_circles(self) -> bool:
        """It was cut off, and of its last tokens few are different."""
        last = self.completion.token_ids[-CIRCLE_TOKENS:]
        return self.completion.truncated and 4 * len(set(last)) < len(last)


@dataclass(frozen=True)
class Question:
    """What both are asked.

    Args:
        plain: what the base model reads.
        steered: what the model under v reads: the same, or with a prompt of its own before it.
        temperature: 0 takes the likeliest token.
        seed: of both answers: they draw with the same noise.
    """

    plain: Problem
    steered: Problem
    temperature: float = 0.0
    seed: int = 0


class Steering:
    """A base model with an adapter whose v is another one at each request.

    Args:
        budget: the most tokens that an answer may have.
    """

    def __init__(self, adapter: TinyLora, task: Task, text: Text, budget: int) -> None:
        self.adapter, self.task, self.text, self.budget = adapter, task, text, budget
        self.engine = TransformersEngine(adapter)
        self.grade = grader_of(task)

    def values(self, numbers: Sequence[float]) -> Tensor:
        """v (num_groups, u) from its numbers in a row.

        Raises:
            RequestError: there are more or fewer of them, or one is not finite.
        """
        shape = self.adapter.v.shape
        if len(numbers) != shape.numel():
            raise RequestError(
                f"{len(numbers)} numbers were given, but this adapter has {shape.numel()} = "
                f"{shape[0]} x {shape[1]} (num_groups x u). Send one value for each."
            )
        values = torch.tensor(numbers, dtype=torch.float32)
        if not bool(torch.isfinite(values).all()):
            raise RequestError(
                "A value is inf or nan, so the model could not answer. Send finite numbers."
            )
        return values.view(shape)

    def answers(self, question: Question, values: Tensor) -> Iterator[dict[str, Token | None]]:
        """Token after token, that of the base model and the steered one; None: it has ended.

        Four rows run in one batch: each of the two writes, and the other reads along, which gives
        both log-probabilities of every token. The answers are those of `rollout.transformers`.

        Raises:
            RequestError: prompt and budget pass the model's context.
        """
        prompts = [self.text.encode(problem) for problem in (question.plain, question.steered)]
        check_context(self.adapter.model, prompts, self.budget)
        spoken = {side: _Spoken(self.text) for side in SIDES}
        for pair in self._tokens(prompts, question, values):
            yield {side: spoken[side].add(*said) for side, said in zip(SIDES, pair, strict=True)}
            if all(side.has_ended for side in spoken.values()):
                return

    def _tokens(
        self, prompts: list[list[int]], question: Question, values: Tensor
    ) -> Iterator[list[tuple[int, float, float]]]:
        """Of both sides: a token, its log-probability under its writer, and the change."""
        model: Any = self.adapter.model
        zero, values = torch.zeros_like(self.adapter.v), values.to(self.adapter.v)
        noise_T = noise_of_places([0], (self.budget,), question.seed)[0].to(model.device)
        rows = torch.stack([zero, values] * 2)  # the base model writes rows 0 and 1, v 2 and 3
        batch = _left_padded(prompts * 2, model.device)
        cache = DynamicCache(config=model.config)
        with torch.no_grad(), self.adapter.per_row(rows), evaluation_mode(model):
            for noise in noise_T:
                output = model(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1)
                logits = output.logits[:, -1]
                tokens, _ = draw(logits[[0, 3]], noise.expand(2), question.temperature)
                ids = tokens.repeat_interleave(2)[:, None]
                logprobs = torch.log_softmax(logits.float(), -1).gather(-1, ids).view(2, 2)
                change = logprobs[:, 1] - logprobs[:, 0]
                written = logprobs.diagonal()
                yield list(zip(tokens.tolist(), written.tolist(), change.tolist(), strict=True))
                batch = _next(batch, ids)

    def judge(self, problem: Problem, answer: str) -> Verdict:
        """Whether an answer to a problem of the task is right."""
        return self.grade([problem], [answer])[0]

    def measure(self, candidates: Tensor, problems: Sequence[Problem]) -> list[str]:
        """How each candidate answers each problem, greedily: all of them in one batch.

        Args:
            candidates: (C, num_groups, u).

        Returns:
            For each candidate a text with a letter for each problem: r right, w wrong, b broken
            (the base model would hardly write it, or it runs in circles without an end), ? could
            not be judged.
        """
        count = len(candidates)
        letters = [one.letter for one in self.judged(candidates, problems)]
        return ["".join(letters[c::count]) for c in range(count)]

    def judged(self, candidates: Tensor, problems: Sequence[Problem]) -> list[Judged]:
        """The same with what the letters stand on: problem by problem, candidate by candidate."""
        sampling = Sampling(0.0, self.budget, self.text.eos_token_ids)
        prompts = [self.text.encode(problem) for problem in problems]
        rows_P_C = self.engine.generate_population(prompts, candidates, sampling, seed=0)
        completions = [completion for row in rows_P_C for completion in row]
        asked = [i for i, row in enumerate(rows_P_C) for _ in row]
        texts = [self.text.decode(completion.token_ids) for completion in completions]
        verdicts = self.grade([problems[i] for i in asked], texts)
        samples = [
            Sample(place, prompts[i], completion.token_ids)
            for place, (i, completion) in enumerate(zip(asked, completions, strict=True))
        ]
        lengths = [len(sample.completion) for sample in samples]
        means = [float(x.mean()) for x in torch.split(self._base_logprobs(samples), lengths)]
        return [Judged(*one) for one in zip(verdicts, completions, means, strict=True)]

    def _base_logprobs(self, samples: Sequence[Sample]) -> Tensor:
        """Log-probabilities of all completion tokens without v, sample after sample."""
        model: Any = self.adapter.model
        cuts = split_rows(
            pack(samples, samples_per_row=1),
            default_micro_batch_tokens(model.device),
            has_padding=not lays_end_to_end(model),
        )
        found = torch.zeros(sum(len(sample.completion) for sample in samples))
        with torch.no_grad(), self.adapter.disabled(), evaluation_mode(model):
            for batch in micro_batches(cuts, model):
                found[batch.tokens.cpu()] = completion_logprobs(model, batch, 1.0).cpu()
        return found


@contextmanager
def interruptible(model: nn.Module, is_over: Callable[[], bool]) -> Iterator[None]:
    """Inside, a forward pass that begins after `is_over` raises `Interrupted`."""

    def check(module: nn.Module, args: Any) -> None:
        if is_over():
            raise Interrupted

    handle = model.register_forward_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


class _Spoken:
    """An answer as far as it has been written."""

    def __init__(self, text: Text) -> None:
        self.spelling, self.eos_token_ids = Spelling(text.decode), text.eos_token_ids
        self.has_ended = False

    def add(self, token_id: int, logprob: float, change: float) -> Token | None:
        """The next token, with the text that it completes; None where the answer has ended."""
        if self.has_ended:
            return None
        self.has_ended = token_id in self.eos_token_ids
        return Token(self.spelling.add(token_id), logprob, change)


def _left_padded(prompts: Sequence[list[int]], device: torch.device) -> dict[str, Tensor]:
    """What the model takes for prompts that end together."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    lengths = torch.tensor([[len(prompt)] for prompt in prompts])
    is_token = torch.arange(longest) >= longest - lengths  # (rows, longest)
    positions = (is_token.long().cumsum(1) - 1).clamp(min=0)
    batch = {"input_ids": ids, "attention_mask": is_token.long(), "position_ids": positions}
    return {name: part.to(device) for name, part in batch.items()}


def _next(batch: dict[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
    """The same for one more token in each row (rows, 1)."""
    mask = batch["attention_mask"]
    return {
        "input_ids": ids,
        "attention_mask": torch.cat([mask, torch.ones_like(ids)], dim=1),
        "position_ids": batch["position_ids"][:, -1:] + 1,
    }
