"""`tinylora eval`: how good a base model or an adapter is, with controls or beside another one."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinylora.cli.options import Verb
from tinylora.errors import RequestError
from tinylora.settings import TASK_FIELDS, TASK_GROUPS, default_text
from tinylora.settings.evaluate import BASE, RECORDED, EvalConfig, eval_config

OWN = {name: f for name, f in EvalConfig.model_fields.items() if name not in TASK_FIELDS}
LOADING = ("dtype", "quantize", "device", "force")
VERB = Verb(
    name="eval",
    description="""\
Measure how good a model or an adapter is on a task: greedy (pass@1) and
sampled accuracy (mean@k, pass@k, majority@k where answers can be compared),
formats and lengths, with 95 % intervals. Settings that you leave out are those
of the adapter's run. With --compare, two adapters are tested against each other
on the same problems.""",
    examples="""\
  tinylora eval                                            the embedded base model
  tinylora eval --adapter runs/a --controls                a run, beside zero and random ones
  tinylora eval --adapter runs/a --compare base            a run against its base model
  tinylora eval --compare runs/a runs/b --json out.json    two runs, with every answer
  tinylora eval --model Qwen/Qwen2.5-0.5B --task gsm8k --eval-problems 200""",
    groups={
        "what is measured": {name: f for name, f in OWN.items() if name not in LOADING},
        "base model": {name: OWN[name] for name in LOADING},
        **TASK_GROUPS,
    },
    several=("compare",),
    spellings={
        "eval_problems": ("eval_problems", "problems"),
        "eval_samples": ("eval_samples", "samples"),
        "json_file": ("json",),
    },
    defaults={
        name: f"the run's, else {text}" for name in RECORDED if (text := default_text(OWN[name]))
    },
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    config = eval_config(with_pair(VERB.given(argv)))
    from rich.console import Console

    from tinylora.atomic import write_atomically
    from tinylora.cli.quiet import quieten
    from tinylora.evaluate.measure import base_name, measure
    from tinylora.evaluate.tables import tables

    quieten(base_name(config.model, config.adapters))
    result = measure(config)
    if config.json_file is not None:
        text = json.dumps(result, indent=1, default=str)
        write_atomically(Path(config.json_file), (text + "\n").encode())
    for table in tables(result):
        Console().print(table)


def with_pair(given: Mapping[str, Any]) -> dict[str, Any]:
    """`adapter` is what is measured, `compare` what it is tested against: a name each.

    Raises:
        RequestError: more than two adapters were named.
    """
    if "compare" not in given:
        return dict(given)
    named = [*([given["adapter"]] if "adapter" in given else []), *given["compare"]]
    if len(named) > 2:
        raise RequestError(
            f"{', '.join(named)} are {len(named)} adapters, but only two can be compared at a "
            "time. Use --adapter A --compare A2, or --compare A B."
        )
    first, second = [*named, BASE][:2]
    return {**given, "adapter": None if first == BASE else first, "compare": second}
