"""`tinylora train --dry-run`: what a run would be, without the weights of its model."""

from functools import partial

from rich.console import Console

from tinylora.adapter.files import DTYPES
from tinylora.adapter.sharing import sharing_note
from tinylora.cli.quiet import quieten
from tinylora.methods import method_of
from tinylora.models import (
    check_quantize,
    load_skeleton,
    load_tokenizer,
    place_of,
    resolved_dtype,
)
from tinylora.prompts import encode_problem, fitting
from tinylora.run.folder import check_folder, new_folder, recordable
from tinylora.run.memory import fitted, free_bytes, memory_table
from tinylora.run.module_tables import coverage_note, module_table, sharing_table
from tinylora.run.prepare import check_request, estimator, resolve_budget
from tinylora.settings import TrainConfig, flatten, settings_yaml
from tinylora.tasks import load_task


def show(config: TrainConfig, resume: bool) -> None:
    """Print settings, matched modules, the sharing table, the memory, and what the adapter weighs.

    Raises:
        RequestError: as the run itself would, for everything that shows without the weights.
    """
    quieten(config.model)
    task = load_task(config.task, config)
    check_quantize(config.model, config.quantize)
    model, tokenizer = load_skeleton(config.model), load_tokenizer(config.model)
    dtype, asked = resolved_dtype(config.dtype, config.device), config
    config = resolve_budget(config.model_copy(update={"dtype": dtype}), model)
    encode = partial(encode_problem, tokenizer, settings=config)
    budget = config.max_new_tokens or task.max_new_tokens
    task = fitting(task, model, encode, config, budget)
    maps = check_request(config, task, model, encode)
    folder = new_folder(config.output, task.name, config.seed)
    check_folder(folder, recordable(flatten(config)), resume)
    num_trainable = method_of(config.method).count(maps, config.adapter)
    console = Console()
    print(settings_yaml(flatten(config)))
    console.print(module_table(maps, f"{len(maps)} modules of {config.model} matched"))
    if config.has_factors:
        console.print(sharing_table(maps, config.adapter)[1])
    memory_of = estimator(config, task, model, encode)
    free = free_bytes(place_of(config.device))
    if free is not None and not config.fsdp:
        config = fitted(config, free, memory_of)
    console.print(memory_table(memory_of(config), config))
    sharing = "" if asked.params else sharing_note(asked.adapter, len(maps))
    coverage = coverage_note(model, maps)
    for note in filter(None, (*task.notes, sharing, coverage)):
        print(note)
    num_bytes = num_trainable * DTYPES[config.store].itemsize
    print(
        f"Trains {num_trainable} parameters: {num_bytes} bytes in {config.store}. Nothing was "
        "trained (--dry-run)."
    )
