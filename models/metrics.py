"""How far one result is from another: errors of curves and of points, and the lag between them.

Pure functions on arrays. NaN marks a missing sample: every figure is over the samples that both
sides have, and is NaN itself where those are too few.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.signal import correlate, correlation_lags

Curve = Float[np.ndarray, "time"]
Points = Float[np.ndarray, "time point 3"]

PCK_MM = (50, 150)
"""Radii of the share of correct keypoints: 150 mm is MPI-INF-3DHP's (Mehta et al., 3DV 2017)."""
STILL = 1e-9
"""A curve that ranges over less than this does not move: it has no correlation."""
LEAST_POINTS = 4
"""A similarity has 7 unknowns; fitted to three points it would flatter."""
LEAST_OVERLAP = 0.5
"""A lag must leave this share of the shorter recording to compare."""


class Lag(NamedTuple):
    """How much later a result comes than its reference, and what that rests on."""

    seconds: float
    """Positive where the result comes later: result(t) is like reference(t - seconds)."""
    correlation: float
    """Normalised cross-correlation at that lag, -1 to 1; NaN if there was nothing to correlate."""
    at_edge: bool
    """The best lag is the largest that was tried: the true one may lie beyond."""


def angle_errors(result: Curve, reference: Curve) -> dict[str, float]:
    """Errors of one curve against its reference on the same samples, in the curves' unit.

    `bias` is the mean of result minus reference, `max` the largest absolute difference;
    `limit_low` and `limit_high` are the 95 % limits of agreement, bias ± 1.96 SD of the differences
    (Bland and Altman, Statistical methods for assessing agreement between two methods of clinical
    measurement, Lancet 327, 1986). Samples of one curve are not independent, so the limits describe
    these samples and are no confidence interval for another subject. `correlation` is Pearson's;
    `multiple_correlation` see there; `range_error` is the result's range of motion minus the
    reference's. `samples` counts those that both have; all else is NaN if there are fewer than two.
    """
    both = np.isfinite(result) & np.isfinite(reference)
    result, reference = result[both], reference[both]
    if len(result) < 2:
        keys = "rmse mae bias max limit_low limit_high correlation multiple_correlation range_error"
        return {**dict.fromkeys(keys.split(), np.nan), "samples": len(result)}
    difference = result - reference
    bias, spread = difference.mean(), difference.std(ddof=1)
    moving = min(np.ptp(result), np.ptp(reference)) > STILL
    return {
        "rmse": float(np.sqrt((difference**2).mean())),
        "mae": float(np.abs(difference).mean()),
        "bias": float(bias),
        "max": float(np.abs(difference).max()),
        "limit_low": float(bias - 1.96 * spread),
        "limit_high": float(bias + 1.96 * spread),
        "correlation": float(np.corrcoef(result, reference)[0, 1]) if moving else np.nan,
        "multiple_correlation": multiple_correlation(np.stack([result, reference])[None]),
        "range_error": float(np.ptp(result) - np.ptp(reference)),
        "samples": len(result),
    }


def multiple_correlation(curves: Float[np.ndarray, "repetition method time"]) -> float:
    """Coefficient of multiple correlation of curves of several methods: 1 if they are the same.

    Kadaba et al., J Orthop Res 7, 1989, within-day formula, with methods in place of runs. With one
    repetition, methods are compared over the whole recording. With several, each against its own
    means, it is the form of Ferrari, Cutti and Cappello, Gait Posture 31, 2010: variation between
    repetitions, which both methods see, does not count as disagreement. Offsets between methods do.

    NaN where it is undefined: curves that differ more from their common curve than that one moves
    (Ferrari et al.'s complex values), curves that do not move, and any NaN.
    """
    repetitions, methods, samples = curves.shape
    if not curves.size:
        return np.nan
    common = curves.mean(axis=1, keepdims=True)
    level = curves.mean(axis=(1, 2), keepdims=True)
    between = ((curves - common) ** 2).sum() / (repetitions * samples * (methods - 1))
    total = ((curves - level) ** 2).sum() / (repetitions * (methods * samples - 1))
    if not total > STILL**2 or between > total:
        return np.nan
    return float(np.sqrt(1 - between / total))


