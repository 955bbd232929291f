"""Persons: which of the people in view is the subject, in every frame of every camera."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from pydantic import Field

from calibration import Camera
from models.clock_search import Search
from models.people import SEVERAL
from models.people_in_view import Match, Person, match
from models.person_pieces import View
from models.synchronization import STEP_S, Track
from pipeline.errors import PipelineError

Choice = Literal["largest", "central"] | Annotated[int, Field(ge=1)]
"""Who is the subject: the largest and longest in view of all cameras together, who is nearest to the images'
middles, or a number: 1 is the largest."""

MIN_CONFIDENCE = 0.3
"""Keypoints that the pose model is less sure of tell neither the time nor who is who."""
CENTRAL_SIZE = 0.25
"""Of who is in view less large or long than this share of the first, none is the central one."""
BETTER = 1.2
"""Clocks by everyone's movement are taken for the match where poses fit so much better with them."""
LISTED = 4
"""So many times are named in a message."""

Clocks = Mapping[str, Float[np.ndarray, "frame"]]
"""Frame times by camera, s."""


@dataclass(frozen=True)
class Subject:
    """Who is followed."""

    person: Int[np.ndarray, "camera frame"]
    """The place of the subject among each frame's persons; -1 where they were not seen."""
    number: int
    """1 is the largest."""
    people: int
    """In view of two cameras at least."""
    notices: list[str]


def several_in_view(keypoints: xr.Dataset) -> bool:
    """Whether a camera shows several people in more than a few of its frames."""
    shown = (keypoints.confidence > 0).any("keypoint").sum("person") > 1
    return bool((shown.mean("frame") > SEVERAL).any())


def only_person(keypoints: xr.Dataset, asked: Choice) -> Subject:
    """The first person of each camera, where nobody else is in view.

    Raises PipelineError if another one is asked for.
    """
    _check(asked, 1)
    person = np.zeros((keypoints.sizes["camera"], keypoints.sizes["frame"]), int)
    return Subject(person, 1, 1, [])


def of_subject(
    keypoints: xr.Dataset, person: Int[np.ndarray, "camera frame"] | xr.DataArray
) -> xr.Dataset:
    """The subject's keypoints alone: NaN with confidence 0 where they were not seen.

    `person` is the subject's place among each frame's persons, -1 where they were not seen.
    """
    place = xr.DataArray(np.asarray(person), dims=("camera", "frame"))
    chosen = keypoints[["position", "confidence"]].isel(person=place.clip(min=0))
    chosen = chosen.where(place >= 0)
    return chosen.assign(confidence=chosen.confidence.fillna(0.0))


def through_lens(
    keypoints: xr.Dataset, camera: Camera, frames: int
) -> Float[np.ndarray, "frame *any keypoint 2"]:
    """Undistorted image coordinates of what a camera surely saw in its frames; else NaN."""
    view = keypoints.sel(camera=camera.name).isel(frame=slice(frames))
    dims = [dim for dim in ("frame", "person", "keypoint") if dim in view.dims]
    sure = view.confidence.transpose(*dims).values >= MIN_CONFIDENCE
    pixels = view.position.transpose(*dims, "axis").values
    return camera.undistort(np.where(sure[..., None], pixels, np.nan))


def views_of(keypoints: xr.Dataset, cameras: Sequence[Camera], clocks: Clocks) -> list[View]:
    """What each camera saw of everybody, through its lens."""
    return [
        View(
            clocks[camera.name],
            through_lens(keypoints, camera, len(clocks[camera.name])),
            camera.camera_from_world[:3],
        )
        for camera in cameras
    ]


def clocks_of_everyone(
    views: Sequence[View], names: Sequence[str], given_s: Mapping[str, float], max_offset_s: float
) -> dict[str, Float[np.ndarray, "frame"]]:
    """Frame times by camera on one clock, roughly, by how everybody in view moves."""
    tracks = [
        [
            Track(v.time_s, v.image[:, person], v.camera_from_world)
            for person in np.flatnonzero(v.seen.any(0))
        ]
        for v in views
    ]
    fixed = {names.index(name): round(offset / STEP_S) for name, offset in given_s.items()}
    steps = Search.of_everyone(tracks, max_offset_s).best(fixed or {0: 0})
    return {
        name: view.time_s + step * STEP_S
        for name, view, step in zip(names, views, steps, strict=True)
    }


@dataclass(frozen=True)
class People:
    """Everybody in view of two cameras at least."""

    match: Match
    views: list[View]
    """What the cameras saw, on the clocks with which they were matched."""

    def place(self, number: int, frames: int) -> Int[np.ndarray, "camera frame"]:
        """A person's (counted from 0) place among those of each frame; -1 where they were not seen."""
        pose = self.match.people[number].pose
        place = np.full((len(pose), frames), -1)
        for row, of_view in zip(place, pose, strict=True):
            row[: len(of_view)] = of_view
        return place

    def keypoints(self, keypoints: xr.Dataset) -> xr.Dataset:
        """Keypoints of all of them, one after the other on the keypoint axis."""
        frames = keypoints.sizes["frame"]
        each = [
            of_subject(keypoints, self.place(number, frames))
            for number in range(len(self.match.people))
        ]
        return xr.concat(each, "keypoint")


