"""Keypoints: whole-body 2D keypoints of the persons in every frame of every camera."""

from pathlib import Path

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from models.backends import PoseEstimator, backend
from models.people import Detections
from models.vocabulary import vocabulary
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.detect import batches
from stages.frames import read_frames
from stages.trial import Progress, Trial

NEEDS = ("frames", "detect")


class Settings(BaseModel):
    """Options of the 2D keypoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(16, gt=0)
    """Frames given to the model at once: bounds the memory."""


def find_keypoints(
    video: Path,
    detections: xr.Dataset,
    estimator: PoseEstimator,
    settings: Settings,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Run the pose model on one camera's persons.

    Returns positions (frame, person, keypoint, 2) in px of the upright image, NaN where there is
    nobody, and confidences (frame, person, keypoint), 0 there.
    """
    persons = detections.isel(person=slice(1))  # the subject
    boxes = persons.box.transpose("frame", "person", "corner").values
    rotations = persons.rotation.transpose("frame", "person").values
    scores = persons.score.transpose("frame", "person").values
    poses = []
    for batch in batches(read_frames(video), settings.batch_size):
        regions = [Detections(boxes[i], rotations[i], scores[i]) for i, _, _ in batch]
        poses += estimator.estimate([image for _, _, image in batch], regions)
        progress(len(poses), len(boxes))
    return np.stack([each.keypoints for each in poses]), np.stack(
        [each.confidences for each in poses]
    )


def as_dataset(
    views: dict[str, tuple[np.ndarray, np.ndarray]], frames: int, names: tuple[str, ...]
) -> xr.Dataset:
    """Label the keypoints of all cameras; cameras with fewer frames are padded."""
    positions, confidences = [], []
    for position, confidence in views.values():
        missing = frames - len(position)
        pad = ((0, missing), (0, 0), (0, 0))
        positions.append(np.pad(position, (*pad, (0, 0)), constant_values=np.nan))
        confidences.append(np.pad(confidence, pad))
    dims = ("camera", "frame", "person", "keypoint")
    return xr.Dataset(
        {
            "position": ((*dims, "axis"), np.stack(positions), {"units": "px"}),
            "confidence": (dims, np.stack(confidences), {"units": "1"}),
        },
        coords={"camera": list(views), "keypoint": list(names), "axis": ["x", "y"]},
    )


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    return {"videos": trial.videos}


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Find the keypoints in one trial's videos and write `keypoints.nc`."""
    detections = load_dataset(trial.folder("detect") / "detections.nc")
    chosen = backend(detections.attrs["backend"])
    estimator, cameras = chosen.pose_estimator(), len(trial.videos)
    views, notices = {}, []
    for index, (name, video) in enumerate(trial.videos.items()):
        position, confidence = find_keypoints(
            video,
            detections.sel(camera=name),
            estimator,
            settings,
            lambda done, total, index=index: progress(index * total + done, cameras * total),
        )
        seen = (confidence[:, 0] > 0).any(-1).mean()
        if not seen:
            raise PipelineError(
                f"camera {name}: a person was detected in {video}, but the pose model finds no "
                "keypoints on it. Is it a person, whole and large enough?"
            )
        if seen < 0.9:
            notices.append(f"camera {name}: keypoints in {seen:.0%} of the frames only.")
        views[name] = (position, confidence)
    names = vocabulary(chosen.vocabulary).keypoints
    labelled = as_dataset(views, detections.sizes["frame"], names)
    labelled.attrs = {
        "backend": chosen.name, "vocabulary": chosen.vocabulary, "citation": chosen.citation
    }  # fmt: skip
    save_dataset(labelled, out / "keypoints.nc")
    return notices
