"""The one-line text: short, complete, and never taken for another adapter when mistyped."""

import base64
import string
import zlib
from dataclasses import replace

import pytest
import torch
from test_layer import logits

from helpers.tiny import config_of, model_of, tokens, values_like
from tinylora.adapter import attach, files, load, text
from tinylora.errors import RequestError
from tinylora.settings import AdapterConfig

REVISION = "a3f1c0de" * 5
UNUSUAL = "someone-with-a-name/Their-Own-Finetune-Model-v3.1-beta2"  # 55 characters


def trained(base="Qwen/Qwen2.5-7B-Instruct", revision=REVISION, **settings):
    model = model_of()
    model.config._name_or_path, model.config._commit_hash = base, revision
    adapter = attach(model, config_of(**{"u": 13, "num_groups": 1, **settings}))
    adapter.set_values(values_like(adapter.v))
    return model, adapter


def of(body):
    """A text with these bytes and the right checksum."""
    data = body + zlib.crc32(body).to_bytes(4, "little")
    return "tl1:" + base64.urlsafe_b64encode(data).decode().rstrip("=")


def body_of(line):
    digits = line.removeprefix("tl1:")
    return base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))[:-4]


def test_thirteen_numbers_in_bf16_are_at_most_160_characters():
    for base in ("Qwen/Qwen2.5-7B-Instruct", UNUSUAL):
        _, adapter = trained(base)
        assert len(adapter.to_text("bf16")) <= 160
    _, adapter = trained()
    assert len(adapter.to_text("bf16")) == 92
    assert len(adapter.to_text("fp32")) == 127


def test_two_modules_left_out_still_fit():
    _, adapter = trained("meta-llama/Llama-3.2-11B-Vision-Instruct")
    adapter.left_out += ["model.layers.17.mlp.up_proj", "model.layers.30.self_attn.k_proj"]
    line = adapter.to_text("bf16")
    assert len(line) <= 160
    assert text.decode(line).left_out == tuple(adapter.left_out)


@pytest.mark.parametrize("store", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"base": "", "revision": None},
        {"u": 1, "num_groups": None, "rank": 1},
        {"basis": "random", "seed": 3, "sharing": "structured", "num_groups": 3, "u": 2},
        {"targets": ("q_proj", "down_proj"), "layers": "0-1", "scale": False},
        {"projection": "identity", "u": 4, "subspace": "middle"},
        {"u": 2, "num_groups": None, "n_tie": 3},
    ],
)
def test_a_text_holds_what_the_file_holds(tmp_path, settings, store):
    _, adapter = trained(**settings)
    adapter.save(tmp_path / "a.safetensors", store)
    whole, told = files.read(tmp_path / "a.safetensors"), files.read(adapter.to_text(store))
    assert torch.equal(told.v, whole.v)
    assert told.v.dtype == whole.v.dtype
    assert whole.revision[:16] == told.revision
    assert whole.modules[:8] == told.modules
    assert replace(told, v=None, revision="", modules="") == replace(
        whole, v=None, revision="", modules=""
    )


def test_a_text_loads_as_a_file_does():
    model, adapter = trained()
    again = model_of()
    loaded = load(again, f"  {adapter.to_text()[:50]}\n{adapter.to_text()[50:]}\n")
    assert torch.equal(loaded.v, adapter.v)
    assert torch.equal(logits(again, tokens()), logits(model, tokens()))


def test_without_a_precision_it_is_the_smallest_that_loses_nothing():
    _, adapter = trained()
    stores = {"fp32": adapter.v.detach().clone()}
    stores |= {name: stores["fp32"].to(files.DTYPES[name]).float() for name in ("bf16", "fp16")}
    for store, values in stores.items():
        adapter.set_values(values)
        assert adapter.to_text() == adapter.to_text(store)
        assert torch.equal(text.decode(adapter.to_text()).v.float(), values)


def test_another_base_is_refused_for_a_text_too():
    _, adapter = trained()
    with pytest.raises(RequestError, match=r"tl1:\S+ was not trained on this .*rounded to bf"):
        load(model_of(dtype=torch.bfloat16), adapter.to_text())


def test_other_modules_are_refused_for_a_text_too():
    _, adapter = trained()
    adapter.modules_by_group[0].reverse()
    with pytest.raises(RequestError, match=r"\(in the file: hash \w{8}, here: hash \w{8}\)"):
        load(model_of(), adapter.to_text())


def test_any_one_mistyped_character_is_caught():
    _, adapter = trained()
    line = adapter.to_text("bf16")
    digits = string.ascii_letters + string.digits + "-_"
    for place in range(4, len(line)):
        wrong = (line[place].swapcase(), digits[digits.find(line[place]) - 1], *"Aa0_+/=,l1O")
        for character in {*wrong} - {line[place]}:
            mistyped = line[:place] + character + line[place + 1 :]
            with pytest.raises(RequestError, match=r"is a damaged text.* a character is mistyped"):
                text.decode(mistyped)


