"""Can 13 numbers turn this model? `python recipes/pocket/model/probe.py MODEL` says so in a minute.

Sixty supervised steps on careful solutions train v; then it prints the careful share (the
probability of the careful opening, averaged over test problems) and the latent accuracy (right,
given that opening) before and after, for several seeds of the projections and of the problems. A
pre-training recipe is kept when the mean careful share reaches 0.75 and the mean latent accuracy
stays at 0.85 or more.
"""

import argparse
import statistics
from typing import Any

import torch

from tinylora.adapter import AdapterConfig, TinyLora, attach
from tinylora.algorithms.batching import Sample, collate, completion_logprobs, pack
from tinylora.models import load_model
from tinylora.prompts import text_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.tasks import pocket as pocket_task
from tinylora.tasks.task import Problem, Task

SHARE_WANTED, LATENT_WANTED = 0.75, 0.85


class Probe:
    """One base model, its tokens for the test problems, and the two measures."""

    def __init__(self, model: str, num_problems: int) -> None:
        self.base = load_model(model)
        self.task: Task = pocket_task.make()
        self.text = text_of(self.base)
        problems = self.task.test[:num_problems]
        samples = [self.sample(problem, i) for i, problem in enumerate(problems)]
        self.prompts = [sample.prompt for sample in samples]
        self.openers = [sample.completion[0] for sample in samples]
        self.golds = [problem.gold for problem in problems]

    def sample(self, problem: Problem, group: int) -> Sample:
        """A problem and its careful solution as tokens."""
        answer = self.text.tokenize(problem.columns["careful"])
        prompt = self.text.encode(problem)
        return Sample(group, prompt, [*answer, self.base.eos_token_ids[0]])

    def measure(self, policy: TinyLora) -> tuple[float, float]:
        """Careful share and latent accuracy of the policy as it is."""
        budget = self.task.max_new_tokens
        sampling = Sampling(1.0, budget, self.base.eos_token_ids)
        opened = [[*p, opener] for p, opener in zip(self.prompts, self.openers, strict=True)]
        completions = TransformersEngine(policy).generate(opened, 1, sampling, seed=0)
        texts = [
            self.text.decode([opener, *c.token_ids])
            for opener, (c,) in zip(self.openers, completions, strict=True)
        ]
        scores = [
            pocket_task.grade(gold, text).score
            for gold, text in zip(self.golds, texts, strict=True)
        ]
        return self.careful_share(), statistics.fmean(s for s in scores if s is not None)

    @torch.no_grad()
    def careful_share(self) -> float:
        """Mean probability of the careful opening."""
        opened = zip(self.prompts, self.openers, strict=True)
        rows = pack([Sample(i, p, [opener]) for i, (p, opener) in enumerate(opened)], 1)
        batch = collate(rows, self.base.model.device, torch.float32)
        return float(completion_logprobs(self.base.model, batch, 1.0).exp().mean())


def train_supervised(
    probe: Probe, policy: TinyLora, steps: int, batch: int, learning_rate: float, seed: int
) -> None:
    """`steps` steps of Adam on the next-token loss of careful solutions, others for each seed."""
    adam = torch.optim.Adam(policy.parameters(), lr=learning_rate, betas=(0.9, 0.95))
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 5) * (1 - step / steps)
        problems = [probe.task.train[(seed * steps + step) * batch + i] for i in range(batch)]
        rows = pack([probe.sample(problem, i) for i, problem in enumerate(problems)], 1)
        logprobs = completion_logprobs(
            probe.base.model, collate(rows, probe.base.model.device, torch.float32), 1.0
        )
        (-logprobs.sum() / batch).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        adam.step()
        adam.zero_grad()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a pocket model's folder, or pocket")
    parser.add_argument("--u", type=int, default=1)
    parser.add_argument("--num-groups", type=int, default=13)
    parser.add_argument("--rank", type=int, default=1)
    parser.add_argument("--layers", default="2-3", help="blocks that are adapted")
    parser.add_argument("--sharing", choices=["tiled", "structured"], default="structured")
    parser.add_argument("--seeds", type=int, default=5, help="projection seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16, help="problems a step")
    parser.add_argument("--rate", type=float, default=1e-1)
    parser.add_argument("--problems", type=int, default=256, help="test problems")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the probe and print its table."""
    torch.set_flush_denormal(True)
    args = parse(argv)
    probe = Probe(args.model, args.problems)
    results: list[tuple[float, float]] = []
    print("seed      careful share  latent accuracy  |v|")
    for seed in range(args.seeds):
        config = AdapterConfig(
            u=args.u,
            num_groups=args.num_groups,
            rank=args.rank,
            layers=args.layers,
            sharing=args.sharing,
            seed=seed,
        )
        adapter = attach(probe.base.model, config)
        policy = adapter
        if seed == 0:
            print("base          {:11.3f}  {:15.3f}".format(*probe.measure(policy)), flush=True)
        train_supervised(probe, policy, args.steps, args.batch, args.rate, seed)
        results.append(probe.measure(policy))
        norm = float(adapter.v.detach().norm())
        row = "{:4d}          {:11.3f}  {:15.3f}  {:.2f}"
        print(row.format(seed, *results[-1], norm), flush=True)
        adapter.detach()
    share = statistics.fmean(s for s, _ in results)
    latent = statistics.fmean(a for _, a in results)
    is_kept = share >= SHARE_WANTED and latent >= LATENT_WANTED
    print(f"mean          {share:11.3f}  {latent:15.3f}  {'keep' if is_kept else 'do not keep'}")
    return {"careful_share": share, "latent_accuracy": latent, "is_kept": is_kept}


if __name__ == "__main__":
    main()
