"""`tinylora diff`: where a trained policy differs from its base model, token by token."""

import json
from collections.abc import Sequence
from pathlib import Path

from tinylora.cli.options import Verb
from tinylora.settings import TASK_FIELDS, TASK_GROUPS, default_text
from tinylora.settings.diff import DiffConfig, diff_config
from tinylora.settings.evaluate import RECORDED

OWN = {name: f for name, f in DiffConfig.model_fields.items() if name not in TASK_FIELDS}
LOADING = ("model", "dtype", "quantize", "device", "force")
VERB = Verb(
    name="diff",
    description="""\
Show where an adapter acts: one of the two models answers a task's problems,
both read the answers, and every token's place is compared: the KL, whether the
likeliest token is another one, and how the base had ranked the token whose
probability rose most. Settings that you leave out are those of the adapter's
run.""",
    examples="""\
  tinylora diff runs/a                            counts, over 128 test problems
  tinylora diff runs/a --html diff.html           and answers, coloured by the KL
  tinylora diff runs/a --answers base             where the base's answers would turn
  tinylora diff runs/a/snapshots/step-000001.safetensors --json one.json""",
    groups={
        "what is compared": {name: f for name, f in OWN.items() if name not in LOADING},
        "base model": {name: OWN[name] for name in LOADING},
        **TASK_GROUPS,
    },
    positional="adapter",
    spellings={"eval_problems": ("eval_problems", "problems"), "json_file": ("json",)},
    defaults={
        name: f"the run's, else {text}"
        for name in RECORDED
        if name in OWN and name not in ("eval_problems", "temperature")
        if (text := default_text(OWN[name]))
    },
)


def run(argv: Sequence[str]) -> None:
    """Run the verb."""
    config = diff_config(VERB.given(argv))
    from rich.console import Console

    from tinylora.atomic import write_atomically
    from tinylora.cli.quiet import quieten
    from tinylora.evaluate.diff import diff
    from tinylora.evaluate.diff_page import page, tables
    from tinylora.evaluate.measure import base_name

    quieten(base_name(config.model, [config.adapter]))
    figures, found = diff(config)
    if config.json_file is not None:
        text = json.dumps(figures, indent=1, ensure_ascii=False)
        write_atomically(Path(config.json_file), (text + "\n").encode())
    if config.html is not None:
        html = page(figures, found, config.shown)
        write_atomically(Path(config.html), html.encode())
    for table in tables(figures):
        Console().print(table)
    if config.html is not None:
        print(f"The answers are in {config.html}.")
