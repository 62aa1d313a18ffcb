"""Adapter files: small, atomic, complete, and clear about what is wrong with them."""

import json
import math
import struct
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_layer import logits

import tinylora.adapter.files as files
from helpers.tiny import config_of, model_of, tokens, values_like
from tinylora.adapter import attach, load
from tinylora.errors import RequestError
from tinylora.pocket import model_folder


def trained(**settings):
    model = model_of()
    adapter = attach(model, config_of(**settings))
    adapter.set_values(values_like(adapter.v))
    return model, adapter


@pytest.mark.parametrize("settings", [{}, {"basis": "random", "seed": 3}, {"num_groups": None}])
def test_a_loaded_adapter_gives_the_same_logits(tmp_path, settings):
    model, adapter = trained(**settings)
    adapter.save(tmp_path / "a.safetensors")
    expected = logits(model, tokens())
    again = model_of()
    loaded = load(again, tmp_path / "a.safetensors")
    assert torch.equal(logits(again, tokens()), expected)
    assert loaded.config == adapter.config
    assert loaded.v.requires_grad


@pytest.mark.parametrize(
    ("store", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_v_is_stored_in_the_precision_asked_for_and_the_cost_is_known(tmp_path, store, dtype):
    _, adapter = trained()
    adapter.save(tmp_path / "a.safetensors", store)
    stored = files.read(tmp_path / "a.safetensors").v
    assert stored.dtype == dtype
    assert torch.equal(stored, adapter.v.detach().to(dtype))
    cost = adapter.rounding(store)
    error = (stored.double() - adapter.v.detach().double()).abs()
    assert cost.max_abs == pytest.approx(float(error.max()))
    assert cost.relative == pytest.approx(float(error.norm() / adapter.v.detach().double().norm()))
    assert (cost.relative == 0) is (store == "fp32")


def test_a_loaded_v_is_trained_in_fp32(tmp_path):
    _, adapter = trained()
    adapter.save(tmp_path / "a.safetensors", "bf16")
    assert load(model_of(), tmp_path / "a.safetensors").v.dtype == torch.float32


def test_thirteen_numbers_of_a_hub_model_take_less_than_a_kilobyte(tmp_path):
    model = model_of()
    model.config._name_or_path = "Qwen/Qwen2.5-Coder-32B-Instruct"
    model.config._commit_hash = "a" * 40
    adapter = attach(model, config_of(u=13, num_groups=1))
    size = adapter.save(tmp_path / "a.safetensors")
    assert size == (tmp_path / "a.safetensors").stat().st_size
    contents = replace(files.read(tmp_path / "a.safetensors"), fingerprint="f" * 64)
    assert files.write(tmp_path / "b.safetensors", contents) <= 1024
    assert contents.base == "Qwen/Qwen2.5-Coder-32B-Instruct"
    assert contents.revision == "a" * 40


def test_a_file_says_nothing_of_the_folders_of_the_machine_that_wrote_it(tmp_path):
    model = model_of()
    model.config._name_or_path = str(tmp_path)
    attach(model, config_of()).save(tmp_path / "a.safetensors")
    assert files.read(tmp_path / "a.safetensors").base == tmp_path.name


def test_the_packaged_model_is_called_pocket_by_its_path_too(tmp_path):
    model = model_of()
    model.config._name_or_path = str(model_folder())
    attach(model, config_of()).save(tmp_path / "a.safetensors")
    assert files.read(tmp_path / "a.safetensors").base == "pocket"


def test_equal_adapters_are_equal_bytes_and_a_write_leaves_nothing_beside_itself(tmp_path):
    _, adapter = trained()
    adapter.save(tmp_path / "run" / "a.safetensors")
    first = (tmp_path / "run" / "a.safetensors").read_bytes()
    adapter.save(tmp_path / "run" / "a.safetensors")
    assert (tmp_path / "run" / "a.safetensors").read_bytes() == first
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["a.safetensors"]


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    _, adapter = trained()
    path = tmp_path / "a.safetensors"
    adapter.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        adapter.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.safetensors*")) == [path]


def test_the_layout_is_frozen(tmp_path):
    """One tensor and one metadata entry: what other readers may rely on."""
    _, adapter = trained()
    adapter.save(tmp_path / "a.safetensors", "bf16")
    data = (tmp_path / "a.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header["v"] == {"dtype": "BF16", "shape": [4, 3], "data_offsets": [0, 24]}
    meta = json.loads(header["__metadata__"]["tinylora"])
    assert meta["modules"] == "07c174575fe3c4b5"
    assert meta.pop("config")["u"] == 3
    assert meta.pop("checksum") == "e371439870f3f5e0"
    assert meta == {
        "base": "",
        "fingerprint": "plain:aa726c71d577539c796766d5b3d5a1911ee4",
        "format": 1,
        "left_out": [],
        "modules": meta["modules"],
        "revision": "",
    }


def test_a_run_folder_is_as_good_as_its_file(tmp_path):
    model, adapter = trained()
    adapter.save(tmp_path / "adapter.safetensors")
    again = model_of()
    load(again, tmp_path)
    assert torch.equal(logits(again, tokens()), logits(model, tokens()))


def test_what_is_saved_to_a_folder_is_loaded_from_it(tmp_path):
    _, adapter = trained()
    size = adapter.save(tmp_path)
    assert size == (tmp_path / "adapter.safetensors").stat().st_size
    assert torch.equal(load(model_of(), tmp_path).v, adapter.v)


def test_a_missing_adapter_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"No adapter was found at .*nowhere"):
        load(model_of(), tmp_path / "nowhere")
    with pytest.raises(RequestError, match=r"No adapter was found at .*adapter\.safetensors"):
        load(model_of(), tmp_path)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    _, adapter = trained()
    path = tmp_path / "a.safetensors"
    adapter.save(path)
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-8], "noise": b"\xff" * 99, "empty": b""}[damage])
    with pytest.raises(RequestError, match="cannot be read as safetensors"):
        load(model_of(), path)


