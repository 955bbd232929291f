"""The simulator's numerics, against OpenSim, OpenCV, closed forms and brute force."""

from dataclasses import asdict

import cv2
import numpy as np
import opensim
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import norm, spearmanr

from models.augmenter import VIDEO_KEYPOINTS
from models.opensim_model import (
    add_markers,
    body_poses,
    generic_model,
    load_model,
    marker_positions,
    stripped_copy,
)
from models.simulation import detector
from models.simulation.detector import Errors, bursts, correlated, detect, view_bias
from models.simulation.landmarks import Segment, keypoint_positions, segments
from models.simulation.motion import on_model, recorded
from models.simulation.movements import GRAVITY_M_S2, MOVEMENTS, RATE_HZ
from models.simulation.occlusion import AHEAD_M, hidden
from models.simulation.rig import (
    CENTER_ERROR_M,
    FOCAL_ERROR,
    PRINCIPAL_POINT_ERROR_PX,
    ROTATION_ERROR_DEG,
    looking_at,
    miscalibrated,
    place_cameras,
)
from models.simulation.scene import interpolated, make_scene, observe, random_for
from models.simulation.subject import STATURE_M, draw_person, scaled_to
from models.vocabulary import vocabularies
from pipeline.errors import PipelineError
from stages.recordings import read_angles

FEET = [f"{side}{part}" for side in "RL" for part in ("Heel", "BigToe", "SmallToe")]
EVERY_KEYPOINT = sorted({name for each in vocabularies().values() for name in each.keypoints})


@pytest.fixture(scope="module")
def generic():
    """Pose2Sim's model, which is always there, with the augmenter's markers."""
    known = generic_model("pose2sim")
    model = load_model(known.folder / known.model)
    add_markers(model, known.folder / known.markers)
    return model


@pytest.fixture(scope="module")
def person_and_model(generic):
    return scaled_to(generic, draw_person(random_for(4, "person")))


@pytest.fixture(scope="module")
def scenes(person_and_model):
    """Every built-in movement on one person, for the price of one."""
    person, model = person_and_model
    return {
        name: make_scene(person, model, on_model(curves(random_for(4, name)), model), {})
        for name, curves in MOVEMENTS.items()
    }


@pytest.fixture(scope="module")
def cameras():
    return place_cameras(4, np.array([0.0, 0.95, 0.0]), random_for(4, "cameras"))


def speed(positions):
    return np.linalg.norm(np.gradient(positions, 1 / RATE_HZ, axis=0), axis=-1)


# The person


def test_the_scaled_models_head_is_at_the_drawn_height(generic):
    """Measured with markers that OpenSim scales along with the bodies."""
    model = generic.clone()
    model.finalizeConnections()
    for name, body, place in (
        ("top", "head", (0.0159, 0.1641, 0)),
        ("right", "calcn_r", (0.2276, 0, 0)), ("left", "calcn_l", (0.2276, 0, 0)),
    ):  # fmt: skip
        frame = model.getBodySet().get(body)
        model.addMarker(opensim.Marker(name, frame, opensim.Vec3(*place)))
    model.finalizeConnections()
    for seed in range(3):
        person, scaled = scaled_to(model, draw_person(random_for(seed, "person")))
        upright = pd.DataFrame({"knee_angle_r": [0.0]})
        (top, *soles), *_ = marker_positions(scaled, upright, ["top", "right", "left"])
        assert top[1] - min(sole[1] for sole in soles) + 0.01 == pytest.approx(
            person.height_m, abs=0.002
        )
        assert scaled.getTotalMass(scaled.initSystem()) == pytest.approx(person.mass_kg, rel=1e-6)


def test_people_are_between_the_5th_and_95th_percentile_of_their_sex():
    people = [draw_person(random_for(seed, "person")) for seed in range(400)]
    for sex, (mean, spread) in STATURE_M.items():
        heights = np.array([each.height_m for each in people if each.sex == sex])
        low, high = norm.ppf([0.05, 0.95], mean, spread)
        assert len(heights) > 150
        assert low <= heights.min() < low + 0.02 and high - 0.02 < heights.max() <= high
        assert heights.mean() == pytest.approx(mean, abs=0.015)
    index = np.array([each.mass_kg / each.height_m**2 for each in people])
    assert 15 < index.min() and index.max() < 33


def test_legs_differ_by_5_mm_on_average():
    """Of two segments of about 0.43 m each (Knutson 2005)."""
    legs = []
    for seed in range(2000):
        factors = draw_person(random_for(seed, "person")).segment_factors
        each = [factors[f"thigh_{side}"] + factors[f"shank_{side}"] for side in "rl"]
        legs.append(0.43 * (each[0] - each[1]))
        assert factors["pelvis_r"] == factors["pelvis_l"]
    assert np.abs(legs).mean() == pytest.approx(0.005, rel=0.15)
    assert np.mean(legs) == pytest.approx(0, abs=0.0006)


def test_a_seed_is_a_person():
    drawn = [asdict(draw_person(random_for(seed, "person"))) for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1]
    assert drawn[0]["height_m"] != drawn[2]["height_m"]


