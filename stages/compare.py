"""Compare a result with a reference: align them in time and space, and say how far off it is."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Bool, Float
from scipy.interpolate import make_interp_spline

from calibration import Camera
from models.metrics import (
    acceleration_errors,
    aligned_distances_mm,
    angle_errors,
    distance_figures,
    find_lag,
    multiple_correlation,
    point_distances_mm,
    reprojection_errors_px,
    segment_length_errors,
    similarity,
    transform,
)
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from stages.cycles import Spans, knee_bends, normalise_cycles
from stages.export import read_trc
from stages.kinematics import in_file_units, read_mot
from stages.series import stretches

LOWER_LIMB = tuple(
    f"{joint}_{side}"
    for joint in (
        "hip_flexion hip_adduction hip_rotation knee_angle ankle_angle subtalar_angle".split()
    )
    for side in "rl"
)
"""The rotations that averages are over: no pelvis, lumbar spine, toes or arms."""
WORLD_FRAME = "pelvis_"
"""Coordinates of this name place the body in the world: they differ if the worlds do."""
SEGMENTS = (
    *(
        (f"{name} {side}", f"{side}{start}", f"{side}{end}")
        for side in "RL"
        for name, start, end in (
            ("thigh", "Hip", "Knee"), ("shank", "Knee", "Ankle"),
            ("upper arm", "Shoulder", "Elbow"), ("forearm", "Elbow", "Wrist"),
        )
    ),
    *(
        (f"{name} {side}, markers", start.format(side) + "_study", end.format(side) + "_study")
        for side in "rL"
        for name, start, end in (
            ("thigh", "{}_thigh1", "{}_knee"), ("shank", "{}_knee", "{}_ankle"),
            ("upper arm", "{}_shoulder", "{}_lelbow"), ("forearm", "{}_lelbow", "{}_lwrist"),
        )
    ),
)  # fmt: skip
"""Pairs of video keypoints, and of markers, on one bone."""
SHORTEST_S = 0.5
"""Less than this cannot be aligned or judged."""
LEAST_CORRELATION = 0.5
"""A lag found with less is not believed."""
MOVES_DEG = 5.0
"""A coordinate that ranges over less on either side has no say in the lag."""
STILL_DEG = 1e-6
"""A coordinate that ranges over less on both sides is held constant: no average counts it."""
DEGREES_PER_RADIAN = 180 / np.pi


@dataclass(frozen=True)
class Trajectories:
    """Points over time."""

    time_s: Float[np.ndarray, "time"]
    names: tuple[str, ...]
    position: Float[np.ndarray, "time point 3"]
    """m, NaN where missing."""


@dataclass(frozen=True)
class Recording:
    """One side of a comparison."""

    name: str
    angles: pd.DataFrame | None
    """Degrees and metres, by coordinate, indexed by seconds."""
    points: dict[str, Trajectories]
    """By the kind of point: markers, keypoints; `points` of a lone file."""
    cameras: tuple[Camera, ...] = ()
    """True cameras in the points' world, if known."""


class Space(NamedTuple):
    """Where the reference's world is in the result's: result = rotation · reference + translation."""

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    """m"""
    description: str


IDENTITY = Space(np.eye(3), np.zeros(3), "identity: both are taken to be in the same world")


@dataclass(frozen=True)
class Alignment:
    """The lag that was taken out, and why."""

    lag_s: float
    """Positive where the result comes later."""
    correlation: float
    """That the lag rests on; NaN if it was given."""
    description: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class AngleComparison:
    """Coordinates that both sides have, at the result's samples, degrees and millimetres."""

    result: pd.DataFrame
    reference: pd.DataFrame
    table: pd.DataFrame
    """By coordinate: `unit` (deg or mm), `world_frame`, then `angle_errors`' figures, and
    `multiple_correlation_repetitions`, that of the curves over 0 to 100 % of each repetition."""
    repetitions: pd.DataFrame
    """Rotations by `coordinate` and `repetition`: `start_s`, `end_s`, then `angle_errors`' figures."""
    only_result: list[str]
    only_reference: list[str]

    @property
    def lower_limb(self) -> pd.Series:
        """Means over the rotations of `LOWER_LIMB` that move on either side.

        Of `rmse`, `mae`, `max`, `correlation` and `multiple_correlation`, and the `mean_abs_bias`
        and `mean_abs_range_error`, whose signs would cancel; `count` says over how many.
        """
        names = [name for name in LOWER_LIMB if name in self.table.index]
        moves = (
            _ranges(self.result[names].values) + _ranges(self.reference[names].values) > STILL_DEG
        )
        moving = [name for name, moved in zip(names, moves, strict=True) if moved]
        rows = self.table.loc[moving]
        means = rows[["rmse", "mae", "max", "correlation", "multiple_correlation"]].mean()
        means["mean_abs_bias"] = rows["bias"].abs().mean()
        means["mean_abs_range_error"] = rows["range_error"].abs().mean()
        means["count"] = len(rows)
        return means


