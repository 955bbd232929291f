"""The rtm backend on real images: equal to rtmlib, and in agreement with another backend."""

import numpy as np
import onnx_networks as networks
import pytest
from onnx_networks import found

from models.assets import asset_folder
from models.blazepose import BlazePoseDetector, BlazePoseEstimator
from models.rtm import RtmDetector, RtmPoseEstimator, crop_affines
from stages.frames import read_frames


@pytest.fixture(scope="module")
def rtmlib():
    return pytest.importorskip("rtmlib", reason="pip install --no-deps rtmlib")


@pytest.fixture(scope="module")
def real_images():
    """Frames of people who move, 1080 x 1920 px: thirds and sixths of both are whole.

    Where it is not, rtmlib cuts a fraction off, but divides as if it had not; we round, as mmdet does.
    """
    videos = sorted(asset_folder("demo-single-person").glob("*.mp4"))
    frames = (read_frames(video) for video in videos[:2])
    return [image for each in frames for index, _, image in each if index in (0, 40, 80)]


@pytest.fixture(scope="module")
def rtmdet_file(shared):
    path = shared / "models" / "rtmdet_nano_person_320.onnx"
    if not path.is_file():
        pytest.skip("RTMDet-nano is not in the shared data")
    return path


@pytest.mark.parametrize("side_px", [320, 640])
def test_rtmdets_boxes_are_those_of_rtmlib(rtmlib, rtmdet_file, real_images, side_px):
    theirs = rtmlib.RTMDet(str(rtmdet_file), (side_px, side_px), score_thr=0.1)
    ours = found(RtmDetector(rtmdet_file, side_px=side_px), real_images)
    for image, each in zip(real_images, ours, strict=True):
        assert len(each.boxes) > 1
        np.testing.assert_allclose(each.boxes, theirs(image), atol=1e-3)
        assert (np.diff(each.scores) <= 0).all() and each.scores[0] > 0.4


def test_yolox_boxes_are_those_of_rtmlib(rtmlib, tmp_path):
    generator, (width, height) = np.random.default_rng(5), (128, 96)
    count = sum(width * height // stride**2 for stride in (8, 16, 32))
    cells = generator.normal(size=(count, 7)) * [1, 1, 0.5, 0.5, 0, 0, 0]
    cells[:, 4:] = generator.uniform(size=(count, 3)) ** 3
    path = networks.yolox_that_says(tmp_path / "yolox.onnx", cells, (width, height))
    image = np.zeros((192, 256, 3), np.uint8)
    theirs = rtmlib.YOLOX(str(path), (height, width), "multiclass", score_thr=0.1)(image)
    ours = found(RtmDetector(path), [image])[0].boxes
    assert len(ours) > 10
    theirs = theirs[0][theirs[1] == 0]
    shared = (np.abs(ours[:, None] - theirs).max(-1) < 1e-3).sum()
    # its overlaps are of boxes a pixel larger, which now and then decides otherwise
    assert shared >= 0.9 * max(len(ours), len(theirs))


@pytest.mark.parametrize("keypoints,size", [(133, (192, 256)), (26, (288, 384)), (17, (192, 256))])
def test_keypoints_on_real_images_are_those_of_rtmlib(
    rtmlib, rtmdet_file, real_images, tmp_path, keypoints, size
):
    path = networks.random_pose_network(tmp_path / "random.onnx", keypoints, size)
    people = found(RtmDetector(rtmdet_file), real_images)
    ours = found(RtmPoseEstimator(path), real_images, people)
    model = rtmlib.RTMPose(str(path), size)
    for image, boxes, poses in zip(real_images, people, ours, strict=True):
        in_its_order = np.ascontiguousarray(image[..., ::-1])  # rtmlib does not turn BGR to RGB
        expected, scores = model(in_its_order, boxes.boxes)
        seen = poses.confidences > 0
        assert seen.mean() > 0.9
        np.testing.assert_allclose(poses.keypoints[seen], expected[seen], atol=0.01)
        assert (poses.confidences <= np.clip(scores, 0, 1) + 1e-4).all()  # the mean of both axes


def test_crops_are_those_of_rtmlib(rtmlib, tmp_path):
    from rtmlib.tools.pose_estimation.pre_processings import get_warp_matrix

    model = rtmlib.RTMPose(str(networks.dot_finder(tmp_path / "dots.onnx")))
    boxes = np.array([[100, 60, 200, 230], [-40, 40, 300, 120], [10.5, 20.25, 640.75, 700]])
    for box, affine in zip(boxes, crop_affines(boxes, np.array([192, 256])), strict=True):
        _, centre, scale = model.preprocess(np.zeros((300, 400, 3), np.uint8), box)
        expected = get_warp_matrix(centre, scale, 0, (192, 256))
        np.testing.assert_allclose(affine, expected, rtol=1e-5, atol=1e-4)


def largest_box_around_keypoints(poses, confident=0.3):
    """The largest person's box, as tight as the confident keypoints allow."""
    seen = (poses.confidences >= confident)[..., None]
    low = np.where(seen, poses.keypoints, np.inf).min(1)
    high = np.where(seen, poses.keypoints, -np.inf).max(1)
    largest = (high - low).prod(-1).argmax()
    return np.concatenate([low[largest], high[largest]])


def overlap(box, others):
    """Intersection over union."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(-1)
    areas = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(-1)
    return shared / (areas - shared)


@pytest.mark.slow
def test_rtmdet_finds_the_subject_of_the_demo_where_blazepose_does(rtmdet_file):
    rtmdet = RtmDetector(rtmdet_file, side_px=320)
    detector, estimator = BlazePoseDetector(), BlazePoseEstimator()
    overlaps = []
    for video in sorted(asset_folder("demo-single-person").glob("*.mp4")):
        for _, _, image in read_frames(video):
            # not its detector's box, which is a turned square around all that limbs can reach
            poses = found(estimator, [image], found(detector, [image]))[0]
            boxes = found(rtmdet, [image])[0].boxes
            overlaps.append(overlap(largest_box_around_keypoints(poses), boxes).max(initial=0))
    assert len(overlaps) == 400
    assert (np.array(overlaps) > 0.7).mean() >= 0.98
