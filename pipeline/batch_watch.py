"""What the command line shows of a batch while it runs."""

import time
from collections import Counter
from collections.abc import Sequence

from distributed import Client
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipeline.batch import JobResult, UnitResult
from pipeline.batch_plan import Job
from pipeline.terminal import console
from stages import ORDER

ASK_EVERY_S = 1.0
"""How often the scheduler is asked for its workers."""


class BatchWatch:
    """Bars of stages and trials with what became of them, and a line for each finished trial."""

    def __init__(self, client: Client, jobs: Sequence[Job]):
        self._client = client
        self._counts: Counter[str] = Counter()
        self._cluster, self._asked = "", 0.0
        self._bars = Progress(
            TextColumn("{task.description:8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._stages = self._bars.add_task("stages", total=sum(len(job.stages) for job in jobs))
        self._trials = self._bars.add_task("trials", total=len(jobs))
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=2, transient=True
        )

    def __enter__(self):
        self._live.start()
        return self

    def __exit__(self, *error):
        self._live.stop()

    def __call__(self, result: JobResult | UnitResult) -> None:
        """Count a finished stage, or print a finished trial."""
        if isinstance(result, UnitResult):
            self._counts[result.status] += 1
            self._bars.update(self._stages, completed=self._counts.total())
        else:
            self._bars.advance(self._trials)
            self._print(result)
        if time.monotonic() > self._asked + ASK_EVERY_S:
            at_work = sum(min(1, len(keys)) for keys in self._client.processing().values())
            self._cluster = f"{at_work} of {len(self._client.nthreads())} workers busy"
            self._asked = time.monotonic()

    def _render(self) -> Group:
        counts = [
            f"{self._counts[name]} {name}" for name in ("done", "up to date", "failed", "blocked")
        ]
        return Group(self._bars, Text(f"{', '.join(counts)}; {self._cluster}"))

    @staticmethod
    def _print(result: JobResult) -> None:
        failure = result.failure
        if failure:
            text = f"[red]{failure.status}[/] {escape(f'at {failure.stage}: {failure.message}')}"
        elif result.job.stages != ORDER:
            return
        else:
            ran = [unit.seconds for unit in result.units if unit.status == "done"]
            text = f"{sum(ran):.1f} s" if ran else "up to date"
            text += f", {result.summary.row['verdict']}"
        console.print(f"  {escape(result.job.name)}  {text}", highlight=False, soft_wrap=True)
