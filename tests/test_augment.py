from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
import xarray as xr
from scipy.spatial.transform import Rotation

from models.assets import asset_folder
from models.augmenter import (
    LOWER_FEATURES,
    LOWER_RESPONSES,
    MARKERS,
    UPPER_FEATURES,
    UPPER_RESPONSES,
    VIDEO_KEYPOINTS,
    load_augmenter,
    small_toe,
)
from models.weights import shipped_weights
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.augment import (
    ASSET,
    Settings,
    augment,
    body_size,
    check_ever_complete,
    estimated_height_m,
    run,
    video_keypoints,
)
from stages.trial import Subject, no_progress

HEIGHT_M, MASS_KG = 1.78, 75.0


@pytest.fixture(scope="module")
def folder():
    return asset_folder(ASSET)


@pytest.fixture(scope="module")
def networks(folder):
    return load_augmenter(folder / "lower"), load_augmenter(folder / "upper")


def squat(rate_hz=60.0, seconds=3.0):
    """A person who faces +X and bends the knees: (time, keypoints by name)."""
    time = np.arange(0, seconds, 1 / rate_hz)
    depth = 0.5 * (1 - np.cos(2 * np.pi * time / 2.0))  # 0 standing, 1 down
    knee = np.deg2rad(80) * depth
    ankle_height, shank, thigh, trunk = 0.08, 0.43, 0.43, 0.5
    zero = np.zeros_like(time)

    def at(x, y, z):
        return np.stack([x + zero, y + zero, z + zero], -1)

    knee_x, knee_y = shank * np.sin(knee / 2), ankle_height + shank * np.cos(knee / 2)
    hip_x, hip_y = knee_x - thigh * np.sin(knee / 2), knee_y + thigh * np.cos(knee / 2)
    points = {}
    for side, sign in (("R", 1), ("L", -1)):
        points |= {
            f"{side}Ankle": at(0, ankle_height, 0.1 * sign),
            f"{side}Heel": at(-0.05, 0.02, 0.1 * sign),
            f"{side}BigToe": at(0.16, 0.02, 0.09 * sign),
            f"{side}Knee": at(knee_x, knee_y, 0.1 * sign),
            f"{side}Hip": at(hip_x, hip_y, 0.09 * sign),
            f"{side}Shoulder": at(hip_x + 0.1 * depth, hip_y + trunk, 0.18 * sign),
            f"{side}Elbow": at(hip_x + 0.1 * depth, hip_y + trunk - 0.3, 0.22 * sign),
            f"{side}Wrist": at(hip_x + 0.1 * depth + 0.1, hip_y + trunk - 0.5, 0.22 * sign),
        }
    return time, points


def complete(points):
    return video_keypoints(points)[0]


def test_there_are_twenty_keypoints_and_forty_three_markers():
    assert len(VIDEO_KEYPOINTS) == len(set(VIDEO_KEYPOINTS)) == 20
    assert len(MARKERS) == len(set(MARKERS)) == 43


