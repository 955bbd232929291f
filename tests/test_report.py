import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stages.cycles import find_repetitions, normalise_cycles
from stages.kinematics import read_mot
from stages.quality import image_figures, model_figures, overall, range_of_motion
from stages.report import on_timeline, unit_of


def squats(count, rate=100.0, depth=80.0, period=1.6, pause=0.4):
    """Knee angles (deg) of squats with pauses of standing between them; and their true bounds."""
    time = np.arange(0, count * (period + pause) + pause, 1 / rate)
    knee = np.full(time.shape, 5.0)
    bounds = []
    for index in range(count):
        start = pause + index * (period + pause)
        inside = (time >= start) & (time <= start + period)
        knee[inside] += depth * np.sin(np.pi * (time[inside] - start) / period) ** 2
        bounds.append((start, start + period))
    return time, knee, bounds


@pytest.mark.parametrize("count", [1, 3, 6])
def test_each_squat_is_found_where_it_is(count):
    time, knee, bounds = squats(count)
    found = find_repetitions(time, {"knee_angle_r": knee, "knee_angle_l": knee + 2}, "squats")
    assert found["r"] == found["l"] and len(found["r"]) == count
    np.testing.assert_allclose(found["r"], bounds, atol=0.25)


def test_a_squat_that_the_recording_cuts_off_is_no_repetition():
    time, knee, bounds = squats(3)
    cut = time < bounds[-1][0] + 0.8
    found = find_repetitions(
        time[cut], {"knee_angle_r": knee[cut], "knee_angle_l": knee[cut]}, "STS"
    )
    assert len(found["r"]) == 2


@pytest.mark.parametrize("activity, amplitude", [("balancing", 40), ("static", 1), ("squats", 4)])
def test_standing_and_balancing_have_no_repetitions(activity, amplitude):
    time = np.arange(0, 5, 0.01)
    sway = amplitude * np.sin(3 * time)
    angles = {"knee_angle_r": sway, "knee_angle_l": sway}
    assert find_repetitions(time, angles, activity) == {"r": [], "l": []}


def test_strides_follow_each_leg():
    time = np.arange(0, 6, 1 / 60)
    right = 20 * np.cos(2 * np.pi * time / 1.1)
    left = 20 * np.cos(2 * np.pi * (time - 0.55) / 1.1)
    found = find_repetitions(time, {"hip_flexion_r": right, "hip_flexion_l": left}, "walking")
    for side in "rl":
        np.testing.assert_allclose([end - start for start, end in found[side]], 1.1, atol=0.04)
    assert len(found["r"]) == 4 and len(found["l"]) == 4


def test_the_real_squats_are_five(shared):
    angles = read_mot(shared / "opencap" / "squats1_videoAndMocap.mot")
    found = find_repetitions(angles.index.values, angles, "squats")
    assert len(found["r"]) == 5
    curves = normalise_cycles(angles.index.values, angles.knee_angle_r.values, found["r"])
    assert curves.shape == (5, 101)
    assert (curves.argmax(1) > 30).all() and (curves.argmax(1) < 70).all()


def test_a_cycle_is_stretched_to_a_hundred_percent():
    time = np.arange(0, 4, 0.02)
    curves = normalise_cycles(time, 3 * time, [(1.0, 2.0), (0.5, 3.5)])
    np.testing.assert_allclose(
        curves, [3 + 3 * np.linspace(0, 1, 101), 1.5 + 9 * np.linspace(0, 1, 101)], atol=1e-9
    )