def test_a_model_that_is_not_resized_gives_its_own_size_to_the_person(generic):
    person, model = scaled_to(generic, draw_person(random_for(1, "person")), resize=False)
    assert model is generic
    assert person.mass_kg == pytest.approx(generic.getTotalMass(generic.initSystem()))
    assert person.height_m == pytest.approx(1.70, abs=0.02)  # Rajagopal's 50th percentile male


def test_a_model_without_the_bodies_is_refused():
    with pytest.raises(PipelineError, match="lacks the bodies calcn_l, calcn_r.*Choose a model"):
        scaled_to(opensim.Model(), draw_person(random_for(1, "person")))


# Keypoints


def test_keypoints_are_where_opensim_has_opencaps_markers_of_video_keypoints(shared):
    model = load_model(shared / "opencap" / "LaiUhlrich2022.osim")
    add_markers(model, shared / "opencap" / "LaiUhlrich2022_markers_openpose.xml")
    bent = {
        "pelvis_tilt": -20, "pelvis_rotation": 30, "hip_flexion_r": 70, "knee_angle_r": 90,
        "ankle_angle_r": 15, "knee_angle_l": 20, "hip_adduction_l": -12, "lumbar_extension": -20,
        "arm_flex_r": 50, "elbow_flex_l": 80,
    }  # fmt: skip
    angles = pd.DataFrame([np.radians(pd.Series(bent)), 0.5 * np.radians(pd.Series(bent))])
    placed = keypoint_positions(body_poses(model, angles))
    by_opensim = marker_positions(model, angles, VIDEO_KEYPOINTS)
    ours = np.stack([placed[name] for name in VIDEO_KEYPOINTS], axis=1)
    assert np.linalg.norm(ours - by_opensim, axis=-1).max() < 0.001


def test_keypoints_scale_as_markers_that_opensim_scales(shared):
    model = load_model(shared / "opencap" / "LaiUhlrich2022.osim")
    add_markers(model, shared / "opencap" / "LaiUhlrich2022_markers_openpose.xml")
    _, scaled = scaled_to(model, draw_person(random_for(2, "person")))
    angles = pd.DataFrame({"knee_angle_r": [0.4], "hip_flexion_l": [0.6], "elbow_flex_r": [1.0]})
    placed = keypoint_positions(body_poses(scaled, angles))
    by_opensim = marker_positions(scaled, angles, VIDEO_KEYPOINTS)[0]
    apart = [np.linalg.norm(placed[n][0] - p) for n, p in zip(VIDEO_KEYPOINTS, by_opensim, strict=True)]  # fmt: skip
    assert max(apart) < 0.001


def test_the_knee_keypoint_stays_at_the_knee(scenes):
    scene = scenes["squats"]
    for side in "RL":
        apart = scene.keypoints[f"{side}Knee"] - scene.joint_centers[f"{side}Knee"]
        assert np.linalg.norm(apart, axis=-1).max() < 0.012


@pytest.mark.parametrize("vocabulary", vocabularies().values(), ids=lambda each: each.name)
def test_every_keypoint_of_every_vocabulary_has_its_own_place(scenes, vocabulary):
    # COCO-WholeBody has the wrist twice: of the body, and of the hand.
    names = [name for name in vocabulary.keypoints if name not in ("LHand1", "RHand1")]
    points = np.array([scenes["static"].keypoints[name][0] for name in names])
    assert len(names) >= 17 and np.isfinite(points).all()
    assert 0 < points[:, 1].min() and points[:, 1].max() <= scenes["static"].person.height_m
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert apart[np.triu_indices(len(names), 1)].min() > 1e-3


def test_right_is_the_mirror_image_of_left_when_standing_symmetrically(generic):
    placed = keypoint_positions(body_poses(generic, pd.DataFrame({"knee_angle_r": [0.0]})))
    sided = [name for name in EVERY_KEYPOINT if name[0] == "R"]
    assert len(sided) > 35
    for name in sided:
        assert placed[name][0] * [1, 1, -1] == pytest.approx(placed[f"L{name[1:]}"][0], abs=1e-4)
        assert placed[name][0, 2] > 0.005
    # iBUG's order starts at the person's right: jaw 1 to 17, eyes 37 to 48, mouth's corners 49, 55.
    for right, left in ((1, 17), (3, 15), (37, 46), (49, 55), (18, 27)):
        mirrored = placed[f"Face{right}"][0] * [1, 1, -1]
        assert mirrored == pytest.approx(placed[f"Face{left}"][0], abs=1e-6)
        assert placed[f"Face{right}"][0, 2] > 0


def test_the_face_looks_like_a_face(scenes):
    at = {name: points[0] for name, points in scenes["static"].keypoints.items()}
    forward, up, right = range(3)
    assert at["Nose"][forward] > at["REye"][forward] > at["REar"][forward]
    assert at["Head"][up] > at["REye"][up] > at["Nose"][up] > at["RMouth"][up] > at["Neck"][up]
    assert 0.05 < at["REye"][right] - at["LEye"][right] < 0.08  # between the pupils: 54 to 74 mm
    assert 0.12 < at["REar"][right] - at["LEar"][right] < 0.18  # between the tragi: about 145 mm
    assert at["REyeOuter"][right] > at["REye"][right] > at["REyeInner"][right]
    assert at["Face9"][up] < at["Face58"][up] < at["Face34"][up] < at["Face40"][up]  # chin ... eye


