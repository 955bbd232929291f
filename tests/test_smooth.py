import numpy as np
import pytest
import xarray as xr
from filterpy.common import Q_discrete_white_noise
from filterpy.kalman import KalmanFilter
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator
from scipy.signal import butter, filtfilt

from pipeline.errors import PipelineError
from stages.series import fill_short_gaps
from stages.smooth import (
    INITIAL_VARIANCE,
    Settings,
    butterworth_smooth,
    kalman_smooth,
    process_noise,
    smooth,
)

RATE = 60.0


def by_filterpy(position, variance, process_variance):
    """One series through filterpy's filter and smoother."""
    dt = 1 / RATE
    kalman = KalmanFilter(dim_x=3, dim_z=1)
    kalman.F = np.array([[1, dt, dt**2 / 2], [0, 1, dt], [0, 0, 1]])
    kalman.H = np.array([[1.0, 0.0, 0.0]])
    kalman.Q = Q_discrete_white_noise(3, dt=dt, var=process_variance)
    kalman.P = np.diag(INITIAL_VARIANCE)
    kalman.x = np.array([[position[np.isfinite(position)][0]], [0.0], [0.0]])
    means, covariances = [], []
    for step, (value, noise) in enumerate(zip(position, variance, strict=True)):
        if step:
            kalman.predict()
        kalman.update(None if np.isnan(value) else value, R=None if np.isnan(value) else noise)
        means.append(kalman.x.copy())
        covariances.append(kalman.P.copy())
    means, covariances, _, _ = kalman.rts_smoother(np.array(means), np.array(covariances))
    return means[:, 0, 0], np.sqrt(covariances[:, 0, 0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.6), st.floats(0.01, 1e4))
def test_equals_filterpy_with_missing_samples_and_changing_noise(seed, missing, process_variance):
    generator = np.random.default_rng(seed)
    position = np.cumsum(generator.normal(0, 0.01, (41, 3)), 0) + generator.normal(0, 1, 3)
    variance = generator.uniform(1e-6, 1e-2, position.shape)
    position[generator.random(position.shape) < missing] = np.nan
    position[20] = 0.5  # at least one sample
    mean, deviation = kalman_smooth(position, variance, 1 / RATE, process_variance)
    for series in range(3):
        expected = by_filterpy(position[:, series], variance[:, series], process_variance)
        np.testing.assert_allclose(mean[:, series], expected[0], atol=1e-8)
        np.testing.assert_allclose(deviation[:, series], expected[1], atol=1e-8)


def test_a_series_never_seen_stays_missing():
    position = np.zeros((11, 2))
    position[:, 1] = np.nan
    mean, deviation = kalman_smooth(position, np.ones((11, 2)), 1 / RATE, 1.0)
    assert np.isnan(mean[:, 1]).all() and np.isnan(deviation[:, 1]).all()
    assert np.isfinite(mean[:, 0]).all()


@pytest.mark.parametrize("cutoff_hz", [3.0, 6.0, 10.0])
def test_the_smoother_halves_a_sine_at_its_cutoff(cutoff_hz):
    time = np.arange(0, 20, 1 / RATE)
    sine = np.sin(2 * np.pi * cutoff_hz * time)[:, None]
    variance = process_noise(cutoff_hz, 0.01, 1 / RATE)
    mean, _ = kalman_smooth(sine, np.full(sine.shape, 0.01**2), 1 / RATE, variance)
    middle = slice(200, -200)
    # the formula is that of continuous time: at 10 of 60 Hz it is off by a tenth
    assert np.ptp(mean[middle]) / np.ptp(sine[middle]) == pytest.approx(0.5, abs=0.06)


def test_no_lag_and_less_noise():
    generator = np.random.default_rng(0)
    time = np.arange(0, 5, 1 / RATE)
    truth = 0.3 * np.sin(2 * np.pi * 0.8 * time)[:, None]
    noisy = truth + generator.normal(0, 0.01, truth.shape)
    mean, _ = kalman_smooth(
        noisy, np.full(truth.shape, 1e-4), 1 / RATE, process_noise(6, 0.01, 1 / RATE)
    )
    assert np.abs(mean - truth).mean() < 0.5 * np.abs(noisy - truth).mean()


