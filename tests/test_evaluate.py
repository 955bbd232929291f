"""A result whose errors are known is compared with its reference: figures, files and messages."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from conftest import look_at
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from calibration import Camera
from calibration.aniposelib_toml import write_toml
from pipeline.cli import app
from pipeline.errors import PipelineError
from pipeline.evaluation_files import averages
from pipeline.files import save_dataset
from stages.align import resample
from stages.compare import compare_angles, compare_points
from stages.comparison import compare
from stages.export import write_trc
from stages.motion_files import write_mot
from stages.recordings import (
    IDENTITY,
    Recording,
    Trajectories,
    read_angles,
    read_recording,
    read_space,
)

NAMES = [
    "pelvis_rotation",
    "pelvis_tx",
    "hip_flexion_r",
    "knee_angle_r",
    "knee_angle_l",
    "mtp_angle_r",
]
ROTATIONS = {name for name in NAMES if name != "pelvis_tx"}
POINTS = ("RHip", "RKnee", "RAnkle", "Neck", "LHip")


def squats(time_s, lag_s=0.0):
    """Three knee bends between 1 and 7 s, degrees and metres; the toes never move."""
    t = time_s - lag_s
    bend = np.where((t > 1) & (t < 7), np.sin(np.pi * (t - 1) / 2) ** 2, 0)
    still = np.zeros_like(t)
    columns = [
        10 * np.sin(t),
        0.2 * np.cos(t),
        70 * bend + np.sin(3 * t),
        90 * bend,
        85 * bend,
        still,
    ]
    return pd.DataFrame(np.stack(columns, 1), columns=NAMES, index=pd.Index(time_s, name="time"))


def walker(time_s):
    """Five points of a body that turns and travels, m."""
    rest = np.array([[0.1, 0.9, 0], [0.1, 0.5, 0.05], [0.1, 0.1, 0], [0, 1.4, 0], [-0.1, 0.9, 0]])
    turned = Rotation.from_rotvec(np.outer(0.5 * np.sin(2 * time_s), [0, 1, 0])).as_matrix()
    path = np.stack([0.3 * np.sin(1.7 * time_s), 0 * time_s, 0.2 * time_s], 1)
    return rest @ turned.swapaxes(1, 2) + path[:, None]


AT_60, AT_100 = np.arange(480) / 60, np.arange(820) / 100


def write_points(path, time_s, position):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_trc(path, time_s, POINTS, position)
    return path


def evaluate(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], terminal_width=200)


def failure_of(*arguments):
    """The message of an evaluation that fails."""
    outcome = evaluate(*arguments)
    assert isinstance(outcome.exception, PipelineError), outcome.output
    assert "\n" not in str(outcome.exception)
    return str(outcome.exception)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A result at 60 Hz that comes 0.1 s late and bends the right knee 5° more; truth at 100 Hz."""
    monkeypatch.chdir(tmp_path)
    result = squats(AT_60, lag_s=0.1)
    result["knee_angle_r"] += 5
    write_mot(tmp_path / "result.mot", result)
    write_mot(tmp_path / "truth.mot", squats(AT_100))
    return tmp_path / "result.mot", tmp_path / "truth.mot"


def test_resampling_crosses_no_gap_and_extrapolates_nothing():
    time_s = np.arange(40) / 10
    values = np.stack([np.sin(time_s), np.cos(time_s)], axis=1)
    values[10:13, 0] = np.nan
    kept = np.r_[0:25, 30:40]  # both lack 2.5 to 2.9 s
    at_s = np.array([-0.2, 0.05, 1.15, 2.0, 2.7, 3.05, 3.9, 4.1])
    found = resample(time_s[kept], values[kept], at_s)
    missing = np.array([[1, 0, 1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 1, 0, 0, 1]]).T.astype(bool)
    assert (np.isnan(found) == missing).all()
    expected = np.stack([np.sin(at_s), np.cos(at_s)], axis=1)
    assert np.allclose(found[~missing], expected[~missing], atol=1e-4)


