"""Simulate: a session whose joint angles are known exactly, from a motion, a person and cameras."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calibration import Camera
from models.augmenter import MARKERS, VIDEO_KEYPOINTS
from models.opensim_model import (
    add_markers,
    check_markers,
    generic_model,
    load_model,
)
from models.simulation.detector import Clocks, Errors, appearance_offsets
from models.simulation.motion import recorded
from models.simulation.movements import MOVEMENTS
from models.simulation.repeated import passing_by, performed
from models.simulation.rig import miscalibrated, place_cameras
from models.simulation.scene import Scene, View, make_scene, observe_together, random_for
from models.simulation.subject import Person, draw_person, scaled_to
from models.vocabulary import vocabulary
from pipeline.config import explain
from pipeline.errors import PipelineError
from stages.recordings import read_angles

STATIC = "static1"


class Plan(BaseModel):
    """What to simulate. The same plan gives the same session, to the last digit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    motion: str | Annotated[tuple[str, ...], Field(min_length=1)] = "squats"
    """A built-in movement, or the path of an OpenSim motion file; or several, one trial each. Cameras
    look at where the first one happens."""
    model: str = "best"
    """A packaged OpenSim model by name, or the path of an .osim."""
    markers: str | None = None
    """A file with the augmenter's marker set, for an .osim that lacks it."""
    resize: bool = True
    """Scale the model to a random adult; else the person is as the model is."""
    cameras: int = Field(4, ge=2, le=8)
    rates_hz: tuple[Annotated[float, Field(ge=5, le=1000)], ...] = Field((60.0,), min_length=1)
    """Frames per second of the first camera, the second …; the last one holds for the rest."""
    vocabulary: str = "halpe-26"
    """Names and order of the 2D keypoints."""
    seed: int = Field(0, ge=0)
    errors: Errors = Errors()
    static: bool = True
    """Also a static trial, for scaling."""
    duration_s: float | None = Field(None, gt=0.5)
    """Keep this much of the movement's start."""
    persons: int = Field(1, ge=1, le=2)
    """With two, another person walks by, and detectors list the two in any order."""
    start_spread_s: float = Field(0.0, ge=0, le=30)
    """Cameras start and stop up to so many seconds apart, and each counts time from its own start. A
    built-in movement is repeated until there is enough of it."""
    drift_ppm: float = Field(0.0, ge=0, le=1000)
    """Cameras' rates are off by up to so many parts of a million."""

    @property
    def clocks(self) -> Clocks:
        """How the cameras are started."""
        return Clocks(self.start_spread_s, self.drift_ppm)

    @property
    def motions(self) -> tuple[str, ...]:
        """The motions, one or several."""
        return (self.motion,) if isinstance(self.motion, str) else self.motion


def plan_from(values: Mapping[str, Any], noise: float, errors: Sequence[str]) -> Plan:
    """Make a plan of options, the size of all errors, and `SOURCE=SIZE` of single ones.

    Raises PipelineError for an unknown source of errors, or a value out of range.
    """
    sizes: dict[str, Any] = dict.fromkeys(Errors.model_fields, noise)
    for each in errors:
        source, _, size = each.partition("=")
        sizes[source.strip()] = size.strip()
    try:
        return Plan.model_validate({**values, "errors": sizes})
    except ValidationError as error:
        raise PipelineError(explain(error, "simulate", Plan)) from error


@dataclass(frozen=True)
class Trial:
    """One simulated trial: the truth, and what each camera's detector gives."""

    name: str
    scene: Scene
    views: dict[str, View]
    """By camera."""
    passer: "Trial | None" = None
    """Who walks by meanwhile."""


@dataclass(frozen=True)
class Simulation:
    """A simulated session; worlds are Y up, m."""

    plan: Plan
    person: Person
    cameras: list[Camera]
    """As they truly are."""
    calibrated: list[Camera]
    """As the session's calibration has them."""
    keypoints: tuple[str, ...]
    rates_hz: dict[str, float]
    trials: list[Trial]