@dataclass(frozen=True)
class PointComparison:
    """Points that both sides have, at the result's samples, in the result's world."""

    table: pd.DataFrame
    """By point: `distance_figures`, `aligned_mean_mm` (each frame fitted), `jitter_m_s2`."""
    overall: dict[str, float]
    """`mpjpe_mm`, `pa_mpjpe_mm`, `p95_mm`, `max_mm`, `pck_50mm`, `pck_150mm`, `share_compared` of
    the result's samples, `jitter_m_s2`, the segments' mean |length error| and length SD, and with
    the reference's cameras `reprojection_px`."""
    segments: pd.DataFrame
    """By segment: `length_error_mm`, `length_sd_mm`."""
    space: Space
    only_result: list[str]
    only_reference: list[str]


@dataclass(frozen=True)
class Comparison:
    """All that two recordings have in common."""

    result: str
    reference: str
    alignment: Alignment
    angles: AngleComparison | None
    points: dict[str, PointComparison]
    notices: list[str]


def is_rotation(name: str) -> bool:
    """Whether a coordinate is an angle: OpenSim's models end the names of translations so."""
    return not re.search(r"_t[xyz]$", name)


def read_angles(path: Path) -> pd.DataFrame:
    """Read coordinates in degrees and metres, whatever unit the file's header says.

    Coordinates that end in `_beta` are left out: they repeat a knee's angle for the patella, and
    OpenCap's files have them in radians beside angles in degrees. Raises PipelineError if the header lacks the unit.
    """
    angles = read_mot(path)
    header = path.read_text(encoding="utf-8").lower().partition("endheader")[0]
    unit = re.search(r"^\s*indegrees\s*=\s*(yes|no)\s*$", header, re.MULTILINE)
    if unit is None:
        raise PipelineError(
            f"the header of {path} does not say whether its angles are in degrees or radians. Add the "
            "line inDegrees=yes or inDegrees=no above endheader."
        )
    if not (np.diff(angles.index) > 0).all():
        raise PipelineError(
            f"the times of {path} do not increase from row to row. Export it again."
        )
    angles = angles[[name for name in angles if not name.endswith("_beta")]]
    radians = unit[1] == "no"
    return in_file_units(angles, set(filter(is_rotation, angles))) if radians else angles


def read_points(path: Path) -> Trajectories:
    """Read points of a TRC file, or of a stage's `points.nc`."""
    if path.suffix.lower() != ".nc":
        time_s, names, position = read_trc(path)
    else:
        array = load_dataset(path).position.transpose("time", "keypoint", "axis")
        time_s, position = array.time.values, array.values.astype(float)
        names = [str(name) for name in array.keypoint.values]
    if not (np.diff(time_s) > 0).all():
        raise PipelineError(
            f"the times of {path} do not increase from row to row. Export it again."
        )
    return Trajectories(time_s, tuple(names), position)


