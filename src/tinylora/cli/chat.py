"""`tinylora chat`: talk to a model in the terminal, with an adapter on it or without."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from tinylora.cli.options import Verb
from tinylora.errors import RequestError
from tinylora.settings.chat import ChatConfig, chat_config
from tinylora.settings.tasks import CHAT_FIELDS

if TYPE_CHECKING:
    from tinylora.evaluate.conversation import Conversation

MOST_SHOWN = 64  # numbers that /v writes out
HELP = """\
/base          the base model answers, and the adapter rests
/adapter       the adapter answers
/v             show its numbers; /v 3 0.5 sets number 3; /v back puts all back as they were
/text          the adapter with these numbers, as one line
/again         ask the last line again, with the same seed: after /base, /adapter or /v
/new           forget what was said
/help, /quit   this list; the end (as Ctrl-D). Ctrl-C ends an answer. //x says /x to the model"""
FIELDS = ChatConfig.model_fields
VERB = Verb(
    name="chat",
    description="""\
Talk to a model in the terminal: an adapter on its base, or a model by itself.
/base and /adapter switch between the two, /v 3 0.5 moves a number, /help
lists the commands. Lines may also come from a pipe.""",
    examples="""\
  tinylora chat                                 the embedded model, with a run of 13 numbers
  tinylora chat runs/a
  tinylora chat smollm2 --temperature 0.7
  echo "2+3=" | tinylora chat tl1:...""",
    groups={
        "options": {name: f for name, f in FIELDS.items() if name not in CHAT_FIELDS},
        "how the model is asked": {name: FIELDS[name] for name in CHAT_FIELDS},
    },
    positional="source",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    config = chat_config(VERB.given(argv))
    with _opened(config) as conversation:
        if sys.stdin.isatty():
            with suppress(ImportError):
                import readline  # noqa: F401, input() then has a history and can be edited
            print(f"{conversation.base.name}. /help lists the commands, Ctrl-D ends the chat.")
        talk(conversation)


@contextmanager
def _opened(config: ChatConfig) -> Iterator["Conversation"]:
    """The model or adapter that was named, ready to answer."""
    from tinylora.cli.quiet import quieten
    from tinylora.evaluate.conversation import Conversation
    from tinylora.evaluate.measure import base_name, is_adapter, load_base, policy_of
    from tinylora.play.boxes import DEFAULT_BOX, boxed_texts

    texts = boxed_texts(DEFAULT_BOX)
    source = os.path.expanduser(config.source or texts[max(texts)])
    adapter = source if is_adapter(source) else None
    if adapter is None and config.model is not None:
        raise RequestError(
            f"--model {config.model} names the base of an adapter, but {source} is a model "
            "itself. Leave --model out."
        )
    model, adapters = (source, []) if adapter is None else (config.model, [adapter])
    quieten(base_name(model, adapters))
    base = load_base(model, adapters, config.dtype, config.device, config.quantize)
    with policy_of(base, adapter, config.force) as policy:
        yield Conversation(base, policy, config)


def talk(conversation: "Conversation") -> None:
    """Line after line, until there are no more."""
    while (line := _line(f"{conversation.speaker}> ")) is not None:
        try:
            if line.startswith("/") and not line.startswith("//"):
                if line.split() == ["/quit"]:
                    return
                if line.split() == ["/again"]:
                    _say(conversation, conversation.take_back())
                    continue
                print(obeyed(conversation, line.split()))
            elif line.strip():
                _say(conversation, line.removeprefix("/") if line.startswith("//") else line)
        except RequestError as error:
            print(error, file=sys.stderr)


def _line(prompt: str) -> str | None:
    """The next line, asked for where somebody types; None: there are no more."""
    is_typed = sys.stdin.isatty()
    try:
        return input(prompt if is_typed else "")
    except EOFError:
        if is_typed:
            print()
        return None
    except KeyboardInterrupt:
        if not is_typed:
            raise
        print("\nCtrl-D or /quit ends the chat.")
        return ""
    except UnicodeDecodeError as error:
        raise RequestError(f"The input is not UTF-8 ({error}). Convert it first.") from None


def _say(conversation: "Conversation", line: str) -> None:
    """Show the answer while it is written."""
    with closing(conversation.answer(line)) as answer, _interrupt_noted() as is_interrupted:
        for piece in answer:
            print(piece, end="", flush=True)
            if is_interrupted():
                break
    print()
    if conversation.num_forgotten:
        print(
            f"({conversation.num_forgotten} turns from the beginning were forgotten, because the "
            "model's context was full.)",
            file=sys.stderr,
        )


@contextmanager
def _interrupt_noted() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C of somebody who types is only noted; a second one acts as ever.

    An answer ends between two tokens, so that weights in which an adapter is folded are whole.
    """
    if not sys.stdin.isatty():
        yield lambda: False
        return
    noted: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)


def obeyed(conversation: "Conversation", words: Sequence[str]) -> str:
    """Do what a command asks; returns what there is to say about it.

    Raises:
        RequestError: it is not a command, or it cannot be done.
    """
    match words:
        case ["/help"]:
            return HELP
        case ["/base"] | ["/adapter"]:
            conversation.choose(is_base=words[0] == "/base")
            return f"The {conversation.speaker} answers."
        case ["/v"]:
            return _shown(conversation.numbers())
        case ["/v", "back"]:
            conversation.put_back()
            return _shown(conversation.numbers())
        case ["/v", index, value]:
            conversation.move(*_number(index, value))
            return f"v[{index}] = {value}. The adapter answers."
        case ["/text"]:
            return conversation.adapter.to_text()
        case ["/new"]:
            conversation.begin_anew()
            return "Everything that was said is forgotten."
    raise RequestError(
        f"{' '.join(words)} is not a command. /help lists them; a line that begins with // is said "
        "to the model."
    )


def _number(index: str, value: str) -> tuple[int, float]:
    try:
        return int(index), float(value)
    except ValueError:
        raise RequestError(
            f"/v {index} {value} does not name a number and its value. Write them as in /v 3 0.5."
        ) from None


def _shown(numbers: Sequence[float]) -> str:
    shown = "  ".join(f"{i}: {x:.4g}" for i, x in enumerate(numbers[:MOST_SHOWN]))
    more = len(numbers) - MOST_SHOWN
    return f"{shown}  ... and {more:,} more" if more > 0 else shown
