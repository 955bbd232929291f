"""Evidence: what was measured of a person in a trial, for one fit of their model and movement.

Plain data, on one timeline a trial. Places are in metres in the world, whose Y is up; NaN is unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class ImageEvidence:
    """2D keypoints in every view, each with the camera that saw them."""

    cameras: tuple[str, ...]
    names: tuple[str, ...]
    """Keypoints, of the pose model's vocabulary. Ones that have no place on the body are ignored."""
    image: Float[np.ndarray, "camera time keypoint 2"]
    """Undistorted image coordinates at focal length 1 (x right, y down); NaN where not seen. Left and
    right are put right already where a view exchanged them."""
    confidence: Float[np.ndarray, "camera time keypoint"]
    """The pose model's, 0 to 1; 0 where not seen."""
    camera_from_world: Float[np.ndarray, "camera 3 4"]
    """Rotation and translation (m) of each camera, whose Z looks forward and Y down."""


@dataclass(frozen=True)
class PointEvidence:
    """Places of points in space, each with its uncertainty."""

    names: tuple[str, ...]
    position: Float[np.ndarray, "time point 3"]
    """m; NaN where unknown."""
    standard_deviation: Float[np.ndarray, "time point"]
    """m, along an axis on average; NaN where it is unknown."""


@dataclass(frozen=True)
class TrialEvidence:
    """What was measured in one trial, and where a fit may start from."""

    name: str
    time_s: Float[np.ndarray, "time"]
    start: Mapping[str, Float[np.ndarray, "time 3"]] = field(default_factory=dict)
    """Smoothed keypoints and augmented markers by name, m: where a fit starts, not what it is fitted to."""
    images: ImageEvidence | None = None
    keypoints: PointEvidence | None = None
    """Triangulated, not smoothed, with the standard deviation of triangulation."""
    markers: PointEvidence | None = None
    """The augmenter's anatomical markers; their standard deviation is unknown (NaN)."""
    augmenter: str = "published"
    """Whose they are, of `augmented_markers`."""

    @property
    def points(self) -> set[str]:
        """Names of the points that the evidence is of."""
        found = (self.images, self.keypoints, self.markers)
        return {name for each in found if each for name in each.names}

    def every(self, step: int) -> "TrialEvidence":
        """Every so-manieth sample."""
        images, points = self.images, {"keypoints": self.keypoints, "markers": self.markers}
        thinned = {
            name: replace(
                each,
                position=each.position[::step],
                standard_deviation=each.standard_deviation[::step],
            )
            for name, each in points.items()
            if each
        }
        if images:
            thinned["images"] = replace(
                images, image=images.image[:, ::step], confidence=images.confidence[:, ::step]
            )
        start = {name: values[::step] for name, values in self.start.items()}
        return replace(self, time_s=self.time_s[::step], start=start, **thinned)
