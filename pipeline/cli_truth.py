"""The commands about truth: `pipeline simulate` makes it, `pipeline evaluate` compares with it."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from pipeline.errors import PipelineError
from pipeline.terminal import Watch, console, print_error


def simulate(
    folder: Annotated[Path, typer.Argument(help="The session folder to make; it must be new.")],
    motion: Annotated[
        list[str] | None,
        typer.Option(
            help="squats, gait, sit-to-stand, dropjump, static, or a .mot file; repeat it for several "
            "trials. [squats]"
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A packaged OpenSim model, or an .osim file.")
    ] = "best",
    markers: Annotated[
        str | None, typer.Option(help="The augmenter's marker set, if the .osim lacks it.")
    ] = None,
    resize: Annotated[bool, typer.Option(help="Scale the model to a random adult.")] = True,
    cameras: Annotated[
        int, typer.Option(help="2, 3 or 5 in front, as OpenCap has them; 4, 6 to 8 on a ring.")
    ] = 4,
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
    start_spread: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Cameras start and stop up to so many seconds apart."),
    ] = 0.0,
    drift: Annotated[
        float,
        typer.Option(metavar="PPM", help="Cameras' rates are off by up to so many millionths."),
    ] = 0.0,
    persons: Annotated[
        int, typer.Option(help="2: another person walks by; truth/TRIAL_person2. No videos.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="The same seed makes the same session.")] = 0,
    duration: Annotated[float | None, typer.Option(help="Seconds of the movement to keep.")] = None,
    static: Annotated[bool, typer.Option(help="Also a static trial, for scaling.")] = True,
    render: Annotated[bool, typer.Option(help="Also draw a video for each camera.")] = False,
    layout: Annotated[
        Literal["pipeline", "opencap", "opencap-app", "pose2sim"],
        typer.Option(
            help="Our session layout, OpenCap's validation data or download (with videos), or a Pose2Sim "
            "project."
        ),
    ] = "pipeline",
) -> None:
    """Make a session whose joint angles are known exactly: 2D keypoints with errors like real ones.

    Run it like any session, then compare with its truth/. Sources of errors: calibration,
    appearance, view_bias, jitter, blur, occlusion, outliers, missed, swaps, clock, dropped_frames.

    \b
    Examples:
      pipeline simulate sessions/sim && pipeline run sessions/sim && pipeline evaluate sessions/sim
      pipeline simulate sessions/gait --motion gait --cameras 2 --noise 0.5 --render
      pipeline simulate sessions/subject2 --layout opencap --cameras 5 --motion squats --motion gait
      pipeline simulate sessions/apart --start-spread 3 --drift 50
      pipeline simulate sessions/swaps --noise 0 --error swaps=1 --seed 3
      pipeline simulate sessions/mine --motion mine.mot --model mine.osim --no-resize
    """
    from pipeline.files import reporting_disk_errors
    from pipeline.simulate import plan_from, simulate
    from pipeline.simulated_session import write_session

    motions = motion or ["squats"]
    plan = plan_from(
        {
            "motion": motions[0] if len(motions) == 1 else motions, "model": model,
            "markers": markers, "resize": resize, "cameras": cameras,
            "rates_hz": rate or (60.0,), "vocabulary": keypoints, "seed": seed, "static": static,
            "persons": persons,
            "duration_s": duration, "start_spread_s": start_spread, "drift_ppm": drift,
        },
        noise,
        error or [],
    )  # fmt: skip
    simulation = simulate(plan)
    with reporting_disk_errors(folder), Watch() as watch:
        write_session(simulation, folder, layout, render, watch(None, "videos"))
    person, trials = simulation.person, sorted(path.name for path in (folder / "truth").iterdir())
    console.print(
        f"  {person.sex}, {person.height_m:.2f} m, {person.mass_kg:.0f} kg; "
        f"{len(simulation.cameras)} cameras; trials {', '.join(trials)}"
    )
    console.print(f"  session {escape(str(folder))}", soft_wrap=True)
    console.print(f"  truth   {escape(str(folder / 'truth'))}", soft_wrap=True)


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RESULT REFERENCE | SESSION...", help="What to compare with what."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; with sessions, for the averages.")
    ] = None,
    lag: Annotated[
        str | None,
        typer.Option(
            metavar="auto|SECONDS",
            help="How much later the result comes; 0: as is. [auto; 0 for sessions]",
        ),
    ] = None,
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
    of_sessions = all((path / "truth").is_dir() for path in paths)
    # A session's truth is on the clock of its results: a lag between them is an error.
    seconds = evaluation.parse_lag(lag or ("0" if of_sessions else "auto"))
    where = evaluation.parse_space(space)
    against = partial(compare, space=where, lag_s=seconds, max_lag_s=max_lag)
    if of_sessions:
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
    console.print(f"  files   {escape(str(folder))}", soft_wrap=True)
    if failed:
        raise PipelineError(f"{len(failed)} trials could not be compared: {', '.join(failed)}")


def _tell_comparison(name: str, outcome) -> None:
    """Print what came of one comparison: its figures, or why there are none."""
    from stages.comparison_text import lines_of

    console.print(f"[bold]{escape(name)}[/]", soft_wrap=True)
    if isinstance(outcome, PipelineError):
        print_error(outcome)
        return
    for line in lines_of(outcome):
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    for notice in outcome.notices:
        console.print(f"    [yellow]note[/] {escape(notice)}", highlight=False, soft_wrap=True)
