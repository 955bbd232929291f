"""Repetitions of a movement in joint-angle curves, and curves over 0 to 100 % of one."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from scipy.signal import butter, find_peaks, sosfiltfilt

GAIT = ("walk", "gait", "run")
LEG_BENDING = ("squat", "sts", "sit", "lunge", "jump", "dj", "cmj")

MIN_BEND_DEG = 25.0
"""A repetition bends the knee at least this much; less is swaying."""
ALREADY_BENT = 0.05
"""A repetition begins and ends where the knees have bent by this share of its depth."""
CUT_OFF = 0.4
"""A repetition comes back to where it began, to within this share of its depth."""
MIN_STRIDE_S, MIN_BEND_S = 0.5, 0.6
"""Two heel strikes of one foot, two squats, are at least this far apart."""


def find_repetitions(
    time_s: Float[np.ndarray, "time"], angles_deg: Mapping[str, np.ndarray], activity: str
) -> dict[str, list[tuple[float, float]]]:
    """Start and end (s) of each repetition by side, `r` and `l`; empty lists where there are none.

    Squats, standing up and jumps: from one extension of the knees to the next, by the mean of both
    knees, so that both sides share their repetitions. Gait: from heel strike to heel strike of each
    foot, taken where the hip is most flexed, which comes within a few hundredths of a second before
    the strike. Any other activity has no repetitions: it is not guessed.
    """
    name = activity.lower()
    if any(word in name for word in LEG_BENDING):
        knees = (
            np.asarray(angles_deg["knee_angle_r"]) + np.asarray(angles_deg["knee_angle_l"])
        ) / 2
        found = _between_extensions(time_s, knees)
        return {"r": found, "l": found}
    if any(word in name for word in GAIT):
        return {
            side: _strides(time_s, np.asarray(angles_deg[f"hip_flexion_{side}"])) for side in "rl"
        }
    return {"r": [], "l": []}


def _between_extensions(time_s, knee_deg):
    """Each bend that is deep enough; standing still before and after is left out."""
    smooth, rate = _smooth(time_s, knee_deg)
    if smooth is None or np.ptp(smooth) < MIN_BEND_DEG:
        return []
    prominence = max(MIN_BEND_DEG, 0.4 * np.ptp(smooth))
    peaks, _ = find_peaks(smooth, prominence=prominence, distance=int(MIN_BEND_S * rate) or 1)
    edges = [0, *peaks, len(smooth) - 1]
    repetitions = []
    for before, peak, after in zip(edges[:-2], peaks, edges[2:], strict=True):
        rise, fall = smooth[before : peak + 1], smooth[peak : after + 1]
        depth = smooth[peak] - max(rise.min(), fall.min())
        if abs(rise.min() - fall.min()) > CUT_OFF * depth:  # the recording begins or ends in it
            continue
        start = before + int(np.flatnonzero(rise <= rise.min() + ALREADY_BENT * depth)[-1])
        end = peak + int(np.flatnonzero(fall <= fall.min() + ALREADY_BENT * depth)[0])
        repetitions.append((float(time_s[start]), float(time_s[end])))
    return repetitions


def _strides(time_s, hip_flexion_deg):
    smooth, rate = _smooth(time_s, hip_flexion_deg)
    if smooth is None or np.ptp(smooth) < 15:
        return []
    peaks, _ = find_peaks(
        smooth, prominence=0.4 * np.ptp(smooth), distance=int(MIN_STRIDE_S * rate) or 1
    )
    return [
        (float(time_s[a]), float(time_s[b])) for a, b in zip(peaks[:-1], peaks[1:], strict=True)
    ]


def _smooth(time_s, values):
    """Low-passed at 6 Hz for finding events; nothing if too short or with gaps."""
    rate = 1 / np.median(np.diff(time_s))
    if len(values) < 20 or not np.isfinite(values).all() or rate <= 12:
        return None, rate
    return sosfiltfilt(butter(2, 6.0, fs=rate, output="sos"), values), rate


def normalise_cycles(
    time_s: Float[np.ndarray, "time"],
    values: Float[np.ndarray, "time"],
    repetitions: list[tuple[float, float]],
    points: int = 101,
) -> Float[np.ndarray, "repetition points"]:
    """Each repetition's curve at 0, 1, … 100 % of its duration (cubic interpolation)."""
    curve = make_interp_spline(time_s, values)
    samples = [curve(np.linspace(start, end, points)) for start, end in repetitions]
    return np.array(samples).reshape(-1, points)
