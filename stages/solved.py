"""Solved: a person's model and its movement, however they were found, and how well they fit."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from models.augmenter import MARKERS
from models.opensim_model import Motion

RMS_GUIDANCE_M, MAX_GUIDANCE_M = 0.02, 0.04
"""OpenSim's own guidance: a good solution has marker errors below 2 cm RMS and 4 cm at most."""
KINDS = ("marker", "keypoint")
"""What an error may be of."""
LEG_COORDINATES = ("hip_flexion", "knee_angle", "ankle_angle", "subtalar_angle")


@dataclass(frozen=True)
class Solved:
    """A scaled model and its movement, however they were found."""

    model: Any
    motion: Motion
    scaling: dict[str, object]
    """Where the scales are from, and the factors by body."""
    notices: list[str]
    fit: dict[str, object] = field(default_factory=dict)
    """What there is to say of a joint fit: angles in degrees, lengths in metres."""
    parameters: pd.DataFrame | None = None
    """What was fitted besides poses, and how well the data determine it."""
    deviation: pd.DataFrame | None = None
    """Standard deviation of each coordinate in each sample, rad or m, as a joint fit states it."""


def error_table(error_m: pd.DataFrame) -> pd.DataFrame:
    """Median, RMS and largest distance in each sample, of markers and keypoints, whichever there are."""
    is_marker = error_m.columns.isin(MARKERS)
    columns = {}
    for kind, chosen in zip(KINDS, (is_marker, ~is_marker), strict=True):
        error = error_m.loc[:, chosen].dropna(axis="columns", how="all")
        if not error.empty:
            columns[f"{kind}_median_m"] = error.median(axis=1)
            columns[f"{kind}_rms_m"] = np.sqrt((error**2).mean(axis=1))
            columns[f"{kind}_max_m"] = error.max(axis=1)
            worst = error.fillna(-1).idxmax(axis=1)
            columns[f"worst_{kind}"] = worst.where(error.notna().any(axis=1), "")
    return pd.DataFrame(columns, index=error_m.index.rename("time_s"))


def kinds_of(errors: pd.DataFrame) -> list[str]:
    """What an error table is about."""
    return [kind for kind in KINDS if f"{kind}_rms_m" in errors]


def notices_about(solved: Solved, samples: int) -> list[str]:
    """What the user should know about limits, errors and gaps, of so many samples."""
    errors = error_table(solved.motion.marker_error_m)
    notices = notices_about_limits(solved.motion, solved.model) + notices_about_errors(errors)
    if missing := samples - len(solved.motion.angles):
        notices.append(
            f"{missing} of {samples} samples have no angles, since markers or keypoints are missing."
        )
    return notices


def notices_about_errors(errors: pd.DataFrame) -> list[str]:
    """What the user should know about how well the model fits the markers.

    OpenSim has no guidance for keypoints, which the report judges.
    """
    if "marker_rms_m" not in errors:
        return []
    notices = []
    rms = errors.marker_rms_m.mean()
    if rms > RMS_GUIDANCE_M:
        notices.append(
            f"marker errors of the inverse kinematics: {rms * 100:.1f} cm RMS; OpenSim's "
            f"guidance is below {RMS_GUIDANCE_M * 100:.0f} cm."
        )
    worst = errors.loc[errors.marker_max_m.idxmax()]
    if worst.marker_max_m > MAX_GUIDANCE_M:
        notices.append(
            f"largest marker error of the inverse kinematics: {worst.marker_max_m * 100:.1f} cm "
            f"({worst.worst_marker}); OpenSim's guidance is below {MAX_GUIDANCE_M * 100:.0f} cm."
        )
    return notices


def notices_about_limits(motion: Motion, model) -> list[str]:
    """Which of the legs' coordinates sit at a limit of the model's range, and how long."""
    notices = []
    for name, values in motion.angles.items():
        if name.rsplit("_", 1)[0] in LEG_COORDINATES:
            coordinate = model.getCoordinateSet().get(name)
            low, high = coordinate.getRangeMin(), coordinate.getRangeMax()
            share = ((values < low + 1e-3) | (values > high - 1e-3)).mean()
            if share > 0.01:
                notices.append(
                    f"{name} sits at the limit of the model's range ({np.degrees(low):.0f} to "
                    f"{np.degrees(high):.0f}°) in {share:.0%} of the samples: its true value may lie "
                    "beyond, or the keypoints are wrong there."
                )
    return notices
