"""Compare angles, and points, of a result with a reference: by name, at the result's samples."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool

from calibration import Camera
from models import metrics
from stages.align import WORLD_FRAME, check_known, fit_space, resample
from stages.cycles import MIN_SWING_DEG, Spans, knee_bends, normalise_cycles, strides
from stages.recordings import IDENTITY, Space, Trajectories, in_common

Repetitions = Literal["knee bends", "strides"]
LOWER_LIMB = [
    f"{joint}_{side}"
    for joint in "hip_flexion hip_adduction hip_rotation knee_angle ankle_angle subtalar_angle".split()
    for side in "rl"
]  # fmt: skip
"""The rotations that averages are over: no pelvis, lumbar spine, toes or arms."""
_BONES = (
    ("thigh", "Hip", "Knee", "thigh1", "knee"),
    ("shank", "Knee", "Ankle", "knee", "ankle"),
    ("upper arm", "Shoulder", "Elbow", "shoulder", "lelbow"),
    ("forearm", "Elbow", "Wrist", "lelbow", "lwrist"),
)
SEGMENTS = [
    *((f"{bone} {s}", s + start, s + end) for s in "RL" for bone, start, end, *_ in _BONES),
    *((f"{bone} {s}, markers", f"{s}_{start}_study", f"{s}_{end}_study")
      for s in "rL" for bone, *_, start, end in _BONES),
]  # fmt: skip
"""Pairs of video keypoints, and of markers, that are about as far apart as a bone is long."""
STILL = 1e-6
"""A coordinate (deg or mm) that ranges over less on both sides is held still: no average counts it."""


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

    @property
    def still(self) -> list[str]:
        """Coordinates that do not move on either side."""
        moved = metrics.ranges(self.result.values) + metrics.ranges(self.reference.values)
        return list(self.table.index[moved <= STILL])

    @property
    def lower_limb(self) -> pd.Series:
        """Means over the rotations of `LOWER_LIMB` that move on either side.

        Of `rmse`, `mae`, `max`, `correlation` and `multiple_correlation`, and the `mean_abs_bias`
        and `mean_abs_range_error`, whose signs would cancel; `count` says over how many. A multiple
        correlation that is not defined, as curves are farther apart than they move, counts as 0.
        """
        rows = self.table.loc[in_common(LOWER_LIMB, self.table.index.difference(self.still))]
        means = rows[["rmse", "mae", "max", "correlation"]].mean()
        means["multiple_correlation"] = rows["multiple_correlation"].fillna(0).mean()
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
    the result's samples, `jitter_m_s2`, the segments' mean |length error| and its SD over time, and with
    the reference's cameras `reprojection_px`."""
    segments: pd.DataFrame
    """By segment: `length_error_mm`, `length_error_sd_mm`."""
    space: Space


def compare_angles(
    result: pd.DataFrame,
    reference: pd.DataFrame,
    rotational: Collection[str],
    lag_s: float = 0.0,
    repetitions: Repetitions = "knee bends",
) -> AngleComparison:
    """Compare coordinates (degrees and metres, indexed by seconds) by name, at the result's samples.

    Translations are compared in millimetres. Rotations that differ by whole turns are the same: the
    reference's are brought to the result's turn. Repetitions are found in the reference.
    """
    names = in_common(result, reference)
    at = pd.Index(result.index.values, name="time_s")
    scale = [1.0 if name in rotational else 1000.0 for name in names]
    truth = resample(reference.index.values, reference[names].values, at.values - lag_s)
    mine, truth = (
        pd.DataFrame(values, at, names) * scale for values in (result[names].values, truth)
    )
    check_known((mine - truth).values, "angles", lag_s)
    turns = ((mine - truth).median() / 360).round().fillna(0)
    truth = truth + 360 * turns.where(turns.index.isin(rotational), 0)
    known = (mine.notna() & truth.notna()).all(axis=1).values
    spans = repetitions_of(truth, known, repetitions)
    figures = {
        name: {
            "unit": "deg" if name in rotational else "mm",
            "world_frame": name.startswith(WORLD_FRAME),
            **metrics.angle_errors(mine[name].values, truth[name].values),
            "multiple_correlation_repetitions": _cycle_correlation(mine[name], truth[name], spans),
        }
        for name in names
    }
    table = pd.DataFrame.from_dict(figures, orient="index").rename_axis("coordinate")
    rotations = in_common(names, rotational)
    found = _repetition_table(mine[rotations], truth[rotations], spans)
    return AngleComparison(mine, truth, table, found)