def find_people(
    keypoints: xr.Dataset, cameras: Sequence[Camera], clocks: Sequence[Clocks]
) -> People:
    """Match everybody in view between the cameras, with those clocks with which they fit best.

    Raises PipelineError if no two cameras see the same person.
    """
    best, seen = None, views_of(keypoints, cameras, clocks[0])
    for each in clocks:
        timed = zip(seen, cameras, strict=True)
        views = [replace(view, time_s=each[camera.name]) for view, camera in timed]
        found = match(views)
        if best is None or found.agreement_s > BETTER * best.match.agreement_s:
            best = People(found, views)
    if not best.match.people:
        raise PipelineError(
            "several people are in view, but no two cameras see the same one at a time: rays to their "
            "keypoints pass each other. Check that the calibration belongs to these recordings (names, "
            "moved cameras) and that their clocks can be found (clock_offsets_s in session.toml)."
        )
    return best


def choose_subject(keypoints: xr.Dataset, people: People, asked: Choice) -> Subject:
    """Follow one of the people through all cameras.

    Raises PipelineError if there are fewer than asked for.
    """
    count = len(people.match.people)
    _check(asked, count)
    index = _choose(people.match.people, asked)
    notices = _about(people.match, index, asked) + _exchanges(keypoints, people, index)
    return Subject(people.place(index, keypoints.sizes["frame"]), index + 1, count, notices)


def _check(asked: Choice, people: int) -> None:
    if isinstance(asked, int) and asked > people:
        raise PipelineError(
            f"there is no person {asked}: two cameras at least see "
            f"{f'{people} people' if people > 1 else 'one person'}, 1 being the largest in view. "
            f"Choose --person 1{f' to {people}' if people > 1 else ''}, or leave it out."
        )


def _choose(people: Sequence[Person], asked: Choice) -> int:
    if isinstance(asked, int):
        return asked - 1
    if asked == "largest":
        return 0
    large = [n for n, each in enumerate(people) if each.size >= CENTRAL_SIZE * people[0].size]
    return min(large, key=lambda number: people[number].off_centre)


def _about(found: Match, index: int, asked: Choice) -> list[str]:
    """Who was followed, how many others there are, and where they may be mistaken."""
    people, notices = found.people, []
    why = {"largest": ", the largest and longest in view", "central": ", the most central"}
    if len(people) > 1:
        notices.append(
            f"{len(people)} people are in view, and person {index + 1}{why.get(asked, '')} was followed. "
            "Check, best in the overlay video, that it is the subject. For another one: --person 1 to "
            f"{len(people)}, or central."
        )
    for person, time_s in found.returned_s:
        if person == index:
            notices.append(
                f"the subject was out of view before {time_s:.1f} s. Who came then is taken to be the "
                "same person: check it."
            )
    for other, each in enumerate(people):
        if each.steps[0] > people[index].steps[-1] or each.steps[-1] < people[index].steps[0]:
            notices.append(
                f"person {other + 1} is in view only when the subject is not, and could be the subject: "
                "who came into view cannot be told. The subject was not followed there."
            )
    for one, other, time_s in found.unsure_s:
        if index in (one, other):
            notices.append(
                f"persons {one + 1} and {other + 1} cannot be told apart for sure at {time_s:.1f} s: the "
                "cameras do not see enough of them there. Check who is followed from then on."
            )
    return notices


def _exchanges(keypoints: xr.Dataset, people: People, index: int) -> list[str]:
    """Where a camera's track passed from the subject to somebody else, or from them to the subject."""
    notices = []
    for camera, (name, view) in enumerate(zip(keypoints.camera.values, people.views, strict=True)):
        tracks = keypoints.track.sel(camera=name).transpose("frame", "person").values
        times = []
        for track in np.unique(tracks[tracks >= 0]):
            frames, place = np.nonzero(tracks[: len(view.time_s)] == track)
            who = np.full(len(frames), -1)
            for number, person in enumerate(people.match.people):
                who[person.pose[camera][frames] == place] = number
            known = np.flatnonzero(who >= 0)
            before, after = who[known[:-1]], who[known[1:]]
            changed = (before != after) & ((before == index) | (after == index))
            times += view.time_s[frames[known[1:][changed]]].tolist()
        if times:
            listed = ", ".join(f"{each:.1f}" for each in sorted(times)[:LISTED])
            more = ", …" if len(times) > LISTED else ""
            notices.append(
                f"camera {name}: its track changed between the subject and another person "
                f"{len(times)} times, at {listed}{more} s. The subject was followed on by where the "
                "cameras' rays meet."
            )
    return notices