def find_lag(
    result: Float[np.ndarray, "time curve"],
    reference: Float[np.ndarray, "time curve"],
    interval_s: float,
    max_lag_s: float,
) -> Lag:
    """How much later `result` comes than `reference`, both at the same times `interval_s` apart.

    At each lag, Pearson's correlation over the samples that overlap and are known on both sides
    (Padfield, Masked object registration in the Fourier domain, IEEE TIP 21, 2012), pooled over
    curves of equal variance. Means are taken over the overlap, not over the recording: so a curve
    cut off at its ends correlates perfectly with itself, which zero-padding does not give. Curves
    are used as they are, not their derivatives, which amplify the noise of markerless results. The
    peak is refined to a fraction of a sample by the parabola through its neighbours.

    Misleads for periodic movements, if `max_lag_s` is more than half a period.
    """
    pairs = zip(_standardised(result).T, _standardised(reference).T, strict=True)
    sums = sum(_overlap_sums(*pair) for pair in pairs if np.isfinite(pair).any(1).all())
    lags = correlation_lags(len(result), len(reference)) * interval_s
    tried = np.flatnonzero(np.abs(lags) <= max_lag_s + 1e-9)
    if np.isscalar(sums):  # no curve moves on both sides
        return Lag(0.0, np.nan, False)
    covariance, mine, other, overlap = sums[:, tried]
    enough = (overlap >= LEAST_OVERLAP * overlap.max()) & (mine > STILL) & (other > STILL)
    score = np.full(len(tried), -np.inf)
    score[enough] = covariance[enough] / np.sqrt(mine[enough] * other[enough])
    peak = int(score.argmax())
    if not np.isfinite(score[peak]):
        return Lag(0.0, np.nan, False)
    at_edge = peak in (0, len(tried) - 1) or not np.isfinite(score[[peak - 1, peak + 1]]).all()
    shift, top = (0.0, score[peak]) if at_edge else _parabola(*score[peak - 1 : peak + 2])
    seconds = lags[tried[peak]] + shift * interval_s
    return Lag(float(seconds), float(min(top, 1.0)), bool(at_edge) and len(tried) > 1)


def _standardised(curves):
    """Curves of mean 0 and variance 1 over their known samples; NaN for those that do not move."""
    known = np.isfinite(curves)
    count = np.maximum(known.sum(0), 1)
    centred = curves - np.where(known, curves, 0).sum(0) / count
    spread = np.sqrt(np.where(known, centred**2, 0).sum(0) / count)
    return centred / np.where(spread > STILL, spread, np.nan)


def _overlap_sums(first, second):
    """At each lag: sums of products and squares about the overlap's means, and its samples."""
    known = [np.isfinite(curve).astype(float) for curve in (first, second)]
    first, second = np.nan_to_num(first), np.nan_to_num(second)
    count = np.round(correlate(*known))
    safe = np.maximum(count, 1)
    mean_first, mean_second = correlate(first, known[1]) / safe, correlate(known[0], second) / safe
    return np.stack([
        correlate(first, second) - safe * mean_first * mean_second,
        correlate(first**2, known[1]) - safe * mean_first**2,
        correlate(known[0], second**2) - safe * mean_second**2,
        count,
    ])  # fmt: skip


def _parabola(before, top, after):
    """Position of the highest point of three neighbours, in samples from the middle; its height."""
    curvature = before - 2 * top + after
    if curvature >= 0:
        return 0.0, top
    shift = 0.5 * (before - after) / curvature
    return shift, top - 0.25 * (before - after) * shift


def similarity(
    points: Float[np.ndarray, "*batch point 3"],
    reference: Float[np.ndarray, "*batch point 3"],
    scale: bool,
) -> tuple[
    Float[np.ndarray, "*batch 3 3"], Float[np.ndarray, "*batch 3"], Float[np.ndarray, "*batch"]
]:
    """Rotation R, translation t, scale s that bring points nearest to the reference: s R p + t.

    Umeyama, Least-squares estimation of transformation parameters between two point patterns, IEEE
    TPAMI 13, 1991, eq. 40 to 42: no reflections. Without `scale`, s is 1. Points that either side
    lacks (NaN) have no say; with fewer than four known ones all is NaN.
    """
    known = _known(points, reference)[..., None]
    count = known.sum(-2, keepdims=True)
    mean, mean_reference = (
        np.where(known, each, 0).sum(-2, keepdims=True) / np.maximum(count, 1)
        for each in (points, reference)
    )
    centred = np.where(known, points - mean, 0)
    covariance = np.swapaxes(np.where(known, reference - mean_reference, 0), -1, -2) @ centred
    left, singular, right = np.linalg.svd(covariance)
    sign = np.ones_like(singular)
    sign[..., 2] = np.where(np.linalg.det(left @ right) < 0, -1, 1)
    rotation = (left * sign[..., None, :]) @ right
    spread = (centred**2).sum((-1, -2))
    size = np.ones_like(spread)
    if scale:
        size = (singular * sign).sum(-1) / np.where(spread > 0, spread, np.nan)
    size = np.where(count[..., 0, 0] >= LEAST_POINTS, size, np.nan)
    moved_mean = size[..., None] * (rotation @ np.swapaxes(mean, -1, -2))[..., 0]
    return (
        np.where(np.isnan(size)[..., None, None], np.nan, rotation),
        mean_reference[..., 0, :] - moved_mean,
        size,
    )


