"""The examples run as they stand, at a fraction of their size (TRL's: test_trl.py)."""

import json
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from transformers.utils import logging as transformers_logging

from tinylora.cli import main
from tinylora.rewards.code.selftest import mechanism_for
from tinylora.rewards.code.toolbox import SandboxUnavailable

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / name))


def test_each_begins_with_its_command_and_what_to_expect() -> None:
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert f"examples/{path.name}" in text.split('"""')[1], path
        assert "xpect" in text.split('"""')[1], path
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert [name for name in names if f"({name})" not in listed] == []


def test_a_reward_pays_for_right_and_short_answers() -> None:
    reward = example("own_reward.py")["right_and_short"]
    completions = ["1+1=2\n#### 2", "#### 2", "#### 3", "2"]
    assert reward(completions, ["2"] * 4) == pytest.approx([0.97, 0.98, 0, 0])


def test_own_reward_trains_and_measures_with_the_grader(tmp_path: Path) -> None:
    run = tmp_path / "run"
    own = example("own_reward.py")
    assert own["main"](["--steps=1", "--prompts=4", "--problems=8", f"--output={run}"]) == 0
    (line,) = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["accuracy"] == 0 < json.loads(line)["reward"]
    measured = json.loads((run / "eval.json").read_text(encoding="utf-8"))
    assert "greedy" in json.dumps(measured)


def test_the_cpp_task_accepts_its_own_programs(capsys: pytest.CaptureFixture[str]) -> None:
    task = example("cpp_task.py")["make"]()
    assert [len(task.train), len(task.test)] == [2, 1]
    try:
        mechanism_for(False)
    except SandboxUnavailable as reason:
        pytest.skip(str(reason))
    assert main(["check-rewards", f"{EXAMPLES / 'cpp_task.py'}:make"]) == 0
    late = task.train[0].solution.replace("a + b", "a - b")
    verdicts = task.grade_many([task.train[0], task.train[0]], [late, "no program"])
    assert [verdict.score for verdict in verdicts] == [0.5, 0.0]


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A stand-in for a server with OpenAI's completions: it says who was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, **body})
            message = {"role": "assistant", "content": f" I am {body['model']}"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            said = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
            data = json.dumps({**said, "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}/v1", asked
    served.shutdown()
    thread.join()
    served.server_close()


def test_a_server_is_asked_as_base_and_as_adapter(server: Any) -> None:
    url, asked = server
    ask = example("ask_a_server.py")["main"]
    answers = ask([f"--url={url}", "--base=pocket", "--adapter=tl1:abc"])
    assert answers == {"pocket": " I am pocket", "tl1:abc": " I am tl1:abc"}
    assert {request["path"] for request in asked} == {"/v1/chat/completions"}
    assert [request["temperature"] for request in asked] == [0, 0]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells in order, in one namespace; nothing is left in it from a run."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    transformers_logging.disable_progress_bar()
    cells = json.loads((EXAMPLES / "pocket.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    names: dict[str, Any] = {}
    for cell in code:
        source = "".join(cell["source"])
        source = source.replace(
            "STEPS, PROBLEMS, POINTS = 10, 64, 13", "STEPS, PROBLEMS, POINTS = 1, 8, 3"
        )
        exec(compile(source, "pocket.ipynb", "exec"), names)
    assert names["STEPS"] == 1
    assert len(names["accuracies"]) == 3
    assert names["line"].startswith("tl1:")
    names["plt"].close("all")
