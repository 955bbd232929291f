"""The commands about session folders: `pipeline inspect` looks at one, `pipeline init` makes one."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from pipeline.config import explain
from pipeline.errors import PipelineError
from pipeline.session_table import FILE_NAME
from pipeline.terminal import console


def inspect(
    session: Annotated[Path, typer.Argument(help="The session folder, of any layout.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it for other programs.")] = False,
) -> None:
    """Look at a session: cameras, trials, what is missing or doubtful; run nothing.

    The exit code is 1 if no trial can be run.

    \b
    Examples:
      pipeline inspect sessions/subject2
      pipeline inspect sessions/subject2 --json
    """
    from pipeline.inspect_session import inspect as look

    found = look(session)
    if as_json:
        print(found.model_dump_json(indent=2))
    else:
        _show(found)
    if not found.runnable:
        raise typer.Exit(1)


def _show(found) -> None:
    _line(f"[bold]{escape(found.folder)}[/]: {found.layout}")
    if found.trials:
        height = _known([trial.height_m for trial in found.trials], "m")
        mass = _known([trial.mass_kg for trial in found.trials], "kg")
        _line(f"  subject      height {height}, mass {mass}")
    for calibration in found.calibrations:
        _show_calibration(calibration)
    if found.trials:
        console.print(_recordings_table(found.trials), _results_table(found.trials))
    for trial in found.trials:
        for doubt in trial.doubts:
            _line(f"  [yellow]note[/] {escape(f'{trial.name}: {doubt}')}")
    for problem in dict.fromkeys(trial.problem for trial in found.trials if trial.problem):
        names = ", ".join(trial.name for trial in found.trials if trial.problem == problem)
        _line(f"  [red]cannot run[/] {escape(f'{names}: {problem}')}")
    for doubt in found.doubts:
        _line(f"  [yellow]note[/] {escape(doubt)}")
    if found.problem:
        _line(f"  [red]problem[/] {escape(found.problem)}")


def _line(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


def _show_calibration(calibration) -> None:
    _line(f"  calibration  {escape(calibration.where)}")
    _line(f"  up           {calibration.world_up} of the calibration's world")
    _line(f"  quality      {escape(calibration.quality)}")
    cameras = Table("camera", "image, px", "focal length, px", "height, m", box=None)
    for camera in calibration.cameras:
        cameras.add_row(
            escape(camera.name),
            f"{camera.width_px} x {camera.height_px}",
            f"{camera.focal_length_px:.0f}",
            f"{camera.height_m:.2f}",
        )
    console.print(cameras)
    apart = Table("cameras", "angle, °", "apart, m", box=None)
    for pair in calibration.pairs:
        apart.add_row(
            escape(f"{pair.first} {pair.second}"), f"{pair.angle_deg:.0f}", f"{pair.distance_m:.2f}"
        )
    console.print(apart)
    for doubt in calibration.doubts:
        _line(f"  [yellow]note[/] {escape(doubt)}")


def _recordings_table(trials) -> Table:
    table = Table("trial", "activity", "cameras", "Hz", "s", "frames", "brings", box=None)
    for trial in trials:
        each = trial.recordings
        table.add_row(
            escape(trial.name),
            escape(trial.activity),
            escape(" ".join(trial.cameras)),
            _range([row.rate_hz for row in each], "g"),
            _range([row.duration_s for row in each], ".1f"),
            _range([row.frames for row in each], "d"),
            trial.brings,
        )
    return table


def _results_table(trials) -> Table:
    table = Table("trial", "scaled by", "reference", "results", box=None)
    for trial in trials:
        cells = (trial.name, trial.scaling_trial or "", trial.reference or "", trial.results)
        table.add_row(*map(escape, cells))
    return table


def _known(values: list[float | None], unit: str) -> str:
    """What is known of the subject, or of several subjects."""
    given = [value for value in values if value is not None]
    return f"{_range(given, 'g')} {unit}" if given else "[yellow]missing[/]"


def _range(values: list, spec: str) -> str:
    """One value, or the smallest and the largest."""
    shown = list(dict.fromkeys(format(value, spec) for value in sorted(values)))
    return shown[0] if len(shown) == 1 else f"{shown[0]}-{shown[-1]}" if shown else ""


def initialise(
    folder: Annotated[Path, typer.Argument(help="A folder with videos, or a session.")],
    height: Annotated[float | None, typer.Option(help="The subject's height, m.")] = None,
    mass: Annotated[float | None, typer.Option(help="The subject's mass, kg.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="The calibration file; found if there is one only.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Make a session of a folder: write session.toml, and link videos to where they belong.

    Videos named squats1_cam1.mp4, cam1/squats1.mp4 or squats1/cam1.mp4 are linked (or copied) into
    videos/TRIAL/CAMERA.mp4, after you have seen the plan. Nothing is moved or deleted.

    \b
    Examples:
      pipeline init sessions/anna --height 1.71 --mass 63
      pipeline init sessions/anna --calibration Calib.qca.txt --yes
    """
    from pipeline import make_session as making
    from pipeline.files import reporting_disk_errors
    from pipeline.layouts import layout_of

    if not folder.is_dir():
        raise PipelineError(f"there is no folder {folder}. Make it, and put the videos there.")
    _ask_before_replacing(folder / FILE_NAME, yes)
    own = calibration or making.find_calibration(folder)
    placed = making.plan_videos(folder, own)
    if not placed and layout_of(folder) is None:
        raise PipelineError(f"there are no videos in {folder}, nor a session of another program.")
    if placed:
        _show_plan(folder, placed)
        if not yes:
            typer.confirm("Link these videos into their places?", default=True, abort=True)
    subject = _subject(height, mass, making.known_subject(folder), yes)
    with reporting_disk_errors(folder):
        relative = making.place_calibration(folder, own) if own else None
        making.place_videos(folder, placed)
        written = making.write_session_toml(folder, subject, relative)
    _line(f"  written {escape(str(written))}")
    _line(f"  next    pipeline inspect {escape(str(folder))}")


def _ask_before_replacing(path: Path, yes: bool) -> None:
    if not path.exists():
        return
    if yes:
        raise PipelineError(f"{path} is there already. Edit it, or remove it first.")
    typer.confirm(f"{path} is there already. Replace all that it says?", abort=True)


def _show_plan(folder: Path, placed) -> None:
    table = Table("video", "trial", "camera", "goes to", box=None)
    for each in placed:
        source, target = each.source.relative_to(folder), each.target(folder).relative_to(folder)
        table.add_row(*map(escape, (str(source), each.trial, each.camera, str(target))))
    console.print(table)


def _subject(height: float | None, mass: float | None, known, yes: bool):
    """The subject's data: as told, else asked for where the session's own files lack them."""
    from pipeline.session_table import SubjectTable

    values = {"height_m": height, "mass_kg": mass}
    for key, what in (("height_m", "height, m"), ("mass_kg", "mass, kg")):
        if values[key] is None and getattr(known, key) is None and not yes:
            told = typer.prompt(f"The subject's {what} (Enter if unknown)", "", show_default=False)
            values[key] = told.strip().replace(",", ".") or None
    try:
        return SubjectTable.model_validate(values)
    except ValidationError as error:
        raise PipelineError(explain(error, "subject", SubjectTable)) from error
