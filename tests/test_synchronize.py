import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.synchronize import apparent_lag_s, resample


def test_frames_on_the_timeline_come_back_unchanged_even_beside_missing_ones():
    time = np.arange(7) / 60
    values = np.random.default_rng(0).normal(size=(7, 5, 2))
    values[3] = np.nan
    np.testing.assert_array_equal(resample(values, time, time, 1.5 / 60), values)


@given(st.floats(0.001, 0.9), st.sampled_from([30.0, 59.94, 100.0]))
def test_a_steady_motion_is_resampled_exactly_at_any_offset_and_rate(offset_s, rate_hz):
    frame_time = np.arange(200) / rate_hz + offset_s
    time = np.arange(50) / 60 + 0.9
    values = (3.0 * frame_time + 1.0)[:, None]
    expected = 3.0 * time + 1.0
    resampled = resample(values, frame_time, time, 1.5 / rate_hz)[:, 0]
    inside = (time >= frame_time[0]) & (time <= frame_time[-1])
    np.testing.assert_allclose(resampled[inside], expected[inside], atol=1e-3)


def test_nothing_is_invented_outside_the_recording_or_across_dropped_frames():
    frame_time = np.r_[np.arange(10), np.arange(15, 20)] / 60
    time = np.arange(-5, 25) / 60 + 0.004
    known = np.isfinite(resample(np.ones((15, 1)), frame_time, time, 1.5 / 60)[:, 0])
    assert not known[time < 0].any() and not known[time > 19 / 60].any()
    assert not known[(time > 9 / 60) & (time < 15 / 60)].any()
    assert known[(time > 0) & (time < 9 / 60)].all()


def swinging(time):
    """Keypoints (time, 5, 2), px, that swing at their own pace."""
    pace = np.array([0.5, 0.7, 0.9, 1.1, 1.3])
    phase = 2 * np.pi * pace * time[:, None]
    return np.stack([500 + 200 * np.sin(phase), 800 + 90 * np.cos(phase)], -1)


@given(st.integers(-9, 9), st.integers(0, 2**32 - 1))
def test_a_camera_that_is_late_is_found_to_be_so_among_wrong_keypoints(half_frames, seed):
    time, lag = np.arange(120) / 60, half_frames / 120
    generator = np.random.default_rng(seed)
    observed = swinging(time - lag) + generator.normal(0, 8, (120, 5, 2))
    observed[generator.random((120, 5)) < 0.1] += 300
    observed[generator.random((120, 5)) < 0.1] = np.nan
    found, share = apparent_lag_s(swinging(time), observed, time)
    assert abs(found - lag) <= 0.5 / 60 + 1e-9
    assert share > 0.08 if abs(half_frames) > 3 else share < 0.6


def test_standing_still_tells_nothing_of_time():
    time = np.arange(120) / 60
    still = np.ones((120, 5, 2)) * 400
    noise = np.random.default_rng(0).normal(0, 8, still.shape)
    assert apparent_lag_s(still, still + noise, time)[1] < 0.08
    assert apparent_lag_s(still * np.nan, still, time) == (0.0, 0.0)
