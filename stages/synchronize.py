"""Synchronize: cameras' clocks from the movement, and keypoints onto one common timeline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field

from calibration import Camera, read_cameras
from models.clock_search import Search
from models.clocks import Clocks
from models.synchronization import Track
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.clocks import Decision, decide, without_search
from stages.frames import image_sizes
from stages.persons import (
    Choice,
    Subject,
    choose_subject,
    clocks_of_everyone,
    find_people,
    of_subject,
    only_person,
    several_in_view,
    through_lens,
    views_of,
)
from stages.trial import Progress, Trial

NEEDS = ("frames", "keypoints")


class Settings(BaseModel):
    """Options of the synchronisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["motion", "clocks"] = "motion"
    """Find out when cameras started from what they saw, or trust their clocks (and the session's
    `clock_offsets_s`) unseen, as those of cameras that are started together by a wire."""
    max_offset_s: float = Field(10.0, ge=0.5, le=60)
    """Cameras are started within so many seconds of each other."""
    max_gap_frames: float = Field(1.5, gt=0)
    """Two frames of a camera farther apart than this, in its own frame intervals, are not
    interpolated between: what happened there was not filmed."""
    person: Choice = "largest"
    """Who is followed where several people are in view: the largest and longest in view of all cameras
    together, who is nearest to the images' middles, or a number, 1 being the largest."""


def resample(
    values: Float[np.ndarray, "frame *values"],
    frame_time: Float[np.ndarray, "frame"],
    time: Float[np.ndarray, "time"],
    max_gap_s: float,
) -> Float[np.ndarray, "time *values"]:
    """Interpolate linearly between the two frames around each time, in seconds.

    NaN outside the recording, across gaps longer than `max_gap_s`, and where either frame is NaN.
    A time that is a frame's own, to within 0.1 ms, takes that frame's value unchanged.
    """
    after = np.clip(np.searchsorted(frame_time, time), 1, len(frame_time) - 1)
    before = after - 1
    gap = frame_time[after] - frame_time[before]
    share = (time - frame_time[before]) / gap
    share = np.where(np.abs(time - frame_time[before]) < 1e-4, 0.0, share)
    share = np.where(np.abs(time - frame_time[after]) < 1e-4, 1.0, share)
    between = (share >= 0) & (share <= 1) & ((gap <= max_gap_s) | (share == 0) | (share == 1))
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    # Not a weighted sum of both: a neighbour's NaN must not spoil an exact match.
    mixed = values[before] * (1 - share) + values[after] * share
    mixed = np.where(share == 0, values[before], np.where(share == 1, values[after], mixed))
    return np.where(between.reshape(share.shape), mixed, np.nan)


def common_timeline(
    clocks: dict[str, Float[np.ndarray, "frame"]], rate_hz: float
) -> Float[np.ndarray, "time"]:
    """Sample times, s, from when the last camera starts to when the first one stops.

    They are whole intervals from the session's time 0, where its reference camera has a frame: the frames
    of one camera at least are not interpolated. `clocks` are the cameras' frame times on the session's clock.

    Raises PipelineError if there is no such time.
    """
    start = max(clock[0] for clock in clocks.values())
    end = min(clock[-1] for clock in clocks.values())
    first, last = np.ceil(start * rate_hz - 1e-3), np.floor(end * rate_hz + 1e-3)
    if last <= first:
        spans = ", ".join(
            f"{name} {clock[0]:.2f}-{clock[-1]:.2f} s" for name, clock in clocks.items()
        )
        raise PipelineError(
            f"the cameras' recordings do not overlap in time: {spans}. Check clock_offsets_s in "
            "session.toml, and that these videos belong to one trial."
        )
    return np.arange(first, last + 1) / rate_hz


def own_clocks(timeline: xr.Dataset) -> dict[str, Float[np.ndarray, "frame"]]:
    """Each camera's frame times on its own clock, s."""
    return {
        str(name): timeline.frame_time.sel(camera=name).dropna("frame").values
        for name in timeline.camera.values
    }


def session_clocks(
    own: dict[str, Float[np.ndarray, "frame"]], clocks: Clocks
) -> dict[str, Float[np.ndarray, "frame"]]:
    """Each camera's frame times on the session's clock, s."""
    each = zip(own.items(), clocks.offset_s, clocks.rate, strict=True)
    return {name: offset + rate * time for (name, time), offset, rate in each}


