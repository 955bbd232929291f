"""Persons in an image: where they are, and where their keypoints are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

Image = UInt8[np.ndarray, "height width 3"]
"""Blue, green, red."""

LEAST_SCORE = 0.1
"""Of persons that detectors give: low, as tracking makes use of doubtful boxes (Zhang et al., ByteTrack,
ECCV 2022)."""
SEVERAL = 0.02
"""Several people are in view if a camera shows them in a larger share of its frames: fewer are mistakes."""


@dataclass(frozen=True)
class Detections:
    """The persons of one image, best first."""

    boxes: Float[np.ndarray, "person 4"]
    """x1 y1 x2 y2, px: the region that a pose model should look at."""
    rotations: Float[np.ndarray, "person"]
    """rad, clockwise, by which the person in the box is turned from upright; 0 if not known."""
    scores: Float[np.ndarray, "person"]
    """0 to 1."""


@dataclass(frozen=True)
class PoseMaps:
    """Heatmaps of the persons of one image."""

    probability: UInt8[np.ndarray, "person keypoint row column"]
    """That a cell shows the keypoint, in 255ths; all 0 where a person has no maps."""
    map_from_image: Float[np.ndarray, "person 2 3"]
    """Affine from px to cells (column, row), whose centres are at whole numbers; NaN without maps."""


@dataclass(frozen=True)
class Poses:
    """The keypoints of the persons of one image."""

    keypoints: Float[np.ndarray, "person keypoint 2"]
    """px; NaN where a person has none."""
    confidences: Float[np.ndarray, "person keypoint"]
    """0 to 1."""
    maps: PoseMaps | None = None
    """If they were asked for, and the model has any."""


@dataclass(frozen=True)
class Boxed:
    """The persons of several images who have a box, one after the other."""

    boxes: Float[np.ndarray, "boxed 4"]
    owners: Int[np.ndarray, "boxed"]
    """Which image each is in."""
    places: Int[np.ndarray, "boxed"]
    """Which of all images' persons they are."""
    counts: tuple[int, ...]
    """Of persons of each image, with and without a box."""

    @classmethod
    def of(cls, persons: Sequence[Detections]) -> "Boxed":
        """Leave out those whose box is NaN, or has no size."""
        boxes = np.concatenate([np.empty((0, 4)), *(each.boxes for each in persons)])
        counts = tuple(len(each.scores) for each in persons)
        sized = (boxes[:, 2:] > boxes[:, :2]).all(-1) & np.isfinite(boxes).all(-1)
        places = np.flatnonzero(sized)
        owners = np.repeat(np.arange(len(persons)), counts)[places]
        return cls(boxes[places], owners, places, counts)

    def per_image(
        self, values: Float[np.ndarray, "boxed *any"], missing: float
    ) -> list[Float[np.ndarray, "person *any"]]:
        """Values of those who have a box, image by image, among those who have none."""
        whole = np.full((sum(self.counts), *values.shape[1:]), missing, values.dtype)
        whole[self.places] = values
        return np.split(whole, np.cumsum(self.counts)[:-1])


NOBODY = Detections(np.empty((0, 4)), np.empty(0), np.empty(0))
