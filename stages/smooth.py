"""Smooth: triangulated points to trajectories, by a Kalman smoother or a Butterworth filter."""

from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from filterpy.common import Q_discrete_white_noise
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from scipy.interpolate import PchipInterpolator
from scipy.signal import butter, sosfiltfilt

from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.series import fill_short_gaps, stretches
from stages.trial import Progress, Trial, no_progress

NEEDS = ("triangulate",)

INITIAL_VARIANCE = (1.0, 2.0**2, 20.0**2)
"""Before the first sample: position within 1 m of it, speed to 2 m/s, acceleration to 20 m/s²."""


class Settings(BaseModel):
    """Options of the smoothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["kalman", "butterworth"] = "kalman"
    cutoff_hz: float = Field(6.0, gt=0, le=500)
    """Movement faster than this is taken for noise. Set per activity. The Kalman smoother reaches
    it where a point is measured as well as the trial's median point, and smooths worse-measured
    points more; the Butterworth filter uses it for all."""
    max_standard_deviation_m: float = Field(0.05, gt=0)
    """Where the smoother's own uncertainty is larger than this, its estimate is dropped: gaps too
    long to bridge."""
    max_gap_s: float = Field(0.2, ge=0)
    """Longest gap that is interpolated before the Butterworth filter, which cannot pass over gaps as
    the Kalman smoother does."""


def process_noise(cutoff_hz: float, typical_deviation_m: float, interval_s: float) -> float:
    """Variance of the change of acceleration between samples, (m/s²)², that gives a cut-off.

    The steady-state smoother of a random-walk acceleration passes a frequency ω with the gain
    1 / (1 + (ω/ω₀)⁶), where ω₀⁶ = (process noise per second) / (measurement noise times seconds):
    a zero-lag filter like a third-order Butterworth run both ways, half gain at ω₀.
    """
    return (2 * np.pi * cutoff_hz) ** 6 * typical_deviation_m**2 * interval_s**2


def kalman_smooth(
    position: Float[np.ndarray, "time series"],
    variance: Float[np.ndarray, "time series"],
    interval_s: float,
    process_variance: float,
    progress: Progress = no_progress,
) -> tuple[Float[np.ndarray, "time series"], Float[np.ndarray, "time series"]]:
    """Smooth many series at once; return position (m) and its standard deviation (m).

    A Kalman filter with a Rauch-Tung-Striebel backward pass (Bar-Shalom, Li and Kirubarajan,
    Estimation with Applications to Tracking and Navigation, 2001, chapters 5, 6 and 8). State:
    position, velocity, acceleration; the acceleration changes by a random step every sample
    (filterpy's `Q_discrete_white_noise`). A NaN is a missing sample: the filter predicts through
    it. A series with no sample at all stays NaN. Memory: 120 bytes per sample.
    """
    steps, series = position.shape
    transition = np.array([[1, interval_s, interval_s**2 / 2], [0, 1, interval_s], [0, 0, 1]])
    noise = Q_discrete_white_noise(3, dt=interval_s, var=process_variance)
    measured = np.isfinite(position) & np.isfinite(variance)
    observed, variance = np.where(measured, position, 0.0), np.where(measured, variance, 1.0)

    state = np.zeros((series, 3))
    state[:, 0] = observed[measured.argmax(0), np.arange(series)]
    covariance = np.tile(np.diag(INITIAL_VARIANCE), (series, 1, 1))
    states = np.empty((steps, series, 3))
    covariances = np.empty((steps, series, 3, 3))
    for step in range(steps):
        if step:
            state = state @ transition.T
            covariance = transition @ covariance @ transition.T + noise
        gain = covariance[:, :, 0] / (covariance[:, :1, 0] + variance[step, :, None])
        gain *= measured[step, :, None]
        state = state + gain * (observed[step] - state[:, 0])[:, None]
        kept = np.eye(3) - gain[:, :, None] * np.array([1.0, 0.0, 0.0])
        # Joseph's form: stays symmetric and positive however small the measurement noise is.
        covariance = kept @ covariance @ kept.transpose(0, 2, 1) + (
            variance[step, :, None, None] * gain[:, :, None] * gain[:, None, :]
        )
        states[step], covariances[step] = state, covariance
        progress(step + 1, 2 * steps)
    for step in range(steps - 2, -1, -1):
        predicted = transition @ covariances[step] @ transition.T + noise
        gain = np.linalg.solve(predicted, transition @ covariances[step]).transpose(0, 2, 1)
        surprise = states[step + 1] - states[step] @ transition.T
        states[step] += np.einsum("sij,sj->si", gain, surprise)
        covariances[step] += gain @ (covariances[step + 1] - predicted) @ gain.transpose(0, 2, 1)
        progress(2 * steps - step, 2 * steps)
    known = measured.any(0)
    return (
        np.where(known, states[..., 0], np.nan),
        np.where(known, np.sqrt(covariances[..., 0, 0]), np.nan),
    )


def butterworth_smooth(
    position: Float[np.ndarray, "time series"], rate_hz: float, cutoff_hz: float
) -> Float[np.ndarray, "time series"]:
    """Zero-lag fourth-order Butterworth: second order, run forwards and backwards.

    The design frequency is raised so that the gain is -3 dB at `cutoff_hz` after both passes
    (Winter, Biomechanics and Motor Control of Human Movement, 4th ed., 2009, section 3.4.4.2).
    Each stretch without NaN is filtered alone; stretches too short to filter become NaN.
    """
    if cutoff_hz >= rate_hz / 2:
        raise PipelineError(
            f"smooth.cutoff_hz = {cutoff_hz:g} Hz, but a recording at {rate_hz:g} Hz holds nothing "
            f"above {rate_hz / 2:g} Hz. Choose a lower cut-off."
        )
    corrected_hz = min(cutoff_hz / (2**0.5 - 1) ** 0.25, 0.499 * rate_hz)
    sections = butter(2, corrected_hz, fs=rate_hz, output="sos")
    shortest = 3 * (2 * len(sections) + 1) + 1  # scipy's default padding, and one
    smoothed = np.full_like(position, np.nan)
    for series in range(position.shape[1]):
        for whole in stretches(np.isfinite(position[:, series])):
            if whole.stop - whole.start >= shortest:
                smoothed[whole, series] = sosfiltfilt(sections, position[whole, series])
    return smoothed


def smooth(points: xr.Dataset, settings: Settings, progress: Progress = no_progress) -> xr.Dataset:
    """Smooth all points of a trial; NaN where the result would not deserve trust."""
    points = points.transpose("time", "keypoint", "axis", ...)
    time = points.time.values
    interval_s = float(np.median(np.diff(time))) if len(time) > 1 else np.nan
    if not np.isfinite(interval_s) or not np.allclose(np.diff(time), interval_s, atol=1e-6):
        raise PipelineError("smoothing needs at least two samples at equal intervals of time")
    shape = points.position.shape
    position = points.position.values.reshape(len(time), -1)
    deviation = points.standard_deviation.values.reshape(len(time), -1)
    if settings.method == "kalman":
        variance = process_noise(settings.cutoff_hz, float(np.nanmedian(deviation)), interval_s)
        position, deviation = kalman_smooth(position, deviation**2, interval_s, variance, progress)
    else:
        longest = int(settings.max_gap_s / interval_s + 1e-6)
        filled, deviation = (
            fill_short_gaps(values, longest, PchipInterpolator) for values in (position, deviation)
        )
        position = butterworth_smooth(filled, 1 / interval_s, settings.cutoff_hz)
    trusted = deviation.reshape(shape).max(-1, keepdims=True) <= settings.max_standard_deviation_m
    dims = ("time", "keypoint", "axis")
    return xr.Dataset(
        {
            "position": (dims, np.where(trusted, position.reshape(shape), np.nan), {"units": "m"}),
            "standard_deviation": (
                dims,
                np.where(trusted, deviation.reshape(shape), np.nan),
                {"units": "m"},
            ),
            "measured": (dims[:2], np.isfinite(points.position).all("axis").values),
        },
        coords={name: points[name] for name in dims},
        attrs=points.attrs | {"smoothing": settings.model_dump_json()},
    )


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages: nothing."""
    return {}


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Smooth the triangulated points of one trial into `points.nc`."""
    points = load_dataset(trial.folder("triangulate") / "points.nc")
    smoothed = smooth(points, settings, progress)
    save_dataset(smoothed, out / "points.nc")
    missing = 1 - np.isfinite(smoothed.position).all("axis").mean("time")
    shares = zip(smoothed.keypoint.values, missing.values, strict=True)
    listed = [f"{name} {share:.0%}" for name, share in shares if share > 0.05]
    if not listed:
        return []
    return [
        f"no trustworthy position in part of the trial (too few cameras agree): {', '.join(listed)}"
    ]
