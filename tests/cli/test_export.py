"""`tinylora export` and `tinylora import`."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from test_wrong_requests import refused
from transformers import AutoModelForCausalLM

from tinylora.adapter import load
from tinylora.cli import main
from tinylora.models import load_model

pytestmark = pytest.mark.filterwarnings(  # peft 0.21's
    "ignore:`is_gradient_checkpointing`:FutureWarning"
)
WEIGHTS = shutil.ignore_patterns("*.safetensors")
FORMATS = ("lora", "merged", "gguf", "peft-tinylora", "sliders")


def bare(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def said(model: Any) -> torch.Tensor:
    return model(input_ids=torch.arange(2, 10)[None]).logits


@pytest.fixture
def exported(finished_run: Path, tmp_path: Path):
    """Exports the finished run, over the model that it names: the folder that comes of it."""

    def export(kind: str, *options: str, adapter: Any = finished_run) -> Path:
        argv = ["export", str(adapter), f"--to={kind}", f"--out={tmp_path / kind}"]
        assert main([*argv, *options]) == 0
        return tmp_path / kind

    return export


@pytest.mark.parametrize("kind", ["lora", "peft-tinylora"])
def test_peft_answers_as_the_run_does(
    kind: str, exported: Any, finished_run: Path, tiny_folder: Path
) -> None:
    model = bare(tiny_folder)
    load(model, finished_run)
    theirs = peft.PeftModel.from_pretrained(bare(tiny_folder), str(exported(kind))).eval()
    assert torch.allclose(said(model), said(theirs), rtol=0, atol=1e-5)


def test_a_merged_model_says_what_rounding_cost(
    exported: Any, finished_run: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bare(tiny_folder)
    load(model, finished_run)
    folder = exported("merged")
    assert torch.allclose(said(model), said(bare(folder)), rtol=0, atol=1e-5)
    assert load_model(str(folder)).tokenizer("one two")["input_ids"] == [2, 3]
    printed = capsys.readouterr().out
    assert "of the update arrived in the weights, with a relative error of" in printed
    assert "positions of sample prompts: KL" in printed


@pytest.mark.parametrize("kind", FORMATS)
def test_each_export_carries_a_model_card(
    kind: str, exported: Any, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported(kind)
    card = (folder / "README.md").read_text(encoding="utf-8")
    meta = yaml.safe_load(card.split("---")[1])
    library = {"merged": "transformers", "gguf": "gguf"}.get(kind, "peft")
    assert (meta["library_name"], meta["tags"]) == (library, ["tinylora", kind])
    assert "base_model" not in meta  # tiny is no hub id
    assert "| base model | tiny |" in card
    assert "| numbers | 13 |" in card
    assert f"`tinylora export {finished_run.name} --to {kind} --out {kind}`" in card
    summary = json.loads((finished_run / "summary.json").read_text())
    for key, name in (("final_accuracy", "greedy"), ("final_accuracy_sampled", "sampled")):
        assert f", {name} | {summary[key]:.1%} (base model: " in card
    loads = f'("{kind}")', f"{kind}/adapter.gguf", f', "{kind}")', f"{kind}/sliders.json"
    assert any(line in card for line in loads)
    assert str(folder.parent) not in card
    for note in capsys.readouterr().out.splitlines()[1:]:
        assert note in card


def test_the_card_holds_the_adapter_itself(
    exported: Any, finished_run: Path, tiny_folder: Path
) -> None:
    card = (exported("lora") / "README.md").read_text(encoding="utf-8")
    text = re.search(r"`(tl1:\S+)`", card)[1]
    one = load(bare(tiny_folder), finished_run)
    other = load(bare(tiny_folder), text)
    assert torch.equal(one.v, other.v)


def test_an_adapter_s_text_is_exported_too(
    exported: Any, finished_run: Path, tiny_folder: Path
) -> None:
    model = bare(tiny_folder)
    text = load(model, finished_run).to_text()
    folder = exported("lora", f"--model={tiny_folder}", adapter=text)
    theirs = peft.PeftModel.from_pretrained(bare(tiny_folder), str(folder)).eval()
    assert torch.allclose(said(model), said(theirs), rtol=0, atol=1e-5)
    assert f"`tinylora export {text} --to lora" in (folder / "README.md").read_text()


def test_a_forced_export_claims_no_accuracy(
    exported: Any, finished_run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """On other weights the run's accuracy does not hold."""
    other = bare(tiny_folder)
    with torch.no_grad():
        other.model.norm.weight.mul_(2)
    other.save_pretrained(tmp_path / "other")
    shutil.copytree(tiny_folder, tmp_path / "other", dirs_exist_ok=True, ignore=WEIGHTS)
    with pytest.warns(UserWarning, match="loaded anyway"):
        folder = exported("lora", f"--model={tmp_path / 'other'}", "--force")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| base model | other |" in card
    assert "accuracy on" not in card
    assert "Replace `other` by the folder of the base model." in card