def labelled(position, deviation=0.01):
    time = np.arange(len(position)) / RATE
    coords = {"time": time, "keypoint": ["a", "b", "c", "d", "e"], "axis": ["x", "y", "z"]}
    dims = ("time", "keypoint", "axis")
    return xr.Dataset(
        {
            "position": (dims, position),
            "standard_deviation": (dims, np.where(np.isnan(position), np.nan, deviation)),
        },
        coords=coords,
    )


def test_a_short_gap_is_bridged_and_flagged_and_a_long_one_is_not():
    time = np.arange(180) / RATE
    position = np.sin(2 * np.pi * 0.5 * time)[:, None, None] * np.ones((180, 5, 3))
    position[30:34, 1] = np.nan
    position[60:150, 2] = np.nan
    result = smooth(labelled(position), Settings())
    assert np.isfinite(result.position.sel(keypoint="b")).all()
    assert not result.measured.sel(keypoint="b")[30:34].any()
    assert np.abs(result.position.sel(keypoint="b")[30:34] - position[30:34, 0]).max() < 0.02
    assert np.isnan(result.position.sel(keypoint="c")[80:130]).all()
    assert np.isfinite(result.position.sel(keypoint="c")[:60]).all()


def test_butterworth_is_the_textbook_filter_on_each_stretch():
    generator = np.random.default_rng(1)
    position = generator.normal(size=(200, 2))
    position[90:95, 1] = np.nan
    smoothed = butterworth_smooth(position, RATE, 6.0)
    b, a = butter(2, 6.0 / (2**0.5 - 1) ** 0.25, fs=RATE)
    np.testing.assert_allclose(smoothed[:, 0], filtfilt(b, a, position[:, 0]), atol=1e-6)
    np.testing.assert_allclose(smoothed[95:, 1], filtfilt(b, a, position[95:, 1]), atol=1e-6)
    assert np.isnan(smoothed[90:95, 1]).all()


def test_before_butterworth_only_short_gaps_between_samples_are_filled():
    time = np.arange(60) / RATE
    values = np.stack([np.sin(3 * time), np.cos(2 * time)], 1)
    gappy = values.copy()
    gappy[:3, 0] = gappy[10:14, 0] = gappy[20:25, 0] = gappy[58:, 0] = np.nan
    gappy[:, 1] = np.nan
    filled = fill_short_gaps(gappy, 4, PchipInterpolator)
    np.testing.assert_allclose(filled[10:14, 0], values[10:14, 0], atol=2e-3)
    np.testing.assert_array_equal(filled[14:20, 0], values[14:20, 0])
    for gap in (slice(0, 3), slice(20, 25), slice(58, 60)):
        assert np.isnan(filled[gap, 0]).all()
    assert np.isnan(filled[:, 1]).all()
    position = np.tile(gappy[:, :1, None], (1, 5, 3))
    result = smooth(labelled(position), Settings(method="butterworth", max_gap_s=4 / RATE))
    assert np.isfinite(result.position[3:20]).all() and np.isnan(result.position[20:25]).all()
    assert not result.measured[10:14].any() and result.measured[14:20].all()


def test_butterworth_attenuates_the_cutoff_by_three_decibels():
    time = np.arange(0, 20, 1 / 200)
    sine = np.sin(2 * np.pi * 6 * time)[:, None]
    gain = np.ptp(butterworth_smooth(sine, 200, 6.0)[800:-800]) / np.ptp(sine)
    assert gain == pytest.approx(2**-0.5, abs=0.01)


def test_a_cutoff_above_half_the_frame_rate_is_refused():
    with pytest.raises(PipelineError, match="lower cut-off"):
        smooth(labelled(np.zeros((30, 5, 3))), Settings(method="butterworth", cutoff_hz=31))


def test_unequal_intervals_are_refused():
    points = labelled(np.zeros((5, 5, 3))).assign_coords(time=[0, 0.1, 0.2, 0.4, 0.5])
    with pytest.raises(PipelineError, match="equal intervals"):
        smooth(points, Settings())
