import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.assets import asset_folder
from models.backends import backend
from models.blazepose import BlazePoseDetector, BlazePoseEstimator, refine
from models.people import Detections
from models.vocabulary import vocabulary
from pipeline.errors import PipelineError
from stages.detect import LINEAR, batches, follow_subject, stack, subject_first
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
    found = detector.detect([image])
    return found[0], estimator.estimate([image], found)[0]


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
    poses = estimator.estimate([grey], [nobody])[0]
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


def test_unknown_backends_are_named():
    with pytest.raises(PipelineError, match="blazepose"):
        backend("openpose")


def box(x, size):
    return [x, 0.0, x + size, size]


def test_the_subject_is_followed_when_a_larger_person_walks_by():
    boxes = np.full((7, 2, 4), np.nan)
    for frame in range(7):
        boxes[frame, frame % 2] = box(100 + 5 * frame, 50)  # the list order changes all the time
    boxes[2, 0] = box(105, 70)  # largest: the subject, near
    boxes[2, 1] = np.nan
    boxes[4, 1] = box(400, 69)  # a bystander
    chosen = follow_subject(boxes, 2)
    np.testing.assert_array_equal(chosen, [0, 1, 0, 1, 0, 1, 0])


def test_the_subject_may_be_lost_and_found_again():
    boxes = np.full((9, 1, 4), np.nan)
    boxes[:3, 0], boxes[7:, 0] = box(100, 50), box(400, 40)
    np.testing.assert_array_equal(follow_subject(boxes, 2), [0, 0, 0, -1, -1, -1, -1, 0, 0])


def test_the_subject_becomes_person_zero_and_nobody_is_lost():
    found = [
        Detections(np.array([box(0, 10), box(50, 20)]), np.array([0.1, 0.2]), np.array([0.9, 0.8])),
        Detections(np.array([box(0, 10)]), np.array([0.1]), np.array([0.7])),
    ]
    ordered = subject_first(stack(found, 3), np.array([1, -1]))
    np.testing.assert_array_equal(ordered["score"], [[0.8, 0.9, 0], [0, 0.7, 0]])
    assert ordered["box"][0, 0, 0] == 50 and np.isnan(ordered["box"][1, 0]).all()
    assert ordered["rotation"][0, 0] == 0.2


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