def simulate(plan: Plan) -> Simulation:
    """Draw a person, cameras and errors, and film the motion, and a static trial, with them.

    Raises PipelineError for a motion, model or vocabulary that cannot be used.
    """
    if Path(plan.model).suffix.lower() != ".osim":  # `best` is another one on another computer
        plan = plan.model_copy(update={"model": generic_model(plan.model).name})
    known = vocabulary(plan.vocabulary)
    person, model = person_of(plan)
    offsets = appearance_offsets(
        marked_keypoints(known.keypoints), plan.errors, random_for(plan.seed, "appearance")
    )
    scenes = {
        name: make_scene(person, model, angles, offsets)
        for name, angles in _motions(plan, model).items()
    }
    first = next(iter(scenes))
    if plan.static:
        standing = performed("static", model, plan.seed, "static", plan.clocks.needed_s)
        scenes = {STATIC: make_scene(person, model, standing, offsets)} | scenes
    target = scenes[first].keypoints["midHip"].mean(0)
    cameras = place_cameras(plan.cameras, target, random_for(plan.seed, "cameras"))
    rates = [*plan.rates_hz, *[plan.rates_hz[-1]] * plan.cameras][: plan.cameras]
    rates_hz = {camera.name: rate for camera, rate in zip(cameras, rates, strict=True)}
    trials = []
    for trial, scene in scenes.items():
        together = [scene]
        if plan.persons > 1 and trial != STATIC:
            together.append(_passer(plan, trial, known.keypoints, scene))
        seen = [
            observe_together(
                together, camera, known.keypoints, rates_hz[camera.name], plan.errors,
                plan.seed, trial, plan.clocks,
            )
            for camera in cameras
        ]  # fmt: skip
        views = [dict(zip(rates_hz, of_one, strict=True)) for of_one in zip(*seen, strict=True)]
        passer = Trial(f"{trial}_person2", together[1], views[1]) if together[1:] else None
        trials.append(Trial(trial, scene, views[0], passer))
    calibrated = [
        miscalibrated(
            each, plan.errors.calibration, random_for(plan.seed, f"calibrate {each.name}")
        )
        for each in cameras
    ]
    return Simulation(plan, person, cameras, calibrated, known.keypoints, rates_hz, trials)


def _passer(plan: Plan, trial: str, keypoints: Sequence[str], scene: Scene) -> Scene:
    """Another person, who walks by as long as a scene lasts."""
    person, model = person_of(plan, "passer")
    random = random_for(plan.seed, "appearance of the passer")
    offsets = appearance_offsets(marked_keypoints(keypoints), plan.errors, random)
    angles = passing_by(model, plan.seed, f"passer of {trial}", float(scene.time_s[-1]))
    return make_scene(person, model, angles, offsets)


def marked_keypoints(keypoints: Sequence[str]) -> list[str]:
    """Every keypoint whose place matters, the augmenter's among them, in a fixed order."""
    return sorted({*keypoints, *VIDEO_KEYPOINTS})


def person_of(plan: Plan, what: str = "person") -> tuple[Person, Any]:
    """A person, and their model with the augmenter's markers."""
    if Path(plan.model).suffix.lower() == ".osim":
        model = load_model(_existing(plan.model))
        if plan.markers:
            add_markers(model, _existing(plan.markers))
    else:
        if plan.markers:
            raise PipelineError("--markers is for an .osim file: a packaged model has its markers")
        generic = generic_model(plan.model)
        model = load_model(generic.folder / generic.model)
        add_markers(model, generic.folder / generic.markers)
    check_markers(model, MARKERS)
    return scaled_to(model, draw_person(random_for(plan.seed, what)), plan.resize)


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise PipelineError(f"there is no file {path}")
    return Path(path)


def _motions(plan: Plan, model) -> dict[str, pd.DataFrame]:
    """Coordinates (rad and m) by name of the trial.

    Raises PipelineError for a motion that is not there, and for two files of one name.
    """
    moved: dict[str, pd.DataFrame] = {}
    times = Counter[str]()
    for motion in plan.motions:
        times[motion] += 1
        if motion in MOVEMENTS:
            again = f" {times[motion]}" if times[motion] > 1 else ""
            angles = performed(motion, model, plan.seed, f"motion{again}", plan.clocks.needed_s)
            name = f"{motion}{times[motion]}"
        elif Path(motion).is_file():
            path = Path(motion)
            angles, name = recorded(read_angles(path), model, path), path.stem
        else:
            known = ", ".join(MOVEMENTS)
            raise PipelineError(
                f"there is no movement or motion file '{motion}'. Movements: {known}."
            )
        if name in moved:
            raise PipelineError(f"two motions are named {name}: rename one of the files.")
        if plan.duration_s:
            angles = angles[: plan.duration_s]
        if plan.start_spread_s and angles.index[-1] < plan.clocks.needed_s:
            raise PipelineError(
                f"{motion} lasts {angles.index[-1]:.1f} s: too short for cameras that start and stop "
                f"{plan.start_spread_s:g} s apart. They need {plan.clocks.needed_s:g} s. "
                "Choose a longer motion or duration, or a smaller spread."
            )
        moved[name] = angles
    return moved
