"""RTMDet, YOLOX and SimCC pose models on ONNX Runtime."""

import cv2
import numpy as np
import onnx_networks as networks
import pytest
from onnx_networks import found

from models.people import Detections
from models.rtm import RtmDetector, RtmPoseEstimator, crop_affines

DOTS = np.array([[151.3, 90.8], [120.0, 140.5], [180.25, 201.0]])
"""Where the red, the green and the blue dot are painted, px."""
BOXES = {
    "around the dots": [100, 60, 200, 230],
    "wide": [20, 70, 280, 220],
    "beyond the edge": [-40, 40, 200, 320],
}


def painted(dots=DOTS, width=300, height=260, spread=4.0):
    """A BGR image with a red, a green and a blue dot on black: Gaussians around places in px."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.zeros((height, width, 3), np.uint8)
    for channel, (column, row) in zip((2, 1, 0), dots, strict=True):
        square = (x - column) ** 2 + (y - row) ** 2
        image[..., channel] = np.rint(255 * np.exp(-square / (2 * spread**2)))
    return image


def persons(*boxes, rotation=0.0):
    count = len(boxes)
    boxes = np.array(boxes, float).reshape(-1, 4)
    return Detections(boxes, np.full(count, rotation), np.ones(count))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def pose_file(folder):
    return networks.dot_finder(folder / "dots.onnx")


@pytest.fixture(scope="module")
def dot_estimator(pose_file):
    return RtmPoseEstimator(pose_file)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_dots_are_found_in_the_pixels_of_the_whole_image(dot_estimator, box):
    poses = found(dot_estimator, [painted()], [persons(box)])[0]
    px_per_crop_px = 1 / crop_affines(np.array([box], float), np.array([192, 256]))[0, 0, 0]
    assert np.abs(poses.keypoints[0] - DOTS).max() < 0.4 * px_per_crop_px + 0.1
    assert poses.confidences[0] == pytest.approx(1)
    assert dot_estimator.keypoints == 3


def test_dots_are_found_without_a_shift_in_any_direction(dot_estimator):
    generator = np.random.default_rng(3)
    dots = generator.uniform([60, 60], [240, 200], (40, 3, 2))
    images = [painted(each) for each in dots]
    box = [30, 30, 270, 230]
    poses = found(dot_estimator, images, [persons(box)] * len(images))
    errors = np.stack([each.keypoints[0] for each in poses]) - dots
    assert np.abs(errors.mean((0, 1))).max() < 0.06  # a shift by half a pixel would be 0.5


@pytest.mark.parametrize("size", [(288, 384), (256, 256), (96, 64)])
def test_dots_are_found_by_networks_of_any_input_size(folder, size):
    estimator = RtmPoseEstimator(networks.dot_finder(folder / f"{size}.onnx", size))
    box = BOXES["around the dots"]
    poses = found(estimator, [painted()], [persons(box)])[0]
    px_per_crop_px = 1 / crop_affines(np.array([box], float), np.array(size))[0, 0, 0]
    assert np.abs(poses.keypoints[0] - DOTS).max() < 0.4 * px_per_crop_px + 0.1


@pytest.mark.parametrize("batch", [1, 2, "batch"])
def test_persons_do_not_depend_on_how_many_a_network_takes_at_once(folder, dot_estimator, batch):
    boxes = persons(*BOXES.values())
    alone = [found(dot_estimator, [painted()], [persons(box)])[0] for box in BOXES.values()]
    estimator = RtmPoseEstimator(networks.dot_finder(folder / f"{batch}.onnx", batch=batch))
    empty, together = found(estimator, [painted()[:, :200], painted()], [persons(), boxes])
    assert empty.keypoints.shape == (0, 3, 2) and empty.confidences.shape == (0, 3)
    np.testing.assert_array_equal(
        together.keypoints, np.concatenate([each.keypoints for each in alone])
    )


def test_nobody_is_where_there_is_no_box(dot_estimator):
    boxes = persons([np.nan] * 4, BOXES["wide"], [50, 50, 50, 90])
    poses = found(dot_estimator, [painted()], [boxes], with_maps=True)[0]
    assert np.isfinite(poses.keypoints).all((1, 2)).tolist() == [False, True, False]
    assert (poses.confidences > 0).all(1).tolist() == [False, True, False]
    assert poses.maps.probability.any((1, 2, 3)).tolist() == [False, True, False]
    assert np.isfinite(poses.maps.map_from_image).all((1, 2)).tolist() == [False, True, False]


def test_a_batch_without_anybody_gives_nobody(dot_estimator):
    poses = found(
        dot_estimator, [painted()] * 2, [persons(), persons([np.nan] * 4)], with_maps=True
    )
    assert [len(each.keypoints) for each in poses] == [0, 1]
    assert np.isnan(poses[1].keypoints).all() and not poses[1].maps.probability.any()


def test_networks_of_half_precision_are_given_it(folder, dot_estimator):
    half = RtmPoseEstimator(networks.dot_finder(folder / "half.onnx", dtype=networks.HALF))
    whole = found(dot_estimator, [painted()], [persons(BOXES["wide"])])[0]
    prepared = half.prepare([painted()], [persons(BOXES["wide"])])
    assert prepared.images.dtype == np.float16
    poses = half.read(prepared, half.infer(prepared))[0]
    np.testing.assert_allclose(poses.keypoints, whole.keypoints, atol=1)


def test_what_a_network_does_not_see_has_no_place(dot_estimator):
    image = painted()
    image[..., 0] = 0  # no blue: its normalised channel stays below 0
    poses = found(dot_estimator, [image], [persons(BOXES["wide"])])[0]
    assert np.isnan(poses.keypoints[0, 2]).all() and poses.confidences[0, 2] == 0
    assert np.isfinite(poses.keypoints[0, :2]).all()


def test_scores_of_rtmw_are_ten_times_those_of_rtmpose(folder, dot_estimator):
    image = (0.61 * painted()).astype(np.uint8)
    rtmw = RtmPoseEstimator(networks.dot_finder(folder / "rtmw.onnx", sure=10))
    box = persons(BOXES["wide"])
    expected = found(dot_estimator, [image], [box])[0].confidences
    assert (expected > 0.5).all() and (expected < 1).all()
    np.testing.assert_allclose(found(rtmw, [image], [box])[0].confidences, expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(192, 256), (288, 384), (256, 256)])
def test_a_maps_highest_cell_is_where_the_keypoint_is_in_the_image(folder, size):
    estimator = RtmPoseEstimator(networks.dot_finder(folder / "maps.onnx", size))
    poses = found(estimator, [painted()], [persons(*BOXES.values())], with_maps=True)[0]
    assert poses.maps.probability.shape == (3, 3, 64, 64 * size[0] // size[1])
    cells = poses.maps.probability.reshape(3, 3, -1).argmax(-1)
    rows, columns = np.divmod(cells, poses.maps.probability.shape[-1])
    for person, affine in enumerate(poses.maps.map_from_image):
        expected = cv2.transform(poses.keypoints[person][None], affine)[0]
        assert (
            np.abs(np.stack([columns, rows], -1)[person] - expected).max() < 0.6
        )  # equal neighbours
    np.testing.assert_array_equal(poses.maps.probability.max((2, 3)), 255)


@pytest.mark.parametrize("shape", [(260, 300), (500, 200), (320, 320), (90, 120)])
@pytest.mark.parametrize("size", [(320, 320), (416, 256), ("width", "height")])
def test_a_bright_person_is_found_in_the_pixels_of_images_of_any_shape(folder, shape, size):
    detector = RtmDetector(networks.bright_finder(folder / "bright.onnx", size))
    image = np.zeros((*shape, 3), np.uint8)
    image[30:81, 20:71] = 255
    persons = found(detector, [image, image[::-1]])
    side = 640 if isinstance(size[0], str) else min(size)
    tolerance = 1.5 * max(1, max(shape) / side)
    np.testing.assert_allclose(persons[0].boxes, [[20, 30, 70, 80]], atol=tolerance)
    bottom = shape[0] - 1
    np.testing.assert_allclose(
        persons[1].boxes, [[20, bottom - 80, 70, bottom - 30]], atol=tolerance
    )
    np.testing.assert_allclose(persons[0].scores, [networks.FOUND])
    np.testing.assert_array_equal(persons[0].rotations, [0])


@pytest.mark.parametrize("batch", [1, 2, "batch"])
def test_detections_do_not_depend_on_how_many_images_a_network_takes_at_once(folder, batch):
    detector = RtmDetector(networks.bright_finder(folder / f"b{batch}.onnx", batch=batch))
    images = [np.zeros((200, 300, 3), np.uint8) for _ in range(3)]
    for place, image in enumerate(images):
        image[20:60, 40 * place : 40 * place + 30] = 255
    boxes = np.concatenate([each.boxes for each in found(detector, images)])
    np.testing.assert_allclose(boxes[:, 0], [0, 40, 80], atol=1.5)


SIZE = (128, 96)
CELLS = (128 * 96) // 64 + (128 * 96) // 256 + (128 * 96) // 1024


def cells_that_say(*boxes):
    """YOLOX' grids (cell, 7) for boxes (cell, x1, y1, x2, y2, score, class), by its definition."""
    cells = np.zeros((CELLS, 7))
    for cell, x1, y1, x2, y2, score, label in boxes:
        stride, first = next((s, f) for s, f in ((32, 240), (16, 192), (8, 0)) if cell >= f)
        row, column = divmod(cell - first, SIZE[0] // stride)
        centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2]) / stride - [column, row]
        sides = np.log(np.array([x2 - x1, y2 - y1]) / stride)
        cells[cell] = [*centre, *sides, 0.9, 0, 0]
        cells[cell, 5 + label] = score / 0.9
    return cells