def repetitions_of(
    reference: pd.DataFrame, known: Bool[np.ndarray, "time"], kind: Repetitions
) -> dict[str, Spans]:
    """Repetitions by side (r, l) in the reference's angles (degrees, indexed by seconds).

    None where something is unknown. Knee bends are of both knees; strides are each side's own.
    """
    time_s = reference.index.values
    knees = in_common(("knee_angle_r", "knee_angle_l"), reference)
    bends = reference.loc[known, knees].reindex(time_s)
    if kind == "strides":
        found = {_side(name): strides(time_s, bends[name].values, MIN_SWING_DEG) for name in knees}
        return {"r": [], "l": []} | found
    return dict.fromkeys("rl", knee_bends(time_s, bends.mean(axis=1).values))


def _side(coordinate: str) -> str:
    """Whose repetitions a coordinate is cut into: the pelvis's and the trunk's are the right's."""
    return "l" if coordinate.endswith("_l") else "r"


def _cycle_correlation(result: pd.Series, reference: pd.Series, spans: dict[str, Spans]) -> float:
    known = (side.dropna() for side in (result, reference))
    own = spans[_side(result.name)]
    curves = [normalise_cycles(side.index.values, side.values, own) for side in known]
    return metrics.multiple_correlation(np.stack(curves, axis=1))


def _repetition_table(
    result: pd.DataFrame, reference: pd.DataFrame, spans: dict[str, Spans]
) -> pd.DataFrame:
    rows = []
    for name in result:
        for number, (start, end) in enumerate(spans[_side(name)], start=1):
            within = slice(start - 1e-9, end + 1e-9)
            curves = (side.loc[within, name].values for side in (result, reference))
            about = {"coordinate": name, "repetition": number, "start_s": start, "end_s": end}
            rows.append(about | metrics.angle_errors(*curves))
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
    names = in_common(result.names, reference.names)
    mine = result.of(names)
    truth = resample(reference.time_s, reference.of(names), result.time_s - lag_s)
    check_known(mine - truth, "points", lag_s)
    space = space or fit_space(mine, truth)
    truth = metrics.transform(truth, space.rotation, space.translation)
    errors = (
        metrics.point_distances_mm(mine, truth),
        metrics.aligned_distances_mm(mine, truth),
        metrics.acceleration_errors(mine, truth, float(np.median(np.diff(result.time_s)))),
    )
    figures = {
        name: _point_figures(*(each[:, index] for each in errors))
        for index, name in enumerate(names)
    }
    segments = _segment_table(mine, truth, names)
    overall = _point_figures(*errors)
    overall = {
        "mpjpe_mm": overall.pop("mean_mm"),
        "pa_mpjpe_mm": overall.pop("aligned_mean_mm"),
        **overall,
        "share_compared": overall["samples"] / errors[0].size,
        "segment_length_error_mm": metrics.mean_known(np.abs(segments.length_error_mm.values)),
        "segment_length_error_sd_mm": metrics.mean_known(segments.length_error_sd_mm.values),
    }
    if cameras and space is IDENTITY:
        pixels = np.stack([camera.project(mine) - camera.project(truth) for camera in cameras])
        overall["reprojection_px"] = metrics.mean_known(np.linalg.norm(pixels, axis=-1))
    table = pd.DataFrame.from_dict(figures, orient="index").rename_axis("point")
    return PointComparison(table, overall, segments, space)


def _point_figures(distances_mm, aligned_mm, jitter_m_s2) -> dict[str, float]:
    return {
        **metrics.distance_figures(distances_mm),
        "aligned_mean_mm": metrics.mean_known(aligned_mm),
        "jitter_m_s2": metrics.mean_known(jitter_m_s2),
    }


def _segment_table(result, reference, names: list[str]) -> pd.DataFrame:
    """Of points (time, point, 3), m, by name."""
    found = [each for each in SEGMENTS if each[1] in names and each[2] in names]
    starts, ends = ([names.index(each[end]) for each in found] for end in (1, 2))
    errors = metrics.segment_length_errors(
        result[:, starts], result[:, ends], reference[:, starts], reference[:, ends]
    )
    index = pd.Index([name for name, _, _ in found], name="segment")
    return pd.DataFrame(errors, index=index)
