"""Seconds of a GRPO step, here and in stock TRL with PEFT's TinyLoRA: the same job in one run.

    python benchmarks/step_time.py                    # fp32 for both, then each one's default
    python benchmarks/step_time.py --lengths fixed
    python benchmarks/step_time.py --model smollm2 --prompts 8 --dtype same

The job is the pocket model on its task, any other model on task tables: 32 prompts x 8 completions,
13 tied numbers, the same problems in the same order. With `natural` lengths each side samples to
the end token, from the same distribution, and the task rewards. With `fixed` lengths, the worst
case for this project, every completion has 40 tokens (no end token ends it) and the reward is a
coin, so that no row leaves a batch early and no group is dropped for want of variance. In the fp32
run TRL is spared the activation checkpointing that it has on by default. After a warm-up step, the
two sides take each step in turn, so that a machine busy with other things disturbs both alike;
medians are shown.
"""

import argparse
import hashlib
import os
import platform
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peft
import torch
import transformers
import trl
from datasets import Dataset
from peft import TinyLoraConfig
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

import tinylora
from tinylora.algorithms import make_step
from tinylora.algorithms.loop import Run
from tinylora.models import model_source
from tinylora.prompts import Text, encode_problem
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import SEVEN_MAPS, AdapterConfig, TrainConfig
from tinylora.tasks import load_task
from tinylora.tasks.draw import draw_problems
from tinylora.tasks.task import Task

PHASES = ("rollout", "grade", "learn")
FIXED_TOKENS = 40


def coin(gold: str, completion: str) -> Verdict:
    """Right for half of all completions, whatever they say."""
    return Verdict(float(hashlib.sha256(completion.encode()).digest()[0] % 2))


@dataclass
class Steps:
    """What one side took: seconds by phase of each timed step, and tokens sampled."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    tokens: list[float] = field(default_factory=list)

    def add(self, seconds: Mapping[str, float], num_tokens: float) -> None:
        for phase in (*PHASES, "step"):
            self.seconds[phase].append(seconds[phase])
        self.tokens.append(num_tokens)


class Ours:
    """This project's loop, a step at a time; fp32 is its default on a CPU."""

    def __init__(self, folder: Path, task: Task, args: argparse.Namespace) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.policy = tinylora.attach(model, AdapterConfig(u=13, num_groups=1))
        self.text = Text(
            lambda problem: encode_problem(tokenizer, problem),
            lambda words: list(tokenizer.encode(words, add_special_tokens=False)),
            lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
            () if args.lengths == "fixed" else (tokenizer.eos_token_id,),
        )
        self.config = TrainConfig(
            steps=args.steps + 1,
            prompts_per_step=args.prompts,
            samples_per_prompt=args.samples,
            normalizer="token",
            learning_rate=1e-3,
        )
        self.task, self.timed = task, Steps()
        config = self.config
        sampling = Sampling(config.temperature, task.max_new_tokens, self.text.eos_token_ids)
        engine = TransformersEngine(self.policy)
        run = Run(self.policy, engine, task, self.text, sampling, config.seed, config.steps)
        self.take_step = make_step(run, config.learning)

    def step(self, step: int) -> None:
        """Step `step`, counted from 0, which is the warm-up."""
        metrics, _ = self.take_step(step)
        if step > 0:
            phases = {phase: metrics[f"seconds_{phase}"] for phase in PHASES}
            num_tokens = round(metrics["rollouts"] * metrics["completion_length"])
            self.timed.add({**phases, "step": metrics["seconds"]}, num_tokens)