def test_yolox_grids_become_the_boxes_of_persons_each_once(folder):
    cells = cells_that_say(
        (40, 20, 10, 60, 90, 0.6, 0),
        (195, 22, 11, 61, 92, 0.8, 0),  # the same person
        (245, 70, 20, 120, 80, 0.3, 0),
        (50, 70, 20, 120, 80, 0.7, 1),  # something else
        (60, 5, 5, 30, 30, 0.05, 0),  # hardly anybody
    )
    detector = RtmDetector(networks.yolox_that_says(folder / "yolox.onnx", cells, SIZE))
    persons = found(detector, [np.zeros((192, 256, 3), np.uint8)] * 2)
    for each in persons:
        expected = 2 * np.array([[22, 11, 61, 92], [70, 20, 120, 80]])
        np.testing.assert_allclose(each.boxes, expected, rtol=1e-5)
        np.testing.assert_allclose(each.scores, [0.8, 0.3], rtol=1e-5)


def test_yolox_sees_colours_as_they_are(folder):
    path = networks.bright_finder(folder / "focus.onnx", first="Slice", bright=200)
    image = np.full((200, 300, 3), 150, np.uint8)
    image[30:81, 20:71] = 255
    persons = found(RtmDetector(path), [image])[0]
    np.testing.assert_allclose(persons.boxes, [[20, 30, 70, 80]], atol=1.5)


def test_a_narrow_images_edge_is_where_it_was_before_shrinking_to_whole_pixels(folder):
    cells = cells_that_say((0, 0, 0, 12, 96, 0.8, 0))  # 37 px become 12, not 11.84
    detector = RtmDetector(networks.yolox_that_says(folder / "edge.onnx", cells, SIZE))
    persons = found(detector, [np.zeros((300, 37, 3), np.uint8)])[0]
    np.testing.assert_allclose(persons.boxes, [[0, 0, 37, 300]], atol=1e-3)
