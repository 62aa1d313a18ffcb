"""The real command, killed in the middle, ends with the bits of a run that was left alone."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from tinylora.adapter.files import read
from tinylora.cli import main


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_killed_command_resumes_to_the_same_adapter(small: list[str], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    argv = ["train", *small, "--steps=24", "--checkpoint-every=3"]
    with subprocess.Popen(
        [sys.executable, "-m", "tinylora", *argv, f"--output={killed}"], stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while num_lines(killed / "metrics.jsonl") < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert 5 <= num_lines(killed / "metrics.jsonl") < 24
    assert not (killed / "adapter.safetensors").exists()

    assert main(["train", "--resume", f"--output={killed}"]) == 0
    assert main([*argv, f"--output={whole}"]) == 0
    assert read(whole).v.any()
    files = [folder / "adapter.safetensors" for folder in (whole, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert num_lines(killed / "metrics.jsonl") == 24
