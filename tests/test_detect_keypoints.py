import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.assets import asset_folder
from models.blazepose import BlazePoseDetector, BlazePoseEstimator, refine
from models.overlap import detect, estimate
from models.people import Detections
from models.vocabulary import vocabulary
from stages.detect import LINEAR, batches
from stages.frames import read_frames
from stages.series import fill_short_gaps

NAMES = vocabulary("blazepose-33").keypoints


@pytest.fixture(scope="module")
def person():
    """A real image of a person, and a box drawn by hand around the person."""
    video = asset_folder("demo-single-person") / "cam01.mp4"
    image = next(image for index, _, image in read_frames(video) if index == 30)
    return image


@pytest.fixture(scope="module")
def detector():
    return BlazePoseDetector()


@pytest.fixture(scope="module")
def estimator():
    return BlazePoseEstimator()


def pose_of(image, detector, estimator):
    found = detect(detector, [image])
    return found[0], estimate(estimator, [image], found)[0]


def test_the_person_in_a_real_image_is_found_with_feet_below_hips(person, detector, estimator):
    found, poses = pose_of(person, detector, estimator)
    assert len(found.scores) >= 1 and found.scores[0] > 0.5
    at = dict(zip(NAMES, poses.keypoints[0], strict=True))
    for side in "LR":
        assert at[f"{side}Shoulder"][1] < at[f"{side}Hip"][1] < at[f"{side}Ankle"][1]
    x1, y1, x2, y2 = found.boxes[0]
    inside = (poses.keypoints[0] > [x1, y1]) & (poses.keypoints[0] < [x2, y2])
    assert inside.all(-1).mean() > 0.9


def test_a_person_on_the_side_is_found_where_the_turned_image_says(person, detector, estimator):
    _, upright = pose_of(person, detector, estimator)
    turned = cv2.rotate(person, cv2.ROTATE_90_CLOCKWISE)
    _, poses = pose_of(turned, detector, estimator)
    height = person.shape[0]
    expected = np.stack([height - 1 - upright.keypoints[0, :, 1], upright.keypoints[0, :, 0]], -1)
    body = slice(11, 33)
    error = np.linalg.norm(poses.keypoints[0, body] - expected[body], axis=-1)
    assert np.median(error) < 40  # of 1920 px: another crop, so not the same to the pixel


def test_a_mirrored_image_swaps_left_and_right(person, detector, estimator):
    _, upright = pose_of(person, detector, estimator)
    _, mirrored = pose_of(np.ascontiguousarray(person[:, ::-1]), detector, estimator)
    left, right = NAMES.index("LShoulder"), NAMES.index("RShoulder")
    back = person.shape[1] - 1 - mirrored.keypoints[0, :, 0]
    assert abs(back[left] - upright.keypoints[0, right, 0]) < 40
    assert abs(back[right] - upright.keypoints[0, left, 0]) < 40


def test_an_empty_room_has_nobody(detector, estimator):
    grey = np.full((480, 300, 3), 128, np.uint8)
    found, poses = pose_of(grey, detector, estimator)
    assert len(found.scores) == 0 and poses.keypoints.shape == (0, 33, 2)


def test_a_box_without_a_person_gives_nan_and_no_confidence(estimator):
    grey = np.full((480, 300, 3), 128, np.uint8)
    nobody = Detections(np.array([[0.0, 0, 300, 300], [np.nan] * 4]), np.zeros(2), np.ones(2))
    poses = estimate(estimator, [grey], [nobody])[0]
    assert np.isnan(poses.keypoints).all() and not poses.confidences.any()


def test_refinement_finds_the_centre_of_a_blob():
    row, column = np.mgrid[:64, :64] + 0.5
    true = np.array([[20.3, 31.7], [40.0, 10.0]])  # x, y in cells
    maps = np.stack(
        [20 * np.exp(-((column - x) ** 2 + (row - y) ** 2) / 4) - 10 for x, y in true], axis=-1
    )
    maps[..., 1] = -10  # no evidence: stays where it was
    start = (true + [[0.8, -0.7], [0.8, -0.7]]) / 64
    moved = refine(start, maps)
    np.testing.assert_allclose(moved[0], true[0] / 64, atol=0.25 / 64)
    np.testing.assert_array_equal(moved[1], start[1])


def test_short_gaps_of_the_box_are_bridged_and_long_ones_are_not():
    boxes = np.arange(10.0)[:, None] * np.ones(4)
    boxes[2:4], boxes[5:9] = np.nan, np.nan
    bridged = fill_short_gaps(boxes, 2, LINEAR)
    np.testing.assert_allclose(bridged[2:4, 0], [2, 3])
    assert np.isnan(bridged[5:9]).all()


@given(st.lists(st.integers(), max_size=50), st.integers(1, 9))
def test_batches_keep_everything_in_order(items, size):
    cut = list(batches(items, size))
    assert [item for batch in cut for item in batch] == items
    assert all(len(batch) == size for batch in cut[:-1])
