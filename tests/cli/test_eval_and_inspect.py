"""`tinylora eval` and `tinylora inspect`."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from transformers import GPT2Config, Phi3Config

from tinylora.adapter.files import read, write
from tinylora.cli import main
from tinylora.cli.eval import VERB
from tinylora.evaluate.estimators import binomial_p
from tinylora.models import load_model
from tinylora.settings import FIELDS
from tinylora.settings.evaluate import EvalConfig, eval_config


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
    assert measured({"adapter": str(tmp_path), "seed": "1"}) == (1, "bf16", 3, 5)
    (tmp_path / "adapter.safetensors").touch()
    for named in (
        {"adapter": str(tmp_path / "adapter.safetensors")},  # a file in the run's folder
        {"adapter": "elsewhere.safetensors", "compare": str(tmp_path)},
    ):
        assert measured(named) == (7, "bf16", 3, 5)
    assert measured({}) == (0, "auto", 512, 4)


def measured(given: dict[str, str]) -> tuple[int, str, int, int]:
    config = eval_config(given)
    return config.seed, config.dtype, config.eval_problems, config.eval_samples


def test_a_request_has_the_names_of_a_run() -> None:
    """What both have is one setting; the older spellings are the same options."""
    own = {"adapter", "compare", "split", "controls", "force", "json_file", "side_effects", "text"}
    assert {name for name in EvalConfig.model_fields if name not in FIELDS} == own
    given = VERB.given(["--problems=3", "--samples", "2"])
    assert given == VERB.given(["--eval-problems=3", "--eval_samples=2"])
    assert given == {"eval_problems": "3", "eval_samples": "2"}


def test_another_task_is_asked_in_its_own_way_but_of_the_same_model(tmp_path: Path) -> None:
    settings = {"task": "pocket", "chat_template": "off", "enable_thinking": False}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    same = eval_config({"adapter": str(tmp_path)})
    other = eval_config({"adapter": str(tmp_path), "task": "math500"})
    assert (same.chat_template, same.enable_thinking) == ("off", False)
    assert (other.chat_template, other.enable_thinking) == ("off", False)


def test_programs_without_a_sandbox_are_never_taken_from_a_run_folder(tmp_path: Path) -> None:
    settings = {"task": "code_contests", "scheme": "binary", "unsafe_no_sandbox": True}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    config = eval_config({"adapter": str(tmp_path)})
    assert (config.scheme, config.unsafe_no_sandbox) == ("binary", False)
    asked = eval_config(VERB.given(["--adapter", str(tmp_path), "--unsafe-no-sandbox"]))
    assert asked.unsafe_no_sandbox is True


def test_a_split_without_problems_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "gsm8k_test.jsonl"
    data.write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    assert main(["eval", "--task=gsm8k", f"--data={data}", "--split=train"]) == 2
    assert "task gsm8k has no train problems, so there is nothing" in capsys.readouterr().err


def test_controls_are_base_zero_and_ten_random(
    finished_run: Path, task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval.json"
    argv = ["eval", f"--adapter={finished_run}", f"--task={task_name}", "--split=train"]
    options = ["--samples=2", "--device=cpu", "--controls"]
    assert main([*argv, *options, f"--json={out}"]) == 0
    held = json.loads(out.read_text(encoding="utf-8"))["controls"]
    for kind in ("greedy", "sampled"):
        assert held["zero"][kind] == held["base"][kind]  # all figures, not accuracy alone
        assert held["zero"]["num_different"][kind] == 0
        assert [draw[kind]["num_problems"] for draw in held["random"]] == [20] * 10
    printed = capsys.readouterr().out
    for words in ("base model", "zero adapter", "answers unlike the base's", "random v, mean"):
        assert words in printed


@pytest.fixture(scope="session")
def pushed(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run with an adapter so strong that it answers otherwise."""
    folder = tmp_path_factory.mktemp("runs") / "pushed"
    shutil.copytree(finished_run, folder)
    held = read(finished_run)
    write(folder, replace(held, v=torch.full_like(held.v, 3.0)))
    return folder


