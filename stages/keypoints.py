"""Keypoints: whole-body 2D keypoints of the persons in every frame of every camera."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from models.backends import PoseEstimator, make_pose_estimator
from models.choice import choice_of
from models.overlap import estimate, overlapped
from models.people import Detections, PoseMaps, Poses
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
(frame, person, keypoint), 0 there."""

OUTSIDE_SHARE = 0.2
"""Pose models guess some keypoints beyond the image's edge, but not so many."""


CONFIDENT = 0.5
"""Of a keypoint that says where its person is."""
MARGIN = 1.2
"""Side of the region, per side of the box, within which confident keypoints are expected. Pose models
look at 1.25 (MMPose's top-down transform): what lies farther out is at the edge of what they see."""


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
    boxes = detections.box.transpose("frame", "person", "corner").values
    rotations = detections.rotation.transpose("frame", "person").values
    scores = detections.score.transpose("frame", "person").values
    name, turned = str(detections.camera.values), np.nan_to_num(rotations).any()
    model, poses = Lock(), []

    def prepare(batch):
        images = [image for _, _, image in batch]
        regions = [Detections(boxes[i], rotations[i], scores[i]) for i, _, _ in batch]
        return images, regions, estimator.prepare(images, regions, heatmaps is not None)

    def infer(prepared):
        with model:
            return estimator.infer(prepared[2])

    def read(prepared, outputs):
        images, regions, of_model = prepared
        found = estimator.read(of_model, outputs)
        if turned:  # squares around the whole body, with room to spare
            return found
        with model:
            return look_again(estimator, images, regions, found, heatmaps is not None)

    for found in overlapped(batches(read_frames(video), settings.batch_size), prepare, infer, read):
        for index, pose in enumerate(found, start=len(poses)):
            if heatmaps and pose.maps:
                heatmaps.keep(name, index, pose.maps)
        poses += [Poses(each.keypoints, each.confidences) for each in found]
        progress(len(poses), len(boxes))
    return np.stack([each.keypoints for each in poses]), np.stack(
        [each.confidences for each in poses]
    )


def look_again(
    estimator: PoseEstimator,
    images: Sequence[np.ndarray],
    regions: Sequence[Detections],
    poses: Sequence[Poses],
    with_maps: bool = False,
) -> list[Poses]:
    """Look once more, with a wider box, at persons whose keypoints reach the edge of what was seen.

    Such a box cuts the person off. The new one holds the old one and the confident keypoints. Of
    the two poses of a person, the more confident one is kept.
    """
    wider = [wider_boxes(each.boxes, pose) for each, pose in zip(regions, poses, strict=True)]
    places = [i for i, boxes in enumerate(wider) if np.isfinite(boxes).any()]
    if not places:
        return list(poses)
    again = [Detections(wider[i], regions[i].rotations, regions[i].scores) for i in places]
    found = estimate(estimator, [images[i] for i in places], again, with_maps)
    kept = list(poses)
    for place, second in zip(places, found, strict=True):
        kept[place] = more_confident(kept[place], second)
    return kept


def wider_boxes(boxes: np.ndarray, poses: Poses) -> np.ndarray:
    """Boxes (person, 4), px, to look again at persons that theirs cut off; NaN for all others."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    sure = (poses.confidences >= CONFIDENT)[..., None]
    apart = np.abs(poses.keypoints - middle[:, None]) > MARGIN * half[:, None]
    cut_off = (apart & sure).any((1, 2))
    low = np.where(sure, poses.keypoints, np.inf).min(1)
    high = np.where(sure, poses.keypoints, -np.inf).max(1)
    wider = np.hstack([np.minimum(boxes[:, :2], low), np.maximum(boxes[:, 2:], high)])
    return np.where(cut_off[:, None], wider, np.nan)


def more_confident(first: Poses, second: Poses) -> Poses:
    """Of each person's two poses, the one whose keypoints are more confident on average."""
    better = second.confidences.mean(-1) > first.confidences.mean(-1)

    def pick(one, other):
        return np.where(better.reshape(-1, *[1] * (one.ndim - 1)), other, one)

    maps = None
    if first.maps and second.maps:
        maps = PoseMaps(
            pick(first.maps.probability, second.maps.probability),
            pick(first.maps.map_from_image, second.maps.map_from_image),
        )
    return Poses(
        pick(first.keypoints, second.keypoints), pick(first.confidences, second.confidences), maps
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
    estimator, cameras = make_pose_estimator(choice_of(detections.attrs)), len(trial.videos)
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
        if not views[name][1].any():
            raise PipelineError(
                f"camera {name}: a person was detected in {video}, but the pose model finds no "
                "keypoints on it. Is it a person, whole and large enough?"
            )
    return views, {name: str(value) for name, value in detections.attrs.items()}


def heatmap_writer(trial: Trial, detections: xr.Dataset) -> HeatmapWriter:
    """Return where the heatmaps of the trial's videos are to be kept."""
    names = vocabulary(detections.attrs["vocabulary"]).keypoints
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
    """What the user should know: frames without anybody, keypoints outside the image.

    `sizes` are the images' widths and heights, px, by camera.
    """
    notices = []
    for name, (position, confidence) in views.items():
        found = confidence > 0
        if (seen := found.any((1, 2)).mean()) < 0.9:
            notices.append(f"camera {name}: keypoints in {seen:.0%} of the frames only.")
        at = position[:, 0][found[:, 0]]
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
    labelled["track"] = detections.track
    save_dataset(labelled.assign_attrs(source), out / "keypoints.nc")
    notices = notices_about(views, image_sizes(timeline))
    if settings.heatmaps and not (out / HEATMAPS).is_file():
        notices.append(f"no heatmaps were kept: the backend '{source['backend']}' has none.")
    return notices
