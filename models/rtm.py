"""OpenMMLab's real-time models as ONNX files: RTMDet and YOLOX, RTMPose, RTMW and DWPose.

Lyu et al., RTMDet, arXiv 2212.07784, 2022. Ge et al., YOLOX, arXiv 2107.08430, 2021. Jiang et al.,
RTMPose, arXiv 2303.07399, 2023. Yang et al., DWPose, ICCV workshops 2023. Jiang et al., RTMW, arXiv
2407.08634, 2024. The constants are those of mmdet 3.3.0's and mmpose 1.3.2's configurations.

Checked against rtmlib 0.0.16, which does the same image by image. It gives pose models blue, green
and red where their configurations (`bgr_to_rgb=True`) say red, green and blue (rtmlib's issue 48);
we do as the networks were trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from models.onnx_runtime import OnnxNetwork, Outputs
from models.people import LEAST_SCORE, Boxed, Detections, Image, PoseMaps, Poses
from models.simcc import cells_from_bins, confidence, decode, maps
from pipeline.errors import PipelineError

RTMDET_MEAN, RTMDET_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
"""Of blue, green and red."""
POSE_MEAN, POSE_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of red, green and blue."""
GREY = 114
"""What detectors see beside the image."""
SIDE_PX = 640
"""Of the square that most published detectors were trained with; RTMDet-nano: 320."""
PERSON = 0
"""COCO's label."""
SAME_PERSON_OVERLAP = 0.45
"""Intersection over union above which YOLOX' boxes are of one person: its published deployments'."""
STRIDES_PX = (8, 16, 32)
"""Of YOLOX' grids."""
PADDING = 1.25
"""Side of the region that a pose model sees, per side of the person's box."""
MAP_ROWS = 64
SURE = 1.0
SURE_OF_RTMW = 10.0
"""Scores of sure networks; see `models.simcc.confidence`."""


@dataclass(frozen=True)
class _Shown:
    """Images as a detector takes them."""

    images: Float[np.ndarray, "image 3 height width"]
    shrunk: Float[np.ndarray, "image 2"]
    """Pixels of the network's image per pixel of ours, along x and y."""


class RtmDetector:
    """Finds persons; gives a box around each."""

    def __init__(self, path: Path, device: str = "auto", threads: int = 2, side_px: int = SIDE_PX):
        """Load an .onnx file of RTMDet, or of YOLOX with or without its suppression of overlaps.

        Which one is read from the file, and the size of its images; if it takes any, they are shown
        in a square of `side_px`: best what the network was trained with. Raises PipelineError if it
        is neither.
        """
        self._network = OnnxNetwork(path, device, threads)
        self._size = self._network.size or (side_px, side_px)
        # RTMDet and YOLOX can have equal outputs. YOLOX begins by slicing the image ("focus").
        self._is_yolox = "Slice" in self._network.first_operators
        outputs = _outputs_for_black(self._network, self._size)
        self._is_raw = self._is_yolox and _are_grids(outputs, self._size)
        suppressed = [each.shape[1:] for each in outputs] == [(5,), ()]
        known = self._is_yolox or "Conv" in self._network.first_operators
        if not (self._is_raw or suppressed and known):
            what = "a pose model" if _is_simcc(outputs, self._size) else "neither"
            raise PipelineError(
                f"{path} is {what}, but a person detector is needed: RTMDet, exported with its "
                f"non-maximum suppression, or YOLOX. Its outputs: {_described(outputs)}."
            )

    def prepare(self, images: Sequence[Image]) -> _Shown:
        """Shrink images into the network's, at its upper left, as mmdet does."""
        shown = np.empty((len(images), 3, *self._size[::-1]), self._network.dtype)
        shrunk = np.empty((len(images), 2))
        for index, image in enumerate(images):
            small, shrunk[index] = _letterbox(image, self._size)
            if self._is_yolox:
                shown[index] = small.transpose(2, 0, 1)
            else:
                _normalise(small.transpose(2, 0, 1), RTMDET_MEAN, RTMDET_STD, shown[index])
        return _Shown(shown, shrunk)

    def infer(self, prepared: _Shown) -> list[Outputs]:
        """Run the network.

        With its own suppression of overlaps, image by image: such files say that they take several
        at once, and then fail or mix them up (mmdeploy's issues 2075 and 2207).
        """
        return self._network.run(prepared.images, None if self._is_raw else 1)

    def read(self, prepared: _Shown, outputs: list[Outputs]) -> list[Detections]:
        """Return each image's persons with scores of at least 0.1, best first; boxes in its px."""
        return [self._read_one(*each) for each in zip(outputs, prepared.shrunk, strict=True)]

    def _read_one(self, outputs, shrunk):
        if self._is_raw:
            boxes, scores = _unsuppressed(outputs[0].astype(float), self._size)
        else:
            found = outputs[0][outputs[1] == PERSON].astype(float)
            boxes, scores = found[:, :4], found[:, 4]
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= LEAST_SCORE]
        boxes = boxes[order] / np.tile(shrunk, 2)
        return Detections(boxes, np.zeros(len(order)), np.clip(scores[order], 0, 1))


