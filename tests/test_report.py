import numpy as np
import pandas as pd
import pytest
import xarray as xr

from stages.cycles import heel_ahead_m, knee_bends, normalise_cycles, strides
from stages.figures import knee_and_ankle
from stages.motion_files import read_mot
from stages.quality import (
    fit_figures,
    image_figures,
    model_figures,
    overall,
    range_of_motion,
)
from stages.report import cycles_of, on_timeline


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
    found = knee_bends(time, knee)
    assert len(found) == count
    np.testing.assert_allclose(found, bounds, atol=0.25)


def test_a_squat_that_the_recording_cuts_off_is_no_repetition():
    time, knee, bounds = squats(3)
    cut = time < bounds[-1][0] + 0.8
    assert len(knee_bends(time[cut], knee[cut])) == 2


@pytest.mark.parametrize("at", [0.3, 0.8, 1.3])
def test_a_squat_with_a_hole_in_it_is_no_repetition_and_the_others_stay_where_they_are(at):
    time, knee, bounds = squats(3)
    whole = knee_bends(time, knee)
    hole = (time > bounds[1][0] + at) & (time < bounds[1][0] + at + 0.2)
    holed = np.where(hole, np.nan, knee)
    np.testing.assert_allclose(knee_bends(time, holed), [whole[0], whole[2]], atol=0.02)
    np.testing.assert_allclose(
        knee_bends(time[~hole], knee[~hole]), [whole[0], whole[2]], atol=0.02
    )


@pytest.mark.parametrize("amplitude", [0, 1, 10])
def test_standing_and_swaying_are_no_repetitions(amplitude):
    time = np.arange(0, 5, 0.01)
    assert knee_bends(time, amplitude * np.sin(3 * time)) == []
    assert strides(time, 0.01 * np.sin(3 * time)) == []
    assert knee_bends(time[:5], 50 * np.sin(3 * time[:5])) == []


def walking(heading_deg):
    """Pelvis and heels of someone who walks a straight line at 1.2 m/s, strides of 1.1 s."""
    time = np.arange(0, 6, 1 / 60)
    forward = np.array([np.cos(np.radians(heading_deg)), 0, -np.sin(np.radians(heading_deg))])
    hip = 1.2 * time[:, None] * forward + [0, 0.9, 0]
    markers = {"midHip": hip}
    for name, ahead in (("r.ASIS", 0.1), ("L.ASIS", 0.1), ("r.PSIS", -0.1), ("L.PSIS", -0.1)):
        markers[f"{name}_study"] = hip + ahead * forward
    for name, phase in (("r_calc_study", 0.0), ("L_calc_study", 0.55)):
        swing = 0.3 * np.cos(2 * np.pi * (time - phase) / 1.1)
        markers[name] = hip + swing[:, None] * forward - [0, 0.85, 0]
    return time, markers


@pytest.mark.parametrize("heading_deg", [0, 90, 200])
def test_a_stride_begins_when_the_heel_is_farthest_ahead_whatever_the_heading(heading_deg):
    time, markers = walking(heading_deg)
    for side, first in (("r", 1.1), ("l", 0.55)):
        found = strides(time, heel_ahead_m(markers, side))
        assert len(found) == 4
        strikes = first + 1.1 * np.arange(len(found))
        np.testing.assert_allclose([start for start, _ in found], strikes, atol=0.02)
        np.testing.assert_allclose([end - start for start, end in found], 1.1, atol=0.04)


def test_the_real_squats_are_five(shared):
    angles = read_mot(shared / "opencap" / "squats1_videoAndMocap.mot")
    curves, repetitions = cycles_of(angles, {}, "knee bends")
    assert len(repetitions["r"]) == 5 and repetitions["l"] == repetitions["r"]
    assert curves["knee_angle_r"].shape == (5, 101)
    assert ((curves["knee_angle_r"].argmax(1) > 30) & (curves["knee_angle_r"].argmax(1) < 70)).all()
    assert cycles_of(angles, {}, "none") == ({}, {"r": [], "l": []})