def find_subject_and_clocks(
    trial: Trial, keypoints: xr.Dataset, timeline: xr.Dataset, settings: Settings
) -> tuple[Subject, Decision, xr.Dataset | None]:
    """Who is followed, the clocks of the cameras, and what the search for these found, if there was any.

    Where several people are in view, one needs the other: people are matched between the cameras with
    the cameras' own clocks, or roughly by everybody's movement; all that they do tells the clocks, and
    with these they are matched again.
    """
    own, given_s = own_clocks(timeline), trial.clock_offsets_s
    asked, names = trial.person or settings.person, list(own)
    several = several_in_view(keypoints)
    searched = settings.method != "clocks" and not set(given_s) >= set(names)
    decision, search = without_search(names, given_s), None
    if not (several or searched):
        return only_person(keypoints, asked), decision, None
    cameras, _ = read_cameras(trial.calibration, names, image_sizes(timeline))
    if several:
        tried = [session_clocks(own, decision.clocks)]
        if searched:
            views = views_of(keypoints, cameras, own)
            tried.append(clocks_of_everyone(views, names, given_s, settings.max_offset_s))
        people = find_people(keypoints, cameras, tried)
        moving = people.keypoints(keypoints)
    else:
        subject = only_person(keypoints, asked)
        moving = of_subject(keypoints, subject.person)
    if searched:
        tracks = tracks_of(moving, cameras, own)
        search = Search.of(tracks, settings.max_offset_s)
        decision = decide(names, tracks, search, given_s)
    if several:
        clocks = session_clocks(own, decision.clocks)
        subject = choose_subject(keypoints, find_people(keypoints, cameras, [clocks]), asked)
    return subject, decision, evidence(names, search, decision) if search else None


def tracks_of(
    subject: xr.Dataset, cameras: Sequence[Camera], own: dict[str, np.ndarray]
) -> list[Track]:
    """What each camera saw of the subject, through its lens, on its own clock."""
    tracks = []
    for camera in cameras:
        time_s = own[camera.name]
        image = through_lens(subject, camera, len(time_s))
        tracks.append(Track(time_s, image, camera.camera_from_world[:3]))
    return tracks


def on_timeline(
    subject: xr.Dataset,
    clocks: dict[str, Float[np.ndarray, "frame"]],
    time: Float[np.ndarray, "time"],
    max_gap_s: dict[str, float],
) -> xr.Dataset:
    """Put the subject's keypoints onto a common timeline.

    `clocks` are the cameras' frame times on it. Keypoints are interpolated, never images. Confidence is
    interpolated likewise, and 0 where there is no position.
    """
    positions, confidences = [], []
    for name in map(str, subject.camera.values):
        clock, gap_s = clocks[name], max_gap_s[name]
        view = subject.sel(camera=name).isel(frame=slice(len(clock)))
        position = view.position.transpose("frame", "keypoint", "axis").values
        confidence = view.confidence.transpose("frame", "keypoint").values
        positions.append(resample(position, clock, time, gap_s))
        sampled = resample(confidence, clock, time, gap_s)
        confidences.append(np.where(np.isfinite(positions[-1]).all(-1), sampled, 0.0))
    view = ("camera", "time", "keypoint")
    return xr.Dataset(
        {
            "position": ((*view, "axis"), np.stack(positions), {"units": "px"}),
            "confidence": (view, np.nan_to_num(np.stack(confidences)), {"units": "1"}),
        },
        coords={
            "camera": subject.camera,
            "time": ("time", time, {"units": "s"}),
            "keypoint": subject.keypoint,
            "axis": ["x", "y"],
        },
    )


def clock_variables(decision: Decision) -> dict[str, tuple]:
    """The clocks that were decided on, as variables of a dataset."""
    clocks = decision.clocks
    return {
        "clock_offset": ("camera", clocks.offset_s, {"units": "s"}),
        "clock_rate": ("camera", clocks.rate, {"units": "1"}),
        "clock_uncertainty": ("camera", clocks.error_s, {"units": "s"}),
        "clock_source": ("camera", decision.source),
    }


def evidence(names: Sequence[str], search: Search, decision: Decision) -> xr.Dataset:
    """Agreement of each camera with the others over its offset, for the report."""
    curves = search.curves(search.in_steps(decision.clocks.offset_s))
    return xr.Dataset(
        {"agreement": (("camera", "offset"), curves, {"units": "1"})} | clock_variables(decision),
        coords={"camera": list(names), "offset": ("offset", search.lags_s, {"units": "s"})},
    )


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    found = {"clock_offsets_s": trial.clock_offsets_s, "calibration": trial.calibration}
    return found | ({"person": trial.person} if trial.person else {})


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Find the subject and the cameras' clocks, and resample the keypoints into `keypoints.nc`."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    keypoints = load_dataset(trial.folder("keypoints") / "keypoints.nc")
    subject, decision, searched = find_subject_and_clocks(trial, keypoints, timeline, settings)
    if searched is not None:
        save_dataset(searched, out / "evidence.nc")
    clocks = session_clocks(own_clocks(timeline), decision.clocks)
    rates_hz = dict(zip(clocks, timeline["rate_hz"].values, strict=True))
    gaps_s = {name: settings.max_gap_frames / rate for name, rate in rates_hz.items()}
    time = common_timeline(clocks, timeline.attrs["rate_hz"])
    synchronized = on_timeline(of_subject(keypoints, subject.person), clocks, time, gaps_s)
    synchronized = synchronized.assign(clock_variables(decision))
    synchronized["subject"] = (("camera", "frame"), subject.person)
    who = {"person": subject.number, "people": subject.people}
    save_dataset(synchronized.assign_attrs(keypoints.attrs | who), out / "keypoints.nc")
    return subject.notices + decision.notices