def test_a_character_that_is_none_of_ascii_s_is_caught():
    """A chat's own dash, a letter with an accent."""
    _, adapter = trained()
    line = adapter.to_text()
    for wrong in ("é", "\u2013", "\0"):
        with pytest.raises(RequestError, match="is a damaged text"):
            text.decode(line[:20] + wrong + line[21:])


def test_a_mistyped_beginning_is_no_adapter():
    _, adapter = trained()
    line = adapter.to_text()
    for place in range(4):
        for character in "x1:T":
            if character != line[place]:
                with pytest.raises(RequestError):
                    files.read(line[:place] + character + line[place + 1 :])


def test_two_neighbours_exchanged_or_something_missing_are_caught():
    _, adapter = trained()
    line = adapter.to_text("bf16")
    exchanged = [
        line[:i] + line[i + 1] + line[i] + line[i + 2 :]
        for i in range(4, len(line) - 1)
        if line[i] != line[i + 1]
    ]
    cut = [line[:i] for i in range(4, len(line))]
    left_out = [line[:i] + line[i + 1 :] for i in range(4, len(line) - 1)]
    for wrong in (*exchanged, *cut, *left_out, line + "A", line + "="):
        with pytest.raises(RequestError, match="is a damaged text"):
            text.decode(wrong)


def test_a_text_of_a_newer_version_says_so():
    _, adapter = trained()
    with pytest.raises(
        RequestError, match=r"version that this tinylora cannot read .*newer tinylora"
    ):
        files.read("tl2:" + adapter.to_text()[4:])
    newer = of(b"\x02" + body_of(adapter.to_text())[1:])
    with pytest.raises(RequestError, match="defaults of version 2, but this tinylora knows"):
        files.read(newer)


def test_a_setting_that_this_version_does_not_know_is_refused_by_name():
    _, adapter = trained()
    rest = {"config": {"future": 7}}
    body = body_of(adapter.to_text())
    _, after = text._decompress(body[2:])
    with pytest.raises(RequestError, match="future"):
        files.read(of(body[:2] + text._compress(rest) + after))


def test_a_setting_that_joined_later_is_written_whatever_its_default(monkeypatch):
    """A text without it is read with its default; one with it names it."""
    monkeypatch.delitem(text.DEFAULTS, "layers")
    _, adapter = trained()
    rest, _ = text._decompress(body_of(adapter.to_text())[2:])
    assert rest["config"] == {"layers": "all"}
    assert text.decode(adapter.to_text()).config == adapter.config


def test_a_text_that_something_else_wrote_is_refused():
    no_groups, no_numbers = text._compress({"config": {"num_groups": None}}), text._compress({})
    for rest in (b"", b"not deflate", no_groups, no_numbers, no_numbers + bytes(9)):
        with pytest.raises(RequestError, match=r"cannot be read .*another program wrote it"):
            files.read(of(b"\x01\x00" + rest))


def test_the_defaults_of_version_1_are_what_a_text_without_settings_means():
    """They stay, whatever the defaults of `AdapterConfig` become: 13 numbers, all tied."""
    assert AdapterConfig(u=13, num_groups=1).model_dump(mode="json") == {
        **text.DEFAULTS,
        "n_tie": None,
    }


def test_the_paper_s_thirteen_numbers_are_as_short():
    """u = 1 in 13 groups: six characters more for its two settings."""
    _, adapter = trained(u=1, num_groups=13)
    assert len(adapter.to_text("bf16")) == 98


def test_the_layout_is_frozen():
    """What was sent years ago is still read."""
    held = text.decode(FROZEN)
    assert held.config == AdapterConfig(u=3, num_groups=1, seed=7, layers="late")
    assert held.v.tolist() == [[0.5, -2.0, 0.125]]
    assert (held.base, held.revision) == ("Qwen/Qwen2.5-7B-Instruct", "a3f1c0dea3f1c0de")
    assert (held.modules, held.fingerprint) == ("01234567", "plain:00112233445566778899")
    assert held.left_out == ("model.layers.17.mlp.up_proj",)
    contents = replace(held, modules="0123456789abcdef", revision=REVISION)
    assert text.decode(text.encode(contents, "bf16")).config == held.config


FROZEN = "tl1:AQUjrAQ5UoGRaAzLK-boeasWT3I3NEdJ0LG1AAEjRWej8cDeo_HA3gA_AMAAPgARIjNEVWZ3iJl_OajB"
