"""A whole training run: the base's accuracy, the loop, the adapter's file, the accuracy of that.

The final accuracy is measured on the adapter loaded back from its file: what the file holds is
what was measured.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tinylora import distributed
from tinylora.adapter.files import Store, read, rounding
from tinylora.algorithms import make_step, snapshots
from tinylora.algorithms.log import NoLog, RunLog
from tinylora.algorithms.loop import Loop, Outcome, Run, run_steps
from tinylora.algorithms.snapshots import Snapshots
from tinylora.algorithms.validation import Best, Validation
from tinylora.evaluate.exam import summaries
from tinylora.fsdp import check_processes, shard
from tinylora.methods import method_of
from tinylora.models import evaluation_mode, place_of
from tinylora.plotting import can_draw, no_drawing
from tinylora.policy import Policy, adapter_of
from tinylora.rollout.engine import Engine
from tinylora.run.engines import EngineOf, open_engine
from tinylora.run.folder import (
    RunFolder,
    check_folder,
    check_free,
    discard,
    new_folder,
    recordable,
    write_json,
)
from tinylora.run.module_tables import coverage_note, sharing_table
from tinylora.run.origin import check_origin, origin_of
from tinylora.run.prepare import Prepared, linear_layers, prepare
from tinylora.run.report import draw_curve, end_table, start_line
from tinylora.run.summary import Saved, summarise
from tinylora.settings import TrainConfig, flatten, settings_yaml
from tinylora.tasks.functions import Reward
from tinylora.tasks.task import Task


def train(
    config: TrainConfig | None = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    task: Task | str | None = None,
    reward: Reward | None = None,
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
        resume: continue the run in `config.output`.
        console: where progress and the table go.
        base: `summary["evaluations"]["base"]` of the same model and problems, then not measured.

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
            check_free(RunFolder(Path(config.output)))  # before a large model is loaded
        if config.fsdp:
            check_processes()
        prepared = prepare(config, model, tokenizer, task, reward)
        folder = distributed.from_main(new_folder(config.output, prepared.task.name, config.seed))
        settings = recordable(flatten(prepared.config))
        check_folder(folder, settings, resume)
        distributed.wait()  # until every process has looked, nothing is written
        with folder.locked() if distributed.is_main() else nullcontext():
            if distributed.is_main():
                check_folder(folder, settings, resume)  # nobody has been faster
            origin = origin_of(prepared)
            notes = check_origin(folder, origin, prepared.config) if resume else []
            course = Course(prepared, folder, console, start - folder.seconds_before(), origin)
            for note in notes:
                course.say(note)
            if config.params is not None:
                console.print(sharing_table(linear_layers(prepared), prepared.config.adapter)[1])
            return course.run(resume, base)


@dataclass
class Course:
    """One run from what was prepared to the summary; of several processes, the first one writes.

    Args:
        start: on the monotonic clock, as if the run had never been interrupted.
        origin: what a new run begins with, for its record.
    """

    prepared: Prepared
    folder: RunFolder
    console: Console
    start: float
    origin: Mapping[str, Any]

    @property
    def config(self) -> TrainConfig:
        return self.prepared.config

    def run(self, resume: bool, base: Mapping[str, Any] | None) -> dict[str, Any]:
        """Attach, train, save, measure what was saved, report."""
        for note in self.prepared.task.notes:
            self.say(note)
        model = self.prepared.base.model
        with (
            evaluation_mode(model),
            open_engine(self.config, self.prepared.base) as engine_of,
            ExitStack() as attached,
        ):
            policy = self.attach()
            attached.callback(policy.detach)
            self.say(start_line(self.prepared, policy, self.folder.path))
            if covered := coverage_note(model, linear_layers(self.prepared)):
                self.say(covered)
            measured, outcome, saved = self.train(policy, engine_of(policy), resume, base)
            if not self.config.fsdp:  # split weights give no factors a second time
                attached.close()
            present = policy if self.config.fsdp else None
            measured |= self.measure_files(saved.best, outcome, engine_of, present)
            self.measure_snapshots(engine_of, present)
        return self.report(measured, saved, outcome)

    def attach(self) -> Policy:
        """The policy on the base model, whose blocks are split where the settings say so."""
        policy = method_of(self.config.method).attach(self.prepared.base.model, self.config.adapter)
        if self.config.fsdp:
            shard(adapter_of(policy, "fsdp"), place_of(self.config.device))
        return policy

    def train(
        self, policy: Policy, engine: Engine, resume: bool, base: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], Outcome, Saved]:
        """From the base model to the files of what was trained."""
        if distributed.is_main():
            self.folder.write_config(settings_yaml(recordable(flatten(self.config))))
            if not resume:
                write_json(self.folder.origin, self.origin)
        try:
            with ExitStack() as opened:
                log = self.open_log()  # a tracker may not start: better now than after the base
                opened.callback(log.close)
                measured = {"base": self.base_accuracy(engine, base)}
                validation = self.validation(engine)
                outcome = self.learn(policy, engine, log, resume, validation)
        except KeyboardInterrupt:
            again = f'Resume it with "tinylora train --resume --output {self.folder.path}".'
            raise KeyboardInterrupt(again) from None
        except Exception:
            if distributed.is_main() and not resume and not self.folder.base.is_file():
                discard(self.folder)  # nothing was measured: the next try may have the folder
            raise
        return measured, outcome, self.save(policy, validation.best if validation else None)

    def learn(
        self,
        policy: Policy,
        engine: Engine,
        log: RunLog | NoLog,
        resume: bool,
        validation: Validation | None,
    ) -> Outcome:
        """Take the algorithm's steps."""
        config, prepared = self.config, self.prepared
        run = Run(
            policy,
            engine,
            prepared.task,
            prepared.text,
            prepared.sampling,
            config.seed,
            config.steps,
        )
        loop = Loop(
            config,
            config.checkpoint_every,
            self.folder.checkpoint,
            log,
            resume,
            validation,
            self.snapshots(),
        )
        return run_steps(policy, make_step(run, config.learning), loop)

    def open_log(self) -> RunLog | NoLog:
        if not distributed.is_main():
            return NoLog()
        settings, console = flatten(self.config), self.console
        steps, track = self.config.steps, self.config.track
        return RunLog(self.folder.path, steps, track=track, settings=settings, console=console)

    def validation(self, engine: Engine) -> Validation | None:
        """Greedy accuracy on the problems that were held out, every `eval_every` steps."""
        exam, every = self.prepared.validation, self.config.eval_every
        if exam is None or every is None:
            return None
        return Validation(lambda: exam.greedy(engine).accuracy, every)

    def snapshots(self) -> Snapshots | None:
        """The adapter's file after steps 1, 2, 4, 8, ..., where the settings ask for it."""
        if not self.config.snapshots:
            return None
        return Snapshots(self.folder.snapshots, self.config.store, writes=distributed.is_main())

    def save(self, policy: Policy, best: Best | None) -> Saved:
        """Write the files of what was trained, and of what validation found best."""
        store = self.config.store
        num_bytes = self.write(policy, self.folder.path)
        if store != "fp32":
            trained = torch.cat([p.detach().flatten() for p in policy.parameters()])
            lost = rounding(trained, store).relative
            self.say(f"Stored in {store}: rounding moved v by {lost:.2%} of |v|.")
        if best is not None:
            policy.load_state_dict(best.state)
            self.write(policy, self.folder.best)
        return Saved(policy.num_trainable, num_bytes, best)

    def write(self, policy: Policy, place: Path) -> int:
        """The bytes of the files, which are there for every process when this returns."""
        store: Store = self.config.store
        num_bytes = 0
        if distributed.is_main():
            place.mkdir(exist_ok=True)
            num_bytes = policy.save(place, store)
        return distributed.from_main(num_bytes)

    def base_accuracy(self, engine: Engine, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """Greedy and sampled accuracy before training: measured once, then read from the folder."""
        held = self.folder.measured_base()
        base = distributed.from_main(known if held is None else held)
        if base is None:
            count = len(self.prepared.exam.problems)
            self.say(f"Measuring the base model on {count} test problems ...")
            base = self.measure(engine)
        if distributed.is_main() and held is None:
            write_json(self.folder.base, base)
        return dict(base)

    def measure_files(
        self, best: Best | None, outcome: Outcome, engine_of: EngineOf, present: Policy | None
    ) -> dict[str, Any]:
        """The accuracies of the files: `final`, and `best` where validation chose one."""
        self.say(f"Measuring what was saved in {self.folder.path} ...")
        measured = {"final": self.measure_file(self.folder.path, engine_of, present)}
        if best is not None and best.step == outcome.steps and outcome.stopped != "no signal":
            measured["best"] = measured["final"]  # both files hold the same parameters
        elif best is not None:
            measured["best"] = self.measure_file(self.folder.best, engine_of, present)
        return measured

    def measure_file(
        self, place: Path, engine_of: EngineOf, present: Policy | None
    ) -> dict[str, Any]:
        """The accuracies of what a folder's files hold, or a single file.

        Args:
            present: a policy that is attached, and takes the file's parameters; None: the model is
                bare, and everything is built anew from the file.
        """
        if present is not None:
            present.load_state_dict({"v": read(place).v})
            return self.measure(engine_of(present))
        method = method_of(self.config.method)
        policy = method.load(self.prepared.base.model, place, self.config.adapter)
        try:
            return self.measure(engine_of(policy))
        finally:
            policy.detach()

    def measure_snapshots(self, engine_of: EngineOf, present: Policy | None) -> None:
        """The figures of every snapshot that has none yet, beside it."""
        for path in distributed.from_main([*snapshots.found(self.folder.snapshots).values()]):
            if distributed.from_main(snapshots.figures(path).is_file()):
                continue
            self.say(f"Measuring {path} ...")
            measured = self.measure_file(path, engine_of, present)
            if distributed.is_main():
                write_json(snapshots.figures(path), measured)

    def measure(self, engine: Engine) -> dict[str, Any]:
        return summaries(self.prepared.exam.both(engine))

    def report(self, measured: dict[str, Any], saved: Saved, outcome: Outcome) -> dict[str, Any]:
        """Write and show what came of it."""
        seconds = time.monotonic() - self.start
        summary = summarise(self.prepared, self.folder, measured, saved, outcome, seconds)
        if distributed.is_main():
            write_json(self.folder.summary, summary)
            if can_draw():
                draw_curve(self.folder.metrics, summary, self.folder.curve)
            else:
                self.say(no_drawing(self.folder.curve.name))
        self.console.print(end_table(summary))
        curve = " and curve.png" if can_draw() else ""
        self.say(f"Run folder: {self.folder.path} (with summary.json{curve})")
        return summary

    def say(self, sentence: str) -> None:
        self.console.print(sentence, soft_wrap=True, highlight=False, markup=False)