def test_offset_and_lag_come_back_at_different_rates(files):
    outcome = evaluate(*files)
    assert outcome.exit_code == 0, outcome.output
    assert "lag +100." in outcome.output or "lag +99.9" in outcome.output
    table = pd.read_csv("comparison/angles.csv", index_col="coordinate")
    assert table.bias_deg["knee_angle_r"] == pytest.approx(5, abs=0.02)
    assert table.limit_high_deg["knee_angle_r"] == pytest.approx(5, abs=0.5)
    assert table.rmse_deg["knee_angle_l"] < 0.2
    assert list(table.index[table.world_frame]) == ["pelvis_rotation"]
    translations = pd.read_csv("comparison/translations.csv", index_col="coordinate")
    assert translations.rmse_mm["pelvis_tx"] < 0.5
    repetitions = pd.read_csv("comparison/repetitions.csv")
    assert sorted(set(repetitions.repetition)) == [1, 2, 3]
    right = repetitions[repetitions.coordinate == "knee_angle_r"]
    assert np.allclose(right.bias_deg, 5, atol=0.1)


def test_a_lag_can_be_given_or_left_in(files):
    evaluate(*files, "--lag", 0)
    left_in = pd.read_csv("comparison/angles.csv", index_col="coordinate").rmse_deg["knee_angle_l"]
    outcome = evaluate(*files, "--lag", 0.1)
    taken_out = pd.read_csv("comparison/angles.csv", index_col="coordinate").rmse_deg[
        "knee_angle_l"
    ]
    assert left_in > 5
    assert taken_out < 0.05
    assert "lag +100.0 ms (given)" in outcome.output
    assert "expected auto" in failure_of(*files, "--lag", "none")


def test_a_lag_at_the_edge_is_not_trusted(files):
    outcome = evaluate(*files, "--max-lag", 0.05)
    assert "lag +0.0 ms" in outcome.output
    assert "not trusted" in outcome.output and "--max-lag" in outcome.output


def test_the_page_opens_offline_and_the_workbook_has_the_same_tables(files):
    evaluate(*files)
    page = (files[0].parent / "comparison" / "comparison.html").read_text(encoding="utf-8")
    assert "Plotly.newPlot" in page and "knee_angle_r" in page and "limit low" in page
    assert "<script src=" not in page
    book = pd.read_excel("comparison/comparison.xlsx", sheet_name=None)
    assert {"summary", "angles", "translations", "repetitions"} == set(book)
    table = pd.read_csv("comparison/angles.csv")
    assert np.allclose(book["angles"].rmse_deg, table.rmse_deg, atol=1e-4)


def test_radians_are_read_as_the_header_says(tmp_path, files):
    radians = squats(AT_100)
    for name in ROTATIONS:
        radians[name] = np.radians(radians[name])
    write_mot(tmp_path / "radians.mot", radians)
    text = (tmp_path / "radians.mot").read_text()
    (tmp_path / "radians.mot").write_text(text.replace("inDegrees=yes", "inDegrees=no"))
    assert np.allclose(read_angles(tmp_path / "radians.mot"), squats(AT_100), atol=1e-5)
    (tmp_path / "unknown.mot").write_text(text.replace("inDegrees=yes\n", ""))
    assert "inDegrees" in failure_of(files[0], tmp_path / "unknown.mot")
    (tmp_path / "wrong.mot").write_text(text)  # radians that say degrees are believed, and told of
    outcome = evaluate(files[0], tmp_path / "wrong.mot")
    assert "57 times less" in outcome.output and "It was believed" in outcome.output


def test_the_knees_patella_coordinates_are_not_compared(tmp_path):
    write_mot(tmp_path / "a.mot", squats(AT_60).assign(knee_angle_r_beta=0.3))
    assert "knee_angle_r_beta" not in read_angles(tmp_path / "a.mot")


def test_whole_turns_are_no_error():
    result = squats(AT_60)
    result["pelvis_rotation"] -= 720
    compared = compare_angles(result, squats(AT_100), ROTATIONS)
    assert compared.table.rmse["pelvis_rotation"] < 1e-3


def test_translations_are_compared_in_millimetres():
    result = squats(AT_60)
    result["pelvis_tx"] -= 0.02
    row = compare_angles(result, squats(AT_100), ROTATIONS).table.loc["pelvis_tx"]
    assert row.unit == "mm"
    assert row.bias == pytest.approx(-20, abs=0.01)