def test_a_persons_offset_moves_a_keypoint_with_its_body(generic):
    turned = body_poses(generic, pd.DataFrame({"pelvis_rotation": [0.0, np.pi / 2]}))
    plain = keypoint_positions(turned)
    moved = keypoint_positions(turned, {"RHip": np.array([0.01, 0.0, 0.0])})
    shift = moved["RHip"] - plain["RHip"]
    assert shift == pytest.approx(np.array([[0.01, 0, 0], [0, 0, -0.01]]), abs=1e-9)
    assert np.array_equal(moved["LHip"], plain["LHip"])


# Movements


@pytest.mark.parametrize("name", ["squats", "gait", "sit-to-stand", "static", "dropjump"])
def test_the_lowest_foot_stands_on_the_floor_and_feet_never_sink_in(scenes, name):
    lowest = np.min([scenes[name].keypoints[foot][:, 1] for foot in FEET], axis=0)
    exact = 0.012 if name == "gait" else 1e-6  # in gait the pelvis moves smoothly instead
    assert lowest.min() == pytest.approx(0.01, abs=exact)
    if name != "dropjump":
        assert lowest.max() == pytest.approx(0.01, abs=exact)


def test_no_keypoint_is_thrown_about(scenes):
    """Acceleration of the hips, which carry the body, but for a jump's landing, which is abrupt."""
    for name, scene in scenes.items():
        second = np.diff(scene.keypoints["midHip"], 2, axis=0) * RATE_HZ**2
        assert name == "dropjump" or np.linalg.norm(second, axis=-1).max() < 30, name


@pytest.mark.parametrize("name", ["squats", "sit-to-stand", "static"])
def test_both_feet_stay_on_the_floor_where_they_are(scenes, name):
    for foot in FEET:
        course = scenes[name].keypoints[foot]
        assert np.ptp(course, axis=0).max() < 0.015
        assert course[:, 1].max() < 0.04


def test_every_seed_moves_and_squats_to_80_to_120_degrees():
    for seed in range(40):
        for name, movement in MOVEMENTS.items():
            curves = movement(random_for(seed, "motion")).curves
            assert all(np.isfinite(curve).all() for curve in curves.values()), (seed, name)
            if name == "squats":
                assert 80 < curves["knee_angle_r"].max() < 122


