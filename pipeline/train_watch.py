"""Watching a training: a line that moves on with the steps, one that stays for each validation."""

import math
import signal
import time

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.terminal import console


class TrainingWatch:
    """Step, loss, error, speed and the time that is left of all steps."""

    def __init__(self, steps: int):
        self._bars = Progress(
            MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(compact=True),
            console=console, transient=True,
        )  # fmt: skip
        self._task = self._bars.add_task("first examples", total=steps)
        self._began: tuple[int, float] | None = None
        self._told = ""

    def __enter__(self):
        self._bars.start()
        return self

    def __exit__(self, *error):
        self._bars.stop()

    def stepped(self, step: int, metrics: dict[str, float]) -> None:
        """Move on."""
        now = time.monotonic()
        self._began = self._began or (step, now)
        speed = (step - self._began[0]) / max(now - self._began[1], 1e-9)
        self._told = f"loss {metrics['loss']:.3f}  error {metrics['mpjpe_mm']:.1f} mm"
        described = f"{self._told}  {speed:.1f} steps/s"
        self._bars.update(self._task, completed=step, description=described)

    def validated(self, step: int, mean_mm: float, is_best: bool) -> None:
        """Leave a line."""
        mark = "  [green]best[/]" if is_best else ""
        console.print(
            f"  step {step:<7} {self._told}  validation {mean_mm:.2f} mm{mark}", highlight=False
        )


class Stop:
    """Asks for an end when time has run out, or when Ctrl-C or SIGTERM came; a second one kills."""

    def __init__(self, minutes: float | None):
        self._until = time.monotonic() + (math.inf if minutes is None else 60 * minutes)
        self._usual = {}
        self.signal: int | None = None

    def __enter__(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self._usual[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error):
        for number, usual in self._usual.items():
            signal.signal(number, usual)

    def _note(self, number, frame) -> None:
        self.signal = int(number)
        signal.signal(number, self._usual[number])

    def __call__(self) -> bool:
        """Tell whether to stop."""
        return self.signal is not None or time.monotonic() > self._until