def test_a_person_who_stands_still_has_no_lag_to_find():
    still = squats(AT_60) * 0.01
    compared = compare(Recording("a", still, {}), Recording("b", still, {}), IDENTITY)
    assert compared.alignment.lag_s == 0
    assert "move too little" in compared.notices[0]


def test_averages_are_over_lower_limb_rotations_that_move():
    result = squats(AT_60).assign(subtalar_angle_r=0.0)
    reference = squats(AT_100).assign(subtalar_angle_r=0.0)
    result["knee_angle_l"] += 6
    result["pelvis_rotation"] += 50
    compared = compare_angles(result, reference, {*ROTATIONS, "subtalar_angle_r"})
    assert compared.lower_limb["count"] == 3
    assert compared.lower_limb.mae == pytest.approx(2, abs=0.01)
    assert compared.table.multiple_correlation_repetitions["hip_flexion_r"] > 0.999


def test_samples_that_were_not_solved_are_left_out():
    result = squats(AT_60).drop(index=AT_60[100:130])
    reference = squats(AT_100[:600])
    compared = compare_angles(result, reference, ROTATIONS)
    assert compared.table.samples["knee_angle_r"] == (AT_60[:360] <= 5.99).sum() - 30
    assert compared.repetitions.repetition.nunique() < 3


def walking(time_s, stride_s=1.1):
    """Knees that bend by 15° in stance and 60° in swing, the left half a stride after the right."""
    phase = {"r": time_s / stride_s % 1, "l": (time_s / stride_s - 0.5) % 1}
    curves = {
        f"knee_angle_{side}": 15 * np.exp(-(((at - 0.15) / 0.07) ** 2))
        + 60 * np.exp(-(((at - 0.7) / 0.1) ** 2))
        for side, at in phase.items()
    }
    return pd.DataFrame(curves, index=pd.Index(time_s, name="time"))


def test_strides_are_each_sides_own_and_found_in_the_reference():
    names = ["knee_angle_r", "knee_angle_l"]
    still = walking(AT_60) * 0
    found = compare_angles(still, walking(AT_100), names, repetitions="strides").repetitions
    by_name = found.groupby("coordinate")
    assert by_name.size().to_dict() == {"knee_angle_l": 6, "knee_angle_r": 6}
    assert np.allclose(found.end_s - found.start_s, 1.1, atol=0.02)
    first = by_name.start_s.min()
    assert first["knee_angle_r"] == pytest.approx(0.7 * 1.1, abs=0.02)
    assert first["knee_angle_l"] == pytest.approx(0.2 * 1.1, abs=0.02)
    assert np.allclose(found["max"], 60, atol=0.5)


@pytest.mark.parametrize("trial, is_gait", [("walking1", True), ("squats1", False), ("a1", False)])
def test_a_trials_name_says_what_a_repetition_is(tmp_path, trial, is_gait):
    result, truth = tmp_path / "results" / trial / "angles.mot", tmp_path / "truth" / trial
    write_mot(result, walking(AT_60))
    write_mot(truth / "angles.mot", walking(AT_100))
    assert evaluate(result.parent, truth, "--lag", 0).exit_code == 0
    found = pd.read_csv(result.parent / "comparison" / "repetitions.csv")
    begins = found.groupby("coordinate").start_s.first()
    assert (begins["knee_angle_r"] != begins["knee_angle_l"]) == is_gait  # bends are of both knees


def test_the_terminals_table_fits_and_begins_with_the_legs(files, monkeypatch):
    for width, more in ((80, False), (120, True)):
        monkeypatch.setattr("pipeline.cli.console.width", width)
        lines = evaluate(*files).output.splitlines()
        assert max(map(len, lines[:8])) <= width
        assert [line.split()[0] for line in lines[1:6]] == [
            "hip_flexion_r", "knee_angle_r", "knee_angle_l", "pelvis_rotation", "pelvis_tx",
        ]  # fmt: skip
        assert ("CMC" in lines[0]) == more
        assert "left out: mtp_angle_r" in "\n".join(lines[6:10])