@dataclass(frozen=True)
class _Crops:
    """Persons as a pose model takes them."""

    images: Float[np.ndarray, "seen 3 height width"]
    affines: Float[np.ndarray, "seen 2 3"]
    """From px of the image to px of the crop."""
    persons: Boxed
    with_maps: bool


class RtmPoseEstimator:
    """Finds the keypoints of persons in upright boxes (rotations are not used)."""

    keypoints: int
    """How many a person has."""

    def __init__(self, path: Path, device: str = "auto", threads: int = 2):
        """Load an .onnx file of RTMPose, RTMW or DWPose. Raises PipelineError if it is none."""
        self._network = OnnxNetwork(path, device, threads)
        size = self._network.size or (SIDE_PX, SIDE_PX)
        outputs = _outputs_for_black(self._network, size)
        if not _is_simcc(outputs, size):
            what = "a detector" if outputs[0].shape[-1:] == (5,) else "something else"
            raise PipelineError(
                f"{path} is {what}, but a pose model with SimCC outputs is needed: RTMPose, RTMW or "
                f"DWPose. Its outputs: {_described(outputs)}."
            )
        if not self._network.size:
            raise PipelineError(f"{path} leaves its images' size open. Export it with a fixed one.")
        self._size = np.array(size)
        self.keypoints = len(outputs[0])
        self._bins = [each.shape[-1] for each in outputs]
        self._split = self._bins[0] / size[0]  # bins per px
        self._bins_per_cell = -(-self._bins[1] // MAP_ROWS)
        # Of these models, RTMW's head alone rearranges channels to pixels.
        self._sure = SURE_OF_RTMW if "DepthToSpace" in self._network.operators else SURE

    def prepare(
        self, images: Sequence[Image], persons: Sequence[Detections], with_maps: bool = False
    ) -> _Crops:
        """Cut every person out of the image, as mmpose's TopdownAffine does without UDP."""
        boxed = Boxed.of(persons)
        affines = crop_affines(boxed.boxes, self._size)
        crops = np.empty((len(affines), 3, *self._size[::-1]), self._network.dtype)
        for crop, owner, affine in zip(crops, boxed.owners, affines, strict=True):
            cut = cv2.warpAffine(images[owner], affine, self._size.tolist())
            _normalise(cut.transpose(2, 0, 1)[::-1], POSE_MEAN, POSE_STD, crop)
        return _Crops(crops, affines, boxed, with_maps)

    def infer(self, prepared: _Crops) -> list[Outputs]:
        """Run the network."""
        return self._network.run(prepared.images)

    def read(self, prepared: _Crops, outputs: list[Outputs]) -> list[Poses]:
        """Return the keypoints of each image's persons, in px of the image; see `models.simcc`.

        NaN and 0 where there is no box, and where the network sees nothing (scores up to 0).
        """
        columns, rows = (self._stacked(outputs, axis) for axis in (0, 1))
        bins, scores = decode(columns, rows)
        sure = confidence(scores, self._sure)
        scale, shift = prepared.affines[:, :1, :1], prepared.affines[:, None, :, 2]
        keypoints = np.where(sure[..., None] > 0, (bins / self._split - shift) / scale, np.nan)
        persons = prepared.persons
        shown: list[PoseMaps | None] = [None] * len(persons.counts)
        if prepared.with_maps:
            cells = maps(columns, rows, sure, self._bins_per_cell)
            affines = self._map_affines(prepared.affines)
            per_image = (persons.per_image(cells, 0), persons.per_image(affines, np.nan))
            shown = [PoseMaps(*each) for each in zip(*per_image, strict=True)]
        per_image = (persons.per_image(keypoints, np.nan), persons.per_image(sure, 0))
        return [Poses(*each) for each in zip(*per_image, shown, strict=True)]

    def _stacked(self, outputs: list[Outputs], axis: int) -> Float[np.ndarray, "seen keypoint bin"]:
        empty = np.empty((0, self.keypoints, self._bins[axis]), np.float32)
        return np.stack([each[axis] for each in outputs], dtype=np.float32) if outputs else empty

    def _map_affines(self, affines):
        """Matrices (seen, 2, 3) from px of the image to cells of its person's maps."""
        bins = self._split * affines
        cells = bins / self._bins_per_cell
        cells[..., 2] = cells_from_bins(bins[..., 2], self._bins_per_cell)
        return cells


def crop_affines(
    boxes: Float[np.ndarray, "person 4"], size: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "person 2 3"]:
    """Matrices from px of the image to px of crops of a size (width, height), without turning.

    The crop shows the box with a quarter more to each dimension, and more of the one that its
    shape leaves room for; whole numbers are pixels' centres, and the box's centre comes to half the
    size (mmpose 1.3.2: GetBBoxCenterScale, TopdownAffine with use_udp=False, as in the
    configurations of RTMPose, RTMW and DWPose). By way of three points in float32, as there: crops
    are then the same to the bit, which networks can be more sensitive to than one would think.
    """
    boxes, (width, height) = boxes.astype(np.float32), size.astype(np.float32)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]) * np.float32(PADDING)
    half = np.maximum(sides[:, 0], sides[:, 1] * (width / height)) / 2
    middle, left = np.array([width, height]) / 2, np.array([0, height / 2], np.float32)
    shown = np.stack([middle, left, left + [0, width / 2]]).astype(np.float32)
    lefts = np.stack([centres[:, 0] - half, centres[:, 1]], -1)
    below = np.stack([lefts[:, 0], lefts[:, 1] + (centres[:, 0] - lefts[:, 0])], -1)
    points = np.stack([centres, lefts, below], 1)
    return np.reshape([cv2.getAffineTransform(each, shown) for each in points], (-1, 2, 3))


