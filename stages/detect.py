"""Detect: where persons are, in every frame of every camera, and which of them is the subject."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from scipy.interpolate import make_interp_spline

from models.assets import fingerprints
from models.backends import backend
from models.people import Detections
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.frames import read_frames
from stages.poses import EXTERNAL, boxes_around, read_poses
from stages.series import fill_short_gaps
from stages.trial import Progress, Trial

NEEDS = ("frames",)

FOLLOW_OVERLAP = 0.2
"""A person's boxes in neighbouring frames overlap at least this much (intersection over union)."""


NOBODY = {"box": np.nan, "rotation": np.nan, "score": 0.0, "place": -1}
"""What the arrays hold where there is no person."""

LINEAR = partial(make_interp_spline, k=1)
"""For boxes: they only say where to look, and the pose model then says if a person is there."""


class Settings(BaseModel):
    """Options of the person detection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str = "blazepose"
    """Whose detector and pose model to use; see `pipeline models list`."""
    batch_size: int = Field(16, gt=0)
    """Frames given to the detector at once: bounds the memory."""
    max_persons: int = Field(3, gt=0)
    """Persons kept in each frame."""
    max_gap_s: float = Field(0.2, ge=0)
    """The subject's box is carried on across gaps of detection up to this long."""


def follow_subject(
    boxes: Float[np.ndarray, "frame person 4"], max_gap_frames: int
) -> Int[np.ndarray, "frame"]:
    """Index of the subject among each frame's persons; -1 where the subject was not found.

    Starts at the largest box of the trial, as the subject of a recording is near and whole, and
    follows it forwards and backwards by overlap. Where nobody overlaps for longer than
    `max_gap_frames`, the largest person is taken anew.
    """
    size = np.nan_to_num((boxes[..., 2:] - boxes[..., :2]).prod(-1), nan=-1.0)
    chosen = np.full(len(boxes), -1)
    start, person = np.unravel_index(size.argmax(), size.shape)
    chosen[start] = person
    for way in (1, -1):
        last, gap = boxes[start, person], 0
        frame = start + way
        while 0 <= frame < len(boxes):
            overlap = _overlap(last, boxes[frame])
            best = int(overlap.argmax())
            if overlap[best] >= FOLLOW_OVERLAP:
                chosen[frame] = best
            elif gap >= max_gap_frames and size[frame].max() > 0:
                chosen[frame] = int(size[frame].argmax())
            gap = 0 if chosen[frame] >= 0 else gap + 1
            last = boxes[frame, chosen[frame]] if chosen[frame] >= 0 else last
            frame += way
    return chosen


