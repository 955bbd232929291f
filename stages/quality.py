"""Quality: figures that tell how far a trial's angles can be trusted, and a verdict on each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from stages.series import stretches
from stages.triangulate import dropped_views

KNEE_RANGE_DEG = (-5.0, 140.0)
MAX_JUMP_DEG = 20.0
"""Between samples at 60 Hz: 1 200 °/s, beyond what a knee or ankle does."""


@dataclass(frozen=True)
class Figure:
    """One measured figure."""

    name: str
    value: float
    unit: str
    guidance: str
    verdict: str
    """`ok`, `warn`, `bad`, or empty where there is no guidance."""


def _judged(name, value, unit, warn, bad, source, digits=2) -> Figure:
    """A figure for which less is better."""
    verdict = "bad" if not value <= bad else "warn" if value > warn else "ok"
    guidance = f"{'below ' if warn else ''}{warn:g} {unit} ({source})"
    return Figure(name, round(float(value), digits), unit, guidance, verdict)


def image_figures(points: xr.Dataset, smoothed: xr.Dataset, names: Sequence[str]) -> list[Figure]:
    """Figures of triangulation and smoothing, over the keypoints that the angles rest on."""
    points, smoothed = points.sel(keypoint=list(names)), smoothed.sel(keypoint=list(names))
    error_px, error_m = points.reprojection_error.values, points.reprojection_error_m.values
    interval = float(np.median(np.diff(points.time)))
    filled = ~smoothed.measured.values | (points.views.values < 2)
    missing = np.isnan(smoothed.position).any("axis").values
    dropped = float(dropped_views(points).mean())
    swapped = points.swapped.any("chain").values.mean()
    return [
        Figure("reprojection error, median", round(float(np.nanmedian(error_px)), 1), "px", "", ""),
        Figure("reprojection error, 95th percentile", round(float(np.nanpercentile(error_px, 95)), 1), "px", "", ""),
        _judged("reprojection error at the person, median", np.nanmedian(error_m) * 1000, "mm", 30, 60,
                "30 mm is the size of a joint centre's guess", 1),
        Figure("views per point, mean", round(float(points.views.mean()), 2), f"of {points.sizes['camera']}", "", ""),
        _judged("views that disagreed and were dropped", 100 * dropped, "%", 10, 30, "ours", 1),
        _judged("left and right exchanged in a view, and repaired", 100 * swapped, "%", 10, 30, "ours", 1),
        _judged("samples filled by the smoother or the learned skeleton", 100 * filled.mean(), "%", 5, 25, "ours", 1),
        _judged("samples missing after smoothing", 100 * missing.mean(), "%", 1, 10, "ours", 1),
        _judged("longest gap of a keypoint", _longest_run(filled) * interval, "s", 0.2, 0.5, "OpenCap fills 0.2 s", 3),
    ]  # fmt: skip


def _longest_run(flags) -> int:
    runs = [run for column in flags.T for run in stretches(column)]
    return max((run.stop - run.start for run in runs), default=0)


def model_figures(errors: pd.DataFrame, angles: pd.DataFrame) -> list[Figure]:
    """Figures of inverse kinematics and of the angles (degrees, indexed by seconds) themselves."""
    legs = [
        name
        for name in angles
        if name.startswith(("knee_angle_", "ankle_angle_")) and "beta" not in name
    ]
    solved = angles[legs].dropna()
    speed = solved.diff().abs().div(np.diff(solved.index, prepend=np.nan), axis=0)
    jump = speed.max().max() / 60
    knees = angles[[name for name in legs if name.startswith("knee")]]
    outside = ((knees < KNEE_RANGE_DEG[0]) | (knees > KNEE_RANGE_DEG[1])).mean().max() * 100
    return [
        *error_figures(errors),
        _judged("fastest change of a knee or ankle angle, in 1/60 s", jump, "°", 10, MAX_JUMP_DEG, "ours", 1),
        _judged(f"knee outside {KNEE_RANGE_DEG[0]:g} to {KNEE_RANGE_DEG[1]:g}°", outside, "%", 0, 1, "anatomy", 1),
        _judged("samples without angles", 100 * angles[legs].isna().any(axis=1).mean(), "%", 2, 20, "ours", 1),
    ]  # fmt: skip


def error_figures(errors: pd.DataFrame) -> list[Figure]:
    """How far the model is from markers, for which OpenSim has a guidance, and from keypoints."""
    figures = []
    if "marker_rms_m" in errors:
        figures += [
            _judged("inverse kinematics, marker error RMS, mean", errors.marker_rms_m.mean() * 1000, "mm", 20, 40,
                    "OpenSim's guidance", 1),
            _judged("inverse kinematics, largest marker error", errors.marker_max_m.max() * 1000, "mm", 40, 150,
                    "OpenSim's guidance", 1),
        ]  # fmt: skip
    if "keypoint_rms_m" in errors:
        figures += [
            _judged("keypoints from the fitted model, median", errors.keypoint_median_m.mean() * 1000, "mm", 30, 60,
                    "30 mm is the size of a joint centre's guess", 1),
        ]  # fmt: skip
    return figures


def fit_figures(uncertainty: pd.Series) -> list[Figure]:
    """What a fit says of its own uncertainty (degrees, by coordinate); nothing without a fit."""
    legs = uncertainty.filter(regex="^(knee|ankle)_angle_[rl]$")
    if legs.empty:
        return []
    return [
        _judged("uncertainty of a knee or ankle angle, by the fit itself", legs.max(), "°", 10, 20,
                "ours; a standard deviation", 1),
    ]  # fmt: skip


def unmade_fit(asked: str, done: str) -> list[Figure]:
    """A warning if the model was not fitted as asked for."""
    if asked == done:
        return []
    return [Figure(f"fit to {asked}, asked for and not made", 1.0, "", "see the notices", "warn")]


def overall(figures: Sequence[Figure]) -> tuple[str, str]:
    """The worst verdict, and what it means for whoever wants to publish the numbers."""
    verdicts = {figure.verdict for figure in figures}
    if "bad" in verdicts:
        which = "; ".join(f.name for f in figures if f.verdict == "bad")
        return "bad", f"Do not trust these angles before you have found out why: {which}."
    if "warn" in verdicts:
        which = "; ".join(f.name for f in figures if f.verdict == "warn")
        return "warn", f"Usable with care. Outside the guidance: {which}."
    return "ok", "All figures are within the guidance."


def range_of_motion(angles: pd.DataFrame, cycles: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Minimum, maximum and range of each coordinate, and the range's mean and SD over repetitions.

    `cycles` has a coordinate's curves (repetition, points) where repetitions were found.
    """
    table = pd.DataFrame({"minimum": angles.min(), "maximum": angles.max()})
    table["range"] = table.maximum - table.minimum
    ranges = {name: np.ptp(curves, axis=1) for name, curves in cycles.items() if len(curves)}
    table["repetitions"] = pd.Series(
        {name: len(values) for name, values in ranges.items()}, dtype=float
    )
    table["range_mean"] = pd.Series(
        {name: values.mean() for name, values in ranges.items()}, dtype=float
    )
    table["range_sd"] = pd.Series(
        {name: values.std(ddof=1) for name, values in ranges.items() if len(values) > 1},
        dtype=float,
    )
    return table.rename_axis("coordinate")