def test_another_safetensors_file_is_refused(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "w.safetensors")
    with pytest.raises(RequestError, match="not a TinyLoRA adapter: it contains weight"):
        load(model_of(), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"format": 2}', "has format 2, but this version reads format 1"),
        ('{"format": 1}', "settings cannot be read"),
        ("not json", "settings cannot be read"),
    ],
)
def test_settings_that_cannot_be_read_are_refused(tmp_path, text, match):
    save_file({"v": torch.ones(1, 1)}, tmp_path / "a.safetensors", {"tinylora": text})
    with pytest.raises(RequestError, match=match):
        load(model_of(), tmp_path / "a.safetensors")


@pytest.mark.parametrize("v", [torch.ones(13), torch.ones(1, 13, dtype=torch.int64)])
def test_a_v_that_is_no_matrix_of_floats_is_refused(tmp_path, v):
    _, adapter = trained()
    adapter.save(tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        metadata = file.metadata()
    save_file({"v": v}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(
        RequestError, match=r"contains a v of shape \(.* in torch\.\w+, but an adapter's"
    ):
        files.read(tmp_path / "a.safetensors")


def test_a_setting_that_this_version_does_not_know_is_refused_with_the_file_s_name(tmp_path):
    _, adapter = trained()
    adapter.save(tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data.replace(b"sharing", b"sherry?"))
    with pytest.raises(
        RequestError, match=r"a\.safetensors has settings .* sherry\? is not a setting"
    ):
        files.read(tmp_path / "a.safetensors")


def test_a_folder_that_peft_wrote_is_called_so(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(RequestError, match=r"was written by PEFT.*tinylora import"):
        files.read(tmp_path)


def test_an_adapter_of_other_modules_is_refused_and_the_model_left_bare(tmp_path):
    """The weights are the base's, but the names are not."""
    _, adapter = trained(targets=("q_proj", "o_proj"))
    adapter.save(tmp_path / "a.safetensors")
    contents = files.read(tmp_path / "a.safetensors")
    files.write(tmp_path / "a.safetensors", replace(contents, modules="0123456789abcdef"))
    model = model_of()
    match = r"model: different modules or groups \(in the file: hash 0123456789abcdef, here: ha"
    with pytest.raises(RequestError, match=match):
        load(model, tmp_path / "a.safetensors")
    with pytest.warns(UserWarning, match="loaded anyway"):
        loaded = load(model, tmp_path / "a.safetensors", force=True)
    assert torch.equal(loaded.v, adapter.v)


def test_a_v_that_does_not_fit_its_settings_is_refused(tmp_path):
    _, adapter = trained()
    adapter.save(tmp_path / "a.safetensors")
    contents = files.read(tmp_path / "a.safetensors")
    files.write(tmp_path / "a.safetensors", replace(contents, v=torch.ones(4, 2)))
    model = model_of()
    match = r"this model: different shape of v \(in the file: \(4, 2\), here: \(4, 3\)\)\. Its"
    for force in (False, True):
        with pytest.raises(RequestError, match=match) as refused:
            load(model, tmp_path / "a.safetensors", force=force)
        assert "--force" not in str(refused.value)  # it would not help
    attach(model, config_of())


def test_other_modules_left_out_are_named(tmp_path):
    _, adapter = trained()
    adapter.left_out.append("model.layers.0.mlp.up_proj")
    adapter.save(tmp_path / "a.safetensors")
    match = (
        r"different modules left out \(in the file: model\.layers\.0\.mlp\.up_proj, here: none\)\. "
    )
    with pytest.raises(RequestError, match=match):
        load(model_of(), tmp_path / "a.safetensors")


def test_numbers_that_cannot_be_stored_are_refused(tmp_path):
    _, adapter = trained()
    adapter.set_values(torch.full_like(adapter.v, 1e5))
    with pytest.raises(RequestError, match="v is not finite in fp16"):
        adapter.save(tmp_path / "a.safetensors", "fp16")
    with pytest.raises(RequestError, match="store = 'fp8'"):
        adapter.save(tmp_path / "a.safetensors", "fp8")


def edited(path, before, after):
    """The file with some bytes of its settings replaced, as many as there were."""
    data = path.read_bytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'\\"seed\\":0', b'\\"seed\\":1'),
        (b'\\"rank\\":2', b'\\"rank\\":3'),
        (b"aa726c71", b"aa726c72"),
        (b"someone/base", b"someone/bass"),
        (b'\\"scale\\":true', b'\\"scale\\":null'),
        (b'"BF16"', b'"F16" '),
        (b"[4,3]", b"[3,4]"),
    ],
)
def test_an_edited_header_is_refused(tmp_path, before, after):
    model = model_of()
    model.config._name_or_path = "someone/base"
    path = tmp_path / "a.safetensors"
    attach(model, config_of()).save(path, "bf16")
    edited(path, before, after)
    with pytest.raises(
        RequestError, match=r"a\.safetensors (is damaged or was edited|has settings)"
    ):
        files.read(path)


