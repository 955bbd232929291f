"""The command line: `pipeline --help`."""

import io
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from pipeline import __version__
from pipeline.cli_batch import batch
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
models = typer.Typer(help="List, fetch, verify and import the model files.", no_args_is_help=True)
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
    first: From = None,
    last: To = None,
    force: Force = False,
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
      pipeline run sessions/subject2 --from smooth --to export
      pipeline run sessions/subject2 --activity squats --compare
      pipeline run sessions/subject2 --activity squats --cameras Cam1,Cam3
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
    overrides = [*(overrides or []), *(["report.compare=true"] if compare else [])]
    _run_trials(found, trials, overrides, first, last, force)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to build the session.")] = Path(
        "sessions/demo"
    ),
    force: Force = False,
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
    _run_trials(session, session.select(), overrides or [], None, None, force)


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
    force: bool,
) -> None:  # fmt: skip
    """Run the trials one by one; one that fails does not keep the others from running."""
    from pipeline.config import configure
    from pipeline.runner import run_trial

    def configuration_of(trial: Trial):
        return configure(trial.activity, session.settings, overrides)

    for trial in trials:  # a mistake in the settings is told before anything runs
        configuration_of(trial)
    failed: dict[str, PipelineError] = {}
    for trial in trials:
        console.print(f"[bold]{trial.name}[/] ({trial.activity}, {len(trial.cameras)} cameras)")
        try:
            with Watch() as watch:
                for outcome in run_trial(trial, configuration_of, watch, first, last, force):
                    watch.finished(outcome)
        except PipelineError as error:
            if len(trials) == 1:
                raise
            failed[trial.name] = error
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
        raise PipelineError(f"{len(failed)} of {len(trials)} trials failed: {', '.join(failed)}")


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


@models.command("list")
def list_models() -> None:
    """List the model files: what they are, how large, under which licence, and if cached."""
    from models.assets import is_present, list_assets

    table = Table("name", "cached", "MB", "licence", "what", box=None)
    for asset in list_assets():
        cached = "[green]yes[/]" if is_present(asset.name) else "no"
        size = f"{asset.size_bytes / 1e6:.1f}"
        table.add_row(asset.name, cached, size, asset.licence, asset.description)
    console.print(table)


@models.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names; all needed ones if none.")
    ] = None,
) -> None:
    """Fetch model files into the cache, and check them. Example: pipeline models fetch."""
    from models.assets import fetch as fetch_asset
    from models.assets import list_assets

    for name in names or [asset.name for asset in list_assets() if not asset.optional]:
        console.print(f"{name}: {fetch_asset(name)}", soft_wrap=True)


@models.command()
def verify() -> None:
    """Hash every cached model file again, and compare with the registry."""
    from models.assets import is_present, list_assets
    from models.assets import verify as verify_asset

    for asset in list_assets():
        if is_present(asset.name):
            verify_asset(asset.name)
            console.print(f"{asset.name}: [green]ok[/]")


@models.command("import")
def import_files(
    name: Annotated[str, typer.Argument(help="Name in the registry.")],
    path: Annotated[Path, typer.Argument(help="A file, a folder or a wheel that holds the files.")],
) -> None:
    """Take model files from this computer, for machines without internet.

    Example: pipeline models import blazepose-full mediapipe-0.10.21-….whl
    """
    from models.assets import import_from

    console.print(f"{name}: {import_from(name, path)}", soft_wrap=True)


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