def _normalise(channels: UInt8[np.ndarray, "3 height width"], mean, deviation, out) -> None:
    """Write channels of mean 0 and deviation 1 to `out`: in place, which is ten times faster."""
    np.subtract(channels, np.float32(mean)[:, None, None], out=out)
    np.divide(out, np.float32(deviation)[:, None, None], out=out)


def _outputs_for_black(network: OnnxNetwork, size: tuple[int, int]) -> Outputs:
    """Outputs for one black image: their shapes, which files may leave open, say what it is."""
    return network.run(np.zeros((1, 3, size[1], size[0]), np.float32))[0]


def _described(outputs: Outputs) -> str:
    return ", ".join(" x ".join(str(side) for side in each.shape) for each in outputs)


def _is_simcc(outputs: Outputs, size: tuple[int, int]) -> bool:
    """Whether outputs are distributions over columns and rows, equally fine, of the same keypoints."""
    if len(outputs) != 2 or any(each.ndim != 2 for each in outputs):
        return False
    (keypoints, columns), (also, rows) = (each.shape for each in outputs)
    return keypoints == also and columns * size[1] == rows * size[0]


def _are_grids(outputs: Outputs, size: tuple[int, int]) -> bool:
    """Whether outputs are all cells of YOLOX' grids: x y w h, that there is something, classes."""
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in STRIDES_PX)
    return len(outputs) == 1 and outputs[0].ndim == 2 and len(outputs[0]) == cells


def _letterbox(image: Image, size: tuple[int, int]) -> tuple[Image, Float[np.ndarray, "2"]]:
    """Shrink (or enlarge) an image to fit, at the upper left of a grey one; and by how much."""
    whole = np.array(image.shape[1::-1])
    small = (whole * (np.array(size) / whole).min() + 0.5).astype(int)
    shown = np.full((size[1], size[0], 3), GREY, np.uint8)
    shown[: small[1], : small[0]] = cv2.resize(image, small.tolist())
    return shown, small / whole


def _unsuppressed(
    cells: Float[np.ndarray, "cell value"], size: tuple[int, int]
) -> tuple[Float[np.ndarray, "box 4"], Float[np.ndarray, "box"]]:
    """Boxes of persons and scores from YOLOX' grids (YOLOX, section 2), without overlaps."""
    scores = cells[:, 4] * cells[:, 5 + PERSON]
    likely = np.flatnonzero(scores >= LEAST_SCORE)
    corner, stride = (each[likely] for each in _grids(size))
    centres = (cells[likely, :2] + corner) * stride
    sides = np.exp(cells[likely, 2:4]) * stride
    low, scores = centres - sides / 2, scores[likely]
    kept = cv2.dnn.NMSBoxes(np.hstack([low, sides]), scores, LEAST_SCORE, SAME_PERSON_OVERLAP)
    return np.hstack([low, low + sides])[kept], scores[kept]


def _grids(size):
    """Column and row (cell, 2) and stride (cell, 1; px) of every cell of YOLOX' grids."""
    corners, strides = [], []
    for stride in STRIDES_PX:
        rows, columns = np.mgrid[: size[1] // stride, : size[0] // stride]
        corners.append(np.stack([columns.ravel(), rows.ravel()], -1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(corners), np.concatenate(strides)
