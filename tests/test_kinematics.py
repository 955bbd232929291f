import numpy as np
import opensim
import pandas as pd
import pytest
from conftest import on_opencaps_model

from models.augmenter import MARKERS
from models.opensim_model import (
    MODELS,
    add_markers,
    generic_model,
    load_model,
    marker_names,
    marker_positions,
    rotational_coordinates,
    solve_inverse_kinematics,
    stripped_copy,
)
from models.scaling import place_markers, scale_segments
from pipeline.errors import PipelineError
from stages.export import write_trc
from stages.motion_files import in_file_units, read_mot, write_mot
from stages.scaling import choose_scaling_window, notices_about_markers, notices_about_scale
from stages.solved import error_table, kinds_of, notices_about_errors
from stages.trial import no_progress

FLEXIONS = [
    f"{joint}_{side}" for joint in ("hip_flexion", "knee_angle", "ankle_angle") for side in "rl"
]


@pytest.fixture(scope="module")
def squat(shared):
    """A real squat on OpenCap's whole model: (model, time, angles in rad and m, true markers)."""
    recorded = read_mot(shared / "opencap" / "squats1_videoAndMocap.mot").iloc[60:80]
    marker_set = "LaiUhlrich2022_markers_augmenter.xml"
    model, angles, position = on_opencaps_model(shared, marker_set, recorded, MARKERS)
    return model, angles.index.values, angles, position


@pytest.fixture(scope="module")
def ik_setup(shared):
    return shared / "opencap" / "Setup_IK.xml"


def solve(squat, ik_setup, position):
    model, time, _, _ = squat
    markers = dict(zip(MARKERS, np.moveaxis(position, 1, 0), strict=True))
    return solve_inverse_kinematics(model, ik_setup, time, markers, no_progress)


def rmse_deg(motion, angles, names):
    difference = np.degrees(motion.angles[names] - angles.loc[motion.angles.index, names])
    return np.sqrt((difference**2).mean())


def test_markers_of_known_angles_give_the_angles_back(squat, ik_setup):
    motion = solve(squat, ik_setup, squat[3])
    assert rmse_deg(motion, squat[2], FLEXIONS).max() < 0.3
    legs = motion.marker_error_m.filter(regex="knee|ankle|calc|toe|HJC")
    assert legs.shape[1] > 10 and legs.to_numpy().max() < 2e-3


def test_the_users_motion_is_whole_with_the_patella_where_the_constraint_puts_it(squat, ik_setup):
    model = squat[0]
    motion = solve(squat, ik_setup, squat[3])
    state = model.initSystem()
    coordinates = model.getCoordinateSet()
    assert list(motion.angles) == [
        coordinates.get(i).getName() for i in range(coordinates.getSize())
    ]
    for _, row in motion.angles.iloc[::7].iterrows():
        for name, value in row.items():
            if "beta" not in name:
                coordinates.get(name).setValue(state, float(value), False)
        model.assemble(state)
        for name in ("knee_angle_r_beta", "knee_angle_l_beta"):
            assert row[name] == pytest.approx(coordinates.get(name).getValue(state), abs=1e-3)


def test_the_stripped_model_gives_the_whole_models_angles(squat, ik_setup, tmp_path, shared):
    """Against OpenSim's own InverseKinematicsTool on the whole model, with misplaced markers.

    The solver itself, at its usual accuracy, is sure to some tenths of a degree only.
    """
    model, time, _, truth = squat
    noisy = truth[:6] + np.random.default_rng(0).normal(0, 0.01, (1, 43, 3))
    write_trc(tmp_path / "markers.trc", time[:6], list(MARKERS), noisy)
    tool = opensim.InverseKinematicsTool(str(ik_setup))
    whole_model = model.clone()  # OpenSim does not keep it alive
    tool.setModel(whole_model)
    tool.setMarkerDataFileName(str(tmp_path / "markers.trc"))
    tool.setOutputMotionFileName(str(tmp_path / "whole.mot"))
    tool.setResultsDir(str(tmp_path))
    tool.setStartTime(time[0])
    tool.setEndTime(time[5])
    tool.run()
    whole = read_mot(tmp_path / "whole.mot")
    markers = dict(zip(MARKERS, np.moveaxis(noisy, 1, 0), strict=True))
    ours = solve_inverse_kinematics(model, ik_setup, time[:6], markers, no_progress)
    stripped = in_file_units(ours.angles, rotational_coordinates(model))
    legs = [name for name in FLEXIONS] + ["pelvis_tilt", "lumbar_extension", "hip_adduction_r"]
    difference = np.sqrt(((stripped[legs].to_numpy() - whole[legs].to_numpy()) ** 2).mean(0))
    assert difference.max() < 0.5 and difference.mean() < 0.25


def test_stripping_takes_muscles_and_patellae_and_nothing_else(squat):
    model = squat[0]
    copy, driven = stripped_copy(model)
    assert set(driven) == {"knee_angle_r_beta", "knee_angle_l_beta"}
    assert copy.getForceSet().getSize() == 0 and model.getForceSet().getSize() > 0
    assert copy.getBodySet().getSize() == model.getBodySet().getSize() - 2
    assert copy.getCoordinateSet().getSize() == model.getCoordinateSet().getSize() - 2