def points(share_dropped=0.0, missing=0):
    """Triangulated and smoothed points of 7 frames, 5 keypoints, 3 cameras."""
    names, cameras = list("abcde"), ["1", "2", "3"]
    used = np.ones((3, 7, 5), bool)
    used[0] = np.random.default_rng(0).random((7, 5)) >= share_dropped
    position = np.zeros((7, 5, 3))
    position[:missing, 1] = np.nan
    coords = {"time": np.arange(7) / 60, "keypoint": names, "camera": cameras}
    raw = xr.Dataset(
        {
            "reprojection_error": (("time", "keypoint"), np.full((7, 5), 9.0)),
            "reprojection_error_m": (("time", "keypoint"), np.full((7, 5), 0.02)),
            "views": (("time", "keypoint"), used.sum(0)),
            "view_used": (("camera", "time", "keypoint"), used),
            "view_seen": (("camera", "time", "keypoint"), np.ones((3, 7, 5), bool)),
        },
        coords=coords,
    )
    measured = np.ones((7, 5), bool)
    measured[2:4, 0] = False
    smoothed = xr.Dataset(
        {
            "position": (("time", "keypoint", "axis"), position),
            "measured": (("time", "keypoint"), measured),
        },
        coords={"time": raw.time, "keypoint": names},
    )
    return raw, smoothed


def figure(figures, start):
    return next(each for each in figures if each.name.startswith(start))


def test_image_quality_is_counted_right():
    figures = image_figures(*points(missing=3), list("abcde"))
    assert (
        figure(figures, "reprojection error at").value == 20
        and figure(figures, "reprojection error at").verdict == "ok"
    )
    assert figure(figures, "samples filled").value == pytest.approx(100 * 2 / 35, abs=0.06)
    assert figure(figures, "longest gap").value == pytest.approx(2 / 60, abs=1e-3)
    assert figure(figures, "samples missing").value == pytest.approx(100 * 3 / 35, abs=0.06)
    dropped = image_figures(*points(share_dropped=0.99), list("abcde"))
    assert figure(dropped, "views that disagreed").verdict == "bad"


def angles(jump=0.0):
    table = pd.DataFrame(
        {
            f"{joint}_angle_{side}": np.linspace(0, 30, 61)
            for joint in ("knee", "ankle")
            for side in "rl"
        },
        index=pd.Index(np.arange(61) / 60, name="time_s"),
    )
    table.loc[table.index[30] :, "knee_angle_r"] += jump
    return table


def marker_errors(rms):
    return pd.DataFrame({"marker_rms_m": [rms] * 3, "marker_max_m": [2 * rms] * 3})


def test_a_jump_of_the_knee_or_bad_markers_are_not_to_be_trusted():
    assert overall(model_figures(marker_errors(0.01), angles()))[0] == "ok"
    verdict, text = overall(model_figures(marker_errors(0.01), angles(jump=25)))
    assert verdict == "bad" and "Do not trust" in text and "largest change" in text
    assert overall(model_figures(marker_errors(0.03), angles()))[0] == "warn"
    assert overall(model_figures(marker_errors(0.05), angles()))[0] == "bad"
    unknown = angles()
    unknown["ankle_angle_l"] = np.nan
    assert overall(model_figures(marker_errors(0.01), unknown))[0] == "bad"


def test_range_of_motion_with_and_without_repetitions():
    curves = {"knee_angle_r": np.array([[0.0, 40.0], [5.0, 65.0]])}
    table = range_of_motion(angles(), curves)
    assert table.loc["ankle_angle_l", "range"] == 30 and np.isnan(
        table.loc["ankle_angle_l", "range_mean"]
    )
    assert table.loc["knee_angle_r", "range_mean"] == 50
    assert table.loc["knee_angle_r", "range_sd"] == pytest.approx(np.std([40, 60], ddof=1))


def test_samples_that_were_not_solved_are_missing_and_not_filled():
    solved = angles().drop(index=angles().index[10:20])
    whole = on_timeline(solved, np.arange(61) / 60 + 1e-6)
    assert whole.knee_angle_r.isna().sum() == 10 and whole.index.name == "time_s"


@pytest.mark.parametrize(
    "name, unit", [("pelvis_tx", "m"), ("pelvis_tilt", "deg"), ("knee_angle_r", "deg")]
)
def test_units_of_coordinates(name, unit):
    assert unit_of(name) == unit
