"""`tinylora chat`: lines from a pipe, and from somebody who types."""

import io
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tinylora.adapter import load
from tinylora.cli import main
from tinylora.models import Base, load_model
from tinylora.policy import UntrainedPolicy
from tinylora.rollout.engine import Sampling
from tinylora.rollout.streaming import stream
from tinylora.rollout.transformers import TransformersEngine

QUESTION = "what is one two ?"
TURNS = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"  # <unknown> roles
Chat = Callable[..., tuple[list[str], str]]


class Typed(io.StringIO):
    """Lines of somebody at a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chat:
    """Says lines; returns those that came back, and what was said to stderr."""

    def say(argv: list[Any], *lines: str, typed: bool = False) -> tuple[list[str], str]:
        text = "".join(f"{line}\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", Typed(text) if typed else io.StringIO(text))
        assert main(["chat", *map(str, argv), "--device=cpu", "--max-new-tokens=8"]) == 0
        captured = capsys.readouterr()
        return captured.out.split("\n")[:-1], captured.err

    return say


@pytest.fixture
def base(tiny_folder: Path) -> Base:
    return load_model(str(tiny_folder), device="cpu")


def answer_of(policy: Any, base: Base, prompt: str = QUESTION) -> str:
    """As the engine answers."""
    ids = base.tokenizer(prompt)["input_ids"]
    sampling = Sampling(0.0, 8, base.eos_token_ids)
    ((completion,),) = TransformersEngine(policy).generate([ids], 1, sampling, 0)
    return str(base.tokenizer.decode(completion.token_ids, skip_special_tokens=True))


@pytest.fixture
def loud(finished_run: Path, base: Base) -> str:
    """An adapter whose answer is another one than the base model's."""
    adapter = load(base.model, finished_run)
    adapter.set_values(adapter.v + 3)
    text = adapter.to_text()
    adapter.detach()
    return text


def test_base_and_adapter_answer_as_the_engine_does(
    chat: Chat, loud: str, base: Base, tiny_folder: Path
) -> None:
    plain = answer_of(UntrainedPolicy(base.model), base)
    adapter = load(base.model, loud)
    steered = answer_of(adapter, base)
    values = adapter.v.detach().clone()
    values[3] = 0.5
    adapter.set_values(values)
    moved = adapter.to_text()
    assert plain != steered
    out, err = chat(
        [loud, f"--model={tiny_folder}"],
        *(QUESTION, "/base", QUESTION, "/adapter", QUESTION),
        *("/v 3 0.5", "/text", "/v back", QUESTION, "/v", "/quit", QUESTION),
    )
    assert err == ""
    assert out[:5] == [steered, "The base answers.", plain, "The adapter answers.", steered]
    assert out[5:7] == ["v[3] = 0.5. The adapter answers.", moved]
    assert out[8] == steered
    assert out[9].startswith(f"0: {float(values[0]):.4g}  1: ")
    assert out[9].count(":") == 13
    assert len(out) == 10


def test_a_model_by_itself_gets_numbers_when_one_is_moved(
    chat: Chat, tiny_folder: Path, base: Base
) -> None:
    plain = answer_of(UntrainedPolicy(base.model), base)
    out, err = chat([tiny_folder], QUESTION, "/adapter", "/v 3 0.5", "/base", QUESTION, "/v")
    assert out[:4] == [plain, "v[3] = 0.5. The adapter answers.", "The base answers.", plain]
    assert "3: 0.5  4: 0" in out[4]
    assert "has no adapter on it yet. Move a number, such as /v 3 0.5" in err


def test_the_model_reads_earlier_turns_through_its_template(
    chat: Chat, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.tokenizer.chat_template = TURNS
    base.tokenizer.save_pretrained(tmp_path)
    base.model.save_pretrained(tmp_path)
    read: list[list[int]] = []

    def recorded(model: Any, prompt: list[int], sampling: Sampling, seed: int) -> Iterator[int]:
        read.append(prompt)
        return stream(model, prompt, sampling, seed)

    def ids(text: str) -> list[int]:
        return list(base.tokenizer(text)["input_ids"])

    monkeypatch.setattr("tinylora.evaluate.conversation.stream", recorded)
    lines = ("red", "what blue", "/again", "/new", "/again", "blue")
    (first, second, again, note, last), err = chat([tmp_path], *lines)
    assert again == second
    assert err == "Nothing was said yet, so there is nothing to ask again.\n"
    assert first == answer_of(UntrainedPolicy(base.model), base, "user red")
    assert last == answer_of(UntrainedPolicy(base.model), base, "user blue")
    assert note == "Everything that was said is forgotten."
    assert read == [
        ids("user red"),
        *[ids(f"user red assistant {first} user what blue")] * 2,
        ids("user blue"),
    ]
    long = " ".join(["red"] * 26)
    read.clear()
    _, err = chat([tmp_path], long, long)
    assert read == [ids(f"user {long}")] * 2
    assert err == (
        "(2 turns from the beginning were forgotten, because the model's context was full.)\n"
    )


def test_without_a_template_each_line_is_a_prompt(chat: Chat, tiny_folder: Path) -> None:
    first, second = chat([tiny_folder], QUESTION, QUESTION)[0]
    assert first == second


def test_ctrl_c_ends_an_answer_and_not_the_chat(
    chat: Chat, tiny_folder: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes at the third forward pass, which has its token said, and no more."""
    count = 0

    def press(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            signal.raise_signal(signal.SIGINT)

    base.model.register_forward_pre_hook(press)
    monkeypatch.setattr("tinylora.evaluate.measure.load_model", lambda *_: base)
    before = signal.getsignal(signal.SIGINT)
    out, _ = chat([tiny_folder], QUESTION, QUESTION, typed=True)
    assert signal.getsignal(signal.SIGINT) is before
    greeting, cut, whole, end = out
    assert greeting.endswith("/help lists the commands, Ctrl-D ends the chat.")
    cut, whole = cut.removeprefix("base> "), whole.removeprefix("base> ")
    assert whole == answer_of(UntrainedPolicy(base.model), base)
    assert cut.split() == whole.split()[:3]
    assert end == "base> "


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("/nonsense", "/nonsense is not a command. /help lists them; a line that begins with //"),
        ("/v three 1", "/v three 1 does not name a number and its value"),
        ("/v 13 1", "There is no number 13: this adapter has 13, counted from 0 to 12."),
        ("/v 0 nan", "nan is not finite"),
        ("one " * 80, "the model's context ends at 64 tokens"),
    ],
)
def test_a_line_that_cannot_be_is_one_sentence_and_the_chat_continues(
    line: str, match: str, chat: Chat, tiny_folder: Path
) -> None:
    out, err = chat([tiny_folder], line, "", "//v", "/help")
    assert match in err
    assert "Ctrl-C ends an answer" in out[-1]


def test_a_model_has_no_other_base(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", str(tiny_folder), "--model=pocket"]) == 2
    assert "is a model itself. Leave --model out." in capsys.readouterr().err