@pytest.mark.parametrize("name", MOVEMENTS)
def test_every_coordinate_is_inside_the_models_range_and_as_opensim_assembles_it(scenes, name):
    scene = scenes[name]
    coordinates = scene.model.getCoordinateSet()
    for coordinate, values in scene.angles.items():
        known = coordinates.get(coordinate)
        if not coordinate.startswith("pelvis_t") or coordinate == "pelvis_tilt":
            assert known.getRangeMin() - 1e-9 <= values.min()
            assert values.max() <= known.getRangeMax() + 1e-9
    moving, _ = stripped_copy(scene.model)
    state = moving.initSystem()
    for coordinate, value in scene.angles.iloc[len(scene.angles) // 2].items():
        moving.getCoordinateSet().get(coordinate).setValue(state, float(value), False)
    moving.assemble(state)
    for coordinate, value in scene.angles.iloc[len(scene.angles) // 2].items():
        assembled = moving.getCoordinateSet().get(coordinate).getValue(state)
        assert assembled == pytest.approx(value, abs=1e-9), coordinate


def test_a_jump_is_a_parabola_of_gravity(generic):
    lift = MOVEMENTS["dropjump"](random_for(1, "motion")).lift_m
    acceleration = np.diff(lift, 2) * RATE_HZ**2
    free = np.isclose(acceleration, -GRAVITY_M_S2, atol=1e-6)
    assert (np.abs(acceleration[~free]) < 1e-6).sum() > 60  # on the box and on the floor
    edges = np.flatnonzero(np.diff(np.concatenate([[0], free, [0]]))).reshape(-1, 2)
    fall, jump = (np.diff(edges, axis=1)[:, 0] + 1) / RATE_HZ
    assert fall == pytest.approx(np.sqrt(2 * 0.30 / GRAVITY_M_S2), abs=0.03)
    assert GRAVITY_M_S2 * jump**2 / 8 == pytest.approx(lift[len(lift) // 2 :].max(), abs=0.03)
    assert lift.max() == pytest.approx(0.30) and 0.17 < lift[len(lift) // 2 :].max() < 0.29


def test_feet_do_not_slide_while_a_jumper_stands(scenes):
    scene = scenes["dropjump"]
    heel = scene.keypoints["RHeel"]
    landed = scene.angles.index > 0.5 + 0.25 + np.sqrt(0.6 / GRAVITY_M_S2) + 0.02
    assert np.ptp(heel[landed][:, [0, 2]], axis=0).max() < 0.05


def test_the_foot_that_stands_is_slow_and_the_one_that_swings_is_fast(scenes):
    walk = scenes["gait"].keypoints
    forward = np.gradient(walk["midHip"][:, 0], 1 / RATE_HZ).mean()
    assert 0.9 < forward < 1.6  # m/s
    for side in "RL":
        toe, height = walk[f"{side}BigToe"], walk[f"{side}BigToe"][:, 1]
        other = np.min([walk[foot][:, 1] for foot in FEET if foot[0] != side], axis=0)
        stands = (height < 0.02) & (other > 0.03)
        assert stands.mean() > 0.15
        assert np.median(speed(toe)[stands]) < 0.15 * speed(toe).max()
        assert np.ptp(toe[:, 2]) < 0.10  # no foot sweeps aside


def test_the_swinging_legs_side_of_the_pelvis_is_the_lower_one_in_gait(scenes):
    """Trendelenburg's sign is normal to 4 or 5°: the standing hip is adducted, the other side drops."""
    scene = scenes["gait"]
    right, left = (scene.joint_centers[f"{side}Hip"][:, 1] for side in "RL")
    heels = scene.keypoints["RHeel"][:, 1] - scene.keypoints["LHeel"][:, 1]
    stands_right = heels < -0.10
    assert stands_right.sum() > 20
    assert (right - left)[stands_right].mean() > 0.003
    assert scene.angles.hip_adduction_r[stands_right].mean() > 0.02


def test_knee_flexion_bends_the_lower_leg_backwards(scenes):
    scene = scenes["squats"]
    deepest = int(scene.angles.knee_angle_r.argmax())
    hip, knee, ankle = (
        scene.joint_centers[f"R{name}"][deepest] for name in ("Hip", "Knee", "Ankle")
    )
    assert knee[0] > hip[0] + 0.2 and knee[0] > ankle[0]
    thigh, shank = hip - knee, ankle - knee
    bend = np.degrees(np.arccos(thigh @ shank / np.linalg.norm(thigh) / np.linalg.norm(shank)))
    assert 180 - bend == pytest.approx(np.degrees(scene.angles.knee_angle_r.max()), abs=4)


# Recorded motion


def test_a_recorded_motion_comes_back(shared):
    path = shared / "opencap" / "squats1_videoAndMocap.mot"
    model = load_model(shared / "opencap" / "LaiUhlrich2022.osim")
    motion = recorded(read_angles(path), model, path)
    lines = path.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("time"))
    rows = np.array([line.split() for line in lines[start + 1 :] if line.strip()], float)
    file = pd.DataFrame(rows, columns=lines[start].split()).set_index("time")
    assert np.diff(motion.index) == pytest.approx(1 / RATE_HZ)
    at = np.round((file.index - file.index[0]) * RATE_HZ, 6)
    shared_rows = np.isclose(at % 1, 0, atol=1e-4) & (at < len(motion))
    assert shared_rows.sum() > 100
    for name in motion:
        values = motion[name].iloc[at[shared_rows].round().astype(int)].to_numpy()
        turns = model.getCoordinateSet().get(name).getMotionType() == opensim.Coordinate.Rotational
        expected = file[name][shared_rows].to_numpy()
        assert (np.degrees(values) if turns else values) == pytest.approx(expected, abs=1e-3), name


def squatting(rows=50, knee=90.0, unit="yes", path=None):
    table = pd.DataFrame({"knee_angle_r": np.linspace(0, knee, rows), "pelvis_ty": 0.9})
    table.index = pd.Index(np.arange(rows) / 50, name="time")
    text = f"Coordinates\nversion=1\nnRows={rows}\nnColumns=3\ninDegrees={unit}\nendheader\n"
    path.write_text(text + table.to_csv(sep="\t", index_label="time"), encoding="utf-8")
    return read_angles(path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"knee": np.radians(90)}, r"no angle goes beyond 1.57°.*radians.*inDegrees=no"),
        ({"unit": "no"}, r"knee_angle_r goes from 0 to 5157°.*range.*inDegrees"),
        ({"rows": 3}, "at least four rows"),
    ],
)
def test_a_motion_of_a_wrong_unit_or_of_few_rows_is_refused(generic, tmp_path, change, message):
    path = tmp_path / "squat.mot"
    with pytest.raises(PipelineError, match=message):
        recorded(squatting(**change, path=path), generic, path)


def test_a_motion_with_coordinates_that_the_model_lacks_is_refused(generic, tmp_path):
    angles = squatting(path=tmp_path / "squat.mot").assign(tail_wag=3.0)
    with pytest.raises(PipelineError, match="lacks: tail_wag. Name the model.*--model"):
        recorded(angles, generic, tmp_path / "squat.mot")


def test_radians_and_degrees_are_the_same_motion(generic, tmp_path):
    path = tmp_path / "squat.mot"
    degrees = recorded(squatting(path=path), generic, path)
    radians = recorded(squatting(knee=np.pi / 2, unit="no", path=path), generic, path)
    assert degrees.knee_angle_r.to_numpy() == pytest.approx(radians.knee_angle_r.to_numpy())
    assert degrees.knee_angle_r.max() == pytest.approx(np.pi / 2, abs=0.02)


# Cameras


def test_the_target_is_in_the_middle_of_the_image_and_up_is_up():
    center, target = np.array([3.0, 1.4, -2.0]), np.array([0.1, 0.9, 0.2])
    pose = looking_at(center, target)

    def pixel(point):
        turn = cv2.Rodrigues(pose[:, :3])[0]
        return cv2.projectPoints(point[None], turn, pose[:, 3], np.eye(3), None)[0][0, 0]

    assert pixel(target) == pytest.approx(np.zeros(2), abs=1e-9)
    above = pixel(target + [0, 0.3, 0])
    assert above[0] == pytest.approx(0, abs=1e-9) and above[1] < -0.05
    assert np.linalg.det(pose[:, :3]) == pytest.approx(1)


@pytest.mark.parametrize(
    "count, bearings", [(2, (-35, 35)), (3, (-50, 0, 50)), (5, (-70, -45, 0, 45, 70))]
)
def test_two_three_and_five_cameras_stand_in_front_as_opencaps_do(count, bearings):
    centers = np.array([
        [camera.center for camera in place_cameras(count, np.zeros(3), random_for(seed, "cameras"))]
        for seed in range(60)
    ])  # fmt: skip
    found = np.degrees(np.arctan2(centers[..., 2], centers[..., 0]))
    assert found.mean(0) == pytest.approx(bearings, abs=1.5)
    assert np.abs(found - bearings).max() < 15


@pytest.mark.parametrize("count", [4, 6, 8])
def test_more_cameras_stand_on_a_ring_and_see_the_whole_person(scenes, count):
    target = np.array([0.0, 0.95, 0.0])
    cameras = place_cameras(count, target, random_for(3, "cameras"))
    assert [camera.name for camera in cameras] == [f"cam{i + 1}" for i in range(count)]
    around = np.sort([np.degrees(np.arctan2(c.center[2], c.center[0])) for c in cameras])
    gaps = np.diff([*around, around[0] + 360])
    assert gaps == pytest.approx(360 / count, abs=20)
    body = np.stack([scenes["squats"].keypoints[name] for name in EVERY_KEYPOINT])
    for camera in cameras:
        away = np.linalg.norm((camera.center - target)[[0, 2]])
        assert 4.0 <= away <= 5.0 and 1.1 <= camera.center[1] <= 1.6
        pixels = camera.project(body)
        assert (pixels >= 0).all() and (pixels < camera.image_size).all()


def test_a_calibration_without_errors_is_the_camera(cameras):
    same = miscalibrated(cameras[0], 0.0, random_for(1, "calibrate"))
    assert same.camera_from_world == pytest.approx(cameras[0].camera_from_world, abs=1e-12)
    assert np.array_equal(same.intrinsics, cameras[0].intrinsics)


def test_errors_of_calibration_have_the_stated_spread(cameras):
    camera, turns, shifts, focal, middle = cameras[0], [], [], [], []
    for seed in range(600):
        wrong = miscalibrated(camera, 1.0, random_for(seed, "calibrate"))
        turn = wrong.camera_from_world[:3, :3] @ camera.camera_from_world[:3, :3].T
        turns.append(np.degrees(cv2.Rodrigues(turn)[0].ravel()))
        shifts.append(wrong.center - camera.center)
        focal.append(wrong.intrinsics[0, 0] / camera.intrinsics[0, 0] - 1)
        middle.append(wrong.intrinsics[:2, 2] - camera.intrinsics[:2, 2])
    for errors, spread in (
        (turns, ROTATION_ERROR_DEG), (shifts, CENTER_ERROR_M), (focal, FOCAL_ERROR), (middle, PRINCIPAL_POINT_ERROR_PX),
    ):  # fmt: skip
        assert np.std(errors, axis=0) == pytest.approx(spread, rel=0.12)
        assert np.abs(np.mean(errors, axis=0)).max() < 0.2 * spread


# Occlusion

coordinate = st.floats(-1, 1, allow_nan=False)
point = st.tuples(coordinate, coordinate, coordinate).map(np.array)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(point, point, st.floats(0.03, 0.3), st.lists(point, min_size=3, max_size=3))
def test_occlusion_is_what_samples_along_the_line_of_sight_say(start, end, radius, keypoints):
    center, keypoints = np.array([4.0, 0.3, 0.5]), np.array(keypoints)
    segment = Segment("start", "end", radius)
    body = {"start": start[None], "end": end[None]}
    found = hidden(keypoints[None], body, [segment], 1.0, center)[0]
    for keypoint, is_hidden in zip(keypoints, found, strict=True):
        share = np.linspace(0, 1, 20_001)
        on_line = center + share[:, None] * (keypoint - center)
        axis = end - start
        along = np.clip((on_line - start) @ axis / max(axis @ axis, 1e-12), 0, 1)
        away = np.linalg.norm(on_line - start - along[:, None] * axis, axis=-1)
        margins = np.array([
            radius - away.min(),  # the line of sight meets the capsule,
            np.linalg.norm(keypoint - on_line[away.argmin()]) - radius - AHEAD_M,  # well before,
            away[-1] - radius,  # and the keypoint is outside
        ])  # fmt: skip
        if np.abs(margins).min() > 2e-3:
            assert is_hidden == (margins > 0).all()


def test_a_thigh_hides_what_is_behind_it_and_not_what_is_before_it_or_its_own_ends():
    thigh = Segment("RHip", "RKnee", 0.043)
    body = {"RHip": np.array([[0.0, 0.9, 0]]), "RKnee": np.array([[0.0, 0.5, 0]])}
    points = np.array([[[-0.3, 0.7, 0], [0.3, 0.7, 0], [0, 0.9, 0], [0, 0.5, 0], [-0.3, 0.7, 0.3]]])
    eye = np.array([4.0, 0.7, 0.0])
    assert hidden(points, body, [thigh], 1.75, eye).tolist() == [[True, False, False, False, False]]


def test_a_thigh_that_points_at_the_camera_does_not_hide_its_own_hip():
    body = {"RHip": np.array([[0.0, 0.5, 0]]), "RKnee": np.array([[0.4, 0.5, 0]])}
    marked, eye = np.array([[[0.0, 0.54, 0]]]), np.array([4, 0.3, 0])  # under the skin, 4 cm up
    thigh = Segment("RHip", "RKnee", 0.043)
    assert not hidden(marked, body, [thigh], 1.75, eye).any()
    assert hidden(marked - [0.4, 0, 0], body, [thigh], 1.75, eye).all()


def test_from_the_side_the_far_leg_is_hidden_and_the_near_one_is_seen(scenes):
    scene = scenes["squats"]  # the arms are forward, and do not hang before the hip
    names = [f"{side}{part}" for side in "RL" for part in ("Hip", "Knee", "Ankle")]
    deepest = [int(scene.angles.knee_angle_r.argmax())]
    body = {name: points[deepest] for name, points in scene.keypoints.items()}
    points = np.stack([body[name] for name in names], axis=1)
    covered = hidden(points, body, segments(), scene.person.height_m, np.array([0.2, 0.7, 4.5]))
    assert covered[0].tolist() == [False] * 3 + [True] * 3


# Detector


@pytest.fixture(scope="module")
def names():
    return vocabularies()["body-25"].keypoints


def detections(scene, names, camera, errors, seed=1, repeat=1):
    """Pixels, confidences, and the true pixels of a scene that is repeated."""
    points = np.concatenate([np.stack([scene.keypoints[n] for n in names], 1)] * repeat)
    covered = np.zeros(points.shape[:2], bool)
    covered[:, 3::7] = True
    pixels, confidence = detect(
        points, names, covered, camera, RATE_HZ, errors,
        view_bias(names, errors, random_for(seed, "bias")), random_for(seed, "view"),
    )  # fmt: skip
    truth, _ = cv2.projectPoints(
        points.reshape(-1, 3), cv2.Rodrigues(camera.camera_from_world[:3, :3])[0],
        camera.camera_from_world[:3, 3], camera.intrinsics, camera.distortion,
    )  # fmt: skip
    return pixels, confidence, truth.reshape(*points.shape[:2], 2), covered


def errors_m(scene, names, camera, errors, **options):
    """Errors in the image at the person's distance, m."""
    pixels, _, truth, _ = detections(scene, names, camera, errors, **options)
    away = np.linalg.norm(camera.center - scene.keypoints["midHip"].mean(0))
    return (pixels - truth) / camera.intrinsics[0, 0] * away


def test_without_errors_pixels_are_opencvs_and_confidences_1(scenes, cameras, names):
    pixels, confidence, truth, _ = detections(scenes["squats"], names, cameras[0], Errors.none())
    assert np.abs(pixels - truth).max() < 1e-6
    assert (confidence == 1).all()


def test_correlated_noise_has_variance_1_and_decays_exponentially():
    noise = correlated((40_000, 5), 60.0, 0.14, random_for(1, "noise"))
    assert noise.std(0) == pytest.approx(1, abs=0.05)
    assert correlated((1, 40_000), 60.0, 0.14, random_for(1, "noise")).std() == pytest.approx(1, abs=0.02)  # fmt: skip
    for lag in (1, 5, 20):
        both = (noise[:-lag] * noise[lag:]).mean()
        assert both == pytest.approx(np.exp(-lag / 60 / 0.14), abs=0.03)


def test_bursts_have_the_stated_rate_and_mean_duration():
    rate_hz, starts_per_s, duration_s = 100.0, 0.2, 0.15
    lasting, start = bursts((60_000, 20), rate_hz, starts_per_s, duration_s, random_for(1, "b"))
    begins = np.diff(np.pad(lasting, ((1, 0), (0, 0))).astype(int), axis=0) == 1
    hours = lasting.size / rate_hz
    assert begins.sum() / hours == pytest.approx(starts_per_s, rel=0.06)
    # Lengths are rounded up to whole frames: half a frame longer in the mean.
    assert lasting.sum() / begins.sum() / rate_hz == pytest.approx(duration_s + 0.005, rel=0.08)
    assert (start[lasting] <= np.nonzero(lasting)[0]).all()
    assert not bursts((1000, 3), rate_hz, 0.0, 1.0, random_for(1, "b"))[0].any()


@pytest.mark.parametrize("source", ["calibration", "appearance", "clock", "dropped_frames"])
def test_sources_elsewhere_do_not_touch_detections(scenes, cameras, names, source):
    pixels, confidence, truth, _ = detections(scenes["squats"], names, cameras[0], Errors.only(source, 5))  # fmt: skip
    assert np.abs(pixels - truth).max() < 1e-6 and (confidence == 1).all()


def test_a_view_bias_is_constant(scenes, cameras, names):
    errors = Errors.only("view_bias")
    error = errors_m(scenes["static"], names, cameras[0], errors)
    assert np.ptp(error, axis=0).max() < 1e-4
    many = [errors_m(scenes["static"], names, cameras[0], errors, seed=s)[0] for s in range(40)]
    for name, index in (("knee", names.index("RKnee")), ("wrist", names.index("LWrist"))):
        expected = detector.parameters()["keypoints"][name]["bias_m"]
        assert np.std([each[index] for each in many]) == pytest.approx(expected, rel=0.25)


def test_jitter_wanders_around_the_truth_with_the_stated_size(scenes, cameras, names):
    error = errors_m(scenes["static"], names, cameras[0], Errors.only("jitter"), repeat=30)
    table = detector.parameters()["keypoints"]["ankle"]
    spread = np.hypot(table["wander_m"], table["jitter_m"])
    ankle = error[:, names.index("RAnkle")]
    assert ankle.std(0) == pytest.approx(spread, rel=0.12)
    assert np.abs(ankle.mean(0)).max() < 0.3 * spread


def test_blur_is_along_the_movement_and_none_at_rest(scenes, cameras, names):
    still = errors_m(scenes["static"], names, cameras[0], Errors.only("blur"))
    assert np.abs(still).max() < 5e-4
    pixels, _, truth, _ = detections(scenes["gait"], names, cameras[0], Errors.only("blur"))
    toe = names.index("RBigToe")
    error, way = (pixels - truth)[:, toe], np.gradient(truth[:, toe], axis=0)
    fast = (np.linalg.norm(way, axis=-1) > 3) & np.isfinite(error).all(-1)
    assert fast.sum() > 50
    across = np.cross(np.c_[way, 0 * way[:, :1]], np.c_[error, 0 * error[:, :1]])[fast, 2]
    assert np.abs(across / np.linalg.norm(way[fast], axis=-1)).max() < 1.5  # px
    assert np.abs(error[fast]).max() > 3


def test_occlusion_touches_only_what_is_hidden(scenes, cameras, names):
    errors = Errors.only("occlusion")
    pixels, confidence, truth, covered = detections(scenes["static"], names, cameras[0], errors)
    error = np.linalg.norm(pixels - truth, axis=-1)
    assert np.nanmax(error[~covered]) < 1e-6 and np.isfinite(error[~covered]).all()
    assert np.nanmedian(error[covered]) > 1
    assert 0.05 < np.isnan(error[covered]).mean() < 0.5
    as_far = (
        np.isfinite(error) & (error > 2) & (error < 6)
    )  # px: confidence falls for being hidden, too
    errors = Errors.only("jitter")
    pixels, seen, truth, _ = detections(scenes["static"], names, cameras[0], errors)
    error = np.linalg.norm(pixels - truth, axis=-1)
    as_seen = ~covered & (error > 2) & (error < 6)
    assert logit(confidence[as_far & covered]).mean() < logit(seen[as_seen]).mean() - 1


def test_outliers_are_rare_and_far(scenes, cameras, names):
    error = errors_m(scenes["static"], names, cameras[0], Errors.only("outliers"), repeat=20)
    size = np.linalg.norm(error, axis=-1)
    table, away = detector.parameters()["outliers"], np.nan_to_num(size) > 1e-6
    share = table["starts_per_s"] * (table["duration_s"] + 0.005)
    assert away.mean() == pytest.approx(share, rel=0.25)
    assert np.sqrt((size[away] ** 2).mean() / 2) == pytest.approx(table["size_m"], rel=0.2)


def test_what_is_missed_is_nan_with_confidence_0_and_nothing_else_changes(scenes, cameras, names):
    errors = Errors.only("missed", 5)
    pixels, confidence, truth, _ = detections(scenes["static"], names, cameras[0], errors, repeat=5)
    gone = np.isnan(pixels).any(-1)
    assert 0.002 < gone.mean() < 0.1
    assert np.array_equal(gone, np.isnan(pixels).all(-1))
    assert (confidence[gone] == 0).all() and (confidence[~gone] == 1).all()
    assert np.abs(pixels - truth)[~gone].max() < 1e-6


def test_keypoints_outside_the_image_are_missing(scenes, cameras, names):
    small = cameras[0].__class__(**{**vars(cameras[0]), "image_size": (1920, 500)})
    pixels, confidence, truth, _ = detections(scenes["static"], names, small, Errors.none())
    outside = truth[..., 1] > 499
    assert outside.any() and np.isnan(pixels[outside]).all() and (confidence[outside] == 0).all()
    assert np.isfinite(pixels[~outside]).all()


@pytest.mark.parametrize("bearing_deg, swaps", [(0, False), (90, True)])
def test_legs_are_swapped_only_in_views_from_the_side(scenes, cameras, names, bearing_deg, swaps):
    bearing = np.radians(bearing_deg)
    pose = np.eye(4)
    center = np.array([4 * np.cos(bearing), 1.2, 4 * np.sin(bearing)])
    pose[:3] = looking_at(center, np.array([0.0, 0.9, 0.0]))
    camera = cameras[0].__class__(**{**vars(cameras[0]), "camera_from_world": pose})
    errors = Errors.only("swaps", 3)
    pixels, confidence, truth, _ = detections(scenes["static"], names, camera, errors, repeat=8)
    mirrored = [
        names.index(f"{'L' if name[0] == 'R' else 'R'}{name[1:]}")
        if name[1:] in detector.LEGS
        else i
        for i, name in enumerate(names)
    ]
    swapped = np.abs(pixels - truth).max((1, 2)) > 1e-6
    assert swapped.any() == swaps
    assert swapped.mean() < 0.4
    assert np.abs(pixels - truth[:, mirrored])[swapped].max(initial=0) < 1e-6
    assert (confidence == 1).all()


def test_a_camera_loses_frames_and_keeps_their_numbers(scenes, cameras, names):
    errors = Errors.only("dropped_frames", 10)
    view = observe(scenes["squats"], cameras[0], names, 60.0, errors, 1, "trial")
    whole = observe(scenes["squats"], cameras[0], names, 60.0, Errors.none(), 1, "trial")
    assert 0.9 < len(view.number) / len(whole.number) < 0.99
    assert {view.number[0], view.number[-1]} == {0, whole.number[-1]}
    assert np.array_equal(view.position, whole.position[view.number])


def test_clocks_are_off_by_at_most_half_a_frame(scenes, cameras, names):
    scene, errors, offsets = scenes["static"], Errors.only("clock"), []
    for seed in range(40):
        view = observe(scene, cameras[0], names, 30.0, errors, seed, "trial")
        assert np.diff(view.time_s) == pytest.approx(1 / 30)
        offsets.append(view.time_s[0] * 30)
    assert np.abs(offsets).max() <= 0.5 and np.std(offsets) == pytest.approx(12**-0.5, rel=0.2)
    late = observe(scenes["gait"], cameras[0], names, 30.0, errors, 3, "trial")
    at = interpolated(scenes["gait"].keypoints, scenes["gait"].time_s, late.time_s)
    truth = cameras[0].project(np.stack([at[name] for name in names], 1))
    seen = np.isfinite(late.position)
    assert np.abs(late.position - truth)[seen].max() < 1e-6


def test_frames_between_the_truths_samples_follow_the_movement(scenes):
    """A spline through every other sample finds the samples between, but where feet touch down."""
    scene = scenes["squats"]
    knee = {"RKnee": scene.keypoints["RKnee"][::2]}
    between = interpolated(knee, scene.time_s[::2], scene.time_s)["RKnee"]
    assert np.abs(between - scene.keypoints["RKnee"])[:-1].max() < 2e-4


@pytest.mark.parametrize("source", Errors.model_fields)
def test_one_source_does_not_change_what_is_drawn_for_another(scenes, cameras, names, source):
    """Turned on alone or among the others, a source adds the same: errors are sums."""
    if source in ("clock", "dropped_frames", "swaps", "missed", "occlusion"):
        base, more = Errors.only("view_bias"), Errors.only("view_bias").model_copy(update={source: 1.0})  # fmt: skip
        one, _, _, _ = detections(scenes["static"], names, cameras[0], base)
        two, _, _, covered = detections(scenes["static"], names, cameras[0], more)
        same = np.abs(one - two).max(-1) < 1e-9
        assert same[~covered].mean() > 0.9
    else:
        alone = [
            errors_m(scenes["gait"], names, cameras[0], Errors.only(each))
            for each in ("jitter", source)
        ]
        both = Errors.only("jitter").model_copy(update={source: 1.0})
        together = errors_m(scenes["gait"], names, cameras[0], both)
        expected = alone[0] if source == "jitter" else sum(alone)
        fine = np.isfinite(together + expected)
        assert fine.mean() > 0.9 and np.abs(together - expected)[fine].max() < 1e-9


def test_confidences_tell_a_little_about_errors(scenes, cameras, names):
    scene, size, confidences = scenes["squats"], [], []
    for seed, camera in enumerate(cameras):
        points = np.stack([scene.keypoints[name] for name in names], 1)
        errors = Errors(clock=0, dropped_frames=0)
        view = observe(scene, camera, names, RATE_HZ, errors, seed, "trial")
        size.append(np.linalg.norm(view.position - camera.project(points), axis=-1))
        confidences.append(view.confidence)
    size, confidences = np.ravel(size), np.ravel(confidences)
    found = np.isfinite(size)
    assert -0.4 < spearmanr(size[found], confidences[found]).statistic < -0.05
    assert ((confidences >= 0) & (confidences <= 1)).all() and (confidences[~found] == 0).all()


def test_errors_are_as_large_as_those_of_the_demo(scenes, cameras, names):
    """The embedded pose model's reprojection residuals there are 25 to 40 mm at the person."""
    medians = []
    for seed in range(6):
        error = errors_m(scenes["squats"], names, cameras[seed % 4], Errors(), seed=seed)
        medians.append(np.nanmedian(np.linalg.norm(error, axis=-1)))
    assert 0.025 < np.mean(medians) < 0.040
