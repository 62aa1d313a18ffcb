"""How texts become tokens and back: chat templates, plain prompts, answers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

from tinylora.errors import RequestError
from tinylora.models import Base, context_of
from tinylora.settings.tasks import ChatSettings
from tinylora.tasks.task import Problem, Task

TEMPLATE_DATE = "26 Jul 2024"  # Llama 3's templates write a date; today's would change the prompts
TEMPLATE_TOKENS = 512  # that a chat template adds at most, without a look at the prompt
DEFAULTS = ChatSettings()


@dataclass(frozen=True)
class Text:
    """How texts become tokens and back: prompts by the chat template, answers as they are."""

    encode: Callable[[Problem], list[int]]
    tokenize: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    eos_token_ids: tuple[int, ...]


def encode_problem(
    tokenizer: Any, problem: Problem, settings: ChatSettings = DEFAULTS
) -> list[int]:
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

    try:
        if problem.system is None:
            return render(first)
        try:
            return render({"role": "system", "content": problem.system}, first)
        except TemplateError:
            return render({**first, "content": f"{problem.system}\n\n{first['content']}"})
    except Exception as error:  # a template is a program, and may fail as programs do
        name = getattr(tokenizer, "name_or_path", "") or "this model"
        raise RequestError(
            f"The chat template of {name} fails on this task's prompts "
            f"({type(error).__name__}: {' '.join(str(error).split())}). Fix it in the model's "
            "folder, or ask as plain text: chat_template = off."
        ) from error


Encode = Callable[[Problem], list[int]]


def fitting(task: Task, model: Any, encode: Encode, settings: ChatSettings, budget: int) -> Task:
    """The task without problems whose prompt leaves no room for `budget` tokens, and a note.

    Where the settings refuse such problems, none would be left, or they are made as they are asked
    for, the task is as it was.
    """
    context = context_of(model)
    if context is None or settings.long_prompts == "refuse":
        return task
    room = context - budget
    notes: list[str] = []
    kept: dict[str, Any] = {}
    for split, name in (("train", "training"), ("test", "test")):
        problems = getattr(task, split)
        if not isinstance(problems, list | tuple):
            continue
        long = [i for i, problem in enumerate(problems) if _is_longer(problem, encode, room)]
        if not long or len(long) == len(problems):  # then the budget is too long, and refused
            continue
        first = problems[long[0]].place or f"{name} problem {long[0]}"
        said = (
            f"{len(long)} of {len(problems)} {name} problems have a prompt of more than {room} "
            f"tokens (the first: {first}), which with max_new_tokens = {budget} passes the "
            f"model's context of {context} tokens"
        )
        notes.append(f"{said}: they are left out (long_prompts = refuse stops instead).")
        left_out = {*long}
        kept[split] = [problem for i, problem in enumerate(problems) if i not in left_out]
    return replace(task, **kept, notes=(*task.notes, *notes)) if notes else task


def _is_longer(problem: Problem, encode: Encode, room: int) -> bool:
    """Whether it has more tokens; a token has a byte at least, so few need to be encoded."""
    turns = (problem.system, *(turn["content"] for turn in problem.turns), problem.prompt)
    num_bytes = sum(len(text.encode()) for text in turns if text)
    return num_bytes > room - TEMPLATE_TOKENS and len(encode(problem)) > room


def text_of(base: Base, settings: ChatSettings = DEFAULTS) -> Text:
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