@pytest.mark.parametrize("part", ["lower", "upper"])
def test_equals_onnx_runtime_on_the_published_weights(folder, networks, part):
    network = networks[part == "upper"]
    features, responses = {
        "lower": (LOWER_FEATURES, LOWER_RESPONSES),
        "upper": (UPPER_FEATURES, UPPER_RESPONSES),
    }[part]
    _, points = squat()
    points = complete(points)
    keypoints = np.stack([points[name] for name in features], 1)
    hip = points["midHip"]
    flat = ((keypoints - hip[:, None]) / HEIGHT_M).reshape(len(hip), -1)
    flat = np.column_stack([flat, np.full(len(hip), HEIGHT_M), np.full(len(hip), MASS_KG)])
    flat = (flat - np.load(folder / part / "mean.npy")) / np.load(folder / part / "std.npy")
    session = onnxruntime.InferenceSession(folder / part / "model.onnx")
    answer = session.run(None, {session.get_inputs()[0].name: flat[None].astype(np.float32)})[0]
    expected = answer.reshape(len(hip), len(responses), 3) * HEIGHT_M + hip[:, None]
    with torch.inference_mode():
        ours = network(
            torch.tensor(keypoints, dtype=torch.float32)[None],
            torch.tensor(hip, dtype=torch.float32)[None],
            HEIGHT_M,
            MASS_KG,
        )[0]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_markers_sit_where_the_anatomy_is(networks):
    time, points = squat()
    points = complete(points)
    markers = dict(
        zip(
            MARKERS,
            np.moveaxis(augment(points, time, networks, HEIGHT_M, MASS_KG), 1, 0),
            strict=True,
        )
    )
    assert np.isfinite(markers["r_knee_study"]).all()
    for side, prefix in (("R", "r"), ("L", "L")):
        knee = np.linalg.norm(markers[f"{prefix}_knee_study"] - points[f"{side}Knee"], axis=-1)
        hip = np.linalg.norm(markers[f"{side}HJC_study"] - points[f"{side}Hip"], axis=-1)
        assert np.median(knee) < 0.10 and np.median(hip) < 0.10
    # lateral epicondyles are outside of medial ones; the right is at +Z
    assert (markers["r_knee_study"] - markers["r_mknee_study"])[:, 2].min() > 0.03
    assert (markers["L_knee_study"] - markers["L_mknee_study"])[:, 2].max() < -0.03
    assert (markers["r.ASIS_study"] - markers["r.PSIS_study"])[:, 0].min() > 0.05


@pytest.mark.parametrize("angle_deg", [37, 90, 180, 251])
def test_the_same_movement_gives_the_same_markers_at_any_heading(networks, angle_deg):
    time, points = squat(seconds=1.5)
    turn = Rotation.from_euler("y", angle_deg, degrees=True).as_matrix()
    here = augment(complete(points), time, networks, HEIGHT_M, MASS_KG)
    turned = {name: value @ turn.T + [1.0, 0.0, -2.0] for name, value in points.items()}
    there = augment(complete(turned), time, networks, HEIGHT_M, MASS_KG)
    np.testing.assert_allclose(there, here @ turn.T + [1.0, 0.0, -2.0], atol=2e-4)


def test_resampling_to_the_trained_rate_is_worth_it(networks):
    """At 30 Hz, going through 60 Hz gives nearly the 60 Hz answer; feeding 30 Hz does not."""
    time, points = squat(60.0)
    reference = augment(complete(points), time, networks, HEIGHT_M, MASS_KG)[::2]
    slow = complete({name: value[::2] for name, value in points.items()})

    def difference(time_s):
        markers = augment(slow, time_s, networks, HEIGHT_M, MASS_KG)
        return np.linalg.norm(markers - reference, axis=-1).mean()

    as_if_60_hz = time[::2] / 2
    assert difference(time[::2]) < 0.002 < difference(as_if_60_hz)


def test_the_first_answers_are_as_good_as_those_of_a_running_network(networks):
    """A recording that starts in mid-movement: against the same samples of one that began before."""
    time, points = squat()
    whole = augment(complete(points), time, networks, HEIGHT_M, MASS_KG)
    for start in (40, 60, 75):
        cut = complete({name: value[start:] for name, value in points.items()})
        markers = augment(cut, time[start:], networks, HEIGHT_M, MASS_KG)
        off = np.linalg.norm(markers - whole[start:], axis=-1)
        assert off[:6].mean() < 0.006 and off[:6].max() < 0.03


def test_missing_keypoints_leave_a_gap_and_no_guess(networks):
    time, points = squat()
    whole = augment(complete(points), time, networks, HEIGHT_M, MASS_KG)
    points["RKnee"][60:70] = np.nan
    markers = augment(complete(points), time, networks, HEIGHT_M, MASS_KG)
    missing = np.isnan(markers[:, :35]).all((1, 2))
    assert missing[60:70].all() and not missing[:60].any() and not missing[70:].any()
    assert np.linalg.norm(markers - whole, axis=-1)[70:].max() < 0.03


