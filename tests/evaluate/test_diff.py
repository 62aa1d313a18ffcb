"""Two models token by token: the arithmetic by hand, the counts, and the page."""

import json
import re
from pathlib import Path

import pytest
import torch

import tinylora
from helpers.tiny import config_of, model_of, tokens, values_like
from tinylora.cli import main
from tinylora.evaluate.diff import Answer, Diff, counted
from tinylora.evaluate.diff_page import page
from tinylora.evaluate.divergence import Position, compare
from tinylora.tasks import Problem


@torch.no_grad()
def test_positions_are_what_the_two_distributions_say() -> None:
    adapter = tinylora.attach(model_of(), config_of())
    adapter.set_values(values_like(adapter.v))
    row = tokens(1, 9)[0].tolist()
    (found,) = compare(adapter, [(row[:4], row[4:])])
    assert [position.token for position in found] == row[4:]
    ids = torch.tensor([row])
    p = adapter.model(ids).logits[0].double().softmax(-1)
    with adapter.disabled():
        q = adapter.model(ids).logits[0].double().softmax(-1)
    for place, position in enumerate(found, start=3):
        here, base = p[place], q[place]
        assert position.kl == pytest.approx(float((here * (here / base).log()).sum()), rel=1e-4)
        assert position.kl > 1e-3
        promoted = int((here - base).argmax())
        ranked = base.argsort(descending=True).tolist()
        assert (position.promoted, position.promoted_rank) == (promoted, 1 + ranked.index(promoted))
        assert position.loss == pytest.approx(-float(here[position.token].log()), rel=1e-4)
        assert position.base_loss == pytest.approx(-float(base[position.token].log()), rel=1e-4)
        assert position.is_changed == (int(here.argmax()) != int(base.argmax()))
        assert [token for token, _ in position.base_choices] == ranked[:5]


def test_a_zero_adapter_changes_nothing_and_a_batch_is_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = tinylora.attach(model_of(), config_of())
    policy = adapter
    rows = [tokens(1, length, seed=length)[0].tolist() for length in (5, 9, 6)]
    texts = [(row[:2], row[2:]) for row in rows]
    assert all(p.kl == 0 and not p.is_changed for row in compare(policy, texts) for p in row)
    adapter.set_values(values_like(adapter.v))
    together = compare(policy, texts)
    monkeypatch.setattr("tinylora.evaluate.divergence.MAX_LOGITS", 1)
    for row, text in zip(together, texts, strict=True):
        (alone,) = compare(policy, [text])
        assert [p.token for p in row] == [p.token for p in alone] == text[1]
        assert [p.kl for p in row] == pytest.approx([p.kl for p in alone], rel=1e-3)


def position(kl: float, rank: int, *, first: int = 1, before: int = 1) -> Position:
    return Position(7, 0.5, 0.25, kl, first, rank, [(first, 0.9)], [(before, 0.8)])


class Letters:
    def decode(self, ids: list[int]) -> str:
        return "".join("<&\nabcdefg"[i] for i in ids)


def two_answers() -> Diff:
    """Five positions, of which two are changed, with 8 nats in all."""
    problem = Problem("how <many>?", "1")
    first = [position(4.0, 2, first=3, before=4), position(0.0, 1), position(1.0, 1)]
    second = [position(2.5, 12, first=3, before=4), position(0.5, 4)]
    return Diff([Answer(problem, first, True), Answer(problem, second, None)], Letters())


def test_counts_by_hand() -> None:
    figures = counted(two_answers())
    assert (figures["num_answers"], figures["num_right"], figures["num_positions"]) == (2, 1, 5)
    assert figures["num_changed"] == 2
    assert figures["changed"]["value"] == pytest.approx(2 / 5)
    assert figures["kl"]["value"] == pytest.approx(8 / 5)
    assert figures["kl_of_answer"]["value"] == pytest.approx((5 + 3) / 2)
    assert figures["kl_in_changed"] == pytest.approx(6.5 / 8)
    assert figures["kl_in_top"] == {"0.01": 0.5, "0.05": 0.5, "0.2": 0.5}
    assert {name: held["changed"] for name, held in figures["ranks"].items()} == {
        "1": 0, "2": 1, "3 to 5": 0, "6 to 10": 0, "above 10": 1,
    }  # fmt: skip
    assert figures["ranks"]["1"]["kl_share"] == pytest.approx(1 / 8)
    assert [place["num_positions"] for place in figures["places"]] == [2, 2, 1]
    assert figures["places"][0]["changed"] == 1
    assert figures["moves"] == [{"base": "b", "trained": "a", "count": 2, "kl": 3.25}]


def test_the_page_is_one_file_with_a_span_for_each_token() -> None:
    found = two_answers()
    about = {
        "model": "m", "adapter": "<b>", "task": "t", "split": "test", "answers": "trained",
        "temperature": 0.0,
    }  # fmt: skip
    html = page({**about, **counted(found)}, found, shown=1)
    assert not re.search(r"<script|src=|href=|@import|url\(|<b>", html)
    assert html.count('title="KL ') == 3
    assert html.count('class="changed"') == 1
    assert "how &lt;many&gt;?" in html
    strengths = re.findall(r'style="[^"]*, (0\.\d\d)\)" title', html)
    assert strengths == ["0.60", "0.00", "0.60"]


def test_the_command_counts_and_writes(
    tiny_folder: Path, task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tinylora.models.load_model(str(tiny_folder), "fp32", "cpu").model
    adapter = tinylora.attach(model, tinylora.AdapterConfig(u=2, num_groups=7))
    adapter.set_values(values_like(adapter.v, size=2.0))
    adapter.save(tmp_path / "a.safetensors")
    html, out = tmp_path / "d.html", tmp_path / "d.json"
    named = [str(tmp_path / "a.safetensors"), f"--model={tiny_folder}", f"--task={task_name}"]
    argv = ["diff", *named, "--device=cpu"]
    assert main([*argv, f"--html={html}", f"--json={out}", "--shown=2"]) == 0
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert (figures["num_answers"], figures["task"]) == (5, "colours")
    assert figures["kl"]["value"] > 0
    assert html.read_text(encoding="utf-8").count("<h2>") == 2
    assert "changed: another first choice" in capsys.readouterr().out
    assert main([*argv, "--shown=2"]) == 2
    assert "shown = 2 without html" in capsys.readouterr().err
