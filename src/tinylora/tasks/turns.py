"""The turns of a chat, as `[{"role": ..., "content": ...}, ...]`, and texts that can be encoded."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tinylora.errors import RequestError
from tinylora.tasks.theirs import shown

Turn = Mapping[str, str]
ROLES = ("user", "assistant")
_SURROGATE = re.compile("[\ud800-\udfff]")


def earlier_turns(chat: Sequence[Any]) -> tuple[str | None, tuple[Turn, ...], str]:
    """The system turn, the turns between, and the last one, which the model answers.

    Raises:
        RequestError: they are not the turns of a chat, or the last one is not the user's.
    """
    turns = [_turn(turn, place) for place, turn in enumerate(chat)]
    system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else None
    roles = [turn["role"] for turn in turns]
    if not roles or roles[-1] != "user" or not set(roles) <= set(ROLES):
        raise RequestError(
            f"The turns of a prompt have the roles {', '.join(map(str, roles)) or 'none'}, but "
            "after a system turn they must be the user's and the assistant's, and the last one the "
            "user's: that is what the model answers."
        )
    return system, tuple(turns[:-1]), turns[-1]["content"]


def _turn(turn: Any, place: int) -> dict[str, str]:
    if not isinstance(turn, Mapping) or not {"role", "content"} <= set(turn):
        raise RequestError(
            f"Turn {place} of a prompt is {shown(turn)}, but a turn is "
            '{"role": "user", "content": "..."}.'
        )
    return {"role": str(turn["role"]), "content": content_text(turn["content"])}


def last_turn(chat: Any) -> str:
    """A text as it is; of turns the text of the last."""
    if isinstance(chat, str):
        return chat
    return content_text(chat[-1]["content"]) if chat else ""


def content_text(content: Any) -> str:
    """The text of a turn, whose content may come in parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def check_text(value: Any, what: str, optional: bool = False) -> None:
    """Refuse what is not a text, or holds half a character.

    Raises:
        RequestError: the value and what to do.
    """
    if optional and value is None:
        return
    if not isinstance(value, str):
        raise RequestError(f"{what} is {shown(value)}, but it must be a text.")
    half = _SURROGATE.search(value)
    if half:
        raise RequestError(
            f"{what} holds \\u{ord(half[0]):04x} at character {half.start()}, half of a character "
            "(a lone surrogate), which no tokenizer reads. Remove it."
        )
