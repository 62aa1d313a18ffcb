"""The page without a server: the browser's answers are ours, token by token."""

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.pages import Open, settle
from tinylora.adapter.text import encode
from tinylora.play.opening import Playground, boxed, open_model
from tinylora.rollout.engine import Sampling
from tinylora.settings.evaluate import EvalConfig

pytestmark = pytest.mark.browser
ASK = "async ([kind, told]) => (await import('./backend.js')).request(kind, told)"


@pytest.fixture(scope="module")
def ours() -> Playground:
    config = EvalConfig(model="pocket", task="pocket", device="cpu")
    return open_model("pocket", None, config, num_problems=64)


def candidates(ours: Playground) -> list[torch.Tensor]:
    """Zero, trained, halfway, and a random direction of the trained norm."""
    v = ours.path[16]
    draw = torch.randn(v.shape, generator=torch.Generator().manual_seed(0))
    return [0 * v, v, ours.path[2], draw * v.norm() / draw.norm()]


def test_greedy_answers_equal_ours_on_64_problems(
    static_address: str, open_page: Open, ours: Playground
) -> None:
    page, steering = open_page(static_address), ours.steering
    prompts = [steering.text.encode(problem) for problem in ours.problems]
    sampling = Sampling(0.0, steering.budget, steering.text.eos_token_ids)
    chosen = candidates(ours)
    rows_P_C = steering.engine.generate_population(prompts, torch.stack(chosen), sampling, seed=0)
    for place, v in enumerate(chosen):
        told = {"space": 0, "prompts": prompts, "candidates": [v.flatten().tolist()] * 64}
        found = page.evaluate(ASK, ["greedy", told])
        assert found == [row[place].token_ids for row in rows_P_C]


def test_letters_equal_ours(static_address: str, open_page: Open, ours: Playground) -> None:
    """Right, wrong and broken; with the best prompt too."""
    page, chosen = open_page(static_address), [*candidates(ours), 2.2 * ours.path[16]]
    for prompted in (False, True):
        instruction = ours.instruction(prompted)
        problems = [instruction.before(problem) for problem in ours.problems[:24]]
        told = {
            "space": 0, "first": 0, "count": 24, "prompted": prompted,
            "candidates": [v.flatten().tolist() for v in chosen],
        }  # fmt: skip
        expected = ours.steering.measure(torch.stack(chosen), problems)
        assert page.evaluate(ASK, ["measure", told]) == expected
    assert {letter for text in expected for letter in text} <= set("rwb")


def test_prompts_become_the_same_tokens(
    static_address: str, open_page: Open, ours: Playground
) -> None:
    page = open_page(static_address)
    for prompted in (False, True):
        for problem in ours.problems[:16]:
            asked = ours.instruction(prompted).before(problem)
            told = {"prompt": problem.prompt, "prompted": prompted}
            assert page.evaluate(ASK, ["ids", told]) == ours.steering.text.encode(asked)
    odd = "Ärger — 12,5 kg?\n\n  two  spaces… 数"
    from tinylora.tasks.task import Problem

    told = {"prompt": odd, "prompted": False}
    assert page.evaluate(ASK, ["ids", told]) == ours.steering.text.encode(Problem(odd, ""))


@pytest.mark.parametrize(("space", "name"), [(0, "13"), (1, "2"), (2, "1")])
def test_texts_are_those_of_the_library(
    static_address: str, open_page: Open, space: int, name: str
) -> None:
    page = open_page(static_address)
    for step, held in boxed(name).items():
        values = held.v.flatten().tolist()
        text = encode(held, "fp32")
        assert page.evaluate(ASK, ["text", {"space": space, "values": values}]) == text, step
        found = page.evaluate(ASK, ["numbers", {"text": text}])
        assert found == {"space": space, "values": values}
        for store in ("bf16", "fp16"):
            short = page.evaluate(ASK, ["numbers", {"text": encode(held, store)}])  # type: ignore[arg-type]
            dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[store]
            assert short["values"] == held.v.to(dtype).flatten().tolist()


def test_a_text_of_another_adapter_is_refused(static_address: str, open_page: Open) -> None:
    page = open_page(static_address)
    held = boxed("2")[16]
    other = encode(type(held)(**{**vars(held), "fingerprint": "plain:" + "00" * 16}), "fp32")
    page.fill("#text", other)
    page.keyboard.press("Enter")
    page.wait_for_selector("#problem-report:not([hidden])")
    assert "another base model" in page.inner_text("#problem-report")


def test_two_numbers_have_a_landscape_with_the_path_of_training(
    static_address: str, open_page: Open
) -> None:
    page = open_page(static_address)
    page.select_option("#space", "1")
    settle(page, "no")
    assert len(page.query_selector_all("#chart rect.cell")) == 13 * 13
    assert page.query_selector_all("#chart rect.cell:not([style])") == []
    assert len(page.query_selector_all("#chart circle.step")) == 6
    before = page.inner_text("#right")
    box = page.locator("#chart svg").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)  # v2 at its largest
    page.wait_for_function(
        "(old) => document.getElementById('right').textContent !== old", arg=before
    )
    assert float(page.input_value("#v2")) > 1


def test_the_graph_is_the_model(static_folder: Path, ours: Playground) -> None:
    """In Python's onnxruntime: logits of a batch in which each row has a v of its own."""
    import json

    import numpy as np
    import onnxruntime

    data = json.loads((static_folder / "data.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(static_folder / "model.onnx")
    ids = ours.steering.text.encode(ours.problems[0])
    vs = torch.stack(candidates(ours))
    rows, length = len(vs), len(ids)
    past = np.zeros((4, rows, 2, 0, 64), np.float32)
    hidden = np.triu(np.full((length, length), -1e9, np.float32), 1)
    found = session.run(
        ["logits"],
        {
            "input_ids": np.array([ids] * rows),
            "position_ids": np.array([range(length)] * rows),
            "mask": np.broadcast_to(hidden, (rows, 1, length, length)),
            "v": vs.flatten(1).numpy(),
            "mixing": np.array(data["about"]["spaces"][0]["mixing"], np.float32),
            "keys": past,
            "values": past,
        },
    )[0]
    adapter = ours.steering.adapter
    with torch.no_grad(), adapter.per_row(vs):
        expected: Any = adapter.model(torch.tensor([ids] * rows)).logits
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=2e-4, rtol=1e-5)


def test_it_is_small_and_says_nothing_of_this_machine(static_folder: Path) -> None:
    own = [path for path in static_folder.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in own) < 2_200_000
    graph = (static_folder / "model.onnx").read_bytes()
    assert str(Path.cwd()).encode() not in graph
    assert b"site-packages" not in graph