class TimedTrainer(GRPOTrainer):
    """TRL's trainer, unchanged, with a clock around its phases."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.clock: dict[str, float] = defaultdict(float)
        self.timed = Steps()
        super().__init__(*args, **kwargs)

    def _timed(self, phase: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        self.clock[phase] += time.perf_counter() - start
        return result

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        result = self._timed("rollout", lambda: GRPOTrainer._generate(self, *args, **kwargs))
        self.clock["tokens"] += sum(map(len, result[1]))
        return result

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        call = GRPOTrainer._calculate_rewards
        return self._timed("grade", lambda: call(self, *args, **kwargs))


class StepClock(transformers.TrainerCallback):
    """Notes each step of `TimedTrainer` but the first, then lets our side take the same step."""

    def __init__(self, ours: Ours) -> None:
        self.ours = ours
        self.trainer: TimedTrainer

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.trainer.clock.clear()
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds, clock = time.perf_counter() - self.start, self.trainer.clock
        if state.global_step > 1:
            learn = seconds - clock["rollout"] - clock["grade"]
            self.trainer.timed.add({**clock, "learn": learn, "step": seconds}, clock["tokens"])
        self.ours.step(state.global_step - 1)


def time_both(
    folder: Path, task: Task, args: argparse.Namespace, same_dtype: bool
) -> tuple[Steps, Steps]:
    """Steps of this project and of stock TRL with PEFT's TinyLoRA, in turn."""
    problems = [
        problem
        for step in range(args.steps + 1)
        for problem in draw_problems(task.train, args.prompts, 0, step)
    ]
    rows = [{"prompt": [{"role": "user", "content": p.prompt}], "gold": p.gold} for p in problems]

    def reward(completions: list[Any], gold: list[str], **columns: Any) -> list[float | None]:
        pairs = zip(gold, completions, strict=True)
        return [task.grade(answer, turn[0]["content"]).score for answer, turn in pairs]

    ours = Ours(folder, task, args)
    clock = StepClock(ours)
    trainer = TimedTrainer(
        model=str(folder),
        reward_funcs=reward,
        args=trl_settings(task, args, same_dtype),
        train_dataset=Dataset.from_list(rows),
        peft_config=TinyLoraConfig(r=2, u=13, weight_tying=1.0, target_modules=list(SEVEN_MAPS)),
        callbacks=[clock],
    )
    clock.trainer = trainer
    trainer.remove_callback(transformers.PrinterCallback)
    numbers = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    if numbers != 13:
        raise SystemExit(f"PEFT trains {numbers} numbers, so this would not be the same job.")
    trainer.train()
    return ours.timed, trainer.timed


def trl_settings(task: Task, args: argparse.Namespace, same_dtype: bool) -> GRPOConfig:
    """The job in TRL's words; what is not said here is its default."""
    fp32: dict[str, Any] = {
        "bf16": False,
        "gradient_checkpointing": False,
        "model_init_kwargs": {"dtype": "float32"},
    }
    return GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        max_steps=args.steps + 1,
        per_device_train_batch_size=args.prompts * args.samples,
        num_generations=args.samples,
        max_completion_length=task.max_new_tokens,
        generation_kwargs=(
            {"min_new_tokens": task.max_new_tokens} if args.lengths == "fixed" else None
        ),
        learning_rate=1e-3,
        shuffle_dataset=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        **(fp32 if same_dtype else {}),
    )


def table(title: str, ours: Steps, theirs: Steps) -> Table:
    """Median seconds by phase, and the median over steps of how many times longer TRL takes."""
    table = Table(title=title, title_justify="left")
    for column in ("phase", "tinylora, s", "TRL + PEFT, s", "ratio"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for phase in (*PHASES, "step"):
        pairs = list(zip(ours.seconds[phase], theirs.seconds[phase], strict=True))
        a, b = (median(side) for side in zip(*pairs, strict=True))
        table.add_row(phase, f"{a:.3f}", f"{b:.3f}", f"{median(b / a for a, b in pairs):.1f}x")
    table.add_row("tokens", f"{median(ours.tokens):.0f}", f"{median(theirs.tokens):.0f}", "")
    return table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pocket", help="pocket, smollm2, a folder, a GGUF file")
    parser.add_argument("--steps", type=int, default=5, help="timed steps; the median counts")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--lengths", choices=("natural", "fixed"), default="natural")
    parser.add_argument("--dtype", choices=("same", "default", "both"), default="both")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.disable_progress_bar()
    console = Console(width=100)
    task = load_task("pocket" if args.model == "pocket" else "tables")
    if args.lengths == "fixed":
        task = replace(task, grade=coin, max_new_tokens=FIXED_TOKENS)
    folder = Path(model_source(args.model))
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, "
    versions += f"TRL {trl.__version__}, PEFT {peft.__version__}"
    console.print(f"{args.model}: {args.prompts} x {args.samples} completions; {versions}")
    console.print(f"{platform.machine()}, {torch.get_num_threads()} threads")
    for dtype, title in (("same", "fp32 for both"), ("default", "each one's default")):
        if args.dtype not in (dtype, "both"):
            continue
        ours, theirs = time_both(folder, task, args, dtype == "same")
        console.print(table(f"{title}, {args.lengths} lengths", ours, theirs))


if __name__ == "__main__":
    main()
