"""Bring a result and its reference together: in time, by a lag and resampling, and in space."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import make_interp_spline

from models.metrics import Lag, find_lag, ranges, similarity
from pipeline.errors import PipelineError
from stages.recordings import (
    Recording,
    Space,
    in_common,
    is_rotation,
    pairs_of_points,
)
from stages.series import stretches
from stages.smooth import butterworth_smooth

WORLD_FRAME = "pelvis_"
"""Coordinates of this name place the body in the world: they differ if the worlds do."""
SHORTEST_S = 0.5
"""Less than this cannot be aligned or judged."""
LEAST_CORRELATION = 0.5
"""A lag found with less is not believed."""
MOVES_DEG = 5.0
"""A coordinate that ranges over less on either side has no say in the lag."""
MOVES_M_S = 0.2
"""Nor has a point whose speed does: that of a foot on the floor is noise."""
STANDS_OUT = 2.0
"""A lag is taken out that is more than so many times what the coordinates' own lags scatter by."""
CUTOFF_HZ = 6.0
"""Of points, before their speed is taken: differences amplify noise."""


@dataclass(frozen=True)
class Alignment:
    """The lag that was taken out, and why."""

    lag_s: float
    """Positive where the result comes later."""
    correlation: float
    """That the lag rests on; NaN if it was given."""
    description: str
    notices: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = not np.isnan(self.correlation)
        rests = f", correlation {self.correlation:.3f}" if known else ""
        return f"lag {self.lag_s * 1000:+.1f} ms ({self.description}{rests})"


def resample(
    time_s: Float[np.ndarray, "time"],
    values: Float[np.ndarray, "time *any"],
    at_s: Float[np.ndarray, "at"],
) -> Float[np.ndarray, "at *any"]:
    """Values at other times (s), by a cubic spline through each stretch of known samples.

    NaN outside a stretch: before, after, and in gaps, which are missing values or intervals of more
    than 1.5 times the usual one. Nothing is extrapolated.
    """
    intervals = np.diff(time_s)
    jumps = np.flatnonzero(intervals > 1.5 * np.median(intervals)) + 1
    time_s = np.insert(time_s, jumps, np.nan)  # a missing sample, for a stretch to end at
    flat = np.insert(values.reshape(len(values), -1), jumps, np.nan, axis=0)
    out = np.full((len(at_s), flat.shape[1]), np.nan)
    patterns, group = np.unique(np.isfinite(flat), axis=1, return_inverse=True)
    for index, known in enumerate(patterns.T):
        columns = np.flatnonzero(group.ravel() == index)
        for part in stretches(known):
            times = time_s[part]
            inside = (at_s >= times[0] - 1e-6) & (at_s <= times[-1] + 1e-6)
            degree = 3 if len(times) >= 4 else min(len(times) - 1, 1)
            curve = make_interp_spline(times, flat[part][:, columns], k=degree)
            out[np.ix_(inside, columns)] = curve(np.clip(at_s[inside], times[0], times[-1]))
    return out.reshape(len(at_s), *values.shape[1:])


def check_overlap(result_s: np.ndarray, reference_s: np.ndarray, lag_s: float) -> None:
    """Raise PipelineError if a side is too short, or both are not of the same time."""
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
            "say by how much the result is later: pipeline evaluate RESULT REFERENCE --lag SECONDS"
        )


def check_known(differences: Float[np.ndarray, "..."], what: str, lag_s: float) -> None:
    """Raise PipelineError if no difference between result and reference is known."""
    if not np.isfinite(differences).any():
        raise PipelineError(
            f"the {what} of result and reference are never known at the same time, with a lag of "
            f"{lag_s:g} s taken out. Look for gaps in both, or for another lag."
        )


def align(result: Recording, reference: Recording, max_lag_s: float) -> Alignment:
    """Find the lag between two recordings: by points, or if there are none by joint angles.

    Of points their speeds are used, which do not depend on the world frame; of joint angles those
    that do not. The lag is the median of the lags of those that move, and taken out only where it is
    much larger than these scatter, since a curve that errs in size or phase seems to lag.
    """
    if pairs := pairs_of_points(result, reference):
        kind, other = pairs[-1]  # keypoints rather than markers, which the augmenter shifts
        points = result.points[kind], reference.points[other]
        names = in_common(points[0].names, points[1].names)
        interval_s, curves = _resampled([(each.time_s, each.of(names)) for each in points])
        speeds = [_speeds(each, interval_s) for each in curves]
        return _median_lag(*speeds, MOVES_M_S, "points' speeds", interval_s, max_lag_s)
    names = [
        name
        for name in in_common(result.angles, reference.angles)
        if is_rotation(name) and not name.startswith(WORLD_FRAME)
    ]
    sides = [(side.angles.index.values, side.angles[names].values) for side in (result, reference)]
    interval_s, curves = _resampled(sides)
    return _median_lag(*curves, MOVES_DEG, "joint angles", interval_s, max_lag_s)