def test_a_cycle_is_stretched_to_a_hundred_percent():
    time = np.arange(0, 201) / 50
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
    swapped = np.zeros((3, 7, 2), bool)
    swapped[1, 2:4], swapped[2, 5, 1] = True, True
    coords = {"time": np.arange(7) / 60, "keypoint": names, "camera": cameras}
    raw = xr.Dataset(
        {
            "reprojection_error": (("time", "keypoint"), np.full((7, 5), 9.0)),
            "reprojection_error_m": (("time", "keypoint"), np.full((7, 5), 0.02)),
            "views": (("time", "keypoint"), used.sum(0)),
            "view_used": (("camera", "time", "keypoint"), used),
            "view_seen": (("camera", "time", "keypoint"), np.ones((3, 7, 5), bool)),
            "swapped": (("camera", "time", "chain"), swapped),
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
    assert figure(figures, "left and right").value == pytest.approx(100 * 3 / 21, abs=0.06)
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
    assert verdict == "bad" and "Do not trust" in text and "fastest change" in text
    assert overall(model_figures(marker_errors(0.03), angles()))[0] == "warn"
    assert overall(model_figures(marker_errors(0.05), angles()))[0] == "bad"
    unknown = angles()
    unknown["ankle_angle_l"] = np.nan
    assert overall(model_figures(marker_errors(0.01), unknown))[0] == "bad"


def test_opensims_guidance_is_not_for_keypoints():
    errors = pd.DataFrame({"keypoint_median_m": [0.02] * 3, "keypoint_rms_m": [0.05] * 3})
    errors["keypoint_max_m"] = 0.4
    figures = model_figures(errors, angles())
    assert overall(figures)[0] == "ok" and not any("OpenSim" in each.guidance for each in figures)
    assert figure(figures, "keypoints from the fitted model").value == 20
    both = model_figures(pd.concat([errors, marker_errors(0.03)], axis=1), angles())
    assert overall(both)[0] == "warn"
    assert overall(model_figures(errors * 4, angles()))[0] == "bad"


def test_the_fits_own_uncertainty_of_knees_and_ankles_is_judged():
    sure = pd.Series({"knee_angle_r": 3.0, "ankle_angle_l": 6.0, "pro_sup_r": 40.0})
    (judged,) = fit_figures(sure)
    assert judged.value == 6 and judged.verdict == "ok" and judged.unit == "°"
    assert fit_figures(sure * 2)[0].verdict == "warn" and fit_figures(sure * 4)[0].verdict == "bad"
    assert fit_figures(pd.Series(dtype=float)) == []


def test_a_jump_across_missing_samples_is_seen():
    holed = angles()
    holed.iloc[28:31] = np.nan
    holed.loc[holed.index[31] :, "ankle_angle_l"] += 90
    assert overall(model_figures(marker_errors(0.01), holed))[0] == "bad"


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


def test_bands_of_uncertainty_are_around_every_sample_at_any_rate_and_not_over_gaps(tmp_path):
    time_s = np.arange(60) / 60
    names = [f"{joint}_{side}" for joint in ("knee_angle", "ankle_angle") for side in "rl"]
    angles = pd.DataFrame({name: np.linspace(0, 60, 60) for name in names}, index=time_s)
    stated = pd.DataFrame({"knee_angle_r": 2.0}, index=pd.Index(time_s, name="time")).drop(
        index=time_s[20:25]
    )
    stated.round(4).to_csv(tmp_path / "angles_sd.csv")
    read = on_timeline(pd.read_csv(tmp_path / "angles_sd.csv", index_col="time"), time_s)
    bands = [each for each in knee_and_ankle(angles, {}, read).data if each.fill == "toself"]
    assert [len(band.x) // 2 for band in bands] == [20, 35]
    upper = np.asarray(bands[0].y[:20])
    np.testing.assert_allclose(upper, angles.knee_angle_r[:20] + 2)
