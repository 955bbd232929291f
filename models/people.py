"""Persons in an image: where they are, and where their keypoints are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

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


NOBODY = Detections(np.empty((0, 4)), np.empty(0), np.empty(0))
