"""Adapters on the hub, from its cache on this machine: no test may look for the hub itself."""

import pytest
import torch

from helpers.tiny import config_of, model_of, values_like
from tinylora.adapter import attach, files, load
from tinylora.errors import RequestError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_an_adapter_is_loaded_by_its_hub_id(cache):
    adapter = attach(model_of(), config_of())
    adapter.set_values(values_like(adapter.v))
    repository = cache / "models--someone--thirteen-numbers"
    (repository / "snapshots" / ("c" * 40)).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    adapter.save(repository / "snapshots" / ("c" * 40))
    assert torch.equal(load(model_of(), "someone/thirteen-numbers").v, adapter.v)


@pytest.mark.usefixtures("cache")
def test_without_the_hub_it_is_one_sentence_that_names_both_places():
    match = (
        r"^nobody/nothing is neither a file nor a run folder, and the hub did not provide its "
        r"adapter.safetensors \(.*\)\. Pass the path of .* or go online to load one from "
        r"the hub\.$"
    )
    with pytest.raises(RequestError, match=match):
        files.read("nobody/nothing")


@pytest.mark.parametrize("name", ["runs/typo", "./a/b", "a/b/c", "nowhere", "/a/b", "x" * 5000])
def test_what_looks_like_a_path_is_not_looked_for_on_the_hub(name, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("was asked"))
    with pytest.raises(RequestError, match="No adapter was found at"):
        files.read(name)
