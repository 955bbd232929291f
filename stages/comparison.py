"""All that two recordings have in common: aligned, compared, and what the user should know of it."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from models.augmenter import VIDEO_KEYPOINTS
from models.metrics import ranges
from pipeline.errors import PipelineError
from stages.align import Alignment, align, check_overlap
from stages.compare import (
    AngleComparison,
    PointComparison,
    Repetitions,
    compare_angles,
    compare_points,
)
from stages.recordings import Recording, Space, in_common, is_rotation, listed, pairs_of_points

DEGREES_PER_RADIAN = 180 / np.pi
MOVES_DEG = 20.0
"""Ranges of less say nothing about a file's unit."""


@dataclass(frozen=True)
class Comparison:
    """All that two recordings have in common."""

    result: str
    reference: str
    alignment: Alignment
    angles: AngleComparison | None
    points: dict[str, PointComparison]
    notices: list[str]


def compare(
    result: Recording,
    reference: Recording,
    space: Space | None,
    lag_s: float | None = None,
    max_lag_s: float = 1.0,
    repetitions: Repetitions = "knee bends",
) -> Comparison:
    """Compare all that two recordings have in common.

    `space` as in `compare_points`; `lag_s` is how much later the result comes, found if None.
    Raises PipelineError if they have nothing in common, or not at the same time.
    """
    names, pairs = in_common(result.angles, reference.angles), pairs_of_points(result, reference)
    if not names and not pairs:
        raise PipelineError(
            f"{result.name} and {reference.name} have no coordinate and no point in common. "
            f"{result.name} has {_content(result)}; {reference.name} has {_content(reference)}."
        )
    alignment = (
        align(result, reference, max_lag_s)
        if lag_s is None
        else Alignment(lag_s, np.nan, "given" if lag_s else "not looked for")
    )
    lag_s = alignment.lag_s
    notices, angles, points = list(alignment.notices), None, {}
    if names:
        check_overlap(result.angles.index.values, reference.angles.index.values, lag_s)
        rotational = set(filter(is_rotation, names))
        angles = compare_angles(result.angles, reference.angles, rotational, lag_s, repetitions)
        notices += _left_out("coordinates", result.angles, reference.angles)
        notices += _angle_notices(angles)
        if result.model and reference.model and result.model != reference.model:
            notices.append(
                f"the result's angles are of the OpenSim model {result.model}, the reference's of "
                f"{reference.model}: pelvis, hip and lumbar angles of the two may differ by 10-20°."
            )
    for kind, other in pairs:
        mine, truth = result.points[kind], reference.points[other]
        check_overlap(mine.time_s, truth.time_s, lag_s)
        points[kind] = compare_points(mine, truth, space, lag_s, reference.cameras)
        notices += _left_out(kind, mine.names, truth.names)
    return Comparison(result.name, reference.name, alignment, angles, points, notices)


def _content(recording: Recording) -> str:
    sets = {"coordinates": list(recording.angles)}
    sets |= {kind: list(points.names) for kind, points in recording.points.items()}
    return "; ".join(f"{kind} {listed(names)}" for kind, names in sets.items() if names) or "none"


def _angle_notices(angles: AngleComparison) -> list[str]:
    notices = []
    rotations = angles.table.index[angles.table.unit == "deg"]
    mine, truth = (ranges(side[rotations].values) for side in (angles.result, angles.reference))
    moving = (np.maximum(mine, truth) > MOVES_DEG) & (np.minimum(mine, truth) > 0.1)
    ratio = np.median(mine[moving] / truth[moving]) if moving.any() else 1.0
    if 0.7 < max(ratio, 1 / ratio) / DEGREES_PER_RADIAN < 1.4:
        small = "result" if ratio < 1 else "reference"
        notices.append(
            f"the {small}'s rotations range over {max(ratio, 1 / ratio):.0f} times less than the other "
            "side's, nearly the 57.3 degrees of a radian: the inDegrees line of one file's header may "
            "be wrong. It was believed."
        )
    if angles.table.world_frame.any():
        named = listed(angles.table.index[angles.table.world_frame])
        notices.append(
            f"{named} depend on the world frame: they are compared as they are, and only tell "
            "something if both sides have the same world. They are in no average."
        )
    return notices


def _left_out(kind: str, result: Collection[str], reference: Collection[str]) -> list[str]:
    """Say what only one side has, but for the keypoints in a result's markers: a set of their own."""
    known = {*reference, *(VIDEO_KEYPOINTS if kind == "markers" else ())}
    sides = {"result": set(result) - known, "reference": set(reference) - set(result)}
    return [
        f"{kind} that only the {side} has, not compared: {listed(sorted(names))}."
        for side, names in sides.items()
        if names
    ]
