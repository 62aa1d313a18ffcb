"""`tinylora eval` and `tinylora inspect`."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import GPT2Config, Phi3Config

from tinylora.cli import main
from tinylora.cli.eval import AllOptions, task_settings, with_recorded


def test_eval_measures_what_the_run_measured(finished_run: Path, tmp_path: Path) -> None:
    """Model, task, problems, samples and the rest are the run's, unless others are given."""
    out = tmp_path / "eval.json"
    assert main(["eval", f"--adapter={finished_run}", "--device=cpu", f"--json={out}"]) == 0
    measured = json.loads(out.read_text(encoding="utf-8"))
    final = json.loads((finished_run / "summary.json").read_text())["evaluations"]["final"]
    assert (measured["greedy"], measured["sampled"]) == (final["greedy"], final["sampled"])
    assert sum(kind["share"] for kind in measured["greedy"]["by_label"].values()) == 1


def test_what_was_not_given_is_as_in_the_run(finished_run: Path, tmp_path: Path) -> None:
    settings = {"seed": 7, "dtype": "bf16", "eval_problems": 3, "eval_samples": 5}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    options = with_recorded(AllOptions(adapter=str(tmp_path), seed=1))
    assert (options.seed, options.dtype, options.problems, options.samples) == (1, "bf16", 3, 5)
    options = with_recorded(AllOptions())
    assert (options.seed, options.dtype, options.problems, options.samples) == (0, "auto", 512, 4)


def test_another_task_is_asked_in_its_own_way_but_of_the_same_model(tmp_path: Path) -> None:
    settings = {"task": "pocket", "chat_template": "off", "enable_thinking": False}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    same = task_settings(with_recorded(AllOptions(adapter=str(tmp_path))))
    other = task_settings(with_recorded(AllOptions(adapter=str(tmp_path), task="math500")))
    assert (same.chat_template, same.enable_thinking) == ("off", False)
    assert (other.chat_template, other.enable_thinking) == ("off", False)


def test_controls_are_base_zero_and_ten_random(
    finished_run: Path, task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval.json"
    argv = ["eval", f"--adapter={finished_run}", f"--task={task_name}", "--split=train"]
    options = ["--samples=2", "--device=cpu", "--controls"]
    assert main([*argv, *options, f"--json={out}"]) == 0
    held = json.loads(out.read_text(encoding="utf-8"))["controls"]
    for kind in ("greedy", "sampled"):
        assert held[kind]["zero"] == held["base"][kind]["accuracy"]
        assert len(held[kind]["random"]) == 10
    printed = capsys.readouterr().out
    for row in ("base model", "zero adapter", "random v, mean"):
        assert row in printed


def test_inspect_shows_the_maps_of_a_model(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tiny_folder), "--num-groups=3"]) == 0
    printed = capsys.readouterr().out
    assert "14 linear maps matched" in " ".join(printed.split())
    assert "model.layers.*.mlp.gate_proj" in printed
    assert "3 groups, tiled (under model.layers)" in printed


def test_inspect_names_the_targets_of_another_kind_of_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2 has none of the seven maps; Phi-3 has two of them."""
    gpt2 = GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    phi3 = Phi3Config(
        vocab_size=10,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
    )
    for config, targets in (
        (gpt2, "c_attn,c_proj,c_fc"),
        (phi3, "o_proj,qkv_proj,gate_up_proj,down_proj"),
    ):
        folder = tmp_path / config.model_type
        config.save_pretrained(folder)
        assert main(["inspect", str(folder)]) == 0
        printed = capsys.readouterr().out
        assert "5 linear maps matched" in " ".join(printed.split())  # lm_head is one
        assert printed.endswith(f"To adapt the maps inside the blocks: --targets {targets}\n")
        assert main(["inspect", str(folder), "--targets", targets]) == 0
        assert "4 linear maps matched" in " ".join(capsys.readouterr().out.split())
        assert main(["inspect", str(folder), "--targets", "q_proj"]) == 2
        capsys.readouterr()


def test_inspect_says_everything_in_an_adapter_file(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(finished_run)]) == 0
    printed = capsys.readouterr().out
    assert "An adapter of 13 numbers: 13 groups of modules, u = 1." in printed
    assert "26 bytes of numbers" in printed
    assert "rank = 2" in printed
    assert printed.count("\nv[") == 13
