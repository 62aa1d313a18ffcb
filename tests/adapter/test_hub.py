"""The hub that does not answer, and folders of its cache."""

from pathlib import Path

import httpx
import pytest
from huggingface_hub import constants
from torch import nn

from tinylora.adapter import hub
from tinylora.adapter.fingerprint import hub_snapshot, identity

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were asked, by a process that is online for all it knows."""
    addresses: list[str] = []
    monkeypatch.setattr(hub, "_asked", {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def head(address: str, timeout: float) -> None:
        addresses.append(address)
        assert timeout <= 5
        raise httpx.ConnectError("no such host")

    monkeypatch.setattr(httpx, "head", head)
    return addresses


def test_without_an_answer_libraries_are_offline_at_once(asked: list[str]) -> None:
    """It is asked once, not for each of a model's files."""
    for _ in range(3):
        with hub.offline_without_hub():
            assert constants.HF_HUB_OFFLINE
        assert not constants.HF_HUB_OFFLINE
    assert asked == [constants.ENDPOINT]


def test_with_an_answer_nothing_changes(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "head", lambda address, timeout: None)
    with hub.offline_without_hub():
        assert not constants.HF_HUB_OFFLINE


def test_a_snapshot_of_the_hub_keeps_its_id(tmp_path: Path) -> None:
    """Offline clusters load by this path; its last part is the commit."""
    folder = tmp_path / "models--Qwen--Tiny-Instruct" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    model = nn.Linear(1, 1)
    model.config = type("Config", (), {"_name_or_path": str(folder)})()  # type: ignore[assignment]
    assert identity(model) == ("Qwen/Tiny-Instruct", COMMIT)
    (tmp_path / "models--gpt2" / "snapshots" / COMMIT).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "models--gpt2" / "snapshots" / COMMIT)
    assert hub_snapshot(str(tmp_path / "link")) == ("gpt2", COMMIT)
    assert hub_snapshot(str(tmp_path)) is None