def test_missing_markers_do_not_count_and_too_few_give_no_angles(squat, ik_setup):
    position = squat[3].copy()
    position[4, MARKERS.index("r_toe_study")] = np.nan
    position[7:9] = np.nan
    motion = solve(squat, ik_setup, position)
    assert len(motion.angles) == len(position) - 2
    assert squat[1][7] not in motion.angles.index
    assert rmse_deg(motion, squat[2], FLEXIONS).max() < 0.3
    assert np.isnan(motion.marker_error_m.loc[squat[1][4], "r_toe_study"])


@pytest.mark.parametrize(
    "generic", [m for m in MODELS if m.asset == "opensim-pose2sim"], ids=lambda m: m.name
)
def test_a_packaged_model_scaled_to_its_own_markers_keeps_its_size(generic, tmp_path):
    """The markers of the unscaled model itself must give scale factors of 1, the torso's too."""
    folder = generic.folder
    model = opensim.Model(str(folder / generic.model))
    model.updateMarkerSet(opensim.MarkerSet(str(folder / generic.markers)))
    state, names = model.initSystem(), marker_names(model)
    here = [model.getMarkerSet().get(name).getLocationInGround(state).to_numpy() for name in names]
    time = np.arange(11) / 60
    for size in (1.0, 1.1):
        write_trc(tmp_path / "static.trc", time, names, size * np.tile(here, (11, 1, 1)))
        scaled, factors = scale_segments(
            generic, tmp_path / "static.trc", (0.0, 1 / 6), 60.0, tmp_path
        )
        assert notices_about_scale(factors) == []
        for segment in ("femur_r", "tibia_l", "pelvis", "torso", "humerus_r"):
            np.testing.assert_allclose(factors[segment], size, atol=0.01)
        assert scaled.getTotalMass(scaled.initSystem()) == pytest.approx(60, abs=0.1)
    scaled.printToXML(str(tmp_path / "bigger.osim"))
    assert load_model(tmp_path / "bigger.osim").getNumMarkers() == len(names)


def a_person(time, bend_deg, moving):
    """Keypoints of someone whose knees bend, and markers that move at `moving` m/s."""
    bend = np.radians(bend_deg) / 2
    zero = np.zeros_like(time)
    keypoints = {}
    for side in "RL":
        keypoints[f"{side}Ankle"] = np.stack([zero, zero, zero], -1)
        keypoints[f"{side}Knee"] = np.stack([0.4 * np.sin(bend), 0.4 * np.cos(bend), zero], -1)
        keypoints[f"{side}Hip"] = np.stack([zero, 0.8 * np.cos(bend), zero], -1)
    keypoints["midHip"] = keypoints["RHip"]
    keypoints["Neck"] = keypoints["RHip"] + [0, 0.5, 0]
    path = np.cumsum(np.full_like(time, moving) * (time[1] - time[0]))
    markers = np.zeros((len(time), 43, 3)) + path[:, None, None] * [1, 0, 0]
    return keypoints, markers


def test_the_most_upright_slowest_stretch_scales_the_model():
    time = np.arange(0, 4, 1 / 60)
    bend = np.where((time > 2.0) & (time < 3.0), 3.0, 60.0)
    keypoints, markers = a_person(time, bend, 0.0)
    window = choose_scaling_window(keypoints, markers, time, 0.5)
    assert 2.0 <= window.start_s < window.end_s <= 3.0
    assert window.end_s - window.start_s == pytest.approx(0.5, abs=0.02)
    assert window.standing and "knees at 3°" in str(window)
    moving = np.where(time < 2.5, 0.5, 0.0)
    keypoints, markers = a_person(time, np.where(time > 2, 3.0, 60.0), moving)
    assert choose_scaling_window(keypoints, markers, time, 0.5).start_s >= 2.4


@pytest.mark.parametrize("bend_deg, speed_m_s, lean_m", [(30, 0, 0), (3, 0.3, 0), (3, 0, 0.3)])
def test_bent_moving_or_leaning_is_not_standing(bend_deg, speed_m_s, lean_m):
    time = np.arange(0, 1, 1 / 60)
    keypoints, markers = a_person(time, np.full_like(time, bend_deg), speed_m_s)
    keypoints["Neck"] = keypoints["Neck"] + [lean_m, 0, 0]
    assert not choose_scaling_window(keypoints, markers, time, 0.5).standing


def test_markers_missing_in_every_stretch_are_named():
    time = np.arange(0, 1, 1 / 60)
    keypoints, markers = a_person(time, np.zeros_like(time), 0.0)
    markers[::3, MARKERS.index("r_toe_study")] = np.nan
    with pytest.raises(PipelineError, match="Most missing: r_toe_study"):
        choose_scaling_window(keypoints, markers, time, 0.5)


