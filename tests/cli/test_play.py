"""What `tinylora play` opens, in each of its forms."""

from pathlib import Path

import pytest
import torch

from tinylora.adapter.files import read
from tinylora.adapter.text import encode
from tinylora.cli import main
from tinylora.cli.play import opened
from tinylora.errors import RequestError
from tinylora.evaluate.measure import is_adapter
from tinylora.play.opening import Playground, boxed, round_up
from tinylora.settings.play import PlaySettings


def open_run(folder: Path, **given: object) -> Playground:
    return opened(PlaySettings(source=str(folder), problems=2), {"device": "cpu", **given})


def test_a_run_with_its_snapshots(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "snapshots").mkdir(parents=True)
    for file in finished_run.iterdir():
        if file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    adapter = (finished_run / "adapter.safetensors").read_bytes()
    for step in (2, 1):
        (run / "snapshots" / f"step-{step:06d}.safetensors").write_bytes(adapter)
    playground = open_run(run)
    trained = read(run / "adapter.safetensors").v.float()
    assert list(playground.path) == [1, 2]
    torch.testing.assert_close(playground.path[2], trained, atol=0, rtol=0)
    [space] = playground.about()["spaces"]
    assert space["trained"] == trained.flatten().tolist()
    assert playground.about()["task"] == "colours"
    assert len(playground.problems) == 2


def test_a_snapshot_of_another_adapter_is_refused(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    for name in ("adapter.safetensors", "config.yaml"):
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    from tinylora.adapter.files import write

    write(tmp_path / "snapshots" / "step-000001.safetensors", boxed("2")[1])
    with pytest.raises(RequestError, match="The snapshot of step 1 was not trained on this model"):
        open_run(tmp_path)


def test_a_model_has_sliders_at_zero(tiny_folder: Path, task_name: str) -> None:
    given = {"task": task_name, "num_groups": "2", "u": "3"}
    playground = open_run(tiny_folder, **given)
    [space] = playground.about()["spaces"]
    assert (space["shape"], space["trained"], space["path"]) == ([2, 3], None, [])
    assert space["limit"] == 1.5


def test_a_text_opens_without_a_file(task_name: str) -> None:
    text = encode(boxed("1")[8], "fp32")
    playground = opened(PlaySettings(source=text, problems=1), {"device": "cpu"})
    assert playground.text(playground.contents.v) == text
    assert (playground.base.name, playground.path) == ("pocket", {})


def test_settings_of_a_model_are_refused_beside_an_adapter(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["play", str(finished_run), "--rank=3", "--port=0"]) == 2
    assert "--rank is for a model" in capsys.readouterr().err


def test_a_base_model_is_refused_beside_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "pocket", "--model=pocket", "--port=0"]) == 2
    assert "--model pocket names the base of an adapter" in capsys.readouterr().err


def test_what_an_adapter_is(finished_run: Path, tiny_folder: Path) -> None:
    names = (str(finished_run), "tl1:AAAA", "a.safetensors", str(tiny_folder), "pocket")
    assert [is_adapter(name) for name in names] == [True, True, True, False, False]


def test_a_hub_id_is_an_adapter_where_the_hub_has_one(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str, file_name: str) -> str:
        if name != "somebody/adapter":
            raise OSError("not there")
        return str(finished_run / file_name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert [is_adapter(name) for name in ("somebody/adapter", "somebody/model")] == [True, False]


@pytest.mark.parametrize(("x", "up"), [(1, 1), (1.01, 1.5), (3.94, 4), (0.07, 0.08), (9, 10)])
def test_round_up(x: float, up: float) -> None:
    assert round_up(x) == pytest.approx(up)
