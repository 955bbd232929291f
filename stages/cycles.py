"""Repetitions of a movement in joint-angle curves, and curves over 0 to 100 % of one."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from scipy.signal import butter, find_peaks, sosfiltfilt

MIN_BEND_DEG = 25.0
"""A repetition bends the knee at least this much; less is swaying."""
ALREADY_BENT = 0.05
"""A repetition begins and ends where the knees have bent by this share of its depth."""
CUT_OFF = 0.4
"""A repetition comes back to where it began, to within this share of its depth."""
MIN_STEP_M = 0.15
"""A step brings the heel at least this much to the front."""
MIN_SWING_DEG = 20.0
"""A swing of the leg bends the knee at least this much; the loaded leg bends by some 15°."""
SHORTEST_SAMPLES = 20
MIN_STRIDE_S, MIN_BEND_S = 0.5, 0.6
"""Two heel strikes of one foot, two squats, are at least this far apart."""


Spans = list[tuple[float, float]]
"""Start and end of each repetition, s."""


def knee_bends(time_s: Float[np.ndarray, "time"], knee_deg: Float[np.ndarray, "time"]) -> Spans:
    """Squats, standing up, jumps: from one extension of the knees to the next.

    Standing still before and after is left out, and so is a bend that the recording, or a gap in it,
    cuts off. `knee_deg` is the mean flexion of both knees, so that both sides share repetitions.
    """
    return [span for part in _whole(time_s, knee_deg) for span in _between_extensions(*part)]


def strides(
    time_s: Float[np.ndarray, "time"], swing: Float[np.ndarray, "time"], least: float = MIN_STEP_M
) -> Spans:
    """Gait: from one peak of a side's swing to its next, with no gap between.

    `swing` is how far the heel is ahead of the pelvis, m: farthest when it strikes (Zeni, Richards
    and Higginson, Two simple methods for determining gait events during treadmill and overground
    walking using kinematic data, Gait Posture 27(4), 2008). Without markers it is knee flexion,
    degrees, with `least` `MIN_SWING_DEG`: such a repetition lasts a stride too, but begins in early
    swing, and its 0 % is not that of gait curves.

    Peaks are those that, after a low-pass at 6 Hz, rise by 40 % of the range and by `least`.
    """
    spans = []
    for times, curve in _whole(time_s, swing):
        smooth, rate = _low_pass(times, curve)
        prominence = max(least, 0.4 * np.ptp(smooth))
        peaks, _ = find_peaks(smooth, prominence=prominence, distance=int(MIN_STRIDE_S * rate) or 1)
        strikes = times[peaks].tolist()
        spans += zip(strikes[:-1], strikes[1:], strict=True)
    return spans


def heel_ahead_m(
    markers: Mapping[str, Float[np.ndarray, "time 3"]], side: str
) -> Float[np.ndarray, "time"]:
    """How far a heel (`r` or `l`) is ahead of the mid-hip, in the direction that the pelvis faces."""
    front = markers["r.ASIS_study"] + markers["L.ASIS_study"]
    forward = (front - markers["r.PSIS_study"] - markers["L.PSIS_study"]) * [1.0, 0.0, 1.0]
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    heel = markers["r_calc_study" if side == "r" else "L_calc_study"]
    return ((heel - markers["midHip"]) * forward).sum(-1)


def _whole(time_s, values):
    """Times and values of each stretch without gaps that is long enough to low-pass at 6 Hz."""
    finite = np.isfinite(values)
    time_s, values = time_s[finite], values[finite]
    if len(time_s) < SHORTEST_SAMPLES:
        return []
    interval = np.median(np.diff(time_s))
    if interval >= 1 / 12:
        return []
    breaks = np.flatnonzero(np.diff(time_s) > 1.5 * interval) + 1
    parts = zip(np.split(time_s, breaks), np.split(values, breaks), strict=True)
    return [part for part in parts if len(part[0]) >= SHORTEST_SAMPLES]


def _low_pass(time_s, values):
    """For finding events only; and the rate."""
    rate = 1 / np.median(np.diff(time_s))
    return sosfiltfilt(butter(2, 6.0, fs=rate, output="sos"), values), rate


def _between_extensions(time_s, knee_deg):
    smooth, rate = _low_pass(time_s, knee_deg)
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


def normalise_cycles(
    time_s: Float[np.ndarray, "time"],
    values: Float[np.ndarray, "time"],
    repetitions: Spans,
    points: int = 101,
) -> Float[np.ndarray, "repetition points"]:
    """Each repetition's curve at 0, 1, … 100 % of its duration (cubic interpolation)."""
    samples = []
    for start, end in repetitions:
        inside = (time_s >= start - 1e-9) & (time_s <= end + 1e-9)
        curve = make_interp_spline(time_s[inside], values[inside])
        samples.append(curve(np.linspace(start, end, points)))
    return np.array(samples).reshape(-1, points)
