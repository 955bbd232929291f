"""The command line: `pipeline --help`."""

import io
import sys
import tempfile
import traceback
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import __version__
from pipeline.cli_batch import batch
from pipeline.cli_models import Quality, models, with_quality
from pipeline.cli_sessions import initialise, inspect
from pipeline.cli_train import train
from pipeline.cli_truth import evaluate, simulate
from pipeline.errors import PipelineError
from pipeline.terminal import Watch, console, errors, print_error
from stages import ORDER
from stages.trial import Trial

app = typer.Typer(
    help="From videos of calibrated cameras to joint angles: markerless biomechanics.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(models, name="models")

From = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Run again from here.")]
To = Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")]
Force = Annotated[bool, typer.Option("--force", help="Run every stage, even if up to date.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change a setting; may be repeated."),
]


INTERRUPTED = 130
"""What Typer makes of Ctrl-C."""


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """From videos of calibrated cameras to joint angles: markerless biomechanics."""
    if show:
        console.print(f"pipeline {__version__}")
        raise typer.Exit


@app.command(epilog=f"Stages: {', '.join(ORDER)}.")
def run(
    session: Annotated[Path, typer.Argument(help="The session folder.")],
    activity: Annotated[
        str | None, typer.Option(help="Run the trials of this activity, such as squats.")
    ] = None,
    trial: Annotated[str | None, typer.Option(help="Run this trial only.")] = None,
    cameras: Annotated[
        str | None,
        typer.Option(
            metavar="CAMERA,CAMERA", help="Use these cameras only; results/TRIAL_CAMERA-CAMERA."
        ),
    ] = None,
    person: Annotated[
        str | None,
        typer.Option(
            metavar="largest|central|1|2|…|all",
            help="Whom to follow if several people are in view; results/TRIAL_person2.",
        ),
    ] = None,
    first: From = None,
    last: To = None,
    force: Force = False,
    quality: Quality = None,
    overrides: Set = None,
    dump_frames: Annotated[
        bool, typer.Option("--dump-frames", help="Also write every video frame as an image.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare with the session's motion capture or truth.")
    ] = False,
) -> None:
    """Run a session: videos to joint angles and a report.

    Stages whose settings, inputs and code have not changed are skipped.

    \b
    Examples:
      pipeline run sessions/subject2 --activity squats
      pipeline run sessions/subject2 --trial squats1 --set smooth.cutoff_hz=8
      pipeline run sessions/subject2 --set kinematics.fit=images
      pipeline run sessions/subject2 --from smooth --to export
      pipeline run sessions/subject2 --activity squats --compare
      pipeline run sessions/subject2 --quality best
      pipeline run sessions/subject2 --activity squats --cameras Cam1,Cam3
      pipeline run sessions/subject2 --trial squats1 --person all
    """
    from pipeline.session import open_session, with_cameras

    found = open_session(session)
    trials = found.select(activity, trial)
    if cameras is not None:
        names = [name.strip() for name in cameras.split(",") if name.strip()]
        trials = [with_cameras(each, names) for each in trials]
    for note in found.notes:
        console.print(f"[yellow]note[/] {escape(note)}", highlight=False, soft_wrap=True)
    if dump_frames:
        _dump_frames(trials)
    overrides = with_quality(overrides, quality)
    overrides += ["report.compare=true"] if compare else []
    _run_trials(found, trials, overrides, first, last, force, person)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to build the session.")] = Path(
        "sessions/demo"
    ),
    force: Force = False,
    quality: Quality = None,
    overrides: Set = None,
) -> None:
    """Build a session from real footage of four cameras, and run it.

    The first time, this fetches about 90 MB of model files and videos.

    \b
    Examples:
      pipeline demo
      pipeline demo sessions/trial-run --set smooth.method=butterworth
    """
    from pipeline.demo import build_demo
    from pipeline.files import reporting_disk_errors
    from pipeline.session import open_session

    with reporting_disk_errors(folder):
        session = open_session(build_demo(folder))
    _run_trials(session, session.select(), with_quality(overrides, quality), None, None, force)