def _overlap(box, others):
    shared = np.clip(
        np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None
    ).prod(-1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(-1) - shared
    return np.nan_to_num(shared / union, nan=0.0)


def stack(detections: list[Detections], max_persons: int) -> dict[str, np.ndarray]:
    """Arrays by name of `NOBODY`, the best persons first. `place` counts them as detected."""
    frames = len(detections)
    arrays = {
        "box": np.full((frames, max_persons, 4), np.nan),
        "rotation": np.full((frames, max_persons), np.nan),
        "score": np.zeros((frames, max_persons)),
        "place": np.full((frames, max_persons), -1),
    }
    for index, found in enumerate(detections):
        count = min(len(found.scores), max_persons)
        arrays["box"][index, :count] = found.boxes[:count]
        arrays["rotation"][index, :count] = found.rotations[:count]
        arrays["score"][index, :count] = found.scores[:count]
        arrays["place"][index, :count] = np.arange(count)
    return arrays


def subject_first(arrays: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Reorder each frame's persons so that the subject is person 0, or nobody is."""
    persons = arrays["score"].shape[1]
    subject = np.where(chosen >= 0, chosen, persons)[:, None]
    order = np.argsort(np.arange(persons + 1) != subject, axis=1, kind="stable")[:, :persons]
    ordered = {}
    for name, values in arrays.items():
        padding = np.full_like(values[:, :1], NOBODY[name])
        padded = np.concatenate([values, padding], axis=1)
        ordered[name] = np.take_along_axis(
            padded, order.reshape(*order.shape, *[1] * (values.ndim - 2)), 1
        )
    return ordered


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Yield lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def as_dataset(views: dict[str, dict[str, np.ndarray]], frames: int, persons: int) -> xr.Dataset:
    """Label the persons of all cameras; cameras with fewer frames or persons are padded."""

    def gather(name):
        padded = []
        for view in views.values():
            count = view[name].shape[1]
            pad = ((0, frames - len(view[name])), (0, persons - count))
            pad += ((0, 0),) * (view[name].ndim - 2)
            padded.append(np.pad(view[name], pad, constant_values=NOBODY[name]))
        return np.stack(padded)

    person = ("camera", "frame", "person")
    return xr.Dataset(
        {
            "box": ((*person, "corner"), gather("box"), {"units": "px"}),
            "rotation": (person, gather("rotation"), {"units": "rad"}),
            "score": (person, gather("score"), {"units": "1"}),
            "place": (person, gather("place"), {"units": "1"}),
        },
        coords={"camera": list(views), "corner": ["x1", "y1", "x2", "y2"]},
    )


def notices_about(views: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """What the user should know: frames without the subject, other people in view."""
    notices = []
    for name, view in views.items():
        found = (view["score"][:, 0] > 0).mean()
        if found < 0.9:
            notices.append(
                f"camera {name}: the subject was found in {found:.0%} of the frames only."
            )
        several = (view["score"] > 0).sum(1) > 1
        if several.mean() > 0.02:
            notices.append(
                f"camera {name}: other people in {several.mean():.0%} of the frames. The largest "
                "person is followed: check, best in the overlay video, that it is the subject."
            )
    return notices


def runs_network(trial: Trial, settings: Settings) -> bool:
    """Whether the stage asks for a worker with a GPU, where a batch has any."""
    return not trial.poses


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    if trial.poses:
        return {"poses": trial.poses}
    return {"videos": trial.videos, "assets": fingerprints(backend(settings.backend).assets)}


def detect_persons(
    trial: Trial, timeline: xr.Dataset, settings: Settings, progress: Progress
) -> dict[str, dict[str, np.ndarray]]:
    """Run the detector on each camera's video; return its persons, the subject first."""
    detector = backend(settings.backend).detector()
    total = int(np.isfinite(timeline.frame_time).sum())
    views, done = {}, 0
    for name, video in trial.videos.items():
        found: list[Detections] = []
        for batch in batches(read_frames(video), settings.batch_size):
            found += detector.detect([image for _, _, image in batch])
            progress(done + len(found), total)
        done += len(found)
        arrays = stack(found, settings.max_persons)
        if not arrays["score"].any():
            raise PipelineError(
                f"camera {name}: no person found in {video}. Is it the right video, upright, with "
                f"the person large enough? Leave the camera out with cameras = [...] in session.toml."
            )
        gap = _gap_frames(timeline, name, settings)
        arrays = subject_first(arrays, follow_subject(arrays["box"], gap))
        for region in ("box", "rotation"):
            arrays[region][:, 0] = fill_short_gaps(arrays[region][:, 0], gap, LINEAR)
        views[name] = arrays
    return views


def brought_persons(
    trial: Trial, timeline: xr.Dataset, settings: Settings
) -> dict[str, dict[str, np.ndarray]]:
    """Return the persons of each camera's brought keypoints, the subject first."""
    views = {}
    for name in trial.cameras:
        arrays = boxes_around(read_poses(trial, name, timeline))
        if not arrays["score"].any():
            raise PipelineError(
                f"camera {name}: nobody in {trial.poses[name]} has enough keypoints with confidence. "
                "Are they the right files? Leave the camera out with cameras = [...] in session.toml."
            )
        chosen = follow_subject(arrays["box"], _gap_frames(timeline, name, settings))
        arrays = subject_first(arrays, chosen)
        views[name] = {key: values[:, : settings.max_persons] for key, values in arrays.items()}
    return views


def _gap_frames(timeline: xr.Dataset, camera: str, settings: Settings) -> int:
    return round(settings.max_gap_s * float(timeline["rate_hz"].sel(camera=camera)))


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Find the persons in one trial's videos or brought keypoints; write `detections.nc`."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    if trial.poses:
        views = brought_persons(trial, timeline, settings)
    else:
        views = detect_persons(trial, timeline, settings, progress)
    labelled = as_dataset(views, timeline.sizes["frame"], settings.max_persons)
    labelled.attrs["backend"] = EXTERNAL if trial.poses else settings.backend
    save_dataset(labelled, out / "detections.nc")
    return notices_about(views)
