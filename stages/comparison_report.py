"""Comparison in the report: what another system measured in the same trial, beside the result."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from pipeline.errors import PipelineError
from stages.compare import Repetitions, compare_points
from stages.comparison import Comparison, compare
from stages.comparison_figures import figures_of
from stages.comparison_tables import tables_of, write_tables
from stages.comparison_text import FIGURES, as_text, lines_of, moving_coordinates, rounded
from stages.figures import render_page
from stages.recordings import (
    IDENTITY,
    Recording,
    Space,
    listed,
    read_angles,
    read_points,
    read_recording,
    read_space,
)
from stages.trial import Reference, Trial

FOLDER = "comparison"
"""In the report's folder, with the tables."""
OTHER_WORLD_MM = 50.0
"""Points that are nearer by so much after a rigid fit say that the file's transform is of other worlds."""


@dataclass(frozen=True)
class Section:
    """What the report says of a comparison."""

    html: str
    notices: list[str]


def compared_section(
    trial: Trial, repetitions: Repetitions, max_lag_s: float, out: Path
) -> Section:
    """Compare a trial's results with its reference; write the tables into `out / "comparison"`.

    A reference that is missing, or that cannot be read or compared, costs nobody the results: the
    section and its notice then say why there is no comparison.
    """
    if trial.reference is None:
        notice = (
            "not compared: there is nothing to compare with. Put motion capture of this trial into "
            f"reference/{trial.name}.mot (angles) or .trc (markers) of the session."
        )
        return Section(render_page("comparison_section.html.j2", reason=notice), [notice])
    try:
        comparison, notices = compare_with(trial, trial.reference, repetitions, max_lag_s)
    except PipelineError as error:
        notice = f"not compared with {trial.reference.source}: {error}"
        return Section(render_page("comparison_section.html.j2", reason=notice), [notice])
    (out / FOLDER).mkdir()
    write_tables(tables_of(comparison), out / FOLDER)
    return Section(_page(comparison, notices), notices)


def compare_with(
    trial: Trial, reference: Reference, repetitions: Repetitions, max_lag_s: float
) -> tuple[Comparison, list[str]]:
    """Compare a trial's results with a reference; return the comparison and what to know of it.

    The lag is found, and the reference's world brought to the result's by its file or a rigid fit,
    unless the reference is aligned by nature. Raises PipelineError if the two cannot be compared.
    """
    result = replace(read_recording(trial.results), name="the result")
    other = read_reference(reference)
    space, notices = space_of(reference)
    lag_s = lag_of_clocks_s(trial, reference) if reference.aligned else None
    comparison = compare(result, other, space, lag_s, max_lag_s, repetitions)
    if other.points and not comparison.points:
        names = listed(other.points["markers"].names)
        notices.append(f"none of the reference's markers ({names}) is one of the result's by name.")
    if reference.space and space:
        if doubts := _doubts_about(space, comparison, result, other):
            comparison = compare(result, other, None, lag_s, max_lag_s, repetitions)
            notices += doubts
    return comparison, [*comparison.notices, *notices]


def lag_of_clocks_s(trial: Trial, reference: Reference) -> float:
    """How much later a trial comes than an aligned reference, s: by its first camera's clock."""
    offsets_s = reference.clock_offsets_s
    return next((0.0 - offsets_s[name] for name in trial.cameras if name in offsets_s), 0.0)


def read_reference(reference: Reference) -> Recording:
    """Read a reference's angles and markers. Raises PipelineError for a file that is none."""
    angles = read_angles(reference.angles) if reference.angles else pd.DataFrame()
    points = {"markers": read_points(reference.markers)} if reference.markers else {}
    return Recording(reference.source, angles, points, model=reference.model)


def space_of(reference: Reference) -> tuple[Space | None, list[str]]:
    """Where a reference's world is in the result's, None to have it fitted; and what is wrong."""
    if reference.aligned or reference.space is None:
        return IDENTITY if reference.aligned else None, []
    try:
        return read_space(reference.space), []
    except PipelineError as error:
        return None, [f"{error} One was fitted to the markers."]


def _doubts_about(
    space: Space, comparison: Comparison, result: Recording, reference: Recording
) -> list[str]:
    """Say of which points a rigid fit brings both sides much nearer than the file's transform."""
    notices = []
    for kind, points in comparison.points.items():
        sides = result.points[kind], reference.points[kind]
        fitted = compare_points(*sides, None, comparison.alignment.lag_s).overall["mpjpe_mm"]
        given = points.overall["mpjpe_mm"]
        if given - fitted > OTHER_WORLD_MM:
            notices.append(
                f"{space.description}, {kind} are {given:.0f} mm apart, after a rigid fit {fitted:.0f} mm: "
                "the file's worlds are others than these. The fit is used."
            )
    return notices


def _page(comparison: Comparison, notices: list[str]) -> str:
    angles = comparison.angles
    return render_page(
        "comparison_section.html.j2",
        comparison=comparison,
        lines=lines_of(comparison),
        notices=notices,
        headers=[header for header, _ in FIGURES.values()],
        rows=_rows(moving_coordinates(angles)) if angles else [],
        figures=figures_of(angles) if angles else {},
        points={
            kind: as_text(points.table.reset_index()) for kind, points in comparison.points.items()
        },
    )


def _rows(coordinates: pd.DataFrame) -> list[list[str]]:
    """A row a coordinate: its name, unit and figures."""
    units = {"deg": "°", "mm": "mm"}
    return [
        [name + " *" * bool(row.world_frame), units[row.unit]]
        + [rounded(row[key], digits) for key, (_, digits) in FIGURES.items()]
        for name, row in coordinates.iterrows()
    ]