def test_scale_factors_that_no_person_has_are_refused_and_asymmetry_is_told():
    even = {"femur_r": np.ones(3), "femur_l": np.ones(3)}
    assert notices_about_scale(even) == []
    assert "femur" in notices_about_scale(even | {"femur_r": np.full(3, 1.2)})[0]
    with pytest.raises(PipelineError, match="calibration's scale"):
        notices_about_scale(even | {"femur_r": np.full(3, 1000.0)})


def test_markers_far_from_their_usual_place_are_told():
    assert notices_about_markers({"r_knee_study": 0.03}) == []
    (notice,) = notices_about_markers({"r_knee_study": 0.03, "C7_study": 0.12})
    assert "C7_study 12 cm" in notice and "r_knee" not in notice


def test_markers_are_placed_where_the_person_has_them(tmp_path):
    """On bent legs too: markers that were moved on the true model are found where they were put."""
    generic = generic_model("pose2sim")
    model = load_model(generic.folder / generic.model)
    add_markers(model, generic.folder / generic.markers)
    person = model.clone()
    person.initSystem()
    moved = {
        "r_knee_study": [0, 0.02, 0],
        "L_ankle_study": [0, -0.03, 0],
        "r_sh1_study": [0.02, 0, 0],
    }
    for name, shift in moved.items():
        marker = person.updMarkerSet().get(name)
        place = marker.get_location().to_numpy() + shift
        marker.set_location(opensim.Vec3(*map(float, place)))
    bend = np.linspace(0.7, 1.2, 6)
    columns = {"hip_flexion": bend, "knee_angle": bend, "pelvis_ty": 0 * bend + 0.9}
    angles = pd.DataFrame(
        {name if "pelvis" in name else f"{name}_{side}": values
         for name, values in columns.items() for side in "rl"}
    )  # fmt: skip
    true = marker_positions(person, angles, MARKERS)
    markers = dict(zip(MARKERS, np.moveaxis(true, 1, 0), strict=True))
    distance_m = place_markers(model, generic.folder / generic.ik_setup, markers)
    for name, shift in moved.items():
        assert distance_m[name] == pytest.approx(np.linalg.norm(shift), abs=0.008)
        there = person.getMarkerSet().get(name).get_location().to_numpy()
        here = model.getMarkerSet().get(name).get_location().to_numpy()
        np.testing.assert_allclose(here, there, atol=0.008)
    assert np.median(list(distance_m.values())) < 0.005


def test_bad_fits_are_told():
    error = pd.DataFrame({"r_knee_study": [0.03, 0.03], "C7_study": [0.03, 0.09]}, index=[0.0, 0.1])
    notices = notices_about_errors(error_table(error))
    assert "cm RMS" in notices[0] and "9.0 cm (C7_study)" in notices[1]
    assert notices_about_errors(error_table(error / 10)) == []


def test_errors_of_markers_and_of_keypoints_are_told_apart():
    error = pd.DataFrame(
        {"r_knee_study": [0.01, np.nan], "RKnee": [0.3, 0.4], "LKnee": [0.4, np.nan]},
        index=[0.0, 0.1],
    )
    table = error_table(error)
    assert kinds_of(table) == ["marker", "keypoint"]
    np.testing.assert_allclose(table.keypoint_rms_m, [np.sqrt(0.125), 0.4])
    np.testing.assert_allclose(table.keypoint_max_m, [0.4, 0.4])
    assert list(table.worst_keypoint) == ["LKnee", "RKnee"]
    assert table.marker_rms_m.tolist()[0] == 0.01 and np.isnan(table.marker_rms_m.iloc[1])
    only = error_table(error[["RKnee", "LKnee"]])
    assert kinds_of(only) == ["keypoint"] and notices_about_errors(only) == []


def test_opensim_reads_the_motion_that_we_write(tmp_path):
    angles = pd.DataFrame(
        {"knee_angle_r": [1.5, 2.25], "pelvis_tx": [0.1, 0.2]},
        index=pd.Index([0.5, 0.51], name="time"),
    )
    write_mot(tmp_path / "angles.mot", angles)
    table = opensim.TimeSeriesTable(str(tmp_path / "angles.mot"))
    assert table.getTableMetaDataString("inDegrees") == "yes"
    np.testing.assert_allclose(table.getMatrix().to_numpy(), angles.to_numpy())
    pd.testing.assert_frame_equal(read_mot(tmp_path / "angles.mot"), angles)


@pytest.mark.parametrize(
    "text", ["", "endheader\n", "no header\n1 2 3", "endheader\ntime a\n0 x\n"]
)
def test_what_is_no_motion_file_is_refused(tmp_path, text):
    (tmp_path / "broken.mot").write_text(text)
    with pytest.raises(PipelineError, match="not an OpenSim motion"):
        read_mot(tmp_path / "broken.mot")


def test_unknown_and_broken_models_are_named(tmp_path):
    with pytest.raises(PipelineError, match="best, lai-uhlrich-2022, pose2sim"):
        generic_model("gait2392")
    (tmp_path / "broken.osim").write_text("<OpenSimDocument")
    with pytest.raises(PipelineError, match="broken.osim"):
        load_model(tmp_path / "broken.osim")
