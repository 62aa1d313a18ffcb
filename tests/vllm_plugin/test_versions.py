"""Which versions of vLLM the plugin changes."""

import logging

import pytest

from tinylora import vllm_plugin


@pytest.mark.parametrize("found", ["0.32.0", "0.33.1", "0.32.0+cpu"])
def test_known_versions_are_changed(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_plugin, "vllm_version", lambda: found)
    assert vllm_plugin.version_problem() == ""


@pytest.mark.parametrize("found", ["0.31.0", "0.34.0", "1.0.0", "0.320.0"])
def test_an_unknown_version_is_left_alone_with_a_sentence(
    found: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vllm_plugin, "vllm_version", lambda: found)
    with caplog.at_level(logging.ERROR, "vllm.tinylora"):
        vllm_plugin.register()
    assert (
        f"vLLM {found} is not a version that the tinylora plugin knows (0.32, 0.33)" in caplog.text
    )


def test_without_vllm_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_plugin, "PACKAGES", ("a-package-that-is-not-there",))
    assert vllm_plugin.version_problem().startswith("vLLM is not installed")


def test_the_plugin_is_an_entry_point() -> None:
    """By the file that makes the package: an installed one may be older."""
    import tomllib
    from pathlib import Path

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    points = tomllib.loads(text)["project"]["entry-points"]["vllm.general_plugins"]
    assert points == {"tinylora": "tinylora.vllm_plugin:register"}
    assert callable(vllm_plugin.register)
