"""What a pose backend must do, and the ones there are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from models import blazepose
from models.people import Detections, Poses
from pipeline.errors import PipelineError

Image = UInt8[np.ndarray, "height width 3"]


class Detector(Protocol):
    """Finds persons in images."""

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """Return the persons of each BGR image, best first."""


class PoseEstimator(Protocol):
    """Finds the keypoints of persons whose boxes are known."""

    def estimate(
        self, images: Sequence[Image], persons: Sequence[Detections], with_maps: bool = False
    ) -> list[Poses]:
        """Return the keypoints of each image's persons, in the persons' order.

        With their heatmaps if asked for, and if the model has any.
        """


@dataclass(frozen=True)
class Backend:
    """A detector and a pose model that belong together."""

    name: str
    vocabulary: str
    assets: tuple[str, ...]
    detector: Callable[[], Detector]
    pose_estimator: Callable[[], PoseEstimator]
    citation: str


BACKENDS = {
    "blazepose": Backend(
        "blazepose",
        "blazepose-33",
        blazepose.ASSETS,
        blazepose.BlazePoseDetector,
        blazepose.BlazePoseEstimator,
        blazepose.CITATION,
    )
}


def backend(name: str) -> Backend:
    """Return a backend by name. Raises PipelineError, with the names there are, if unknown."""
    if name not in BACKENDS:
        raise PipelineError(f"there is no backend '{name}'. There are: {', '.join(BACKENDS)}")
    return BACKENDS[name]