def test_a_missing_wrist_does_not_touch_the_legs(networks):
    time, points = squat()
    whole = augment(complete(points), time, networks, HEIGHT_M, MASS_KG)
    points["RWrist"][60] = np.nan
    markers = augment(complete(points), time, networks, HEIGHT_M, MASS_KG)
    np.testing.assert_array_equal(markers[:, :35], whole[:, :35])
    assert np.isnan(markers[60, 35:]).all() and np.isfinite(markers[61:]).all()


def test_a_keypoint_never_seen_is_named():
    time, points = squat(seconds=0.5)
    points["LHeel"][:] = np.nan
    with pytest.raises(PipelineError, match="LHeel .0% of the trial"):
        check_ever_complete(complete(points), time)
    with pytest.raises(PipelineError, match="only 0.07 s long"):
        check_ever_complete({n: v[:5] for n, v in complete(points).items()}, time[:5])


def test_a_pose_model_without_feet_is_refused_by_name():
    _, points = squat(seconds=0.1)
    del points["RHeel"]
    with pytest.raises(PipelineError, match="RHeel, RSmallToe"):
        video_keypoints(points)


def test_kinds_say_what_was_measured():
    _, kind = video_keypoints(squat(seconds=0.1)[1])
    assert kind["Neck"] == kind["midHip"] == "derived"
    assert kind["RSmallToe"] == kind["LSmallToe"] == "estimated"
    assert kind["RKnee"] == "measured"


@pytest.mark.parametrize("side, sign", [("R", 1), ("L", -1)])
def test_the_small_toe_is_on_the_outside_of_the_foot(side, sign):
    heel, toe, ankle = torch.tensor([[[0.0, 0.02, 0.0]], [[0.2, 0.02, 0.0]], [[0.05, 0.08, 0.0]]])
    toe_5 = small_toe(heel, toe, ankle, side)[0]
    np.testing.assert_allclose(
        toe_5, [0.876 * 0.2, 0.02 + 0.086 * 0.2, sign * 0.255 * 0.2], atol=1e-7
    )


def test_height_comes_from_the_legs_only_when_the_session_does_not_say():
    points = complete(squat()[1])
    legs = 0.43 + np.hypot(0.43, 0.01)  # hips are 1 cm narrower than knees
    assert estimated_height_m(points) == pytest.approx(legs / 0.491, abs=1e-3)
    height, mass, notices = body_size(Subject(1.8, 70.0), points)
    assert (height, mass, notices) == (1.8, 70.0, [])
    assert len(body_size(Subject(), points)[2]) == 2
    assert "Check the height" in body_size(Subject(1.2, 70.0), points)[2][0]
    millimetres = {name: value * 1000 for name, value in points.items()}
    with pytest.raises(PipelineError, match="millimetres"):
        body_size(Subject(), millimetres)


def test_weights_that_are_cut_short_are_one_clear_message(folder, tmp_path):
    for name in ("mean.npy", "std.npy"):
        (tmp_path / name).write_bytes((folder / "lower" / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes((folder / "lower" / "model.onnx").read_bytes()[:5000])
    with pytest.raises(PipelineError, match="models fetch"):
        load_augmenter(tmp_path)


@pytest.mark.parametrize("network, known", [("published", False), ("retrained", True)])
def test_the_stage_says_which_network_made_the_markers(tmp_path, network, known):
    if known and shipped_weights("augmenter") is None:
        pytest.skip("no weights are shipped")
    time, points = squat(seconds=0.6)
    position = ("time", "keypoint", "axis"), np.stack(list(points.values()), 1), {"units": "m"}
    dataset = xr.Dataset({"position": position}, {"time": time, "keypoint": list(points)})
    save_dataset(dataset, tmp_path / "points.nc")
    trial = SimpleNamespace(folder=lambda stage: tmp_path, subject=Subject(HEIGHT_M, MASS_KG))
    notices = run(trial, Settings(network=network), tmp_path, no_progress)
    assert any("simulated people only" in notice for notice in notices) == known
    markers = load_dataset(tmp_path / "markers.nc")
    assert markers.augmenter == network
    assert list(markers.marker.values) == [*VIDEO_KEYPOINTS, *MARKERS]
    found = markers.position.sel(marker="r_knee_study").values
    assert np.linalg.norm(found - points["RKnee"], axis=-1).max() < 0.10
