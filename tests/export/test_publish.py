"""Adapters published on the hub and loaded from it: a hub that stands in, on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.hub import Hub, Repository, running_hub
from helpers.tiny import config_of, model_of, values_like
from tinylora.adapter import attach, files, load
from tinylora.cli import main
from tinylora.errors import RequestError
from tinylora.evaluate.measure import is_adapter
from tinylora.export.publish import publish, write_repository

pytestmark = pytest.mark.filterwarnings(  # huggingface_hub 2.4's
    "ignore:Use 'content=:DeprecationWarning"
)
NAME = "someone/thirteen-numbers"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub where the token "ours" may write, and "theirs" only read; ours is logged in."""
    with running_hub() as hub:
        hub.tokens |= {"ours": "write", "theirs": "read"}
        settings = {
            "ENDPOINT": hub.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_STORED_TOKENS_PATH": str(tmp_path / "tokens"),
        }
        for name, value in settings.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.address)
        monkeypatch.setenv("HF_TOKEN", "ours")
        yield hub


def trained(base: str = "Qwen/Qwen2.5-7B-Instruct") -> Any:
    model = model_of()
    model.config._name_or_path = base
    adapter = attach(model, config_of())
    adapter.set_values(values_like(adapter.v))
    return adapter


def card_of(data: bytes) -> tuple[dict[str, Any], str]:
    """The metadata, and the text below it."""
    _, meta, text = data.decode().split("---\n", 2)
    return yaml.safe_load(meta), text


def test_what_is_published_is_loaded_by_its_id(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = trained()
    run = tmp_path / "run"
    run.mkdir()
    adapter.save(run)
    summary = {"task": "pocket", "base_accuracy": 0.25, "final_accuracy": 0.75}
    (run / "summary.json").write_text(json.dumps(summary))
    assert main(["push", str(run), NAME]) == 0
    assert (
        capsys.readouterr().out == f"{NAME} is published: {hub.address}/{NAME}/commit/{'c' * 40}\n"
    )
    held = hub.repositories[NAME]
    assert not held.private
    assert held.files[files.FILE_NAME] == (run / files.FILE_NAME).read_bytes()
    meta, card = card_of(held.files["README.md"])
    assert meta["base_model"] == "Qwen/Qwen2.5-7B-Instruct"
    assert meta["base_model_relation"] == "adapter"
    assert meta["tags"] == ["tinylora", "adapter"]
    assert meta["tinylora"] == adapter.to_text()
    assert f'tinylora.load(model, "{NAME}")' in card
    assert "| accuracy on pocket, greedy | 75.0% (base model: 25.0%) |" in card
    assert str(tmp_path) not in card
    assert is_adapter(NAME)
    assert torch.equal(load(model_of(), NAME).v, adapter.v)
    assert torch.equal(load(model_of(), meta["tinylora"]).v, adapter.v)
    with pytest.raises(RequestError, match="was not trained on this model's weights"):
        load(model_of("llama"), NAME)


def test_private_is_private_and_stays_so(hub: Hub) -> None:
    text = trained().to_text()
    publish(text, NAME, private=True)
    assert hub.repositories[NAME].private
    publish(text, NAME, private=True)  # again, over what is there
    hub.repositories[NAME].private = False
    with pytest.raises(RequestError, match="open to everybody, which --private would not change"):
        publish(text, NAME, private=True)


def test_a_repository_of_something_else_is_left_alone(hub: Hub) -> None:
    there = {"README.md": b"a model", "config.json": b"{}", ".gitattributes": b""}
    hub.repositories[NAME] = Repository(files=dict(there))
    with pytest.raises(RequestError, match=r"and holds config\.json, so it is not an adapter's"):
        publish(trained().to_text(), NAME)
    assert hub.repositories[NAME].files == there
    assert not is_adapter(NAME)


@pytest.mark.parametrize(
    ("token", "match"),
    [
        ("", "^No token for the hub is on this machine, .* or set HF_TOKEN; --dry-run needs none"),
        ("nobody's", r"was not published \(.*401.*\)\. The hub does not know the token: log in"),
        ("theirs", r"was not published \(.*403.*\)\. The token may not write there: use one"),
    ],
)
def test_without_the_right_to_write_it_is_one_sentence(
    token: str, match: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(RequestError, match=match):
        publish(trained().to_text(), NAME)
    assert hub.repositories == {}


def test_without_a_hub_it_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9"  # the port that discards; nobody listens
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nowhere)
    with pytest.raises(RequestError, match=r"was not published .*Push again when the hub can be"):
        publish(trained().to_text(), NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RequestError, match=r"was not published \(.*offline mode is enabled"):
        publish(trained().to_text(), NAME)


@pytest.mark.parametrize("wrong", ["numbers", "a/b/c", "some one/numbers", "-a/b", "a/b.git", "a/"])
def test_wrong_ids_are_refused_before_anything_is_asked(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = trained().to_text()
    with pytest.raises(RequestError, match=r"cannot be a repository of the hub .* Use OWNER/NAME"):
        write_repository(text, wrong, tmp_path / "folder")
    assert main(["push", text]) == 2
    assert '"tinylora push" needs HUB_ID' in capsys.readouterr().err


def test_a_dry_run_writes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a hub or a token; a base that is not on the hub is no tag of its card."""
    monkeypatch.chdir(tmp_path)
    adapter = trained("pocket")
    assert main(["push", adapter.to_text(), NAME, "--private", "--dry-run"]) == 0
    said = "thirteen-numbers: what would be uploaded into the private repository"
    assert capsys.readouterr().out == f"{said} {NAME}.\n"
    folder = tmp_path / "thirteen-numbers"
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", files.FILE_NAME]
    assert torch.equal(load(model_of(), folder).v, adapter.v)
    meta, card = card_of((folder / "README.md").read_bytes())
    assert "base_model" not in meta
    assert 'load_model("pocket").model' in card
    assert main(["push", adapter.to_text(), NAME, "--out", "x"]) == 2
    assert "only a dry run keeps its folder" in capsys.readouterr().err
