"""Scene: a person who moves before cameras, with everything about it known exactly."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.interpolate import CubicSpline

from calibration import Camera
from models.augmenter import MARKERS
from models.opensim_model import body_poses, marker_positions, stripped_copy
from models.simulation import detector, landmarks
from models.simulation.detector import Clocks, Errors
from models.simulation.occlusion import hidden
from models.simulation.subject import Person

LOST_SHARE = 0.5
"""Who has more than this share of their keypoints behind another person is not found at all."""

Positions = dict[str, Float[np.ndarray, "time 3"]]


def random_for(seed: int, what: str) -> np.random.Generator:
    """Return a generator of its own for each thing that is drawn: one does not change the others."""
    return np.random.default_rng([seed, zlib.crc32(what.encode())])


@dataclass(frozen=True)
class Scene:
    """The truth about one trial; world Y up, m, samples at `motion.RATE_HZ`."""

    person: Person
    model: Any
    """The person's OpenSim model."""
    angles: pd.DataFrame
    """Coordinates, rad and m, indexed by seconds."""
    keypoints: Positions
    """Where a detector without noise marks this person."""
    joint_centers: Positions
    markers: Positions
    """The augmenter's 43 anatomical markers."""

    @property
    def time_s(self) -> Float[np.ndarray, "time"]:
        """Times of the samples."""
        return self.angles.index.to_numpy(float)


def make_scene(
    person: Person, model, angles: pd.DataFrame, offsets_m: Mapping[str, Float[np.ndarray, "3"]]
) -> Scene:
    """Put joint angles (rad and m) on a person's model; `offsets_m` as in `keypoint_positions`."""
    moving, _ = stripped_copy(model)
    angles_there = angles[[name for name in angles if moving.getCoordinateSet().contains(name)]]
    poses = body_poses(moving, angles_there)
    markers = marker_positions(moving, angles_there, MARKERS)
    return Scene(
        person,
        model,
        angles,
        landmarks.keypoint_positions(poses, offsets_m),
        landmarks.joint_centers(poses),
        dict(zip(MARKERS, np.moveaxis(markers, 1, 0), strict=True)),
    )


@dataclass(frozen=True)
class View:
    """What a detector gives for one camera's frames; frames that the camera lost have no row."""

    number: np.ndarray
    """Of each frame, counted from 0 with the lost ones."""
    time_s: Float[np.ndarray, "frame"]
    """When each frame really was taken."""
    position: Float[np.ndarray, "frame keypoint 2"]
    """px; NaN where not found."""
    confidence: Float[np.ndarray, "frame keypoint"]


def observe(
    scene: Scene,
    camera: Camera,
    names: Sequence[str],
    rate_hz: float,
    errors: Errors,
    seed: int,
    trial: str,
    clocks: Clocks = Clocks(),
) -> View:
    """Film one scene alone; see `observe_together`."""
    return observe_together([scene], camera, names, rate_hz, errors, seed, trial, clocks)[0]


def observe_together(
    scenes: Sequence[Scene],
    camera: Camera,
    names: Sequence[str],
    rate_hz: float,
    errors: Errors,
    seed: int,
    trial: str,
    clocks: Clocks = Clocks(),
) -> list[View]:
    """Film scenes of the same seconds with one (true) camera and detect some keypoints, with errors.

    Each has one person, who hides the others' keypoints. What is drawn depends on the seed, the camera's
    name, the trial's and the person's number; the view's bias is that of the camera in every trial.
    """
    random = random_for(seed, f"{trial} {camera.name}")
    late_s, early_s, slower = clocks.draw(random_for(seed, f"start {trial} {camera.name}"))
    start, end = scenes[0].time_s[[0, -1]] + [late_s, -early_s]
    offset_s = detector.clock_offset_s(rate_hz, errors, random)
    number = np.arange(int((end - start) * rate_hz + 1e-6) + 1)
    time_s = start + number * slower / rate_hz + offset_s
    # The half frame beyond either end continues the movement.
    at_frames = [interpolated(scene.keypoints, scene.time_s, time_s) for scene in scenes]
    found = []
    for index, here in enumerate(at_frames):
        points = landmarks.stacked(here, names)
        behind = [
            hidden(points, there, landmarks.segments(), scene.person.height_m, camera.center)
            for scene, there in zip(scenes, at_frames, strict=True)
        ]
        covered = np.any(behind, axis=0)
        who = f" person {index + 1}" if index else ""
        bias_m = detector.view_bias(names, errors, random_for(seed, f"bias {camera.name}{who}"))
        draws = random_for(seed, f"{trial} {camera.name}{who}") if index else random
        position, confidence = detector.detect(
            points, names, covered, camera, rate_hz, errors, bias_m, draws
        )
        others = [each for other, each in enumerate(behind) if other != index]
        if others and errors.occlusion:
            lost = np.any(others, axis=0).mean(1) > LOST_SHARE
            position[lost], confidence[lost] = np.nan, 0.0
        found.append((position, confidence))
    kept = detector.kept_frames(len(number), errors, random)
    return [View(number[kept], time_s[kept], p[kept], c[kept]) for p, c in found]


def interpolated(
    positions: Positions, time_s: Float[np.ndarray, "time"], at: Float[np.ndarray, "frame"]
) -> Positions:
    """Positions at other times, by cubic splines."""
    spline = CubicSpline(time_s, np.stack(list(positions.values()), axis=1))
    return dict(zip(positions, np.moveaxis(spline(at), 1, 0), strict=True))