def test_what_only_one_side_has_is_said():
    mine = Recording("a", squats(AT_60).rename(columns={"mtp_angle_r": "toe_r"}), {})
    compared = compare(mine, Recording("b", squats(AT_100), {}), IDENTITY, 0.0)
    assert any("only the result has, not compared: toe_r" in each for each in compared.notices)
    assert any("only the reference has, not compared: mtp_angle_r" in n for n in compared.notices)


def test_keypoints_in_a_results_markers_are_nothing_to_say_and_long_lists_are_cut():
    names = ("RHip", "r_knee_study", *(f"extra{number}" for number in range(8)))
    position = np.repeat(walker(AT_60)[:, :1], 10, axis=1)
    mine = Recording("a", pd.DataFrame(), {"markers": Trajectories(AT_60, names, position)})
    shared = Trajectories(AT_60, names[1:2], position[:, :1])
    compared = compare(mine, Recording("b", pd.DataFrame(), {"markers": shared}), IDENTITY, 0.0)
    assert compared.notices == [
        "markers that only the result has, not compared: extra0, extra1, extra2, extra3, extra4, "
        "extra5 and 2 more."
    ]


def test_points_are_in_the_result_world_by_a_rigid_fit_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    turn = Rotation.from_euler("xyz", [20, 100, -40], degrees=True).as_matrix()
    origin = np.array([0.5, -1.0, 2.0])
    result = write_points(tmp_path / "video.trc", AT_60, (walker(AT_60) - origin) @ turn.T)
    reference = write_points(tmp_path / "mocap.trc", AT_100, walker(AT_100))
    flow = tmp_path / "flow.yaml"
    flow.write_text(
        f"# by hand\nR_fromMocap_toVideo: {turn.tolist()}\n"
        f"position_fromMocapOrigin_toVideoOrigin: {origin.tolist()}\n"
    )
    assert evaluate(result, reference).exit_code == 0
    assert pd.read_csv("comparison/summary.csv").mpjpe_mm[0] > 1000
    assert pd.read_csv("comparison/summary.csv").pa_mpjpe_mm[0] < 0.1
    for space in ("rigid", flow):
        assert "space " in evaluate(result, reference, "--space", space).output
        assert pd.read_csv("comparison/summary.csv").mpjpe_mm[0] < 0.1
    assert "expected identity" in failure_of(result, reference, "--space", "nowhere.yaml")