@app.command()
def doctor() -> None:
    """Check the installation: what is missing, and how to get it."""
    from pipeline.doctor import examine

    table = Table("", "what", "found", box=None)
    marks = {"ok": "[green]ok[/]", "missing": "[red]missing[/]", "optional": "[yellow]optional[/]"}
    findings = examine()
    for finding in findings:
        table.add_row(marks[finding.verdict], finding.subject, finding.detail)
    console.print(table)
    if any(finding.verdict == "missing" for finding in findings):
        raise typer.Exit(1)


def _run_trials(
    session, trials: list[Trial], overrides: list[str], first: str | None, last: str | None,
    force: bool, person: str | None = None,
) -> None:  # fmt: skip
    """Run the trials one by one; one that fails does not keep the others from running."""
    from pipeline.config import configure
    from pipeline.persons import ALL, parse_person, trials_of
    from pipeline.runner import run_trial

    def configuration_of(trial: Trial):
        return configure(trial.activity, session.settings, overrides)

    asked = None if person is None else parse_person(person)
    # A mistake in the settings is told before anything runs.
    usual = [configuration_of(trial).synchronize.person for trial in trials]
    pairs = zip(trials, usual, strict=True)
    failed: dict[str, PipelineError] = {}
    count = 0
    for trial in chain.from_iterable(trials_of(each, asked, who) for each, who in pairs):
        count += 1
        whom = f", person {trial.person}" if trial.person else ""
        console.print(
            f"[bold]{trial.name}[/] ({trial.activity}, {len(trial.cameras)} cameras{whom})"
        )
        try:
            with Watch() as watch:
                again = first, force
                if asked == ALL and trial.everyone:
                    again = _again_of_another(first, last, force)
                for outcome in run_trial(trial, configuration_of, watch, again[0], last, again[1]):
                    watch.finished(outcome)
        except PipelineError as error:
            if len(trials) == 1 and asked != ALL:
                raise
            failed[trial.results.name] = error
            print_error(error)
            continue
        report = trial.folder("report")
        if last is None or last == ORDER[-1]:
            console.print(f"  angles  {report / 'angles.csv'}", soft_wrap=True)
            console.print(f"  report  {report / 'report.html'}", soft_wrap=True)
            _tell_compared(trial)
        else:
            console.print(f"  results {trial.results}", soft_wrap=True)
    if failed:
        raise PipelineError(f"{len(failed)} of {count} trials failed: {', '.join(failed)}")


def _again_of_another(first: str | None, last: str | None, force: bool) -> tuple[str | None, bool]:
    """Where to run another person again from, after the usual one's run repeated the shared stages."""
    own = ORDER.index("synchronize")
    if last in ORDER[:own]:
        return None, False
    return ("synchronize", False) if force or first in ORDER[:own] else (first, force)


def _tell_compared(trial: Trial) -> None:
    """Print how far off a trial is, if its report has a comparison."""
    folder = trial.folder("report") / "comparison"
    if folder.is_dir():
        from pipeline.evaluation_text import line_of

        told = escape(line_of(folder, trial.reference.source))
        console.print(f"  compared {told}", highlight=False, soft_wrap=True)


def _dump_frames(trials: list[Trial]) -> None:
    from pipeline.files import reporting_disk_errors
    from stages.frames import dump_frames

    for trial in trials:
        with reporting_disk_errors(trial.results), Watch() as watch:
            folder = dump_frames(trial, watch(trial, "images"))
        console.print(f"  images  {folder}", soft_wrap=True)


app.command()(inspect)
app.command("init")(initialise)
app.command()(batch)
app.command()(simulate)
app.command()(evaluate)
app.command()(train)


def main() -> None:
    """Run the command line; every failure is one message and an exit code that is not 0."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # names that the terminal's encoding lacks
    try:
        app()
    except PipelineError as error:
        print_error(error)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            errors.print("stopped. Finished stages are kept; run again to go on.")
        raise
    except Exception as error:  # a bug of ours: one line for the user, the rest for the report
        with tempfile.NamedTemporaryFile(
            "w", prefix="pipeline-", suffix=".log", delete=False, encoding="utf-8"
        ) as log:
            log.write(traceback.format_exc())
        errors.print(
            f"[bold red]internal error:[/] {escape(f'{type(error).__name__}: {error}')}. This is "
            f"a bug: please report it with {log.name}",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(70)
