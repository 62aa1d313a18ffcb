"""`--quantize`: training on a quantised base and measuring there, from the command line."""

import json
from pathlib import Path

import pytest
import yaml

from tinylora import TrainConfig, train
from tinylora.cli import main
from tinylora.errors import RequestError
from tinylora.models import load_model
from tinylora.tasks import load_task


@pytest.fixture(scope="module")
def on_nf4(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps on an NF4 base."""
    folder = tmp_path_factory.mktemp("runs") / "nf4"
    assert main(["train", *small, "--quantize=nf4", "--steps=2", f"--output={folder}"]) == 0
    return folder


def test_a_run_on_nf4_trains_and_is_measured_again_as_it_was(on_nf4: Path, tmp_path: Path) -> None:
    lines = (on_nf4 / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["v_norm"] > 0 for line in lines] == [True, True]
    assert yaml.safe_load((on_nf4 / "config.yaml").read_text())["quantize"] == "nf4"
    out = tmp_path / "eval.json"
    assert main(["eval", f"--adapter={on_nf4}", "--device=cpu", f"--json={out}"]) == 0
    measured = json.loads(out.read_text())
    final = json.loads((on_nf4 / "summary.json").read_text())["evaluations"]["final"]
    assert (measured["greedy"], measured["sampled"]) == (final["greedy"], final["sampled"])


def test_a_file_alone_says_how_its_base_was_quantised(
    on_nf4: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its run's folder: it is measured on NF4, refused on the plain base, or forced."""
    alone = tmp_path / "a.safetensors"
    alone.write_bytes((on_nf4 / "adapter.safetensors").read_bytes())
    task = yaml.safe_load((on_nf4 / "config.yaml").read_text())["task"]
    argv = ["eval", f"--adapter={alone}", f"--model={tiny_folder}", f"--task={task}"]
    out = tmp_path / "eval.json"
    assert main([*argv, "--samples=2", "--device=cpu", f"--json={out}"]) == 0
    final = json.loads((on_nf4 / "summary.json").read_text())["evaluations"]["final"]
    assert json.loads(out.read_text())["greedy"]["accuracy"] == final["greedy"]["accuracy"]
    capsys.readouterr()
    assert main([*argv, "--quantize=none", "--device=cpu"]) == 2
    said = capsys.readouterr().err
    assert "its base was quantised (nf4-double), and this one is not quantised" in said
    assert "Load the base as it was (--quantize nf4)." in said
    with pytest.warns(UserWarning, match="It is loaded anyway"):
        assert main([*argv, "--quantize=none", "--device=cpu", "--force"]) == 0


def test_inspect_checks_the_base_as_it_was_quantised(
    on_nf4: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["inspect", str(on_nf4), f"--model={tiny_folder}"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "Fingerprint of the base: quantised weights (nf4-double); embeddings" in printed
    assert "quantised with --quantize nf4, is the base it was trained on" in printed
    assert main(["inspect", str(on_nf4), "--model=pocket"]) == 0
    assert "quantised with --quantize nf4, differs: the embeddings" in capsys.readouterr().out
    monkeypatch.setattr("tinylora.models.find_spec", lambda name: None)
    assert main(argv) == 0
    assert "was not checked: quantize = nf4 needs bitsandbytes" in capsys.readouterr().out


def test_a_dry_run_shows_the_quantisation(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *small, "--quantize=int8", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "quantize: int8\n" in printed
    assert "14 modules of" in printed


@pytest.mark.parametrize("verb", [["train"], ["train", "--dry-run"], ["eval"]])
def test_without_the_extra_nothing_begins(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinylora.models.find_spec", lambda name: None)
    assert main([*verb, "--quantize=nf4"]) == 2
    captured = capsys.readouterr()
    assert "quantize = nf4 needs bitsandbytes, which is not installed" in captured.err
    assert len(captured.err.strip().splitlines()) == 1


def test_a_loaded_model_is_recorded_as_it_is_quantised(
    tiny_folder: Path, task_name: str, tmp_path: Path
) -> None:
    model = load_model(str(tiny_folder), "fp32", "cpu", "nf4").model
    config = TrainConfig(
        steps=1, prompts_per_step=4, samples_per_prompt=2, eval_problems=2, output=str(tmp_path)
    )
    train(config, model=model, task=load_task(task_name))
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["quantize"] == "nf4"


def test_a_loaded_model_is_not_quantised_behind_its_owners_back(tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder), "fp32", "cpu").model
    with pytest.raises(
        RequestError,
        match="quantize = int8 cannot be applied to a LlamaForCausalLM that is already",
    ):
        train(TrainConfig(quantize="int8"), model=model)


def test_a_layer_without_gradient_is_refused_before_the_run(
    tiny_folder: Path, task_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As packed 4-bit weights have none."""
    model = load_model(str(tiny_folder), "fp32", "cpu", "nf4").model
    kind = type(model.get_submodule("model.layers.1.mlp.up_proj"))
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: forward(self, x).detach())
    config = TrainConfig(output=str(tmp_path / "run"))
    with pytest.raises(RequestError, match="_proj is a Linear4bit whose backward pass does not"):
        train(config, model=model, task=load_task(task_name))
    assert not (tmp_path / "run").exists()