def transform(points, rotation, translation, scale=1.0) -> Float[np.ndarray, "*batch point 3"]:
    """Apply a similarity (*batch 3 3), (*batch 3), (*batch) to points (*batch point 3): s R p + t."""
    turned = points @ np.swapaxes(rotation, -1, -2)
    return np.asarray(scale)[..., None, None] * turned + translation[..., None, :]


def point_distances_mm(result: Points, reference: Points) -> Float[np.ndarray, "time point"]:
    """Distance of each point (m) from its reference, mm. Its mean is the MPJPE."""
    return np.linalg.norm(result - reference, axis=-1) * 1000


def aligned_distances_mm(result: Points, reference: Points) -> Float[np.ndarray, "time point"]:
    """Distances after a similarity fitted to each frame, mm; the mean is the PA-MPJPE.

    Ionescu et al., Human3.6M, IEEE TPAMI 36, 2014, protocol 2. Says how good the shape of the body
    is, whatever its place, direction and size. NaN in frames with fewer than four points.
    """
    return point_distances_mm(transform(result, *similarity(result, reference, True)), reference)


def distance_figures(distances_mm: Float[np.ndarray, "*any"]) -> dict[str, float]:
    """Mean, 95th percentile and maximum of distances (mm), and PCK: the share within each radius.

    A missing point (NaN) counts neither as near nor as far: read the shares with `samples`.
    """
    known = distances_mm[np.isfinite(distances_mm)]
    empty = not len(known)
    return {
        "mean_mm": mean_known(known),
        "p95_mm": np.nan if empty else float(np.percentile(known, 95)),
        "max_mm": np.nan if empty else float(known.max()),
        **{f"pck_{r}mm": np.nan if empty else float((known < r).mean()) for r in PCK_MM},
        "samples": len(known),
    }


def acceleration_errors(
    result: Points, reference: Points, interval_s: float
) -> Float[np.ndarray, "time-2 point"]:
    """Jitter: size of the error of acceleration, m/s², by second differences of points (m).

    The measure of video pose estimation (Kanazawa et al., Learning 3D human dynamics from video,
    CVPR 2019). NaN where any of three neighbouring samples is missing.
    """
    return np.linalg.norm(np.diff(result - reference, 2, axis=0), axis=-1) / interval_s**2


def segment_length_errors(
    start: Points, end: Points, true_start: Points, true_end: Points
) -> dict[str, Float[np.ndarray, "point"]]:
    """Error of the length of segments, its mean and its SD over time, mm.

    Segments join `start` to `end` (m), point by point, over the samples that both sides have. The
    reference's own length need not be constant: a keypoint of the hip is on the pelvis.
    """
    length = np.linalg.norm(end - start, axis=-1) * 1000
    truth = np.linalg.norm(true_end - true_start, axis=-1) * 1000
    known = np.isfinite(length) & np.isfinite(truth)
    count = np.where(known.any(0), known.sum(0), np.nan)
    difference = np.where(known, length - truth, 0)
    error = difference.sum(0) / count
    variance = np.where(known, (difference - error) ** 2, 0).sum(0) / count
    return {"length_error_mm": error, "length_error_sd_mm": np.sqrt(variance)}


def mean_known(values: Float[np.ndarray, "*any"]) -> float:
    """Mean of the values that are known; NaN if none is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def ranges(curves: Float[np.ndarray, "time curve"]) -> Float[np.ndarray, "curve"]:
    """Range of each curve over its known samples; 0 if none is."""
    known = np.isfinite(curves)
    high = curves.max(0, where=known, initial=-np.inf)
    low = curves.min(0, where=known, initial=np.inf)
    return np.where(known.any(0), high - low, 0)


def _known(*points: Float[np.ndarray, "*any 3"]) -> Bool[np.ndarray, "*any"]:
    return np.logical_and.reduce([np.isfinite(each).all(-1) for each in points])
