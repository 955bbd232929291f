"""Detect: where persons are, in every frame of every camera, each followed over time."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from scipy.interpolate import make_interp_spline

from models.backends import citation, fingerprints, make_detector
from models.choice import Choice, choose, summary
from models.overlap import overlapped
from models.people import SEVERAL, Detections
from models.tracking import persons_of, track
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.frames import read_frames
from stages.poses import EXTERNAL, boxes_around, read_poses
from stages.series import fill_short_gaps
from stages.trial import Progress, Trial

NEEDS = ("frames",)

NOBODY = {"box": np.nan, "rotation": np.nan, "score": 0.0, "place": -1, "track": -1}
"""What the arrays hold where there is no person."""

LEAST_S = 0.25
"""Who beside the first person is seen for a shorter time is not followed."""

DETECT_EVERY = {"blazepose": 1, "rtm": 4, "mm": 4}
"""Frames, by backend. A person moves little in 4 of them beside the margin of a box."""

LINEAR = partial(make_interp_spline, k=1)
"""For boxes: they only say where to look, and the pose model then says if a person is there."""


class Settings(BaseModel):
    """Options of the person detection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["auto", "blazepose", "rtm", "mm"] = "auto"
    """What runs the models: BlazePose's own, ONNX Runtime, or OpenMMLab. By itself, what is
    installed for the best pair of models that is fetched."""
    quality: Literal["fast", "balanced", "best"] | None = None
    """Picks a pair of models; see `pipeline models list`."""
    detector: str = ""
    """By name, or a file: .onnx, or OpenMMLab's configuration; by itself, a pair's."""
    detector_weights: str = ""
    """A checkpoint for OpenMMLab's configuration; by itself, the registered one."""
    pose_model: str = ""
    """As for the detector."""
    pose_weights: str = ""
    """As for the detector."""
    vocabulary: str = ""
    """What the keypoints of a pose model from a file are called, where their number does not say."""
    device: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """What the models run on; by itself, a GPU where there is one."""
    detect_every: int | None = Field(None, gt=0)
    """Look for persons in every n-th frame, and interpolate their boxes in between; every frame for
    BlazePose, whose boxes say how the body is turned, and every 4th for others if not given."""
    batch_size: int = Field(16, gt=0)
    """Frames given to the detector at once: bounds the memory."""
    max_persons: int = Field(3, gt=0)
    """Persons followed at a time in each view: those seen largest and longest."""
    max_gap_s: float = Field(0.2, ge=0)
    """A person's box is carried on across gaps of detection up to this long."""


def stack(detections: list[Detections]) -> dict[str, np.ndarray]:
    """Arrays (frame, person, …) by name, the best persons first. `place` counts them as detected."""
    shape = len(detections), max(len(found.scores) for found in detections)
    arrays = {
        "box": np.full((*shape, 4), np.nan),
        "rotation": np.full(shape, np.nan),
        "score": np.zeros(shape),
        "place": np.full(shape, -1),
    }
    for index, found in enumerate(detections):
        count = len(found.scores)
        arrays["box"][index, :count] = found.boxes
        arrays["rotation"][index, :count] = found.rotations
        arrays["score"][index, :count] = found.scores
        arrays["place"][index, :count] = np.arange(count)
    return arrays


def by_person(
    arrays: dict[str, np.ndarray],
    looked: Int[np.ndarray, "look"],
    time_s: Float[np.ndarray, "frame"],
    rate_hz: float,
    settings: Settings,
) -> dict[str, np.ndarray]:
    """Follow the persons who were found in some frames, and spread them over all frames.

    Each place on the person axis is of one person, or of several one after the other: `track` counts
    them. Boxes and rotations are interpolated between the looks before and after, and across gaps of
    up to `max_gap_s`, or of one look in which somebody was missed: as the video is recorded, both
    neighbours in time are known, which is better than carrying the last box forwards. Between looks,
    the score is the lower one of the neighbours'.
    """
    found = arrays | {"track": track(arrays["box"], arrays["score"], time_s[looked])}
    step = int(np.diff(looked, prepend=looked[0]).max(initial=1))
    least = max(2, round(LEAST_S * rate_hz / step))
    persons = persons_of(found["track"], found["box"], settings.max_persons, least)
    longest = max(round(settings.max_gap_s * rate_hz), 2 * step - 1 if step > 1 else 0)
    spread = {
        name: np.full(
            (len(time_s), settings.max_persons, *values.shape[2:]), NOBODY[name], values.dtype
        )
        for name, values in found.items()
    }
    for number in np.unique(persons[persons >= 0]):
        person = int((persons == number).any(0).argmax())
        look, place = np.nonzero(found["track"] == number)
        for name, values in one_track(
            {name: values[look, place] for name, values in found.items()},
            looked,
            look,
            len(time_s),
            longest,
        ).items():
            there = slice(looked[look[0]], looked[look[-1]] + 1)
            spread[name][there, person] = values[there]
    return spread