def test_yaml_lists_on_lines_of_their_own_are_read_too(tmp_path):
    path = tmp_path / "block.yaml"
    rows = "- - 0.0\n  - -1.0\n  - 0.0\n- - 1.0e+0\n  - 0.0\n  - 0.0\n- - 0.0\n  - 0.0\n  - 1.0\n"
    path.write_text(
        "position_fromMocapOrigin_toVideoOrigin:\n- 1.0\n- -2.0\n- 3.5\nR_fromMocap_toVideo:\n"
        + rows
    )
    space = read_space(path)
    assert np.allclose(space.rotation, [[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert np.allclose(space.translation, -space.rotation @ [1, -2, 3.5])


@pytest.mark.parametrize(
    "rotation, said",
    [
        ([[0, 0, -1], [0, -1, 0], [0, 0, -1]], "no rotation (determinant 0"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, -1]], "no rotation (determinant -1"),
        ([[1, 0, 0], [0, 1, 0]], "gives no transform: cannot reshape"),
    ],
)
def test_a_transform_that_is_no_rotation_is_refused(tmp_path, rotation, said):
    path = tmp_path / "bad.yaml"
    path.write_text(
        f"R_fromMocap_toVideo: {rotation}\nposition_fromMocapOrigin_toVideoOrigin: [0, 0, 0]\n"
    )
    with pytest.raises(PipelineError, match=said.replace("(", r"\(")):
        read_space(path)


def test_noise_of_points_is_their_error(tmp_path):
    noise = np.random.default_rng(1).normal(0, 0.01, size=(480, 5, 3))
    truth = Trajectories(AT_100, POINTS, walker(AT_100))
    compared = compare_points(Trajectories(AT_60, POINTS, walker(AT_60) + noise), truth, IDENTITY)
    assert compared.overall["mpjpe_mm"] == pytest.approx(
        np.linalg.norm(noise, axis=-1).mean() * 1000, abs=0.05
    )
    assert compared.overall["pa_mpjpe_mm"] < compared.overall["mpjpe_mm"]
    assert compared.overall["jitter_m_s2"] > 10
    assert list(compared.segments.index) == ["thigh R", "shank R"]


def test_the_lag_of_points_does_not_depend_on_the_world():
    turned = walker(AT_60 - 0.2) @ Rotation.from_euler("y", 90, degrees=True).as_matrix().T
    mine = Recording("a", pd.DataFrame(), {"points": Trajectories(AT_60, POINTS, turned)})
    truth = Recording(
        "b", pd.DataFrame(), {"markers": Trajectories(AT_100, POINTS, walker(AT_100))}
    )
    compared = compare(mine, truth, None)
    assert compared.alignment.lag_s == pytest.approx(0.2, abs=2e-3)
    assert compared.points["points"].overall["mpjpe_mm"] < 3


def cameras():
    return [
        Camera(
            name, (1280, 720), np.array([[900.0, 0, 640], [0, 900, 360], [0, 0, 1]]), np.zeros(5),
            np.vstack([look_at(np.array(center), np.array([0, 0.9, 0])), [0, 0, 0, 1]]),
        )
        for name, center in (("cam1", (4.0, 1.5, 0.0)), ("cam2", (0.0, 1.5, 5.0)))
    ]  # fmt: skip


def session(folder, offsets_deg):
    """A session whose trials' left knees are off by so many degrees, and markers by 10 mm."""
    for trial, offset in offsets_deg.items():
        result, truth = folder / "results" / trial, folder / "truth" / trial
        angles = squats(AT_60)
        angles["knee_angle_l"] += offset
        write_mot(result / "09_kinematics" / "angles.mot", angles)
        write_points(result / "08_export" / "markers.trc", AT_60, walker(AT_60) + [0, 0.01, 0])
        write_mot(truth / "angles.mot", squats(AT_100))
        write_points(truth / "markers.trc", AT_100, walker(AT_100))
        write_toml(cameras(), truth / "cameras.toml")
    return folder


def test_sessions_are_averaged_by_action_and_by_subject(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    anna = session(tmp_path / "anna", {"squats1": 3, "squats2": 9, "jumps1": 0})
    ben = session(tmp_path / "ben", {"jumps1": 12})
    (anna / "truth" / "walking1").mkdir()
    outcome = evaluate(anna, ben)
    assert outcome.exit_code == 0, outcome.output
    table = pd.read_csv("comparison/averages.csv").set_index(["by", "name"])
    # Of three lower-limb rotations, one is off: the mean is a third.
    mae = table.lower_limb_mae_deg
    assert mae["action", "squats"] == pytest.approx(2, abs=0.01)
    assert mae["action", "jumps"] == pytest.approx(2, abs=0.01)
    assert mae["subject", "anna"] == pytest.approx(4 / 3, abs=0.01)
    assert mae["subject", "ben"] == pytest.approx(4, abs=0.01)
    assert mae["all", "mean over actions"] == pytest.approx(2, abs=0.01)
    assert np.allclose(table.markers_mpjpe_mm, 10, atol=0.01)
    assert (table.markers_reprojection_px > 0).all()
    assert (anna / "results" / "jumps1" / "comparison" / "comparison.html").exists()
    assert len(pd.read_csv("comparison/trials.csv")) == 4


def test_every_action_counts_the_same():
    trials = pd.DataFrame({
        "subject": ["a"] * 3, "trial": ["s1", "s2", "j1"], "action": ["s", "s", "j"],
        "error_mm": [1.0, 3.0, 10.0],
    })  # fmt: skip
    table = averages(trials).set_index("by")
    assert table.error_mm["all"] == 6
    assert table.error_mm["subject"] == pytest.approx(14 / 3)


def test_a_trial_that_fails_does_not_stop_the_others(tmp_path):
    folder = session(tmp_path / "anna", {"squats1": 3, "squats2": 9})
    (folder / "truth" / "squats1" / "angles.mot").write_text("nothing")
    outcome = evaluate(folder)
    assert "1 trials could not be compared: anna/squats1" in str(outcome.exception)
    assert list(pd.read_csv(folder / "comparison" / "trials.csv").trial) == ["squats2"]


def test_a_trials_markers_and_keypoints_are_found(tmp_path):
    folder = session(tmp_path / "anna", {"squats1": 3})
    position = xr.DataArray(
        walker(AT_60),
        coords={"time": AT_60, "keypoint": list(POINTS), "axis": list("xyz")},
        dims=("time", "keypoint", "axis"),
    )
    (folder / "results" / "squats1" / "06_smooth").mkdir()
    path = folder / "results" / "squats1" / "06_smooth" / "points.nc"
    save_dataset(xr.Dataset({"position": position}), path)
    write_points(folder / "truth" / "squats1" / "keypoints.trc", AT_100, walker(AT_100))
    found = read_recording(folder / "results" / "squats1")
    assert list(found.points) == ["markers", "keypoints"]
    assert found.angles.shape == (480, len(NAMES))
    outcome = evaluate(folder / "results" / "squats1", folder / "truth" / "squats1")
    assert "markers (5, 100% known): MPJPE 10.0 mm" in outcome.output
    assert re.search(r"lag [+-][01]\.\d ms \(.* over 5 points' speeds", outcome.output)
    assert re.search(r"keypoints \(5, 100% known\): MPJPE 0\.\d mm", outcome.output)
    assert "reprojection" in outcome.output


@pytest.mark.slow
def test_the_truth_of_a_simulation_has_no_error(tmp_path):
    folder = tmp_path / "sim"
    simulated = CliRunner().invoke(app, ["simulate", str(folder), "--noise=0", "--duration=2"])
    assert simulated.exit_code == 0, simulated.output
    for trial in ("static1", "squats1"):
        result, truth = folder / "results" / trial, folder / "truth" / trial
        (result / "08_export").mkdir(parents=True)
        shutil.copy(truth / "markers.trc", result / "08_export")
        if trial == "squats1":
            (result / "09_kinematics").mkdir()
            shutil.copy(truth / "angles.mot", result / "09_kinematics")
    outcome = evaluate(folder)
    assert outcome.exit_code == 0, outcome.output
    assert "nan" not in outcome.output
    table = pd.read_csv(folder / "results" / "squats1" / "comparison" / "angles.csv")
    assert np.allclose(table.filter(regex="rmse|mae|bias|max|limit|range_error"), 0, atol=1e-6)
    averages = pd.read_csv(folder / "comparison" / "averages.csv").set_index("name")
    assert "static" not in averages.index
    assert averages.lower_limb_correlation["squats"] == pytest.approx(1)
    points = averages.filter(regex="mpjpe|max_mm|jitter|segment_length_error|reprojection")
    assert points.shape[1] >= 5
    assert np.allclose(points, 0, atol=1e-3)


def test_errors_say_what_is_missing_and_where(tmp_path, files):
    assert "nowhere.mot does not exist" in failure_of(tmp_path / "nowhere.mot", files[1])
    (tmp_path / "empty").mkdir()
    assert "has none of 09_kinematics/angles.mot" in failure_of(tmp_path / "empty", files[1])
    assert "truth/" in failure_of(tmp_path / "empty")
    (tmp_path / "no_results" / "truth" / "squats1").mkdir(parents=True)
    assert "pipeline run" in failure_of(tmp_path / "no_results")
    other = squats(AT_100).rename(columns=lambda name: name.upper())
    write_mot(tmp_path / "other.mot", other)
    message = failure_of(files[0], tmp_path / "other.mot")
    assert "knee_angle_r" in message and "KNEE_ANGLE_R" in message
    late = squats(AT_100)
    late.index += 100
    write_mot(tmp_path / "late.mot", late)
    message = failure_of(files[0], tmp_path / "late.mot")
    assert "from 0.00 to 7.98 s" in message and "from 100.00 to 108.19 s" in message
    write_mot(tmp_path / "short.mot", squats(AT_100[:20]))
    assert "reference lasts 0.19 s" in failure_of(files[0], tmp_path / "short.mot")


def test_a_folder_with_other_files_is_not_replaced(tmp_path, files):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("do not lose")
    assert "--out" in failure_of(*files, "--out", tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").exists()
    assert evaluate(*files, "--out", tmp_path / "new").exit_code == 0
    assert evaluate(*files, "--out", tmp_path / "new").exit_code == 0


def test_a_coordinate_that_errs_in_size_is_no_lag():
    """Each coordinate that moves more on one leg than the other seems to lag differently."""
    time_s = np.arange(0, 6, 1 / 60)
    course = {f"angle_{i}": 40 * np.sin(2 * np.pi * 0.5 * time_s) for i in range(8)}
    late = {
        name: 40 * np.sin(2 * np.pi * 0.5 * (time_s - lag))
        for name, lag in zip(course, np.linspace(-0.04, 0.05, 8), strict=True)
    }
    index = pd.Index(time_s, name="time")
    sides = [Recording("", pd.DataFrame(each, index), {}) for each in (late, course)]
    compared = compare(*sides, IDENTITY)
    assert compared.alignment.lag_s == 0 and "none that stands out" in str(compared.alignment)


def test_points_that_hardly_move_have_no_say_in_the_lag():
    """Feet on the floor, many of them, that noise moves with a lag of its own."""
    random = np.random.default_rng(0)
    sway, late = (np.sin(2 * np.pi * (0.3 + 0.05 * t) * t) for t in (AT_60, AT_60 - 0.04))
    hum = [0.004 * np.sin(2 * np.pi * 1.7 * (AT_60 - lag)) for lag in (0, 0.2)]
    sides = []
    for body, feet in ((late, hum[1]), (sway, hum[0])):
        position = np.zeros((len(AT_60), 30, 3))
        position[:, :5, 0], position[:, 5:, 0] = 0.3 * body[:, None], feet[:, None]
        position += random.normal(0, 0.001, position.shape)
        names = tuple(map(str, range(30)))
        points = {"markers": Trajectories(AT_60, names, position)}
        sides.append(Recording("", pd.DataFrame(), points))
    assert compare(*sides, None).alignment.lag_s == pytest.approx(0.04, abs=2e-3)


def test_noise_does_not_hide_the_lag_of_points():
    time_s, random = np.arange(0, 6, 1 / 60), np.random.default_rng(0)

    def faster_and_faster(t):
        return np.stack([0.3 * np.sin(2 * np.pi * (0.2 + 0.05 * t) * t + k) for k in range(3)], -1)

    sway, late = faster_and_faster(time_s), faster_and_faster(time_s - 0.3)
    noisy = np.stack([late] * 5, 1) + random.normal(0, 0.005, (len(time_s), 5, 3))
    names = tuple("abcde")
    sides = [
        Recording("", pd.DataFrame(), {"markers": Trajectories(time_s, names, position)})
        for position in (noisy, np.stack([sway] * 5, 1))
    ]
    compared = compare(*sides, None)
    assert compared.alignment.lag_s == pytest.approx(0.3, abs=0.03)


def test_a_session_that_was_not_run_keeps_no_other_from_its_averages(tmp_path):
    session(tmp_path / "anna", {"squats1": 1.0})
    (tmp_path / "unrun" / "truth" / "squats1").mkdir(parents=True)
    outcome = evaluate(tmp_path / "anna", tmp_path / "unrun", "--out", tmp_path / "out")
    assert "it has no results" in outcome.stderr + outcome.output
    assert (tmp_path / "out" / "averages.csv").exists()


def test_names_that_are_there_twice_and_files_without_a_frame_are_refused(tmp_path, files):
    twice = pd.concat([squats(AT_60), squats(AT_60)[["knee_angle_r"]]], axis=1)
    write_mot(tmp_path / "twice.mot", twice)
    assert "knee_angle_r twice" in failure_of(tmp_path / "twice.mot", files[1])
    points = write_points(tmp_path / "a.trc", AT_60, walker(AT_60))
    (tmp_path / "none.trc").write_text("\n".join(points.read_text().splitlines()[:6]) + "\n")
    assert "cut short: 0 of 480" in failure_of(points, tmp_path / "none.trc")


def test_a_file_that_was_cut_short_is_refused(tmp_path, files):
    text = files[0].read_text().splitlines()
    (tmp_path / "cut.mot").write_text("\n".join(text[: len(text) // 2]) + "\n")
    assert "cut short" in failure_of(tmp_path / "cut.mot", files[1])