def _resampled(sides) -> tuple[float, list[np.ndarray]]:
    """Both sides' values at the same equal intervals (s), over all that either spans."""
    times = [time_s for time_s, _ in sides]
    check_overlap(*times, 0.0)
    interval_s = min(float(np.median(np.diff(each))) for each in times)
    start, end = min(each[0] for each in times), max(each[-1] for each in times)
    grid = np.arange(start, end + interval_s / 2, interval_s)
    return interval_s, [resample(*side, grid) for side in sides]


def _median_lag(
    result: Float[np.ndarray, "time curve"],
    reference: Float[np.ndarray, "time curve"],
    moves: float,
    what: str,
    interval_s: float,
    max_lag_s: float,
) -> Alignment:
    """The median of the lags of curves that range over more than `moves`, if it stands out."""
    moving = np.logical_and(*(ranges(each) > moves for each in (result, reference)))
    result, reference = result[:, moving], reference[:, moving]
    columns = zip(result.T[..., None], reference.T[..., None], strict=True)
    lags = [find_lag(mine, truth, interval_s, max_lag_s) for mine, truth in columns]
    lags = [lag for lag in lags if lag.correlation >= LEAST_CORRELATION and not lag.at_edge]
    if not lags:
        return _judged(find_lag(result, reference, interval_s, max_lag_s), f"the {what}", max_lag_s)
    seconds = np.array([lag.seconds for lag in lags])
    middle, correlation = (
        float(np.median(seconds)),
        float(np.median([lag.correlation for lag in lags])),
    )
    scatter = float(np.subtract(*np.percentile(seconds, [75, 25])) / 2)
    told = f"{middle * 1000:+.1f} ± {scatter * 1000:.1f} ms over {len(lags)} {what}"
    if abs(middle) <= STANDS_OUT * scatter:
        return Alignment(0.0, correlation, f"none that stands out: {told}")
    return Alignment(middle, correlation, f"found: {told}")


def _speeds(position: Float[np.ndarray, "time point 3"], interval_s: float):
    """Speeds (m/s) of points at equal intervals, low-passed."""
    smooth = butterworth_smooth(position.reshape(len(position), -1), 1 / interval_s, CUTOFF_HZ)
    velocity = np.gradient(smooth.reshape(position.shape), interval_s, axis=0)
    return np.linalg.norm(velocity, axis=-1)


def _judged(lag: Lag, what: str, max_lag_s: float) -> Alignment:
    """Believe a lag or not."""
    found = f"{lag.seconds * 1000:+.1f} ms (correlation {lag.correlation:.3f})"
    if np.isnan(lag.correlation):
        reason = f"{what} move too little on one of the sides to tell"
    elif lag.correlation < LEAST_CORRELATION:
        reason = f"{what} do not agree well enough at any lag, best at {found}"
    elif lag.at_edge:
        reason = (
            f"the best lag is {found}, the largest that was tried ({max_lag_s:g} s): the true one may "
            "lie beyond. Try a larger one (evaluate --max-lag, or the setting report.max_lag_s)"
        )
    else:
        return Alignment(lag.seconds, lag.correlation, f"found from {what}")
    note = f"the lag is not trusted, none was taken out: {reason}."
    return Alignment(0.0, lag.correlation, "not trusted, none taken out", (note,))


def fit_space(
    result: Float[np.ndarray, "time point 3"], reference: Float[np.ndarray, "time point 3"]
) -> Space:
    """One rotation and translation, without scale, that bring the reference (m) to the result."""
    rotation, translation, _ = similarity(reference.reshape(-1, 3), result.reshape(-1, 3), False)
    angle_deg = np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
    return Space(
        rotation,
        translation,
        f"rigid: one rotation ({angle_deg:.1f}°) and translation ({np.linalg.norm(translation):.3f} m) "
        "fitted to all points and times, no scale",
    )