def one_track(
    seen: dict[str, np.ndarray], looked: np.ndarray, look: np.ndarray, frames: int, longest: int
) -> dict[str, np.ndarray]:
    """What was seen of a track in some of the looks, on all frames; see `by_person`."""
    track = {}
    for name, values in seen.items():
        track[name] = np.full((frames, *values.shape[1:]), NOBODY[name], values.dtype)
        track[name][looked[look]] = np.unwrap(values) if name == "rotation" else values
    for region in ("box", "rotation"):
        track[region] = fill_short_gaps(track[region], longest, LINEAR)
    after = np.searchsorted(looked, np.arange(frames)).clip(max=len(looked) - 1)
    before = np.searchsorted(looked, np.arange(frames), side="right") - 1
    at_looks = track["score"][looked]
    track["score"] = np.minimum(at_looks[before], at_looks[after])
    track["track"] = np.where(np.isfinite(track["box"]).all(-1), seen["track"][0], NOBODY["track"])
    return track


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Yield lists of at most `size` items."""
    iterator = iter(items)
    yield from iter(lambda: list(islice(iterator, size)), [])


def as_dataset(views: dict[str, dict[str, np.ndarray]], frames: int) -> xr.Dataset:
    """Label the persons of all cameras; cameras with fewer frames are padded."""

    def gather(name):
        padded = []
        for view in views.values():
            pad = ((0, frames - len(view[name])), *((0, 0),) * (view[name].ndim - 1))
            padded.append(np.pad(view[name], pad, constant_values=NOBODY[name]))
        return np.stack(padded)

    person = ("camera", "frame", "person")
    return xr.Dataset(
        {
            "box": ((*person, "corner"), gather("box"), {"units": "px"}),
            "rotation": (person, gather("rotation"), {"units": "rad"}),
            "score": (person, gather("score"), {"units": "1"}),
            "place": (person, gather("place"), {"units": "1"}),
            "track": (person, gather("track"), {"units": "1"}),
        },
        coords={"camera": list(views), "corner": ["x1", "y1", "x2", "y2"]},
    )


def notices_about(views: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """What the user should know: frames without anybody, other people in view."""
    notices = []
    for name, view in views.items():
        persons = (view["score"] > 0).sum(1)
        if (found := (persons > 0).mean()) < 0.9:
            notices.append(f"camera {name}: a person was found in {found:.0%} of the frames only.")
        if (several := (persons > 1).mean()) > SEVERAL:
            notices.append(f"camera {name}: several people in {several:.0%} of the frames.")
    return notices


def runs_network(trial: Trial, settings: Settings) -> bool:
    """Whether the stage asks for a worker with a GPU, where a batch has any."""
    return not trial.poses


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages.

    Raises PipelineError if the models that are asked for cannot run.
    """
    if trial.poses:
        return {"poses": trial.poses}
    return {"videos": trial.videos, "models": fingerprints(choose(settings))}


def frames_to_look_at(frames: int, every: int) -> Int[np.ndarray, "look"]:
    """Every n-th frame from the first on, and the last one."""
    return np.unique(np.append(np.arange(0, frames, every), frames - 1))


def detect_persons(
    trial: Trial, timeline: xr.Dataset, choice: Choice, settings: Settings, progress: Progress
) -> dict[str, dict[str, np.ndarray]]:
    """Run the detector on each camera's video; return its persons."""
    detector = make_detector(choice)
    every = settings.detect_every or DETECT_EVERY[choice.backend]
    frames = np.isfinite(timeline.frame_time).sum("frame").to_series()
    views, done = {}, 0
    for name, video in trial.videos.items():
        looked = frames_to_look_at(frames[name], every)
        found: list[Detections] = []
        for persons in overlapped(
            batches(read_frames(video, set(looked.tolist())), settings.batch_size),
            lambda batch: detector.prepare([image for _, _, image in batch]),
            detector.infer,
            detector.read,
        ):
            found += persons
            progress(done + int(looked[len(found) - 1]) + 1, int(frames.sum()))
        done += int(frames[name])
        arrays = stack(found)
        if not arrays["score"].any():
            raise PipelineError(
                f"camera {name}: no person found in {video}. Is it the right video, upright, with "
                f"the person large enough? Leave the camera out with cameras = [...] in session.toml."
            )
        views[name] = by_person(arrays, looked, *own_clock(timeline, name), settings)
    return views


def brought_persons(
    trial: Trial, timeline: xr.Dataset, settings: Settings
) -> dict[str, dict[str, np.ndarray]]:
    """Return the persons of each camera's brought keypoints."""
    views = {}
    for name in trial.cameras:
        arrays = boxes_around(read_poses(trial, name, timeline))
        if not arrays["score"].any():
            raise PipelineError(
                f"camera {name}: nobody in {trial.poses[name]} has enough keypoints with confidence. "
                "Are they the right files? Leave the camera out with cameras = [...] in session.toml."
            )
        looked = np.arange(len(arrays["score"]))
        views[name] = by_person(arrays, looked, *own_clock(timeline, name), settings)
    return views


def own_clock(timeline: xr.Dataset, camera: str) -> tuple[Float[np.ndarray, "frame"], float]:
    """A camera's frame times on its own clock, s, and its frames per second."""
    view = timeline.sel(camera=camera)
    return view.frame_time.dropna("frame").values, float(view["rate_hz"])


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Find the persons in one trial's videos or brought keypoints; write `detections.nc`."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    notices = []
    if trial.poses:
        source = {"backend": EXTERNAL}
        views = brought_persons(trial, timeline, settings)
    else:
        choice = choose(settings)
        source = models_of(choice)
        notices.append(f"models: {summary(choice)}.")
        views = detect_persons(trial, timeline, choice, settings, progress)
    labelled = as_dataset(views, timeline.sizes["frame"])
    save_dataset(labelled.assign_attrs(source), out / "detections.nc")
    return notices + notices_about(views)


def models_of(choice: Choice) -> dict[str, str]:
    """What later stages must know of the models, as attributes of a dataset.

    With the hashes of their files, so that other weights of the same name change what follows.
    """
    hashes = json.dumps(fingerprints(choice), sort_keys=True)
    return asdict(choice) | {"citation": citation(choice), "models": hashes}
