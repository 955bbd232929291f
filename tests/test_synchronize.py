import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from stages.synchronize import common_timeline, resample


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


def test_the_timeline_covers_what_all_cameras_filmed():
    clocks = {"a": np.arange(61) / 60, "b": np.arange(31) / 30 + 0.25}
    time = common_timeline(clocks, 60.0)
    assert time[0] == 0.25 and time[-1] <= 1.0 < time[-1] + 1 / 60
    np.testing.assert_allclose(np.diff(time), 1 / 60)
    with pytest.raises(PipelineError, match="do not overlap"):
        common_timeline({"a": np.arange(10) / 60, "b": np.arange(10) / 60 + 5}, 60.0)
