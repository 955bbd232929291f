"""The command line: `pipeline --help`."""

import io
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from pipeline import __version__
from pipeline.errors import PipelineError
from stages import ORDER
from stages.trial import Progress, Trial

app = typer.Typer(
    help="From videos of calibrated cameras to joint angles: markerless biomechanics.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
models = typer.Typer(help="List, fetch, verify and import the model files.", no_args_is_help=True)
app.add_typer(models, name="models")

console = Console()
errors = Console(stderr=True)

From = Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Run again from here.")]
To = Annotated[str | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")]
Force = Annotated[bool, typer.Option("--force", help="Run every stage, even if up to date.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change a setting; may be repeated."),
]


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
    first: From = None,
    last: To = None,
    force: Force = False,
    overrides: Set = None,
    dump_frames: Annotated[
        bool, typer.Option("--dump-frames", help="Also write every video frame as an image.")
    ] = False,
) -> None:
    """Run a session: videos to joint angles and a report.

    Stages whose settings, inputs and code have not changed are skipped.

    \b
    Examples:
      pipeline run sessions/subject2 --activity squats
      pipeline run sessions/subject2 --trial squats1 --set smooth.cutoff_hz=8
      pipeline run sessions/subject2 --from smooth --to export
    """
    from pipeline.session import Session

    found = Session(session)
    trials = found.select(activity, trial)
    if dump_frames:
        _dump_frames(trials)
    _run_trials(found, trials, overrides or [], first, last, force)


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
    from pipeline.session import Session

    with reporting_disk_errors(folder):
        session = Session(build_demo(folder))
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


@app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(help="The session folder to make; it must be new.")],
    motion: Annotated[
        str, typer.Option(help="squats, gait, sit-to-stand, dropjump, static, or a .mot file.")
    ] = "squats",
    model: Annotated[
        str, typer.Option(help="A packaged OpenSim model, or an .osim file.")
    ] = "best",
    markers: Annotated[
        str | None, typer.Option(help="The augmenter's marker set, if the .osim lacks it.")
    ] = None,
    resize: Annotated[bool, typer.Option(help="Scale the model to a random adult.")] = True,
    cameras: Annotated[int, typer.Option(help="2 or 3 in front, 4 to 8 on a ring.")] = 4,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="Frames per second; repeat it for cameras of different rates. [60]"),
    ] = None,
    keypoints: Annotated[
        str, typer.Option(help="halpe-26, coco-wholebody-133, body-25, blazepose-33 or coco-17.")
    ] = "halpe-26",
    noise: Annotated[
        float, typer.Option(help="Size of all errors: 0 is none, 1 as the embedded pose model's.")
    ] = 1.0,
    error: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE=SIZE", help="Size of one source of errors; see below."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same session.")] = 0,
    duration: Annotated[float | None, typer.Option(help="Seconds of the movement to keep.")] = None,
    static: Annotated[bool, typer.Option(help="Also a static trial, for scaling.")] = True,
    render: Annotated[bool, typer.Option(help="Also draw a video for each camera.")] = False,
    layout: Annotated[
        Literal["pipeline", "opencap"],
        typer.Option(help="Our session layout, or OpenCap's dataset (videos, no keypoints)."),
    ] = "pipeline",
) -> None:
    """Make a session whose joint angles are known exactly: 2D keypoints with errors like real ones.

    Run it like any session, then compare with its truth/. Sources of errors: calibration,
    appearance, view_bias, jitter, blur, occlusion, outliers, missed, swaps, clock, dropped_frames.

    \b
    Examples:
      pipeline simulate sessions/sim && pipeline run sessions/sim && pipeline evaluate sessions/sim
      pipeline simulate sessions/gait --motion gait --cameras 2 --noise 0.5 --render
      pipeline simulate sessions/swaps --noise 0 --error swaps=1 --seed 3
      pipeline simulate sessions/mine --motion mine.mot --model mine.osim --no-resize
    """
    from pipeline.files import reporting_disk_errors
    from pipeline.simulate import plan_from, simulate
    from pipeline.simulated_session import write_session

    plan = plan_from(
        {
            "motion": motion, "model": model, "markers": markers, "resize": resize, "cameras": cameras,
            "rates_hz": rate or (60.0,), "vocabulary": keypoints, "seed": seed, "static": static,
            "duration_s": duration,
        },
        noise,
        error or [],
    )  # fmt: skip
    simulation = simulate(plan)
    with reporting_disk_errors(folder), _Watch() as watch:
        write_session(simulation, folder, layout, render, watch(None, "videos"))
    person = simulation.person
    console.print(
        f"  {person.sex}, {person.height_m:.2f} m, {person.mass_kg:.0f} kg; "
        f"{len(simulation.cameras)} cameras; trials {', '.join(t.name for t in simulation.trials)}"
    )
    console.print(f"  session {folder}", soft_wrap=True)
    console.print(f"  truth   {folder / 'truth'}", soft_wrap=True)


