"""What docs/reference/format.md says is enough to read an adapter: another reader agrees."""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.tiny import config_of
from tinylora.adapter import files, text
from tinylora.adapter.contents import DTYPES, AdapterFile
from tinylora.adapter.factors import projections

sys.path.insert(0, str(Path(__file__).parent))
import independent_reader

WRITTEN = json.loads((Path(__file__).parent / "data" / "written_in_2026_11.json").read_text())


def check(theirs, ours: AdapterFile) -> None:
    assert np.array_equal(theirs["v"], ours.v.float().numpy())
    for name, value in theirs["config"].items():
        held = getattr(ours.config, name)
        assert (list(held) if isinstance(held, tuple) else held) == value
    for name in ("modules", "base", "revision", "fingerprint"):
        assert theirs[name] == getattr(ours, name)
    assert tuple(theirs["left_out"]) == ours.left_out


@pytest.mark.parametrize("held", WRITTEN, ids=lambda held: held["name"])
def test_it_reads_what_was_written_before(held, tmp_path):
    data = base64.b85decode(held["file"])
    (tmp_path / "a").write_bytes(data)
    check(independent_reader.read_file(data), files.read(tmp_path / "a"))
    check(independent_reader.read_text(held["text"]), text.decode(held["text"]))


@pytest.mark.parametrize("store", DTYPES)
def test_it_reads_what_is_written_today(store, tmp_path):
    v = torch.linspace(-0.3, 0.4, 13).reshape(13, 1)
    contents = AdapterFile(
        v=v,
        config=config_of("qwen2", u=1, num_groups=None, seed=7, layers="late"),
        modules="0123456789abcdef",
        left_out=("model.layers.0.mlp.up_proj",),
        base="Qwen/Qwen2.5-7B-Instruct",
        revision="a09a35458c702b33eeacc393d103063234e8bc28",
        fingerprint="plain:" + "0123456789ab" * 3,
    )
    files.write(tmp_path / "a", contents, store)
    check(independent_reader.read_file((tmp_path / "a").read_bytes()), files.read(tmp_path / "a"))
    line = text.encode(contents, store)
    check(independent_reader.read_text(line), text.decode(line))


def test_it_refuses_a_changed_file(tmp_path):
    data = base64.b85decode(next(held["file"] for held in WRITTEN))
    contents = text.decode(WRITTEN[0]["text"])
    files.write(tmp_path / "a", contents)
    data = (tmp_path / "a").read_bytes()
    independent_reader.read_file(data)
    with pytest.raises(AssertionError):
        independent_reader.read_file(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(("u", "rank"), [(1, 2), (13, 2), (3, 8)])
def test_it_makes_the_same_projections(u, rank):
    name = "model.layers.3.mlp.down_proj"
    config = config_of("qwen2", u=u, rank=rank, seed=5)
    expected = projections(name, config).numpy()
    assert np.array_equal(independent_reader.projections(name, 5, u, rank), expected)


def test_it_is_short_and_independent():
    source = Path(independent_reader.__file__).read_text(encoding="utf-8")
    code = [line for line in source.splitlines() if line.strip()]
    assert len(code) <= 60
    assert "import torch" not in source
    assert "import tinylora" not in source
