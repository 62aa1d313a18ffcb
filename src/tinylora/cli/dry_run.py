"""`tinylora train --dry-run`: what a run would be, without the weights of its model."""

from rich.console import Console

from tinylora.adapter.modules import linear_maps
from tinylora.cli.quiet import quieten
from tinylora.config import TrainConfig, settings_yaml
from tinylora.models import check_context, load_skeleton
from tinylora.tasks import load_task
from tinylora.train.folder import check_free, check_same_run, new_folder
from tinylora.train.run import STORE_BYTES, resolve_budget
from tinylora.train.tables import module_table, sharing_table


def show(config: TrainConfig, resume: bool) -> None:
    """Print settings, matched modules, the sharing table, and what the adapter weighs.

    Raises:
        RequestError: as the run itself would, for everything that shows without the weights.
    """
    quieten(config.model)
    task = load_task(config.task)
    model = load_skeleton(config.model)
    config = resolve_budget(config, model)
    check_context(model, [], config.max_new_tokens or task.max_new_tokens)
    folder = new_folder(config, task.name)
    check_same_run(folder, config) if resume else check_free(folder)
    maps = linear_maps(model, config.adapter.targets, config.adapter.layers)
    num_groups, sharing = sharing_table(maps, config.adapter)
    num_trainable = num_groups * config.adapter.u
    console = Console()
    console.print(settings_yaml(config), highlight=False, markup=False)
    console.print(module_table(maps, f"{len(maps)} modules of {config.model} matched"))
    console.print(sharing)
    console.print(
        f"Trains {num_trainable} numbers: {num_trainable * STORE_BYTES[config.store]} bytes in "
        f"{config.store}. Nothing was trained (--dry-run)."
    )
