"""The table of benchmarks: each reads its own sample, by files of every name that it promises."""

import json
from pathlib import Path
from typing import Any

import pytest

from tinylora.settings import TaskConfig
from tinylora.tasks import BUILT_IN, load_task
from tinylora.tasks.benchmarks import BENCHMARKS

GOLDS = {
    "gsm8k": "7", "gsm8k_platinum": "7", "gsm_symbolic": "7", "gsm_symbolic_p1": "7",
    "gsm_symbolic_p2": "7", "math": "2", "math500": "2", "minerva": "2", "olympiadbench": "2, -2",
    "aime24": "2", "aime25": "2", "amc23": "7", "gaokao": "7", "collegemath": "7",
}  # fmt: skip


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_reads_its_own_sample_row(name: str) -> None:
    benchmark = BENCHMARKS[name]
    question = benchmark.read(benchmark.sample)
    assert question.gold == GOLDS[name]
    assert question.text in (benchmark.sample.get("question"), benchmark.sample.get("problem"))
    assert name in BUILT_IN


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("gsm8k_platinum", "gsm8k-platinum/test.jsonl"),
        ("gsm8k_platinum", "main/test-00000-of-00001.jsonl"),
        ("gsm_symbolic", "main/test.jsonl"),
        ("gsm_symbolic", "GSM_symbolic.jsonl"),
        ("gsm_symbolic_p1", "p1/test.jsonl"),
        ("gsm_symbolic_p1", "GSM_p1.jsonl"),
        ("gsm_symbolic_p2", "p2/test.jsonl"),
        ("aime25", "aime25.jsonl"),
        ("aime25", "test.jsonl"),
    ],
)
def test_files_are_found_under_the_names_of_the_hub(tmp_path: Path, name: str, file: str) -> None:
    write_rows(tmp_path / file, [BENCHMARKS[name].sample])
    task = load_task(name, TaskConfig(data=str(tmp_path)))
    assert [problem.gold for problem in task.test] == [GOLDS[name]]
    assert len(task.train) == 0


def test_the_parts_of_gsm_symbolic_are_not_mixed_up(tmp_path: Path) -> None:
    for place, part in enumerate(("main", "p1", "p2")):
        row = {"question": part, "answer": f"so\n#### {place}"}
        write_rows(tmp_path / part / "test.jsonl", [row])
        write_rows(tmp_path / f"GSM_{part.replace('main', 'symbolic')}.jsonl", [row])
    for place, name in enumerate(("gsm_symbolic", "gsm_symbolic_p1", "gsm_symbolic_p2")):
        task = load_task(name, TaskConfig(data=str(tmp_path)))
        assert [problem.gold for problem in task.test] == [str(place)]


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("033", "33"), (33, "33"), ("000", "0"), (r"336^\circ", "336"), (r"336^{\circ}", "336")],
)
def test_an_answer_of_aime_is_a_whole_number(answer: Any, gold: str) -> None:
    assert BENCHMARKS["aime25"].read({"problem": "p", "answer": answer}).gold == gold
