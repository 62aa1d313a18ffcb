"""A whole training run: the base's accuracy, the loop, the adapter's file, the accuracy of that.

The final accuracy is measured on the adapter loaded back from its file: what the file holds is
what was measured.
"""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tinylora import distributed
from tinylora.adapter.files import DTYPES, Store, read, rounding
from tinylora.adapter.modules import LinearMap, linear_maps
from tinylora.algorithms.es import population_of, train_es
from tinylora.algorithms.grpo import train_grpo
from tinylora.algorithms.log import NoLog, RunLog
from tinylora.algorithms.sft import train_sft
from tinylora.algorithms.validation import Best, Validation
from tinylora.evaluate.exam import summaries
from tinylora.fsdp import check_processes, shard
from tinylora.methods import METHODS, Trained
from tinylora.models import evaluation_mode, place_of
from tinylora.policy import Policy, TinyLoraPolicy
from tinylora.rollout.engine import Engine
from tinylora.run.engines import EngineOf, open_engine
from tinylora.run.folder import (
    RunFolder,
    check_free,
    check_same_run,
    new_folder,
    write_config,
    write_json,
)
from tinylora.run.prepare import Job, prepare
from tinylora.run.report import draw_curve, end_table
from tinylora.run.tables import sharing_table
from tinylora.settings import TrainConfig, flatten
from tinylora.tasks.functions import RewardFunction
from tinylora.tasks.task import Task

ALGORITHMS = {
    "grpo": train_grpo,
    "sft": train_sft,
    "cma-es": train_es,
    "random-search": train_es,
}


