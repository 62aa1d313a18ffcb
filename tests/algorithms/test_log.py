"""The record of a run: files, terminal, trackers."""

import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from tinylora.algorithms.log import PhaseClock, RunLog, keep_steps
from tinylora.algorithms.trackers import open_tracker
from tinylora.errors import RequestError


def console(is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=200)


def metrics_at(step: int) -> dict[str, float]:
    return {"step": step, "reward": step / 10, "seconds": 3.0, "v_norm": 0.25}


def written(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def run_log(folder: Path, screen: Console, num_steps: int = 3) -> RunLog:
    log = RunLog(folder, 10, console=screen)
    for step in range(1, num_steps + 1):
        log.step(metrics_at(step), [{"step": step, "completion": "é"}])
    return log


def test_every_step_is_a_line_in_both_files(tmp_path: Path) -> None:
    run_log(tmp_path, console(False)).close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [metrics_at(step) for step in (1, 2, 3)]
    samples = (tmp_path / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert samples[0] == '{"step": 1, "completion": "é"}'


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    screen = console(False)
    run_log(tmp_path, screen).close()
    lines = written(screen).splitlines()
    assert lines[1] == "step 2/10  reward 0.200  |v| 0.250  3.0 s  ETA 0:00:24"
    assert len(lines) == 3


def test_a_live_bar_with_an_eta_on_a_terminal(tmp_path: Path) -> None:
    screen = console(True)
    run_log(tmp_path, screen).close()
    assert "3/10" in written(screen)
    assert "reward 0.300" in written(screen)
    assert "ETA 0:00:21" in written(screen)
    assert "\x1b[" in written(screen)


def test_resuming_drops_later_lines_and_a_line_cut_off(tmp_path: Path) -> None:
    run_log(tmp_path, console(False)).close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "rew')
    log = RunLog(tmp_path, 10, console=console(False))
    log.rewind(2)
    log.step(metrics_at(3), [])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    samples = (tmp_path / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in samples] == [1, 2]


def test_a_cut_off_line_that_reads_as_a_whole_one_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    keep_steps(path, 5)
    assert path.read_text() == '{"step": 1}\n'


def test_line_separators_inside_a_completion_do_not_end_a_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 10, console=console(False))
    log.step(metrics_at(1), [{"step": 1, "completion": "a\u2028b\x85c\nd"}])
    log.rewind(1)
    (line,) = (tmp_path / "samples.jsonl").read_bytes().splitlines()
    assert json.loads(line)["completion"] == "a\u2028b\x85c\nd"


def test_the_clock_adds_up_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 3.0, 4.0, 4.5, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = PhaseClock()
    for _ in range(2):
        with clock("rollout"):
            pass
    assert clock.metrics() == {"seconds": 10.0, "seconds_rollout": 2.5}


def test_tensorboard_gets_every_metric(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, 10, track="tensorboard", settings={"u": 13}, console=console(False))
    for step in (1, 2):
        log.step(metrics_at(step), [])
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rewards = [(event.step, round(event.value, 6)) for event in events.Scalars("reward")]
    assert rewards == [(1, 0.1), (2, 0.2)]
    assert "step" not in events.Tags()["scalars"]


@pytest.mark.filterwarnings("default")  # the tracker's own
def test_wandb_writes_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log = RunLog(tmp_path, 10, track="wandb", settings={"u": 13}, console=console(False))
    log.step(metrics_at(1), [])
    log.close()
    (record,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 60  # its own process writes the record
    while b"reward" not in record.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_trackio_writes_offline(tmp_path: Path) -> None:
    """In a process of its own: trackio reads where to write when it is first imported."""
    pytest.importorskip("trackio")
    code = (
        "import sys; from pathlib import Path; "
        "from tinylora.algorithms.trackers import open_tracker\n"
        "log, close = open_tracker('trackio', Path(sys.argv[1]), {'u': 13})\n"
        "log(1, {'reward': 0.25}); close()"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    (database,) = (tmp_path / "trackio").glob("tinylora*.db")
    with closing(sqlite3.connect(database)) as connection:
        (row,) = connection.execute("select step, metrics from metrics").fetchall()
    assert (row[0], json.loads(row[1])["reward"]) == (1, 0.25)


def test_a_tracker_that_is_not_logged_in_is_a_sentence(tmp_path: Path) -> None:
    """In a process of its own, without anybody's credentials."""
    pytest.importorskip("wandb")
    code = (
        "import sys; from pathlib import Path; "
        "from tinylora.algorithms.trackers import open_tracker\n"
        "try: open_tracker('wandb', Path(sys.argv[1]), {})\n"
        "except ValueError as error: print('said', error)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("said")]
    assert line.startswith("said track = wandb, but wandb did not start: ")
    assert line.endswith("Log in to wandb, or leave track out: metrics.jsonl has the same values.")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_tracker_names_the_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RequestError, match=rf'{name} is not installed .*pip install .*"{name}>='):
        open_tracker(name, tmp_path, {})


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r'track = "mlflow" is not a known tracker. Use one of'):
        open_tracker("mlflow", tmp_path, {})
