"""Learned triangulation of a trial: what it takes from the geometric points, and what it refuses."""

import numpy as np
import pytest
import torch

from models.algebraic import Algebraic, Architecture
from models.geometric import Points, Tolerances, triangulate
from models.learned import torch_device, trial_frames, triangulate_learned
from models.simulation.rig import place_cameras
from pipeline.errors import PipelineError

NAMES = ("Nose", "LShoulder", "RShoulder", "LHip", "RHip", "LKnee", "RKnee", "LIndex")
PLACES = np.array(
    [[0.1, 1.7, 0], [0, 1.4, -0.2], [0, 1.4, 0.2], [0, 1, -0.1], [0, 1, 0.1], [0.1, 0.5, -0.1],
     [0.1, 0.5, 0.1], [0.3, 0.9, -0.3]]
)  # fmt: skip
TOLERANCES = Tolerances()


@pytest.fixture
def recording():
    """Seven frames of a stiff person who walks forwards, seen by three cameras without errors."""
    cameras = place_cameras(3, np.array([0.0, 1.0, 0.0]), np.random.default_rng(2))
    points = PLACES + np.linspace(0, 0.5, 7)[:, None, None] * [1.0, 0, 0]
    image = np.stack([camera.undistort(camera.project(points)) for camera in cameras])
    extrinsics = np.stack([camera.camera_from_world[:3] for camera in cameras])
    return points, image, np.full(image.shape[:-1], 0.9), extrinsics


def learn(image, confidence, extrinsics, names=NAMES) -> tuple[Points, Points]:
    torch.manual_seed(0)
    network = Algebraic(Architecture(channels=16, layers=1)).eval()
    geometric = triangulate(image, confidence, extrinsics, 1 / 60, TOLERANCES)
    seen = image, confidence, extrinsics, names
    return geometric, triangulate_learned(network, *seen, geometric, TOLERANCES)


def test_points_that_views_agree_on_come_back(recording):
    points, *seen = recording
    _, learned = learn(*seen)
    assert np.abs(learned.position - points).max() < 3e-3
    assert learned.view_used.all()
    assert (learned.standard_deviation > 0).all()


def test_keypoints_that_networks_do_not_know_keep_their_geometric_points(recording):
    _, *seen = recording
    geometric, learned = learn(*seen)
    index = NAMES.index("LIndex")
    np.testing.assert_array_equal(learned.position[:, index], geometric.position[:, index])


def test_a_person_before_one_camera_is_nowhere(recording):
    points, image, confidence, extrinsics = recording
    confidence[1:, 3] = 0
    _, learned = learn(image, confidence, extrinsics)
    known = np.isfinite(learned.position).all((1, 2))
    assert known.tolist() == [True] * 3 + [False] + [True] * 3


def test_a_joint_that_no_camera_shows_is_nowhere(recording):
    points, image, confidence, extrinsics = recording
    confidence[:, 2:4, 5] = 0
    _, learned = learn(image, confidence, extrinsics)
    assert np.isnan(learned.position[2:4, 5]).all() and np.isfinite(learned.position[4:]).all()


def test_a_view_that_shows_something_else_is_not_counted_as_used(recording):
    points, image, confidence, extrinsics = recording
    image[0, :, 5] += 0.2
    _, learned = learn(image, confidence, extrinsics)
    assert not learned.view_used[0, :, 5].any() and learned.view_used[0, :, 6].all()


def test_the_order_of_keypoints_and_cameras_plays_no_part(recording):
    points, image, confidence, extrinsics = recording
    order, cameras = [6, 2, 7, 0, 5, 4, 1, 3], [2, 0, 1]
    _, expected = learn(image, confidence, extrinsics)
    _, learned = learn(
        image[cameras][:, :, order],
        confidence[cameras][:, :, order],
        extrinsics[cameras],
        [NAMES[i] for i in order],
    )
    np.testing.assert_allclose(learned.position, expected.position[:, order], atol=1e-5)
    np.testing.assert_allclose(
        learned.ray_distance, expected.ray_distance[cameras][:, :, order], atol=1e-5
    )


def test_the_body_frame_faces_where_the_person_does():
    angle = np.radians(30)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    points = np.repeat(PLACES[None] @ turn.T + [1, 0, 2], 4, 0)
    points[1:3] = np.nan
    frames, found = trial_frames(points, NAMES)
    np.testing.assert_allclose(frames.rotation[0].numpy(), np.repeat(turn[None], 4, 0), atol=1e-6)
    np.testing.assert_allclose(frames.origin[0].numpy(), np.repeat([[1.0, 1, 2]], 4, 0), atol=1e-6)
    assert found.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("missing", "message"),
    [("NaN", "nowhere seen by two cameras"), ("names", "needs the keypoints RHip")],
)
def test_without_hips_there_is_no_place_to_look_at(missing, message):
    points, names = np.repeat(PLACES[None], 4, 0), NAMES
    if missing == "NaN":
        points[:, NAMES.index("RHip")] = np.nan
    else:
        names = ["Tail" if name == "RHip" else name for name in NAMES]
    with pytest.raises(PipelineError, match=message):
        trial_frames(points, names)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_told():
    assert torch_device("auto", "--device") == "cpu"
    with pytest.raises(PipelineError, match="no CUDA device"):
        torch_device("cuda", "--device")