def read_space(path: Path) -> Space:
    """Read the transform between worlds that OpenCap's data set has as mocapToVideoTransform.yaml.

    `R_fromMocap_toVideo` (3 x 3) turns the reference's axes into the result's;
    `position_fromMocapOrigin_toVideoOrigin` (3, m) is the result's origin seen from the reference's,
    in the reference's axes: video = R (mocap - position).

    Raises PipelineError if it lacks them, or the rotation is none: some published ones are singular.
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        rotation = _numbers(table, "R_fromMocap_toVideo", (3, 3))
        position = _numbers(table, "position_fromMocapOrigin_toVideoOrigin", (3,))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError, KeyError) as error:
        raise PipelineError(
            f"{path} gives no transform: {' '.join(str(error).split())}. Expected "
            "R_fromMocap_toVideo (3 x 3) and position_fromMocapOrigin_toVideoOrigin (3, m)."
        ) from error
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise PipelineError(
            f"R_fromMocap_toVideo of {path} is no rotation (determinant {np.linalg.det(rotation):.3g}, "
            "must be 1, rows at right angles and of length 1). Correct it, or use --space rigid."
        )
    return Space(rotation, -rotation @ position, f"by {path.name}")


def _numbers(table: dict, key: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    numbers = np.array(table[key], dtype=float)
    if numbers.size != np.prod(shape) or not np.isfinite(numbers).all():
        raise ValueError(f"{key} is not {np.prod(shape)} finite numbers")
    return numbers.reshape(shape)


def resample(
    time_s: Float[np.ndarray, "time"],
    values: Float[np.ndarray, "time *any"],
    at_s: Float[np.ndarray, "at"],
) -> Float[np.ndarray, "at *any"]:
    """Values at other times (s), by a cubic spline through each stretch of known samples.

    NaN outside a stretch: before, after, and in gaps, which are missing values or intervals of more
    than 1.5 times the usual one. Nothing is extrapolated.
    """
    flat = values.reshape(len(values), -1)
    out = np.full((len(at_s), flat.shape[1]), np.nan)
    patterns, group = np.unique(np.isfinite(flat), axis=1, return_inverse=True)
    intervals = np.diff(time_s)
    broken = np.flatnonzero(intervals > 1.5 * np.median(intervals)) + 1 if len(intervals) else []
    for index, known in enumerate(patterns.T):
        columns = np.flatnonzero(group.ravel() == index)
        for part in _unbroken(known, broken):
            times = time_s[part]
            inside = (at_s >= times[0] - 1e-6) & (at_s <= times[-1] + 1e-6)
            curve = make_interp_spline(times, flat[part][:, columns], k=_degree(len(times)))
            at = np.clip(at_s[inside], times[0], times[-1])
            out[np.ix_(inside, columns)] = curve(at)
    return out.reshape(len(at_s), *values.shape[1:])


def _unbroken(known: Bool[np.ndarray, "time"], broken: Collection[int]) -> list[slice]:
    """Runs of known samples, cut where time jumps."""
    parts = []
    for run in stretches(known):
        cuts = [run.start, *(cut for cut in broken if run.start < cut < run.stop), run.stop]
        parts += [slice(*pair) for pair in zip(cuts[:-1], cuts[1:], strict=True)]
    return parts


def _degree(samples: int) -> int:
    return 3 if samples >= 4 else min(samples - 1, 1)


def check_overlap(result_s: np.ndarray, reference_s: np.ndarray, lag_s: float) -> None:
    """Raise PipelineError if the reference is too short, or both are not of the same time."""
    spans = [
        (times[0], times[-1]) if len(times) else (0.0, 0.0) for times in (result_s, reference_s)
    ]
    for name, (start, end) in zip(("result", "reference"), spans, strict=True):
        if end - start < SHORTEST_S:
            raise PipelineError(
                f"the {name} lasts {end - start:.2f} s, too short to compare: at least {SHORTEST_S} s"
            )
    (start, end), (true_start, true_end) = spans
    if min(end - lag_s, true_end) - max(start - lag_s, true_start) < SHORTEST_S:
        shifted = f", with the lag of {lag_s:g} s taken out" if lag_s else ""
        raise PipelineError(
            f"the result (from {start:.2f} to {end:.2f} s) and the reference (from {true_start:.2f} to "
            f"{true_end:.2f} s) overlap by less than {SHORTEST_S} s{shifted}. If their clocks differ, "
            "say by how much the result is later: --lag SECONDS"
        )


def align(result: Recording, reference: Recording, max_lag_s: float) -> Alignment:
    """Find the lag between two recordings: by joint angles, or if there are none by points.

    Joint angles are used as they are, without those that depend on the world frame or hardly move;
    of points their speeds, which do not depend on the world frame either.
    """
    if _shared(result.angles, reference.angles):
        what, sides = "joint angles", (result.angles, reference.angles)
        times = [side.index.values for side in sides]
        names = [name for name in _shared(*sides) if is_rotation(name)]
        curves = [
            side[[name for name in names if not name.startswith(WORLD_FRAME)]].values
            for side in sides
        ]
    else:
        kind, other = _pairs(result, reference)[0]
        what, sides = "the points' speeds", (result.points[kind], reference.points[other])
        times = [side.time_s for side in sides]
        names = _in_order(sides[0].names, sides[1].names)
        curves = [_speeds(side, names) for side in sides]
    check_overlap(*times, 0.0)
    interval_s = min(float(np.median(np.diff(each))) for each in times)
    start, end = min(each[0] for each in times), max(each[-1] for each in times)
    grid = np.arange(start, end + interval_s / 2, interval_s)
    curves = [resample(*each, grid) for each in zip(times, curves, strict=True)]
    if what == "joint angles":
        moving = [_ranges(each) > MOVES_DEG for each in curves]
        curves = [each[:, moving[0] & moving[1]] for each in curves]
    return _judged(find_lag(*curves, interval_s, max_lag_s), what, max_lag_s)


def _judged(lag, what: str, max_lag_s: float) -> Alignment:
    """Believe a lag or not."""
    found = f"{lag.seconds * 1000:+.1f} ms (correlation {lag.correlation:.3f})"
    if np.isnan(lag.correlation):
        reason = f"{what} move too little on one of the sides to tell"
    elif lag.correlation < LEAST_CORRELATION:
        reason = f"{what} do not agree well enough at any lag, best at {found}"
    elif lag.at_edge:
        reason = (
            f"the best lag is {found}, the largest that was tried ({max_lag_s:g} s): the true one may "
            "lie beyond. Try a larger --max-lag, or give --lag SECONDS"
        )
    else:
        return Alignment(lag.seconds, lag.correlation, f"found from {what}")
    note = f"the lag is not trusted, none was taken out: {reason}."
    return Alignment(0.0, lag.correlation, "not trusted, none taken out", (note,))


def _speeds(points: Trajectories, names: list[str]) -> Float[np.ndarray, "time point"]:
    position = points.position[:, [points.names.index(name) for name in names]]
    return np.linalg.norm(np.gradient(position, points.time_s, axis=0), axis=-1)


def _ranges(curves: Float[np.ndarray, "time curve"]) -> Float[np.ndarray, "curve"]:
    known = np.isfinite(curves)
    high = np.where(known, curves, -np.inf).max(0)
    return np.where(known.any(0), high - np.where(known, curves, np.inf).min(0), 0)


def compare_angles(
    result: pd.DataFrame, reference: pd.DataFrame, rotational: Collection[str], lag_s: float = 0.0
) -> AngleComparison:
    """Compare coordinates (degrees and metres, indexed by seconds) by name, at the result's samples.

    Translations are compared in millimetres. Rotations that differ by whole turns are the same: the
    reference's are brought to the result's turn. Repetitions are the reference's knee bends.
    """
    names = _shared(result, reference)
    time_s = result.index.values
    truth = resample(reference.index.values, reference[names].values, time_s - lag_s)
    at = pd.Index(time_s, name="time_s")
    truth = pd.DataFrame(truth, columns=names, index=at)
    scale = [1.0 if name in rotational else 1000.0 for name in names]
    mine = pd.DataFrame(result[names].values, columns=names, index=at) * scale
    truth = truth * scale
    if not (mine.notna() & truth.notna()).values.any():
        raise PipelineError(
            f"the angles of result and reference are never known at the same time, with a lag of "
            f"{lag_s:g} s taken out. Look for gaps in both, or give --lag SECONDS."
        )
    turns = ((mine - truth).median() / 360).round().fillna(0)
    truth = truth + [360 * turns[name] if name in rotational else 0.0 for name in names]
    spans = repetitions_of(truth, (mine.notna() & truth.notna()).all(axis=1).values)
    figures = {
        name: {
            "unit": "deg" if name in rotational else "mm",
            "world_frame": name.startswith(WORLD_FRAME),
            **angle_errors(mine[name].values, truth[name].values),
            "multiple_correlation_repetitions": _cycle_correlation(mine[name], truth[name], spans),
        }
        for name in names
    }
    rotations = [name for name in names if name in rotational]
    return AngleComparison(
        mine,
        truth,
        pd.DataFrame.from_dict(figures, orient="index").rename_axis("coordinate"),
        _repetition_table(mine[rotations], truth[rotations], spans),
        sorted(set(result) - set(names)),
        sorted(set(reference) - set(names)),
    )


def repetitions_of(reference: pd.DataFrame, known: Bool[np.ndarray, "time"]) -> Spans:
    """Knee bends of the reference (degrees, indexed by seconds) where all is known; none without knees."""
    knees = [name for name in ("knee_angle_r", "knee_angle_l") if name in reference]
    if not knees:
        return []
    bend = np.where(known, reference[knees].mean(axis=1).values, np.nan)
    return knee_bends(reference.index.values, bend)


def _cycle_correlation(result: pd.Series, reference: pd.Series, spans: Spans) -> float:
    curves = [
        normalise_cycles(side.dropna().index.values, side.dropna().values, spans)
        for side in (result, reference)
    ]
    return multiple_correlation(np.stack(curves, axis=1))


def _repetition_table(result: pd.DataFrame, reference: pd.DataFrame, spans: Spans) -> pd.DataFrame:
    time_s = result.index.values
    inside = [(time_s >= start - 1e-9) & (time_s <= end + 1e-9) for start, end in spans]
    rows = [
        {
            "coordinate": name,
            "repetition": number,
            "start_s": start,
            "end_s": end,
            **angle_errors(result[name].values[within], reference[name].values[within]),
        }
        for name in result
        for number, ((start, end), within) in enumerate(zip(spans, inside, strict=True), start=1)
    ]
    return pd.DataFrame(rows)


def compare_points(
    result: Trajectories,
    reference: Trajectories,
    space: Space | None,
    lag_s: float = 0.0,
    cameras: Sequence[Camera] = (),
) -> PointComparison:
    """Compare points by name, at the result's samples and in its world.

    Without a `space`, one rotation and translation (no scale) is fitted to the whole recording.
    `cameras` are those of the reference's world; they see both sides only if that is the result's.
    """
    names = _in_order(result.names, reference.names)
    mine, truth = (
        side.position[:, [side.names.index(name) for name in names]] for side in (result, reference)
    )
    truth = resample(reference.time_s, truth, result.time_s - lag_s)
    if not np.isfinite(mine - truth).any():
        raise PipelineError(
            f"the points of result and reference are never known at the same time, with a lag of "
            f"{lag_s:g} s taken out. Look for gaps in both, or give --lag SECONDS."
        )
    space = space or _fit_space(mine, truth)
    truth = transform(truth, space.rotation, space.translation)
    distances, aligned = point_distances_mm(mine, truth), aligned_distances_mm(mine, truth)
    interval_s = float(np.median(np.diff(result.time_s)))
    jitter = acceleration_errors(mine, truth, interval_s)
    figures = {
        name: {
            **distance_figures(distances[:, index]),
            "aligned_mean_mm": _mean(aligned[:, index]),
            "jitter_m_s2": _mean(jitter[:, index]),
        }
        for index, name in enumerate(names)
    }
    segments = _segment_table(mine, truth, names)
    overall = distance_figures(distances)
    overall = {
        "mpjpe_mm": overall.pop("mean_mm"),
        "pa_mpjpe_mm": _mean(aligned),
        **overall,
        "share_compared": overall["samples"] / distances.size,
        "jitter_m_s2": _mean(jitter),
        "segment_length_error_mm": _mean(np.abs(segments.length_error_mm.values)),
        "segment_length_sd_mm": _mean(segments.length_sd_mm.values),
    }
    if cameras and space is IDENTITY:
        views = (np.stack([camera.project(side) for camera in cameras]) for side in (mine, truth))
        overall["reprojection_px"] = _mean(reprojection_errors_px(*views))
    return PointComparison(
        pd.DataFrame.from_dict(figures, orient="index").rename_axis("point"),
        overall,
        segments,
        space,
        sorted(set(result.names) - set(names)),
        sorted(set(reference.names) - set(names)),
    )


def _fit_space(result, reference) -> Space:
    rotation, translation, _ = similarity(reference.reshape(-1, 3), result.reshape(-1, 3), False)
    angle_deg = np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
    return Space(
        rotation,
        translation,
        f"rigid: one rotation ({angle_deg:.1f}°) and translation ({np.linalg.norm(translation):.3f} m) "
        "fitted to all points and times, no scale",
    )


def _segment_table(result, reference, names: list[str]) -> pd.DataFrame:
    found = [each for each in SEGMENTS if each[1] in names and each[2] in names]
    starts, ends = ([names.index(each[end]) for each in found] for end in (1, 2))
    errors = segment_length_errors(
        result[:, starts], result[:, ends], reference[:, starts], reference[:, ends]
    )
    index = pd.Index([name for name, _, _ in found], name="segment")
    return pd.DataFrame(errors, index=index)


def _mean(values: Float[np.ndarray, "*any"]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def compare(
    result: Recording,
    reference: Recording,
    space: Space | None,
    lag_s: float | None = None,
    max_lag_s: float = 1.0,
) -> Comparison:
    """Compare all that two recordings have in common.

    `space` as in `compare_points`; `lag_s` is how much later the result comes, found if None.
    Raises PipelineError if they have nothing in common, or not at the same time.
    """
    names, pairs = _shared(result.angles, reference.angles), _pairs(result, reference)
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
    notices, angles, points = list(alignment.notices), None, {}
    if names:
        check_overlap(result.angles.index.values, reference.angles.index.values, alignment.lag_s)
        rotational = set(filter(is_rotation, names))
        angles = compare_angles(result.angles, reference.angles, rotational, alignment.lag_s)
        notices += _angle_notices(angles)
    for kind, other in pairs:
        mine, truth = result.points[kind], reference.points[other]
        check_overlap(mine.time_s, truth.time_s, alignment.lag_s)
        points[kind] = compare_points(mine, truth, space, alignment.lag_s, reference.cameras)
        notices += _left_out(kind, points[kind])
    return Comparison(result.name, reference.name, alignment, angles, points, notices)


def _shared(result: pd.DataFrame | None, reference: pd.DataFrame | None) -> list[str]:
    return [] if result is None or reference is None else _in_order(result, reference)


def _in_order(names: Collection[str], others: Collection[str]) -> list[str]:
    return [name for name in names if name in others]


def _pairs(result: Recording, reference: Recording) -> list[tuple[str, str]]:
    """Kinds of points to compare: of the same name, and a lone file's with any that fit it."""
    return [
        (kind, other)
        for kind, mine in result.points.items()
        for other, truth in reference.points.items()
        if (kind == other or "points" in (kind, other)) and _in_order(mine.names, truth.names)
    ]