@app.command()
def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT REFERENCE | SESSION...", help="What to compare with what."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; with sessions, for the averages.")
    ] = None,
    lag: Annotated[
        str, typer.Option(metavar="auto|SECONDS", help="How much later the result comes; 0: as is.")
    ] = "auto",
    max_lag: Annotated[float, typer.Option(min=0.01, help="Largest lag to look for, s.")] = 1.0,
    space: Annotated[
        str,
        typer.Option(
            metavar="identity|rigid|FILE",
            help="Where the reference's world is in the result's: the same, fitted, or by a file.",
        ),
    ] = "identity",
) -> None:
    """Compare joint angles and points with a reference: say how far off they are.

    RESULT and REFERENCE are a trial's results folder, a folder of truth, a .mot or a .trc file. Of
    a SESSION with truth/ and results/, every trial that has both is compared, and averaged.

    \b
    Examples:
      pipeline evaluate sessions/a/results/squats1 mocap/squats1.mot --lag 0
      pipeline evaluate sessions/a/results/squats1 mocap/squats1.trc --space rigid
      pipeline evaluate sessions/a sessions/b
    """
    from pipeline import evaluate as evaluation
    from pipeline.evaluation_text import averages_table, coordinates_table
    from stages.comparison import compare

    failed = []
    where, seconds = evaluation.parse_space(space), evaluation.parse_lag(lag)
    against = partial(compare, space=where, lag_s=seconds, max_lag_s=max_lag)
    if all((path / "truth").is_dir() for path in paths):
        means, failed, folder = evaluation.evaluate_sessions(paths, out, against, _tell_comparison)
        console.print(averages_table(means), highlight=False)
    elif len(paths) == 2:
        comparison, folder = evaluation.evaluate_pair(*paths, out, against)
        if comparison.angles:
            console.print(coordinates_table(comparison.angles, console.width), highlight=False)
        _tell_comparison(str(paths[0]), comparison)
    else:
        raise PipelineError(
            "expected RESULT and REFERENCE, or sessions that have a folder truth/; got "
            + ", ".join(map(str, paths))
        )
    console.print(f"  files   {folder}", soft_wrap=True)
    if failed:
        raise PipelineError(f"{len(failed)} trials could not be compared: {', '.join(failed)}")


def _tell_comparison(name: str, outcome) -> None:
    """Print what came of one comparison: its figures, or why there are none."""
    from pipeline.evaluation_text import lines_of

    console.print(f"[bold]{escape(name)}[/]", soft_wrap=True)
    if isinstance(outcome, PipelineError):
        _print_error(outcome)
        return
    for line in lines_of(outcome):
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    for notice in outcome.notices:
        console.print(f"    [yellow]note[/] {escape(notice)}", highlight=False, soft_wrap=True)


def _run_trials(
    session, trials: list[Trial], overrides: list[str], first: str | None, last: str | None,
    force: bool,
) -> None:  # fmt: skip
    """Run the trials one by one; one that fails does not keep the others from running."""
    from pipeline.config import configure
    from pipeline.runner import run_trial

    def configuration_of(trial: Trial):
        return configure(trial.activity, session.table.settings, overrides)

    for trial in trials:  # a mistake in the settings is told before anything runs
        configuration_of(trial)
    failed: dict[str, PipelineError] = {}
    for trial in trials:
        console.print(f"[bold]{trial.name}[/] ({trial.activity}, {len(trial.cameras)} cameras)")
        try:
            with _Watch() as watch:
                for outcome in run_trial(trial, configuration_of, watch, first, last, force):
                    watch.finished(outcome)
        except PipelineError as error:
            if len(trials) == 1:
                raise
            failed[trial.name] = error
            _print_error(error)
            continue
        report = trial.folder("report")
        if last is None or last == ORDER[-1]:
            console.print(f"  angles  {report / 'angles.csv'}", soft_wrap=True)
            console.print(f"  report  {report / 'report.html'}", soft_wrap=True)
        else:
            console.print(f"  results {trial.results}", soft_wrap=True)
    if failed:
        raise PipelineError(f"{len(failed)} of {len(trials)} trials failed: {', '.join(failed)}")


def _dump_frames(trials: list[Trial]) -> None:
    from pipeline.files import reporting_disk_errors
    from stages.frames import dump_frames

    for trial in trials:
        with reporting_disk_errors(trial.results), _Watch() as watch:
            folder = dump_frames(trial, watch(trial, "images"))
        console.print(f"  images  {folder}", soft_wrap=True)


def _print_error(error: PipelineError) -> None:
    errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)


class _Watch:
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

    def __call__(self, trial: Trial, stage: str) -> Progress:
        task = self._bars.add_task(stage, total=None)
        return lambda done, total: self._bars.update(task, completed=done, total=total)

    def finished(self, outcome) -> None:
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        state = "up to date" if outcome.skipped else f"{outcome.seconds:.1f} s"
        console.print(f"  {outcome.stage:12} {state}")
        for notice in outcome.notices:
            console.print(f"    [yellow]note[/] {escape(notice)}", highlight=False, soft_wrap=True)


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


def main() -> None:
    """Run the command line; every failure is one message and an exit code that is not 0."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # names that the terminal's encoding lacks
    try:
        app()
    except PipelineError as error:
        _print_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("stopped. Finished stages are kept; run again to go on.")
        sys.exit(130)
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