def train(
    config: TrainConfig | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    task: Task | str | None = None,
    reward: RewardFunction | None = None,
    resume: bool = False,
    console: Console | None = None,
    base: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train, by what `config.method` and `config.algorithm` name, and write a run folder.

    Args:
        config: the settings; None: all defaults (the pocket model on the pocket task).
        model: a name, or a Transformers model that is already loaded; None: `config.model`
            (a loaded one is used as it is: `dtype` and `device` are its own).
        tokenizer: of a loaded model; None: the one that belongs to it.
        task: a name or a `Task`; None: `config.task`.
        reward: any function with TRL's signature; it then replaces the task's grader.
        resume: go on with the run in `config.output`.
        console: where progress and the table go.
        base: `summary["evaluations"]["base"]` of a run on the same model and problems,
            which is then not measured again.

    Returns:
        What `summary.json` holds, `output` (the run folder) among it. The model is as it was;
        `tinylora.load(model, summary["output"])` puts the adapter on.

    Raises:
        RequestError: a setting, a name or a folder is wrong; nothing was computed.
        TinyLoraError: it failed while running.
        KeyboardInterrupt: after Ctrl-C, with the checkpoint written.
    """
    start, config = time.monotonic(), config or TrainConfig()
    with distributed.joined():
        console = (console or Console()) if distributed.is_main() else Console(quiet=True)
        if config.output is not None and not resume:
            check_free(new_folder(config, ""))  # before a large model is loaded
        if config.fsdp:
            check_processes()
        job = prepare(config, model, tokenizer, task, reward)
        if config.params is not None:
            console.print(_sharing(job))
        return _run(job, resume, console, base, start)


def _run(
    job: Job, resume: bool, console: Console, known: Mapping[str, Any] | None, start: float
) -> dict[str, Any]:
    """From what was prepared to the summary; of several processes, the first one writes."""
    config = job.config
    folder = distributed.from_main(new_folder(config, job.task.name))
    check_same_run(folder, config) if resume else check_free(folder)
    distributed.wait()  # until every process has looked, nothing is written
    for note in job.task.notes:
        _say(console, note)
    seconds_before = _seconds_of_steps(folder)  # of a run that is resumed
    with (
        evaluation_mode(job.base.model),
        open_engine(job.config, job.base) as engine_of,
        ExitStack() as attached,
    ):
        policy = METHODS[config.method].attach(job.base.model, config)
        attached.callback(policy.detach)
        if config.fsdp:
            assert isinstance(policy, TinyLoraPolicy)  # as the settings have it
            shard(policy.adapter, place_of(config.device))
        try:
            before, saved, best = _train_and_save(
                job, policy, engine_of(policy), folder, resume, console, known
            )
        except KeyboardInterrupt:
            again = f'Go on with "tinylora train --resume --output {folder.path}".'
            raise KeyboardInterrupt(again) from None
        present = policy if config.fsdp else None  # split weights give no factors a second time
        if present is None:
            attached.close()
        _say(console, f"Measuring what {folder.path} holds ...")
        evaluations = {"base": before, "final": accuracy_of(job, engine_of, folder.path, present)}
        if best is not None:
            is_last = best.step == _num_steps(folder)  # then both files hold the same numbers
            same = evaluations["final"] if is_last else None
            evaluations["best"] = same or accuracy_of(job, engine_of, folder.best, present)
    seconds = seconds_before + time.monotonic() - start
    summary = summarise(job, folder, evaluations, saved, best, seconds)
    if distributed.is_main():
        write_json(folder.summary, summary)
        draw_curve(folder.metrics, summary, folder.curve)
    console.print(end_table(summary))
    _say(console, f"Run folder: {folder.path} (with curve.png and summary.json)")
    return summary


def base_accuracy(
    job: Job,
    engine: Engine,
    folder: RunFolder,
    console: Console,
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Greedy and sampled accuracy before training: measured once, then read from the folder."""
    if folder.base.is_file():
        known = json.loads(folder.base.read_text(encoding="utf-8"))
    base = distributed.from_main(known)
    if base is None:
        _say(console, f"Measuring the base model on {len(job.exam.problems)} test problems ...")
        base = _measure(job, engine)
    if distributed.is_main() and not folder.base.is_file():
        write_json(folder.base, base)
    return dict(base)


def accuracy_of(
    job: Job, engine_of: EngineOf, folder: Path, present: Trained | None = None
) -> dict[str, Any]:
    """The same for what the folder's files hold.

    Args:
        present: an adapter that is attached, and takes the file's numbers; None: the model is
            bare, and everything is built anew from the file.
    """
    if present is not None:
        present.load_state_dict({"v": read(folder).v})
        return _measure(job, engine_of(present))
    policy = METHODS[job.config.method].load(job.base.model, folder, job.config)
    try:
        return _measure(job, engine_of(policy))
    finally:
        policy.detach()


def summarise(
    job: Job,
    folder: RunFolder,
    evaluations: dict[str, dict[str, Any]],
    saved: "Saved",
    best: Best | None,
    seconds: float,
) -> dict[str, Any]:
    """What `summary.json` holds."""
    base, final = evaluations["base"], evaluations["final"]
    return {
        "model": job.base.name,
        "model_parameters": job.base.model.num_parameters(),
        "num_modules": len(_maps(job)),
        "task": job.task.name,
        "method": job.config.method,
        "algorithm": job.config.algorithm,
        "output": str(folder.path),
        "base_accuracy": base["greedy"]["accuracy"],
        "final_accuracy": final["greedy"]["accuracy"],
        "base_accuracy_sampled": base["sampled"]["accuracy"],
        "final_accuracy_sampled": final["sampled"]["accuracy"],
        "num_trainable": saved.num_trainable,
        **_shape(job, saved.num_trainable),
        "adapter_bytes": saved.num_trainable * DTYPES[job.config.store].itemsize,
        "file_bytes": saved.file_bytes,
        "store": job.config.store,
        "steps": _num_steps(folder),
        "rollouts_per_step": _rollouts_per_step(job.config, saved.num_trainable),
        "seconds": seconds,
        "best": None if best is None else _best_summary(job, best, evaluations["best"]),
        "evaluations": evaluations,
    }


def _best_summary(job: Job, best: Best, measured: dict[str, Any]) -> dict[str, Any]:
    """Which step validation chose, and what its file is worth on the test problems."""
    assert job.validation is not None
    return {
        "step": best.step,
        "validation_accuracy": best.accuracy,
        "num_validation_problems": len(job.validation.problems),
        "accuracy": measured["greedy"]["accuracy"],
        "accuracy_sampled": measured["sampled"]["accuracy"],
    }


@dataclass(frozen=True)
class Saved:
    """What training left behind."""

    num_trainable: int
    file_bytes: int


def _train_and_save(
    job: Job,
    policy: Trained,
    engine: Engine,
    folder: RunFolder,
    resume: bool,
    console: Console,
    known: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], Saved, Best | None]:
    """From the base model to the files of what was trained; returns the base's accuracy first."""
    store = job.config.store
    if distributed.is_main():
        write_config(folder, job.config)
    base = base_accuracy(job, engine, folder, console, known)
    validation = _validation(job, engine)
    _learn(job, policy, engine, folder, resume, console, validation)
    saved = Saved(policy.num_trainable, _save(policy, folder.path, store))
    if store != "fp32":
        trained = torch.cat([p.detach().flatten() for p in policy.parameters()])
        lost = rounding(trained, store).relative
        console.print(f"Stored in {store}: rounding moved v by {lost:.2%} of |v|.")
    best = None if validation is None else validation.best
    if best is not None:
        policy.load_state_dict(best.state)
        _save(policy, folder.best, store)
    return base, saved, best