def test_any_flipped_bit_of_the_file_is_refused_or_changes_nothing(tmp_path):
    """What it changes nothing of: the spelling of the checksum's own name, and padding."""
    _, adapter = trained()
    path = tmp_path / "a.safetensors"
    adapter.save(path)
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            held = files.read(path)
        except RequestError:
            continue
        assert torch.equal(held.v, adapter.v)
        assert held.config == adapter.config
        assert held.fingerprint == adapter.fingerprint


def test_a_file_without_a_checksum_loads_as_before(tmp_path):
    """Those of earlier versions; what they say is still checked against the model."""
    _, adapter = trained()
    path = tmp_path / "a.safetensors"
    adapter.save(path)
    with safe_open(path, framework="pt") as file:
        meta, v = json.loads(file.metadata()["tinylora"]), file.get_tensor("v")
    del meta["checksum"]
    save_file({"v": v}, path, {"tinylora": json.dumps(meta)})
    assert torch.equal(load(model_of(), path).v, adapter.v)
    meta["config"]["u"] = 10**9
    save_file({"v": v}, path, {"tinylora": json.dumps(meta)})
    match = r"this model: different shape of v \(in the file: \(4, 3\), here: \(4, 1000000000\)\)"
    with pytest.raises(RequestError, match=match):  # before a matrix for each of them is made
        load(model_of(), path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path, value):
    _, adapter = trained()
    adapter.save(tmp_path / "a.safetensors")
    contents = files.read(tmp_path / "a.safetensors")
    meta = {"format": 1, "config": contents.config.model_dump(mode="json"), "modules": "",
            "left_out": [], "base": "", "revision": "", "fingerprint": ""}  # fmt: skip
    v = contents.v.clone()
    v[1, 2] = value
    save_file({"v": v}, tmp_path / "a.safetensors", {"tinylora": json.dumps(meta)})
    with pytest.raises(RequestError, match=r"a\.safetensors contains a v with inf or nan"):
        load(model_of(), tmp_path / "a.safetensors")
