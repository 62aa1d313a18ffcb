"""A small run of the loop on the stand-ins; resumes what it finds in the folder it is given."""

import sys
from pathlib import Path

import torch

from standins import SteeringPolicy, low_token_task, text, tiny_model
from tinylora.config import TrainConfig
from tinylora.rollout.transformers import TransformersEngine
from tinylora.train.grpo import train_grpo
from tinylora.train.metrics import RunLog

CONFIG = TrainConfig(
    steps=10,
    checkpoint_every=2,
    prompts_per_step=6,
    samples_per_prompt=4,
    learning_rate=5e-2,
    num_iterations=2,
    kl_coef=0.01,
)


def main(folder: Path) -> None:
    policy = SteeringPolicy(tiny_model())
    engine = TransformersEngine(policy)
    log = RunLog(folder, CONFIG.steps)
    train_grpo(
        policy,
        engine,
        low_token_task(),
        text(),
        CONFIG,
        log,
        checkpoint_folder=folder / "checkpoint",
        resume=True,
    )
    torch.save(policy.v.detach(), folder / "v.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