def test_another_file_in_a_run_s_folder_claims_no_accuracy(
    finished_run: Path, tmp_path: Path
) -> None:
    from tinylora.export.card import run_summary

    assert run_summary(finished_run / "adapter.safetensors") == run_summary(finished_run) != {}
    assert run_summary(finished_run / "mine.safetensors") == {}
    assert run_summary(f"  tl1:{'A' * 5000}") == {}


def test_a_base_on_the_hub_is_in_the_metadata(
    finished_run: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    from tinylora.export import to_lora

    model = bare(tiny_folder)
    adapter = load(model, finished_run)
    model.config._name_or_path = "Qwen/Qwen2.5-0.5B-Instruct"
    to_lora(adapter, tmp_path / "lora")
    card = (tmp_path / "lora" / "README.md").read_text(encoding="utf-8")
    meta = yaml.safe_load(card.split("---")[1])
    assert meta["base_model"] == "Qwen/Qwen2.5-0.5B-Instruct"
    assert meta["base_model_relation"] == "adapter"
    assert "accuracy on" not in card
    assert 'from_pretrained("Qwen/Qwen2.5-0.5B-Instruct")' in card
    assert "the folder of the base model" not in card


def test_a_checkpoint_of_peft_becomes_a_file(
    exported: Any, finished_run: Path, tiny_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The run's adapter, to PEFT and back: its 13 numbers become a core for each of 14 maps."""
    folder = exported("peft-tinylora")
    file = tmp_path / "again.safetensors"
    argv = ["import", str(folder), f"--out={file}", f"--model={tiny_folder}"]
    assert main(argv) == 0
    assert f"{file}: 56 parameters, " in capsys.readouterr().out
    ours, again = bare(tiny_folder), bare(tiny_folder)
    load(ours, finished_run)
    load(again, file)
    assert torch.allclose(said(ours), said(again), rtol=0, atol=1e-5)
    refused(argv, "again.safetensors exists already", capsys)


def test_a_checkpoint_that_names_no_base_asks_for_it(
    exported: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported("peft-tinylora")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": None}))
    capsys.readouterr()
    argv = ["import", str(folder), f"--out={tmp_path / 'x'}"]
    refused(argv, "does not name its base model. Name it with --model", capsys)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["nowhere", "--to=lora", "--out=x"], "No adapter was found at nowhere"),
        (
            ["x", "--to=onnx", "--out=x"],
            "to = onnx, but it must be 'lora', 'merged', 'gguf', 'peft-",
        ),
        (["x", "--out=x"], '"tinylora export" needs --to'),
        (
            ["x", "--to=gguf", "--out=x", "--store=fp16"],
            "store = fp16 with to = gguf.*always written in fp32",
        ),
    ],
)
def test_a_wrong_export_is_refused(
    argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["export", *argv], sentence, capsys)
    assert not Path("x").exists()


def test_a_folder_that_exists_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    argv = ["export", "nowhere", "--to=lora", f"--out={tmp_path}"]
    refused(argv, "already exists, and its contents would be mixed up", capsys)


def test_another_base_model_is_refused(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["export", str(finished_run), "--to=lora", f"--out={tmp_path / 'x'}", "--model=pocket"]
    refused(argv, "was not trained on this model's weights", capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    finished_run: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    load(bare(tiny_folder), finished_run)  # the factors are in their cache from here on
    monkeypatch.setattr(os, "fsync", full)
    for kind in FORMATS:
        argv = ["export", str(finished_run), f"--to={kind}", f"--out={tmp_path / kind}"]
        assert main([*argv, f"--model={tiny_folder}"]) == 1
        said = capsys.readouterr()
        assert said.err.startswith("tinylora export: No space left on device")
        assert len(said.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