def _content(recording: Recording) -> str:
    sets = {"coordinates": [] if recording.angles is None else list(recording.angles)}
    sets |= {kind: list(points.names) for kind, points in recording.points.items()}
    return (
        "; ".join(f"{kind} {', '.join(names)}" for kind, names in sets.items() if names) or "none"
    )


def _angle_notices(angles: AngleComparison) -> list[str]:
    notices = _left_out("coordinates", angles)
    rotations = angles.table.index[angles.table.unit == "deg"]
    ranges = [_ranges(side[rotations].values) for side in (angles.result, angles.reference)]
    moving = (ranges[0] > 0.1) & (ranges[1] > 0.1)
    ratio = np.median(ranges[0][moving] / ranges[1][moving]) if moving.any() else 1.0
    if 0.7 < max(ratio, 1 / ratio) / DEGREES_PER_RADIAN < 1.4:
        small = "result" if ratio < 1 else "reference"
        notices.append(
            f"the {small}'s rotations range over {max(ratio, 1 / ratio):.0f} times less than the other "
            "side's, nearly the 57.3 degrees of a radian: the inDegrees line of one file's header may "
            "be wrong. It was believed."
        )
    if angles.table.world_frame.any():
        named = ", ".join(angles.table.index[angles.table.world_frame])
        notices.append(
            f"{named} depend on the world frame: they are compared as they are, and only tell "
            "something if both sides have the same world. They are in no average."
        )
    return notices


def _left_out(kind: str, compared: AngleComparison | PointComparison) -> list[str]:
    return [
        f"{kind} that only the {side} has, not compared: {', '.join(names)}."
        for side, names in (
            ("result", compared.only_result), ("reference", compared.only_reference),
        )
        if names
    ]  # fmt: skip
