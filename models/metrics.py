"""How far one result is from another: errors of angles and of points. Pure functions on arrays.

NaN marks a missing sample; every figure is over the samples that both sides have.
"""

import numpy as np
from jaxtyping import Float
from scipy.signal import correlate, correlation_lags

Curve = Float[np.ndarray, "time"]
Points = Float[np.ndarray, "time point 3"]


def angle_errors(result: Curve, reference: Curve) -> dict[str, float]:
    """Errors of one curve against its reference on the same samples, in the curves' unit.

    `bias` is the mean of result minus reference; `limit_low` and `limit_high` are Bland and
    Altman's 95 % limits of agreement (Lancet 1986, 1:307-310): bias ± 1.96 SD of the differences.
    `correlation` is Pearson's, NaN for a curve that does not move; `multiple_correlation` is
    `multiple_correlation` of the two curves. `range_error` is that of the range of motion.
    """
    both = np.isfinite(result) & np.isfinite(reference)
    if both.sum() < 2:
        return {}
    result, reference = result[both], reference[both]
    difference = result - reference
    bias, spread = difference.mean(), difference.std(ddof=1)
    moving = min(np.ptp(result), np.ptp(reference)) > 1e-9
    return {
        "rmse": float(np.sqrt((difference**2).mean())),
        "mae": float(np.abs(difference).mean()),
        "bias": float(bias),
        "max": float(np.abs(difference).max()),
        "limit_low": float(bias - 1.96 * spread),
        "limit_high": float(bias + 1.96 * spread),
        "correlation": float(np.corrcoef(result, reference)[0, 1]) if moving else np.nan,
        "multiple_correlation": multiple_correlation(np.stack([result, reference])),
        "range_error": float(np.ptp(result) - np.ptp(reference)),
        "samples": int(both.sum()),
    }


def multiple_correlation(curves: Float[np.ndarray, "curve time"]) -> float:
    """Coefficient of multiple correlation of waveforms, between 0 and 1; NaN if undefined.

    Kadaba et al., J Orthop Res 1989, 7:849-860, equation for curves of one session; offsets
    between the curves count as disagreement. Undefined where the curves differ from their common
    mean curve by more than that curve moves.
    """
    count, samples = curves.shape
    within = ((curves - curves.mean(0)) ** 2).sum() / (samples * (count - 1))
    total = ((curves - curves.mean()) ** 2).sum() / (count * samples - 1)
    return float(np.sqrt(1 - within / total)) if 0 < total and within <= total else np.nan


def find_lag_s(
    result: Float[np.ndarray, "time curve"],
    reference: Float[np.ndarray, "time curve"],
    interval_s: float,
    max_lag_s: float,
) -> tuple[float, float]:
    """Seconds by which `result` comes later than `reference`, and the correlation there.

    Both are sampled at the same interval. The normalised cross-correlation is summed over curves;
    its peak is refined to a fraction of a sample by a parabola. The correlation, between -1 and 1,
    says how far to trust the lag.
    """
    length = max(len(result), len(reference))
    total = np.zeros(2 * length - 1)
    for mine, other in zip(result.T, reference.T, strict=True):
        first, second = (np.nan_to_num(_standardised(curve, length)) for curve in (mine, other))
        total += correlate(first, second, "full") / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-12)
    total /= result.shape[1]
    lags = correlation_lags(length, length, "full")
    total = np.where(np.abs(lags) * interval_s <= max_lag_s, total, -np.inf)
    peak = int(total.argmax())
    shift = 0.0
    if 0 < peak < len(total) - 1 and np.isfinite(total[[peak - 1, peak + 1]]).all():
        before, top, after = total[peak - 1 : peak + 2]
        curvature = before - 2 * top + after
        shift = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    return float((lags[peak] + shift) * interval_s), float(total[peak])


def _standardised(curve, length):
    padded = np.full(length, np.nan)
    padded[: len(curve)] = curve
    return padded - np.nanmean(padded)


def procrustes(
    points: Float[np.ndarray, "point 3"], reference: Float[np.ndarray, "point 3"], scale: bool = True
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"], float]:
    """Rotation R, translation t and scale s that bring points nearest to the reference: s R p + t.

    Umeyama, IEEE TPAMI 1991, 13:376-380. Without `scale`, s is 1.
    """
    finite = np.isfinite(points).all(-1) & np.isfinite(reference).all(-1)
    points, reference = points[finite], reference[finite]
    mean, reference_mean = points.mean(0), reference.mean(0)
    left, singular, right = np.linalg.svd((reference - reference_mean).T @ (points - mean))
    sign = np.ones(3)
    sign[2] = np.sign(np.linalg.det(left @ right))  # no reflections
    rotation = (left * sign) @ right
    size = (singular * sign).sum() / ((points - mean) ** 2).sum() if scale else 1.0
    return rotation, reference_mean - size * rotation @ mean, float(size)


def point_errors(result: Points, reference: Points, interval_s: float) -> dict[str, float]:
    """Errors of points, mm, as the Human3.6M protocol counts them (Ionescu et al., 2014).

    `mpjpe` is the mean distance, `pa_mpjpe` the same after a Procrustes fit (with scale) of each
    frame, `p95` the 95th percentile, `pck_50` and `pck_150` the share of points nearer than 50 and
    150 mm, `jitter` the mean error of acceleration in m/s² (by second differences).
    """
    distance = np.linalg.norm(result - reference, axis=-1) * 1000
    if not np.isfinite(distance).any():
        return {}
    aligned = np.array([_aligned_error(*pair) for pair in zip(result, reference, strict=True)])
    acceleration = np.diff(result - reference, 2, axis=0) / interval_s**2
    finite = distance[np.isfinite(distance)]
    return {
        "mpjpe": float(finite.mean()),
        "pa_mpjpe": float(np.nanmean(aligned) * 1000) if np.isfinite(aligned).any() else np.nan,
        "p95": float(np.percentile(finite, 95)),
        "pck_50": float((finite < 50).mean()),
        "pck_150": float((finite < 150).mean()),
        "jitter": float(np.nanmean(np.linalg.norm(acceleration, axis=-1))),
        "missing": float(1 - np.isfinite(distance).mean()),
    }


def _aligned_error(points, reference):
    finite = np.isfinite(points).all(-1) & np.isfinite(reference).all(-1)
    if finite.sum() < 4:
        return np.nan
    rotation, translation, scale = procrustes(points, reference)
    moved = scale * points[finite] @ rotation.T + translation
    return np.linalg.norm(moved - reference[finite], axis=-1).mean()


def segment_errors(start: Points, end: Points, true_start: Points, true_end: Points) -> dict[str, float]:
    """Error of the mean length of segments, and how much their length varies over time, mm."""
    length = np.linalg.norm(end - start, axis=-1) * 1000
    truth = np.linalg.norm(true_end - true_start, axis=-1) * 1000
    return {
        "segment_length_error": float(np.abs(np.nanmean(length, 0) - np.nanmean(truth, 0)).mean()),
        "segment_length_sd": float(np.nanstd(length, 0).mean()),
    }
