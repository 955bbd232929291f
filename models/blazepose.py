"""BlazePose through LiteRT: a person detector and 33 keypoints with heels and toes.

Bazarevsky et al., BlazePose: On-device real-time body pose tracking, arXiv 2006.10204, 2020. The
constants are those of MediaPipe's published graphs (pose_detection and pose_landmark, 0.10.21).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.special import expit

from models.assets import asset_folder
from models.people import NOBODY, Detections, PoseMaps, Poses
from pipeline.errors import PipelineError

DETECTOR_ASSET, LANDMARK_ASSET = ASSETS = ("blazepose-detector", "blazepose-full")
CITATION = "BlazePose (Bazarevsky et al., arXiv 2006.10204, 2020), MediaPipe 0.10.21, Apache-2.0"

DETECTOR_PX, LANDMARK_PX, HEATMAP_PX = 224, 256, 64
KEYPOINTS = 33
MIN_SCORE = 0.5
SAME_PERSON_OVERLAP = 0.3
BOX_PER_REACH = 2 * 1.25
"""Side of the region to look at, per distance from the mid-hip to the circle around the body."""
REFINE_WINDOW_PX = 7
REFINE_CONFIDENCE = 0.5


class BlazePoseDetector:
    """Finds persons by face and torso; gives a turned square around the whole body of each."""

    def __init__(self, threads: int = 2):
        self._network = _Network(asset_folder(DETECTOR_ASSET) / "pose_detection.tflite", threads)

    def prepare(self, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> "_Squares":
        """Letterbox each BGR image into a square."""
        sizes = np.array([image.shape[1::-1] for image in images]).reshape(-1, 2)
        squares = [
            _crop(image, size / 2, int(size.max()), 0.0, DETECTOR_PX) * 2 - 1
            for image, size in zip(images, sizes, strict=True)
        ]
        return _Squares(sizes, squares)

    def infer(self, prepared: "_Squares") -> list[list[np.ndarray]]:
        """Run the network on one square after another: it takes one image."""
        return [self._network.run(square) for square in prepared.squares]

    def read(self, prepared: "_Squares", outputs: list[list[np.ndarray]]) -> list[Detections]:
        """Return the persons of each image, best first."""
        return [_persons(*pair) for pair in zip(prepared.sizes, outputs, strict=True)]


@dataclass(frozen=True)
class _Squares:
    """Letterboxed images for the detector."""

    sizes: Int[np.ndarray, "image 2"]
    """Width and height, px."""
    squares: list[Float[np.ndarray, "side side 3"]]


def _persons(size, outputs):
    """Read the detector's output for an image of a size (width, height)."""
    side = int(size.max())  # so that the network's precision is kept
    corner = (side - size) / 2  # of the letterbox, px
    regressions = next(output for output in outputs if output.shape[-1] == 12)[0]
    logits = next(output for output in outputs if output.shape[-1] == 1)[0, :, 0]
    scores = expit(np.clip(logits, -100, 100))
    likely = np.flatnonzero(scores >= MIN_SCORE)
    if not len(likely):
        return NOBODY
    points = regressions[likely].reshape(-1, 6, 2) / DETECTOR_PX
    points[:, [0, 2, 3, 4, 5]] += _anchors()[likely, None]
    order = _merge(points, scores[likely])
    hips, reach = (points[order][:, i] * side - corner for i in (2, 3))
    return _regions(hips, reach, scores[likely][order])


class BlazePoseEstimator:
    """Finds 33 keypoints in a turned square region."""

    def __init__(self, threads: int = 2):
        path = asset_folder(LANDMARK_ASSET) / "pose_landmark_full.tflite"
        self._network = _Network(path, threads)

    def prepare(
        self,
        images: Sequence[UInt8[np.ndarray, "h w 3"]],
        persons: Sequence[Detections],
        with_maps: bool = False,
    ) -> "_Crops":
        """Cut the turned square of each person out of the BGR images."""
        regions = [_turned_squares(each) for each in persons]
        crops = [
            [_crop(image, *where, LANDMARK_PX) if where else None for where in of_image]
            for image, of_image in zip(images, regions, strict=True)
        ]
        return _Crops(regions, crops, with_maps)

    def infer(self, prepared: "_Crops") -> list[list[list[np.ndarray] | None]]:
        """Run the network on one crop after another: it takes one image."""
        return [
            [None if crop is None else self._network.run(crop) for crop in of_image]
            for of_image in prepared.crops
        ]

    def read(self, prepared: "_Crops", outputs: list[list[list[np.ndarray] | None]]) -> list[Poses]:
        """Return the keypoints of each image's persons; NaN and 0 where there is nobody."""
        pairs = zip(prepared.regions, outputs, strict=True)
        return [_poses(*pair, prepared.with_maps) for pair in pairs]


Region = tuple[Float[np.ndarray, "2"], float, float] | None
"""Centre and side (px) of a square, and its turn (rad); None where there is nobody."""


@dataclass(frozen=True)
class _Crops:
    """What the pose model looks at: by image, then by person."""

    regions: list[list[Region]]
    crops: list[list[Float[np.ndarray, "side side 3"] | None]]
    with_maps: bool


def _turned_squares(persons: Detections) -> list[Region]:
    return [
        ((box[:2] + box[2:]) / 2, max(box[2:] - box[:2]), rotation)
        if np.isfinite(box).all()
        else None
        for box, rotation in zip(persons.boxes, persons.rotations, strict=True)
    ]


