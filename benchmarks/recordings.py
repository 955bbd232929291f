"""Simulated recordings by cameras that are started by hand, seconds apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from models.simulation.detector import Clocks, Errors, appearance_offsets
from models.simulation.repeated import performed
from models.simulation.rig import miscalibrated, place_cameras
from models.simulation.scene import Scene, View, make_scene, observe, random_for
from models.synchronization import Track
from models.vocabulary import vocabulary
from pipeline.simulate import Plan, marked_keypoints, person_of
from stages.persons import MIN_CONFIDENCE

MOVEMENTS = ("squats", "gait", "sit-to-stand")
RATES_HZ = {"30": (30.0,), "60": (60.0,), "120": (120.0,), "mixed": (60.0, 30.0, 120.0, 60.0)}
CAMERAS = (2, 3, 4)
CLOCKS = Clocks(start_spread_s=5.0)
NAMES = vocabulary("halpe-26").keypoints


@dataclass(frozen=True)
class Case:
    """One recording."""

    motion: str
    rates: str
    cameras: int
    seed: int


@dataclass(frozen=True)
class Film:
    """What the cameras of a case saw, and when they were started."""

    case: Case
    views: dict[str, View]
    """By camera; keypoints in px, of the frames that were not lost."""
    tracks: list[Track]
    """The same through the lens, on each camera's own clock."""
    offset_s: Float[np.ndarray, "camera"]
    """What to add to each camera's own clock for that of the first one."""
    rates_hz: Float[np.ndarray, "camera"]

    def truths(self) -> Iterator[dict]:
        """A row for each camera whose clock is to be found: what it is, the truth, and half a frame."""
        for index, name in list(enumerate(self.views))[1:]:
            yield {
                "movement": self.case.motion, "seed": self.case.seed, "rate (Hz)": self.case.rates,
                "cameras": self.case.cameras, "camera": name, "offset": self.offset_s[index],
                "half": 0.5 / min(self.rates_hz[0], self.rates_hz[index]),
            }  # fmt: skip


def cases(seeds: Sequence[int]) -> list[Case]:
    """Every movement, frame rate and number of cameras."""
    return [
        Case(motion, rates, cameras, seed)
        for seed in seeds
        for motion in MOVEMENTS
        for rates in RATES_HZ
        for cameras in CAMERAS
    ]


def scene_of(motion: str, seed: int) -> Scene:
    """A random person who repeats a movement for as long as it takes."""
    person, model = person_of(Plan(model="pose2sim", seed=seed))
    angles = performed(motion, model, seed, "motion", CLOCKS.needed_s)
    random = random_for(seed, "appearance")
    return make_scene(
        person, model, angles, appearance_offsets(marked_keypoints(NAMES), Errors(), random)
    )


def film(scene: Scene, case: Case) -> Film:
    """Film a scene with the cameras of a case."""
    target = scene.keypoints["midHip"].mean(0)
    cameras = place_cameras(case.cameras, target, random_for(case.seed, "cameras"))
    rates = np.resize(RATES_HZ[case.rates], case.cameras)
    views, tracks, offsets = {}, [], []
    for camera, rate in zip(cameras, rates, strict=True):
        known = miscalibrated(camera, 1.0, random_for(case.seed, f"calibrate {camera.name}"))
        trial = f"{case.motion} {case.rates} {case.cameras}"
        view = observe(scene, camera, NAMES, rate, Errors(), case.seed, trial, CLOCKS)
        sure = view.confidence >= MIN_CONFIDENCE
        image = known.undistort(np.where(sure[..., None], view.position, np.nan))
        views[camera.name] = view
        tracks.append(Track(view.number / rate, image, known.camera_from_world[:3]))
        offsets.append(view.time_s[0] - view.number[0] / rate)
    return Film(case, views, tracks, np.array(offsets) - offsets[0], rates)
