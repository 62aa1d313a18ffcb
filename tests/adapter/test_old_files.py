"""Adapters that an earlier version wrote, byte for byte: they load as they did."""

import base64
import json
from pathlib import Path

import pytest
import torch

from helpers.tiny import config_of, model_of, values_like
from tinylora.adapter import files, load

WRITTEN = json.loads((Path(__file__).parent / "data" / "written_in_2026_11.json").read_text())


@pytest.fixture(params=WRITTEN, ids=lambda held: held["name"])
def held(request):
    return request.param


def check(held, loaded):
    assert loaded.config == config_of(held["family"], **held["settings"])
    expected = values_like(loaded.v).to(files.DTYPES[held["store"]]).float()
    assert torch.equal(loaded.v.detach(), expected)


def test_a_file_loads_as_it_did(held, tmp_path):
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(base64.b85decode(held["file"]))
    check(held, load(model_of(held["family"]), path))


def test_a_text_loads_as_it_did(held):
    check(held, load(model_of(held["family"]), held["text"]))