def _save(policy: Trained, folder: Path, store: Store) -> int:
    """The bytes of the files, which are there for every process when this returns."""
    num_bytes = 0
    if distributed.is_main():
        folder.mkdir(exist_ok=True)
        num_bytes = policy.save(folder, store)
    return distributed.from_main(num_bytes)


def _rollouts_per_step(config: TrainConfig, num_trainable: int) -> int:
    """Completions that a step samples."""
    if config.algorithm in ("cma-es", "random-search"):
        return config.prompts_per_step * population_of(num_trainable, config)
    is_sampling = config.algorithm == "grpo" or config.references == "own"
    return config.prompts_per_step * config.samples_per_prompt * is_sampling


def _shape(job: Job, num_trainable: int) -> dict[str, Any]:
    """How the numbers are laid out, by method."""
    settings = job.config.adapter
    if job.config.has_factors:
        return {"u": settings.u, "num_groups": num_trainable // settings.u}
    return {"rank": settings.rank} if job.config.method in ("lora", "vera") else {}


def _validation(job: Job, engine: Engine) -> Validation | None:
    """Greedy accuracy on the problems that were held out, every `eval_every` steps."""
    exam, every = job.validation, job.config.eval_every
    if exam is None or every is None:
        return None
    return Validation(lambda: exam.greedy(engine).accuracy, every)


def _sharing(job: Job) -> Table:
    """How `params` was spent."""
    _, table = sharing_table(_maps(job), job.config.adapter)
    return table


def _maps(job: Job) -> list[LinearMap]:
    settings = job.config.adapter
    return linear_maps(job.base.model, settings.targets, settings.layers)


def _learn(
    job: Job,
    policy: Policy,
    engine: Engine,
    folder: RunFolder,
    resume: bool,
    console: Console,
    validation: Validation | None,
) -> None:
    settings = flatten(job.config)
    log = (
        NoLog()
        if not distributed.is_main()
        else RunLog(
            folder.path,
            job.config.steps,
            track=job.config.track,
            settings=settings,
            console=console,
        )
    )
    try:
        ALGORITHMS[job.config.algorithm](
            policy,
            engine,
            job.task,
            job.text,
            job.config,
            log,
            checkpoint_folder=folder.checkpoint,
            resume=resume,
            grade=job.grade,
            validation=validation,
        )
    finally:
        log.close()


def _measure(job: Job, engine: Engine) -> dict[str, Any]:
    return summaries(job.exam.both(engine))


def _num_steps(folder: RunFolder) -> int:
    return len(folder.metrics.read_text(encoding="utf-8").splitlines())


def _seconds_of_steps(folder: RunFolder) -> float:
    """What the steps before an interruption took."""
    if not folder.metrics.is_file():
        return 0.0
    lines = folder.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    return sum(float(json.loads(line)["seconds"]) for line in lines if line.endswith("\n"))


def _say(console: Console, sentence: str) -> None:
    console.print(sentence, soft_wrap=True, highlight=False, markup=False)
