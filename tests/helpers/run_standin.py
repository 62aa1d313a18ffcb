"""A small run of the loop on the stand-ins; resumes what it finds in the folder it is given."""

import sys
from pathlib import Path

import torch

from helpers.standins import SteeringPolicy, low_token_task, run_of, text, tiny_model, train_in
from tinylora.algorithms.validation import Validation, hold_out
from tinylora.evaluate.exam import Exam
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import TrainConfig

CONFIG = TrainConfig(
    steps=10,
    checkpoint_every=2,
    prompts_per_step=6,
    samples_per_prompt=4,
    learning_rate=5e-2,
    num_iterations=2,
    kl_coef=0.01,
    eval_every=3,
    validation_problems=4,
)


def main(folder: Path) -> None:
    policy = SteeringPolicy(tiny_model())
    engine = TransformersEngine(policy)
    task, held_out = hold_out(low_token_task(), CONFIG)
    exam = Exam(task, text(), held_out, temperature=1.0, samples=1, seed=0)
    validation = Validation(lambda: exam.greedy(engine).accuracy, CONFIG.eval_every or 0)
    run = run_of(policy, CONFIG, task, engine)
    train_in(folder, run, CONFIG, resume=True, validation=validation)
    assert validation.best is not None
    best = {**validation.best.state, "step": validation.best.step}
    torch.save({"last": policy.v.detach(), **best}, folder / "v.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
