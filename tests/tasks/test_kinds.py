"""Which task reads which setting: derived from groups of settings, and true of the code."""

from contextlib import nullcontext
from typing import Any

import pytest

from tinylora.errors import RequestError
from tinylora.settings import CHAT_FIELDS, TASK_FIELDS, TaskConfig
from tinylora.settings.tasks import TASK_GROUPS
from tinylora.tasks import BUILT_IN, KINDS, _refuse_unread, kind_of, load_task
from tinylora.tasks.benchmarks import BENCHMARKS

OTHER: dict[str, Any] = {  # a value of each setting that is not its default
    "data": "nowhere", "prompt_template": "boxed", "reward_format": "lenient", "level": "3",
    "sources": ("X",), "test_sources": ("public",), "max_tests": 3, "max_test_bytes": 7,
    "min_tests": 2, "max_eval_tests": 9,
    "tests_seed": 1, "scheme": "binary", "factors": ("EASY=0.5",), "output_compare": "exact",
    "unsafe_no_sandbox": True, "difficulties": ("A",), "answer_format": "hash",
    "chat_template": "off", "enable_thinking": False, "long_prompts": "refuse",
}  # fmt: skip
EXAMPLES = {kind: kind for kind in BUILT_IN} | {
    "rg:leg_counting": "rg:NAME",
    "pens.jsonl": "rows of your own (data.jsonl)",
    "pens.JSON.gz": "rows of your own (data.jsonl)",
    "pens.parquet": "rows of your own (data.jsonl)",
    "my_task.py:make": "my_task.py:make",
}


def test_the_groups_together_are_all_settings() -> None:
    assert set(OTHER) == set(TASK_FIELDS)
    grouped = {name for group in TASK_GROUPS.values() for name in group.model_fields}
    assert grouped == set(TASK_FIELDS)
    assert CHAT_FIELDS == ("chat_template", "enable_thinking", "long_prompts")


def test_a_name_has_a_kind() -> None:
    assert {name: kind_of(name) for name in EXAMPLES} == EXAMPLES
    assert set(EXAMPLES.values()) == set(KINDS)


@pytest.mark.parametrize("setting", OTHER)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_setting_is_refused_exactly_where_the_kind_does_not_read_it(
    name: str, setting: str
) -> None:
    settings, kind = TaskConfig(**{setting: OTHER[setting]}), KINDS[kind_of(name)]
    if setting in (*kind.reads.model_fields, *CHAT_FIELDS):
        _refuse_unread(name, kind, settings)
        return
    readers = [known for known in KINDS if setting in KINDS[known].reads.model_fields]
    with pytest.raises(RequestError) as caught:
        load_task(name, settings)
    said = str(caught.value)
    assert said.startswith(f"{setting} = ")
    assert f"but task {name} does not read it: it is for {', '.join(readers)}. Leave" in said


class Watched:
    """Settings that note which of them are read."""

    def __init__(self, settings: TaskConfig) -> None:
        self.settings, self.read = settings, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self.settings, name)


@pytest.mark.parametrize("name", ["chains", *BENCHMARKS])
def test_what_a_task_reads_is_in_its_group(name: str) -> None:
    """Watched while it is made; data is nowhere, so that it ends at its rows."""
    watched = Watched(TaskConfig(data="nowhere"))
    with nullcontext() if name == "chains" else pytest.raises(RequestError, match="nowhere"):
        KINDS[name].make(name, watched)
    assert watched.read
    assert watched.read <= set(KINDS[name].reads.model_fields)