def test_json_holds_every_answer_with_its_verdict(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "eval.json"
    argv = ["eval", f"--adapter={finished_run}", "--split=train", "--samples=3", "--device=cpu"]
    assert main([*argv, f"--json={out}"]) == 0
    measured = json.loads(out.read_text(encoding="utf-8"))
    assert len(measured["problems"]) == 20
    for problem in measured["problems"]:
        assert (len(problem["greedy"]), len(problem["sampled"])) == (1, 3)
        for answer in problem["greedy"] + problem["sampled"]:
            assert answer["score"] == float(problem["gold"] in answer["completion"].split())
            assert 1 <= answer["num_tokens"] <= 6
    scores = [answer["score"] for p in measured["problems"] for answer in p["sampled"]]
    assert measured["sampled"]["accuracy"] == pytest.approx(sum(scores) / 60)
    assert {"pass@2", "mean_length"} <= set(measured["sampled"]["figures"])
    assert list(tmp_path.iterdir()) == [out]


def test_an_adapter_is_tested_against_another_one(
    finished_run: Path, pushed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same numbers both ways round, and what each adapter gives alone."""
    out = tmp_path / "eval.json"
    same = ["--split=train", "--device=cpu", f"--json={out}"]
    results = []
    for pair in (
        [f"--adapter={finished_run}", "--compare", str(pushed)],
        ["--compare", str(pushed), str(finished_run)],
        [f"--adapter={pushed}"],
    ):
        assert main(["eval", *pair, *same]) == 0
        results.append(json.loads(out.read_text(encoding="utf-8")))
    there, back, alone = results
    assert (there["compare"]["greedy"], back["greedy"]) == (alone["greedy"], alone["greedy"])
    first, second = (result["compare"]["paired"]["greedy"] for result in (there, back))
    assert first["only_first"] == second["only_second"]
    assert first["difference"]["value"] == -second["difference"]["value"] != 0
    assert (
        first["p_value"]
        == second["p_value"]
        == binomial_p(first["only_first"], first["only_second"])
    )
    changed = there["compare"]["changed"]
    assert len(changed) == first["only_first"] + first["only_second"]
    for item in changed:
        is_right = item["gold"] in item["completion"].split()
        assert is_right == (item["change"] == "gained")
        assert is_right != (item["gold"] in item["compared"].split())
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{len(changed)} problems that changed (greedy)" in printed


def test_one_adapter_alone_is_tested_against_the_base(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter of zeros and the base model: not one answer changes."""
    held = read(finished_run)
    write(tmp_path / "zero.safetensors", replace(held, v=torch.zeros_like(held.v)))
    out = tmp_path / "eval.json"
    base = yaml.safe_load((finished_run / "config.yaml").read_text())
    named = [f"--model={base['model']}", f"--task={base['task']}", "--device=cpu", "--samples=2"]
    assert (
        main(["eval", "--compare", str(tmp_path / "zero.safetensors"), *named, f"--json={out}"])
        == 0
    )
    compare = json.loads(out.read_text(encoding="utf-8"))["compare"]
    assert (compare["adapter"], compare["changed"]) == ("base", [])
    for kind in ("greedy", "sampled"):
        assert compare["paired"][kind]["p_value"] == 1.0
        assert compare["paired"][kind]["difference"] == {"value": 0, "low": 0, "high": 0}


def test_a_run_by_another_method_is_measured_and_compared(
    finished_run: Path, small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "lora", tmp_path / "eval.json"
    assert main(["train", *small, "--method=lora", "--steps=1", f"--output={folder}"]) == 0
    same = ["--device=cpu", f"--json={out}"]
    assert main(["eval", f"--adapter={finished_run}", f"--compare={folder}", *same]) == 0
    measured = json.loads(out.read_text(encoding="utf-8"))
    final = json.loads((folder / "summary.json").read_text())["evaluations"]["final"]
    assert measured["compare"]["sampled"] == final["sampled"]
    assert main(["eval", f"--adapter={folder}", "--device=cpu", "--controls"]) == 2
    assert "--controls draws random values for a TinyLoRA adapter" in capsys.readouterr().err


def test_adapters_of_different_bases_are_not_compared(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for name in ("one", "other"):
        files.append(str(tmp_path / f"{name}.safetensors"))
        write(files[-1], replace(read(finished_run), base=name))
    assert main(["eval", "--compare", *files]) == 2
    said = capsys.readouterr().err
    assert "one.safetensors names one and " in said
    assert "names other as base model, but adapters can only be compared on the same one" in said


def test_inspect_shows_the_maps_of_a_model(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tiny_folder), "--num-groups=3"]) == 0
    printed = capsys.readouterr().out
    assert "14 linear layers matched" in " ".join(printed.split())
    assert "model.layers.*.mlp.gate_proj" in printed
    assert "3 groups, tiled (under model.layers)" in printed


def test_inspect_shows_what_the_default_adapts_in_another_kind_of_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2 has none of the seven layers of a Llama block; Phi-3 has two of them."""
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
        assert "4 linear layers matched" in " ".join(printed.split())  # lm_head is not one
        said = " ".join(printed.split())
        assert "4 numbers: u = 1 in 4 groups of 1 module; 4 degrees of freedom" in said
        assert "The default is 13 groups, but only 4 modules are adapted" in said
        assert main(["inspect", str(folder), "--targets", targets]) == 0
        assert "4 linear layers matched" in " ".join(capsys.readouterr().out.split())
        assert main(["inspect", str(folder), "--targets", "q_proj"]) == 2
        capsys.readouterr()


def test_inspect_says_everything_in_an_adapter_file(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(finished_run)]) == 0
    printed = capsys.readouterr().out
    assert "An adapter of 13 parameters: 13 groups of modules, u = 1." in printed
    assert "26 bytes of parameters" in printed
    assert "rank = 2" in printed
    assert printed.count("\nv[") == 13


def adapter_of(finished_run: Path) -> str:
    return str(finished_run / "adapter.safetensors")


def text_of(adapter: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that inspect prints."""
    assert main(["inspect", adapter]) == 0
    return capsys.readouterr().out.rsplit("As one line: ", 1)[1].strip()


def test_a_text_is_taken_wherever_a_file_is(
    finished_run: Path,
    tiny_folder: Path,
    task_name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = text_of(adapter_of(finished_run), capsys)
    assert main(["inspect", text]) == 0
    assert "An adapter of 13 parameters: 13 groups of modules, u = 1." in capsys.readouterr().out
    figures = []
    for name in (text, adapter_of(finished_run)):
        argv = ["eval", f"--adapter={name}", f"--model={tiny_folder}", f"--task={task_name}"]
        assert main([*argv, "--device=cpu", f"--json={tmp_path / 'a.json'}"]) == 0
        figures.append(json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["greedy"])
    assert figures[0] == figures[1]


def test_a_text_longer_than_a_file_name_may_be_is_not_a_path() -> None:
    """196 numbers in fp32 are more than a thousand characters."""
    assert eval_config({"adapter": "tl1:" + "A" * 1200}).task == "pocket"


def test_an_adapter_of_another_base_is_refused_unless_forced(
    finished_run: Path, task_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["eval", f"--adapter={finished_run}", "--dtype=bf16", f"--task={task_name}"]
    assert main([*argv, "--problems=2", "--samples=1", "--device=cpu"]) == 2
    said = capsys.readouterr().err
    assert "the same weights, rounded to bf16. Load the base with dtype=torch.float32" in said
    assert "--force" in said
    with pytest.warns(UserWarning, match="loaded anyway; it then acts on other"):
        assert main([*argv, "--problems=2", "--samples=1", "--device=cpu", "--force"]) == 0


def test_inspect_says_whether_the_base_at_hand_is_the_adapters(
    finished_run: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, answer in (
        ([], "tiny is not on this machine under that name; name it with --model"),
        ([f"--model={tiny_folder}"], f"{tiny_folder} is the base it was trained on"),
        (["--model=pocket"], "pocket differs: the embeddings, linear layers and norms or biases"),
    ):
        assert main(["inspect", str(finished_run), *options]) == 0
        assert f"The base model here: {answer}" in capsys.readouterr().out


def test_inspect_reads_an_adapter_whose_base_has_a_name_that_no_model_can_have(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.safetensors"
    write(path, replace(read(finished_run), base="my model (2)"))
    assert main(["inspect", str(path)]) == 0
    assert "my model (2) is not on this machine under that name" in capsys.readouterr().out


def test_inspect_shows_leading_singular_values_and_gaps(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tiny_folder), "--rank=3", "--num-groups=1"]) == 0
    row = next(r for r in capsys.readouterr().out.splitlines() if "1.mlp.up_proj" in r)
    weight = load_model(str(tiny_folder), device="cpu").model.model.layers[1].mlp.up_proj.weight
    s = torch.linalg.svdvals(weight.detach().double()).tolist()
    cells = [cell.split() for cell in row.split("│")[2:6]]
    assert cells[0] + cells[1] == [f"{value:.4g}" for value in s[:4]]
    gaps = [1 - after / before for before, after in pairwise(s[:4])]
    assert cells[2] + cells[3] == [f"{gap:.2%}" for gap in gaps]


def test_inspect_says_what_near_equal_values_lead_to(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(str(tiny_folder), device="cpu").model
    layer = model.model.layers[0].self_attn
    with torch.no_grad():
        layer.q_proj.weight.copy_(torch.diag(torch.tensor([3.0, 3.0] + 14 * [1.0])))
        layer.o_proj.weight.copy_(torch.diag(torch.tensor([3.0, 2.0, 2.0] + 13 * [1.0])))
    model.save_pretrained(tmp_path)
    assert main(["inspect", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any("0.self_attn.q_proj" in row and ": rotated" in row for row in rows)
    assert any("0.self_attn.o_proj" in row and ": left out" in row for row in rows)


def test_inspect_shows_no_singular_values_where_there_are_no_weights_or_they_are_not_wanted(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tiny_folder), "--spectrum=no"]) == 0
    assert "singular" not in capsys.readouterr().out.lower()
    shutil.copy(tiny_folder / "config.json", tmp_path)
    assert main(["inspect", str(tmp_path)]) == 0
    assert "shown only where the weights are on this machine" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path), "--spectrum=yes"]) == 2


def test_inspect_of_a_large_model_asks_before_it_takes_minutes(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinylora.cli.inspect.MANY_WEIGHTS", 100)
    assert main(["inspect", str(tiny_folder)]) == 0
    assert "--spectrum yes" in capsys.readouterr().out
    assert main(["inspect", str(tiny_folder), "--spectrum=yes"]) == 0
    assert "Leading singular values" in capsys.readouterr().out


def test_inspect_finds_an_adapter_by_its_hub_id(
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--thirteen"
    (repository / "snapshots" / ("c" * 40)).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    shutil.copy(adapter_of(finished_run), repository / "snapshots" / ("c" * 40))
    assert main(["inspect", "someone/thirteen"]) == 0
    assert "An adapter of 13 parameters" in capsys.readouterr().out
    assert main(["inspect", "someone/nothing"]) == 2
    assert "the hub did not provide a model of that name" in capsys.readouterr().err