def _poses(regions, outputs, with_maps):
    """Read the pose model's outputs for the persons of one image."""
    count = len(regions)
    keypoints = np.full((count, KEYPOINTS, 2), np.nan)
    confidences = np.zeros((count, KEYPOINTS))
    maps = None
    if with_maps:
        cells = np.zeros((count, KEYPOINTS, HEATMAP_PX, HEATMAP_PX), np.uint8)
        maps = PoseMaps(cells, np.full((count, 2, 3), np.nan))
    for index, (region, of_person) in enumerate(zip(regions, outputs, strict=True)):
        if region is None:
            continue
        keypoints[index], confidences[index], heatmaps = _pose(*region, of_person)
        if maps and confidences[index].any():
            maps.probability[index] = np.rint(255 * expit(heatmaps)).transpose(2, 0, 1)
            maps.map_from_image[index] = _affine(*region, HEATMAP_PX)
            maps.map_from_image[index, :, 2] -= 0.5  # a cell's centre, not its corner
    return Poses(keypoints, confidences, maps)


def _pose(center, side, rotation, outputs):
    landmarks = next(o for o in outputs if o.shape[-1] == 195).reshape(-1, 5)[:KEYPOINTS]
    heatmaps = next(o for o in outputs if o.shape[-3:-1] == (HEATMAP_PX, HEATMAP_PX))[0]
    presence = float(next(o for o in outputs if o.shape == (1, 1))[0, 0])
    heatmaps = heatmaps[..., :KEYPOINTS]
    if presence < MIN_SCORE:
        return np.nan, 0.0, heatmaps
    refined = refine(landmarks[:, :2] / LANDMARK_PX, heatmaps)
    confidence = expit(landmarks[:, 3]) * expit(landmarks[:, 4])  # visible, and in the region
    return center + (refined - 0.5) * side @ _turn(rotation).T, confidence, heatmaps


class _Network:
    """A LiteRT model that takes one image and returns all its outputs."""

    def __init__(self, path, threads):
        from ai_edge_litert.interpreter import Interpreter

        try:
            self._interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
        except (OSError, ValueError, RuntimeError) as error:
            raise PipelineError(
                f"cannot load {path}: {error}. Fetch it again: pipeline models fetch"
            ) from error
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]

    def run(self, image: Float[np.ndarray, "side side 3"]) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._input, image[None].astype(np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _turn(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _crop(image, center, side, rotation, size_px):
    """Cut a turned square out of a BGR image: RGB, 0 to 1, black beyond the edge."""
    affine = _affine(center, side, rotation, size_px)
    crop = cv2.warpAffine(image, affine, (size_px, size_px))
    return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) / np.float32(255)


def _affine(center, side, rotation, size_px):
    """Matrix (2, 3) from an image to a turned square of it, whose side becomes `size_px`."""
    matrix = size_px / side * _turn(-rotation)
    shift = np.array([size_px / 2, size_px / 2]) - matrix @ center
    return np.column_stack([matrix, shift])


@cache
def _anchors():
    """Centres (anchor, 2) of the detector's anchors, as shares of the image: SSD, strides 8 to 32."""
    grids = []
    for stride, anchors_per_cell in ((8, 2), (16, 2), (32, 6)):
        cells = DETECTOR_PX // stride
        centers = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(centers, centers, indexing="ij")
        grids.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), anchors_per_cell, axis=0))
    return np.concatenate(grids)


def _merge(points, scores):
    """Indices of the best box of each person: greedy non-maximum suppression."""
    low, high = points[:, 0] - points[:, 1] / 2, points[:, 0] + points[:, 1] / 2
    kept, left = [], np.argsort(-scores)
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        overlap = np.clip(
            np.minimum(high[best], high[left]) - np.maximum(low[best], low[left]), 0, None
        ).prod(-1)
        union = (high[best] - low[best]).prod() + (high[left] - low[left]).prod(-1) - overlap
        left = left[overlap / np.maximum(union, 1e-9) < SAME_PERSON_OVERLAP]
    return kept


def _regions(hips, reach, scores):
    """Turned squares around bodies from the mid-hip and a point on the circle around the body."""
    way = reach - hips
    half = np.linalg.norm(way, axis=-1, keepdims=True) * BOX_PER_REACH / 2
    rotations = np.arctan2(way[:, 0], -way[:, 1])  # the point lies above the hips when upright
    return Detections(np.hstack([hips - half, hips + half]), rotations, scores)


def refine(
    position: Float[np.ndarray, "keypoint 2"], heatmaps: Float[np.ndarray, "row column keypoint"]
) -> Float[np.ndarray, "keypoint 2"]:
    """Move keypoints to the centre of mass of their heatmap nearby, where that is confident.

    Positions are shares of the region. Keypoints whose heatmap stays below 0.5 are left.
    """
    cell = np.floor(position * HEATMAP_PX).astype(int)
    offsets = np.arange(REFINE_WINDOW_PX) - REFINE_WINDOW_PX // 2
    rows, columns = cell[:, 1, None] + offsets, cell[:, 0, None] + offsets
    inside = ((rows >= 0) & (rows < HEATMAP_PX))[:, :, None] & (
        (columns >= 0) & (columns < HEATMAP_PX)
    )[:, None, :]
    safe_rows, safe_columns = (np.clip(each, 0, HEATMAP_PX - 1) for each in (rows, columns))
    window = heatmaps[
        safe_rows[:, :, None], safe_columns[:, None, :], np.arange(len(position))[:, None, None]
    ]
    mass = expit(window) * inside
    total = mass.sum((1, 2))
    x = (mass.sum(1) * columns).sum(1) / np.maximum(total, 1e-9)
    y = (mass.sum(2) * rows).sum(1) / np.maximum(total, 1e-9)
    confident = mass.max((1, 2)) >= REFINE_CONFIDENCE
    centre = (np.stack([x, y], -1) + 0.5) / HEATMAP_PX
    return np.where(confident[:, None], centre, position)
