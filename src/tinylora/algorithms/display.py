"""The progress of a run on the terminal: what matters of each step, and when the run will end."""

from collections import deque
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

SHOWN = {  # metric -> how the terminal shows it
    "reward": "reward {:.3f}",
    "completion_length": "length {:.0f}",
    "validation_accuracy": "validation {:.1%}",
    "zero_variance_share": "no variance {:.0%}",
    "v_norm": "|v| {:.3f}",
    "rollout_difference_mean": "rollout off by {:.1e}",
    "snr": "SNR {:.1f}",
    "kl_rollout": "KL {:.1e}",
}
ETA_WINDOW = 20  # steps whose mean time predicts the rest


class Display:
    """A live bar with what matters and an ETA on a terminal; a plain line a step elsewhere."""

    def __init__(self, total_steps: int, console: Console) -> None:
        self.total_steps, self.console = total_steps, console
        self.recent_seconds: deque[float] = deque(maxlen=ETA_WINDOW)
        self.progress: Progress | None = None
        self.bar: TaskID | None = None
        self.first_step = 0

    def rewind(self, step: int) -> None:
        """Begin after that many steps."""
        self.first_step = step

    def step(self, metrics: Mapping[str, float]) -> None:
        """Show a finished step."""
        step = int(metrics["step"])
        self.recent_seconds.append(metrics["seconds"])
        text = "  ".join(
            form.format(metrics[name]) for name, form in SHOWN.items() if name in metrics
        )
        text += f"  {metrics['seconds']:.1f} s  ETA {self._eta(step)}"
        if self.console.is_terminal:
            self._update_bar(step, text)
        else:
            self.console.print(f"step {step}/{self.total_steps}  {text}", soft_wrap=True)

    def _eta(self, step: int) -> str:
        mean = sum(self.recent_seconds) / len(self.recent_seconds)
        return str(timedelta(seconds=round(mean * (self.total_steps - step))))

    def _update_bar(self, step: int, text: str) -> None:
        if self.progress is None:
            columns = (
                MofNCompleteColumn(),
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
            )
            self.progress = Progress(*columns, console=self.console)
            self.bar = self.progress.add_task(
                text, total=self.total_steps, completed=self.first_step
            )
            self.progress.start()
        assert self.bar is not None
        self.progress.update(self.bar, completed=step, description=text)

    def close(self) -> None:
        """End the live bar."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
