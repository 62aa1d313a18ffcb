"""A chat: turns with a base model and an adapter on it, whose numbers may move in between.

With a chat template the model reads all earlier turns, as far as its context holds them. Without
one each line is a prompt of its own, because nothing would tell the turns apart.
"""

import math
from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch

from tinylora.adapter import TinyLora, attach
from tinylora.errors import RequestError
from tinylora.models import Base, check_context, context_of
from tinylora.policy import Policy, UntrainedPolicy
from tinylora.prompts import text_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.streaming import pieces, stream
from tinylora.settings.chat import ChatConfig
from tinylora.tasks.task import Problem


class Conversation:
    """What was said, who answers next, and with which numbers.

    A model without an adapter gets one of 13 numbers when the first of them is moved.
    """

    def __init__(self, base: Base, policy: Policy, config: ChatConfig) -> None:
        self.base, self.policy, self.config = base, policy, config
        self.text = text_of(base, config)
        self.has_turns = config.chat_template == "auto" and bool(
            getattr(base.tokenizer, "chat_template", None)
        )
        self.turns: list[dict[str, str]] = []
        self.last_line = ""
        self.num_answers = 0
        self.num_forgotten = 0  # turns that the last answer had no room for
        self.is_base = isinstance(policy, UntrainedPolicy)
        self.loaded = None if policy.adapter is None else policy.adapter.v.detach().clone()

    @property
    def speaker(self) -> str:
        """Who answers next."""
        return "base" if self.is_base else "adapter"

    def answer(self, said: str) -> Generator[str]:
        """The answer to a line, piece by piece; it is remembered as far as it was read.

        Raises:
            RequestError: the line does not fit into the model's context.
        """
        prompt, budget = self._prompt(said)
        sampling = Sampling(self.config.temperature, budget, self.text.eos_token_ids)
        seed = self.config.seed + self.num_answers
        heard: list[str] = []
        policy = self.policy
        with policy.reference() if self.is_base else policy.rollout():
            try:
                with closing(stream(policy.model, prompt, sampling, seed)) as tokens:
                    for piece in pieces(tokens, self.text.decode):
                        heard.append(piece)
                        yield piece
            finally:
                self._remember(said, "".join(heard))

    def _prompt(self, said: str) -> tuple[list[int], int]:
        """What the model reads, and how many tokens the answer may have.

        The oldest turns are forgotten where less than half of the context would be left.
        """
        context = context_of(self.base.model) or math.inf
        wanted = min(self.config.max_new_tokens, context // 2)
        self.num_forgotten = 0
        while True:
            turns: Any = tuple(self.turns)
            prompt = self.text.encode(Problem(said, "", system=self.config.system, turns=turns))
            if not self.turns or len(prompt) + wanted <= context:
                break
            del self.turns[:2]
            self.num_forgotten += 2
        check_context(self.base.model, [prompt], 1)
        return prompt, int(min(self.config.max_new_tokens, context - len(prompt)))

    def _remember(self, said: str, answer: str) -> None:
        self.num_answers += 1
        self.last_line = said
        if self.has_turns:
            self.turns += [
                {"role": "user", "content": said},
                {"role": "assistant", "content": answer},
            ]

    def begin_anew(self) -> None:
        """Forget all turns."""
        self.turns, self.num_answers, self.last_line = [], 0, ""

    def take_back(self) -> str:
        """Forget the last line and its answer, and return the line, to ask it once more.

        Raises:
            RequestError: nothing was said.
        """
        if not self.last_line:
            raise RequestError("Nothing was said yet, so there is nothing to ask again.")
        line, self.last_line = self.last_line, ""
        del self.turns[-2:]
        self.num_answers -= 1
        return line

    def choose(self, is_base: bool) -> None:
        """Let the base model answer, or the adapter.

        Raises:
            RequestError: there is no adapter.
        """
        if not is_base and isinstance(self.policy, UntrainedPolicy):
            raise RequestError(
                f"{self.base.name} has no adapter on it yet. Move a number, such as /v 3 0.5, or "
                'start with one: "tinylora chat ADAPTER".'
            )
        self.is_base = is_base

    @property
    def adapter(self) -> TinyLora:
        """The adapter whose numbers can move, put on where there is none.

        Raises:
            RequestError: what was trained here is not a TinyLoRA adapter.
        """
        if isinstance(self.policy, UntrainedPolicy):
            self.policy = attach(self.base.model)
        if self.policy.adapter is None:
            raise RequestError(
                f"This run trained {self.policy.num_trainable:,} parameters by another method than "
                "TinyLoRA, so there are no numbers to move here. /base and /adapter switch."
            )
        if self.loaded is None:
            self.loaded = self.policy.adapter.v.detach().clone()
        return self.policy.adapter

    def numbers(self) -> list[float]:
        """v, row by row."""
        return [float(x) for x in self.adapter.v.detach().flatten()]

    def move(self, index: int, value: float) -> None:
        """Set one number of v, counted from 0 row by row; the adapter answers from then on.

        Raises:
            RequestError: there is no such number, or the value is not finite.
        """
        v = self.adapter.v
        if not 0 <= index < v.numel():
            raise RequestError(
                f"There is no number {index}: this adapter has {v.numel()}, counted from 0 to "
                f"{v.numel() - 1}. /v shows them."
            )
        if not math.isfinite(value):
            raise RequestError(f"{value} is not finite, so the model could not answer.")
        values = v.detach().flatten().clone()
        values[index] = value
        self.adapter.set_values(values.view_as(v))
        self.is_base = False

    def put_back(self) -> None:
        """v as it was when the chat began."""
        adapter = self.adapter
        assert isinstance(self.loaded, torch.Tensor)
        adapter.set_values(self.loaded)
