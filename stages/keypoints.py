"""Keypoints: whole-body 2D keypoints of the persons in every frame of every camera."""

from pathlib import Path

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from models.backends import PoseEstimator, backend
from models.people import Detections, Poses
from models.vocabulary import Vocabulary, vocabulary, vocabulary_of_size
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.detect import batches
from stages.frames import image_sizes, read_frames
from stages.heatmap_file import FILE as HEATMAPS
from stages.heatmap_file import HeatmapWriter
from stages.poses import EXTERNAL, NOT_FOUND, read_poses
from stages.trial import Progress, Trial

NEEDS = ("frames", "detect")

Views = dict[str, tuple[np.ndarray, np.ndarray]]
"""By camera: positions (frame, person, keypoint, 2), px, NaN where not found, and confidences
(frame, person, keypoint), 0 there. Person 0 is the subject."""

OUTSIDE_SHARE = 0.2
"""Pose models guess some keypoints beyond the image's edge, but not so many."""


class Settings(BaseModel):
    """Options of the 2D keypoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(16, gt=0)
    """Frames given to the model at once: bounds the memory."""
    heatmaps: bool = False
    """Keep the pose model's heatmaps for volumetric triangulation: about 0.1 MB a frame and camera,
    some 5 kB compressed."""


def find_keypoints(
    video: Path,
    detections: xr.Dataset,
    estimator: PoseEstimator,
    settings: Settings,
    progress: Progress,
    heatmaps: HeatmapWriter | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Run the pose model on one camera's persons; keep its heatmaps where they can be written.

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
        images = [image for _, _, image in batch]
        found = estimator.estimate(images, regions, with_maps=heatmaps is not None)
        for (index, _, _), pose in zip(batch, found, strict=True):
            if heatmaps and pose.maps:
                heatmaps.keep(str(detections.camera.values), index, pose.maps)
        poses += [Poses(each.keypoints, each.confidences) for each in found]
        progress(len(poses), len(boxes))
    return np.stack([each.keypoints for each in poses]), np.stack(
        [each.confidences for each in poses]
    )


def as_dataset(views: Views, frames: int, names: tuple[str, ...]) -> xr.Dataset:
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


def estimate_keypoints(
    trial: Trial,
    detections: xr.Dataset,
    settings: Settings,
    progress: Progress,
    heatmaps: HeatmapWriter | None,
) -> tuple[Views, dict[str, str]]:
    """Run the pose model on every camera's video; return its keypoints, and what they are."""
    chosen = backend(detections.attrs["backend"])
    estimator, cameras = chosen.pose_estimator(), len(trial.videos)
    views = {}
    for index, (name, video) in enumerate(trial.videos.items()):
        views[name] = find_keypoints(
            video,
            detections.sel(camera=name),
            estimator,
            settings,
            lambda done, total, index=index: progress(index * total + done, cameras * total),
            heatmaps,
        )
        if not views[name][1][:, 0].any():
            raise PipelineError(
                f"camera {name}: a person was detected in {video}, but the pose model finds no "
                "keypoints on it. Is it a person, whole and large enough?"
            )
    return views, {
        "backend": chosen.name, "vocabulary": chosen.vocabulary, "citation": chosen.citation
    }  # fmt: skip


def heatmap_writer(trial: Trial, detections: xr.Dataset) -> HeatmapWriter:
    """Return where the heatmaps of the trial's videos are to be kept."""
    names = vocabulary(backend(detections.attrs["backend"]).vocabulary).keypoints
    return HeatmapWriter(list(trial.videos), detections.sizes["frame"], names)


def brought_keypoints(
    trial: Trial, detections: xr.Dataset, timeline: xr.Dataset
) -> tuple[Views, dict[str, str]]:
    """Return the keypoints that the session brings, in the order of the detections."""
    views = {}
    for name in trial.cameras:
        listed = read_poses(trial, name, timeline)
        place = detections.place.sel(camera=name).transpose("frame", "person").values
        place = place[: len(listed)]
        persons = np.take_along_axis(listed, place[..., None, None], axis=1)
        persons[place < 0] = NOT_FOUND
        views[name] = (persons[..., :2], persons[..., 2])
    names = vocabulary_of(trial, {name: view[1].shape[-1] for name, view in views.items()}).name
    citation = f"keypoints brought by the session ({names}): cite the pose model that found them"
    return views, {"backend": EXTERNAL, "vocabulary": names, "citation": citation}


def vocabulary_of(trial: Trial, counts: dict[str, int]) -> Vocabulary:
    """Return what brought keypoints are called: as the session says, or else by their number.

    `counts` are the keypoints of a person by camera. Raises PipelineError if they do not fit.
    """
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    if len(set(counts.values())) > 1:
        raise PipelineError(
            f"trial {trial.name}: the cameras differ in their number of keypoints a person: {listed}. "
            "Use those of one pose model."
        )
    count = next(iter(counts.values()))
    chosen = vocabulary(trial.keypoints) if trial.keypoints else vocabulary_of_size(count)
    if len(chosen.keypoints) != count:
        raise PipelineError(
            f"trial {trial.name} has {count} keypoints a person, but {chosen.name}, which session.toml "
            f'names, has {len(chosen.keypoints)}. Correct keypoints = "..." there, or leave it out.'
        )
    return chosen


def notices_about(views: Views, sizes: dict[str, tuple[int, int]]) -> list[str]:
    """What the user should know: frames without the subject, keypoints outside the image.

    `sizes` are the images' widths and heights, px, by camera.
    """
    notices = []
    for name, (position, confidence) in views.items():
        found = confidence[:, 0] > 0
        if (seen := found.any(-1).mean()) < 0.9:
            notices.append(f"camera {name}: keypoints in {seen:.0%} of the frames only.")
        at = position[:, 0][found]
        outside = ((at < 0) | (at > sizes[name])).any(-1).mean()
        if outside > OUTSIDE_SHARE:
            notices.append(
                f"camera {name}: {outside:.0%} of the keypoints lie outside its image of "
                f"{sizes[name][0]}x{sizes[name][1]} px. Are they of images of another size, or turned?"
            )
    return notices


def runs_network(trial: Trial, settings: Settings) -> bool:
    """Whether the stage asks for a worker with a GPU, where a batch has any."""
    return not trial.poses


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    if trial.poses:
        return {"poses": trial.poses, "keypoints": trial.keypoints}
    return {"videos": trial.videos}


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Find the keypoints of one trial, or take those that it brings; write `keypoints.nc`."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    detections = load_dataset(trial.folder("detect") / "detections.nc")
    if trial.poses:
        views, source = brought_keypoints(trial, detections, timeline)
    else:
        writer = heatmap_writer(trial, detections) if settings.heatmaps else None
        views, source = estimate_keypoints(trial, detections, settings, progress, writer)
        if writer:
            writer.write(out / HEATMAPS)
    names = vocabulary(source["vocabulary"]).keypoints
    labelled = as_dataset(views, detections.sizes["frame"], names)
    save_dataset(labelled.assign_attrs(source), out / "keypoints.nc")
    notices = notices_about(views, image_sizes(timeline))
    if settings.heatmaps and not (out / HEATMAPS).is_file():
        notices.append(f"no heatmaps were kept: the backend '{source['backend']}' has none.")
    return notices
