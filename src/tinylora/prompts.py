"""How texts become tokens and back: chat templates, plain prompts, answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from tinylora.models import Base
from tinylora.settings import TaskConfig
from tinylora.tasks.task import Problem

TEMPLATE_DATE = "26 Jul 2024"  # Llama 3's templates write a date; today's would change the prompts
DEFAULTS = TaskConfig()


@dataclass(frozen=True)
class Text:
    """How texts become tokens and back: prompts by the chat template, answers as they are."""

    encode: Callable[[Problem], list[int]]
    tokenize: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    eos_token_ids: tuple[int, ...]


def encode_problem(tokenizer: Any, problem: Problem, settings: TaskConfig = DEFAULTS) -> list[int]:
    """Token ids of what the model reads.

    In a chat template: the system turn, if there is one, and the prompt as a user's turn. The
    template writes every special token that belongs there (Llama 3's begins with the token that
    begins a text), so the tokenizer adds none. Without a template, or where the settings turn it
    off: plain text, as the tokenizer encodes any text.
    """
    if settings.chat_template == "auto" and getattr(tokenizer, "chat_template", None):
        text = _in_template(tokenizer, problem, settings.enable_thinking)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    turns = (problem.system, *(turn["content"] for turn in problem.turns), problem.prompt)
    parts = turns if problem.plain is None else (problem.plain,)
    return list(tokenizer("\n\n".join(filter(None, parts)))["input_ids"])


def _in_template(tokenizer: Any, problem: Problem, enable_thinking: bool | None) -> str:
    """The turns as text; a template that knows no system turn gets it before the prompt."""
    told: dict[str, Any] = {"date_string": TEMPLATE_DATE}
    if enable_thinking is not None:
        told["enable_thinking"] = enable_thinking

    first, *rest = [*map(dict, problem.turns), {"role": "user", "content": problem.prompt}]

    def render(*opening: dict[str, str]) -> str:
        turns = [*opening, *rest]
        return str(
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **told)
        )

    if problem.system is None:
        return render(first)
    try:
        return render({"role": "system", "content": problem.system}, first)
    except TemplateError:
        return render({**first, "content": f"{problem.system}\n\n{first['content']}"})


def text_of(base: Base, settings: TaskConfig = DEFAULTS) -> Text:
    """How this model's texts become tokens, and back."""
    tokenizer = base.tokenizer

    def decode(token_ids: list[int]) -> str:
        return str(tokenizer.decode(token_ids, skip_special_tokens=True))

    def tokenize(answer: str) -> list[int]:
        return list(tokenizer(answer, add_special_tokens=False)["input_ids"])

    return Text(
        lambda problem: encode_problem(tokenizer, problem, settings),
        tokenize,
        decode,
        base.eos_token_ids,
    )
