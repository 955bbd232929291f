"""What the command line shows: messages, and the progress of stages."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from pipeline.errors import PipelineError
from stages.trial import Progress, Trial

console = Console()
errors = Console(stderr=True)


def print_error(error: PipelineError) -> None:
    """Print what a user can mend."""
    errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)


class Watch:
    """A progress bar for the stage at work, and a line for each that has finished."""

    def __init__(self):
        self._bars = Bars(
            TextColumn("  {task.description:12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self):
        self._bars.start()
        return self

    def __exit__(self, *error):
        self._bars.stop()

    def __call__(self, trial: Trial | None, stage: str) -> Progress:
        """Show a bar; return where its progress is reported."""
        task = self._bars.add_task(stage, total=None)
        return lambda done, total: self._bars.update(task, completed=done, total=total)

    def finished(self, outcome) -> None:
        """Put a line in the place of the bar: how long a stage took, and what it has to say."""
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        state = "up to date" if outcome.skipped else f"{outcome.seconds:.1f} s"
        console.print(f"  {outcome.stage:12} {state}")
        for notice in outcome.notices:
            console.print(f"    [yellow]note[/] {escape(notice)}", highlight=False, soft_wrap=True)
