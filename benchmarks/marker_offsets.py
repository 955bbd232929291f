"""Where on the body the augmenters put their markers: what a joint fit of markers starts from.

    python -m benchmarks.marker_offsets            # prints models/fitting/augmented_markers.toml
    python -m benchmarks.marker_offsets --write    # and replaces it

Simulated people of seeds that training may use (never the suite's) squat, walk, stand up and stand. Their
true keypoints are augmented, and each marker is looked for on the true body.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.progress import track

import models.fitting
from models.augmenter import MARKERS, VIDEO_KEYPOINTS
from models.fitting.augmented_markers import FILE
from models.opensim_model import add_markers, body_poses, generic_model, load_model
from models.simulation.detector import Errors
from models.simulation.scene import Scene
from pipeline.files import replacing
from pipeline.simulate import Plan, simulate
from stages.augment import Networks, Settings, augment, load_networks

MODEL, NETWORKS = "pose2sim", ("published", "retrained")
MOTIONS = ("squats", "gait", "sit-to-stand")
"""And each person stands still."""
FIRST_SEED, PEOPLE = 310_000, 24
EVERY = 5
"""One sample in so many is looked at: 20 a second."""
UPRIGHT_DEG, BENDING = 30.0, ("hip_flexion_r", "hip_flexion_l", "knee_angle_r", "knee_angle_l")
ABOUT = (
    "Where on the bodies of the model `pose2sim` an augmenter puts its markers. MEASURED by",
    f"`python -m benchmarks.marker_offsets` on {PEOPLE} simulated people who squat, walk, stand up and",
    "stand, from their true keypoints, in the frames of their true bodies:",
    "",
    "place_m: on the unscaled model's body, in its frame; times a person's scale factors on theirs. Each",
    "    trial counts alike in a person's place, of which this is the median over people.",
    "person_spread_m: standard deviation between people, along one axis, on the unscaled model's body.",
    "    Their keypoints are as far from the average person's as in simulation/detector.toml, appearance;",
    "    their bodies differ in the lengths of segments alone.",
    "moving_m: standard deviation from the person's own place, along one axis, over all four trials.",
    "    Not noise: it goes with the pose, and markers of one body go together.",
    "",
    "It cannot say how real people differ: soft tissue, shapes of bones, shoes and clothes are not",
    "simulated, nor are errors of keypoints that change. The retrained augmenter has learned from such",
    "simulated people alone, so that its numbers are the least that can be.",
)

Places = Float[np.ndarray, "time 43 3"]


class OnBody(NamedTuple):
    """Where a person's markers are on the unscaled model's bodies (m): an array for each trial."""

    places: tuple[Places, ...]
    upright: tuple[Bool[np.ndarray, "time"], ...]


class Learned(NamedTuple):
    """Numbers of `ABOUT`, and how much the places are those of the poses that were looked at."""

    place_m: Float[np.ndarray, "43 3"]
    person_spread_m: Float[np.ndarray, "43"]
    moving_m: Float[np.ndarray, "43"]
    upright_m: Float[np.ndarray, "43 3"]
    """Places where hips and knees are within `UPRIGHT_DEG` of straight."""
    correlation_s: float
    """After which deviations of moving trials resemble themselves by less than 1/e; median."""


def plan_of(seed: int, appearance: float) -> Plan:
    """All motions of one person, without errors but for where keypoints are on people."""
    errors = Errors().scaled(0.0).model_copy(update={"appearance": appearance})
    return Plan(motion=MOTIONS, model=MODEL, cameras=2, seed=seed, errors=errors)


@cache
def generic_places() -> dict[str, tuple[str, Float[np.ndarray, "3"]]]:
    """The body that each marker is on, and where on it the unscaled model has it, m."""
    generic = generic_model(MODEL)
    model = load_model(generic.folder / generic.model)
    add_markers(model, generic.folder / generic.markers)
    return _places_on(model)


def _places_on(model) -> dict[str, tuple[str, Float[np.ndarray, "3"]]]:
    found = {}
    for name in MARKERS:
        marker = model.getMarkerSet().get(name)
        body = marker.getParentFrame().findBaseFrame().getName()
        found[name] = body, marker.get_location().to_numpy().copy()
    return found


def sizes(model) -> Float[np.ndarray, "43"]:
    """Size of each marker's body against the unscaled model's, alike along all axes."""
    own, found = _places_on(model), []
    for body, _ in generic_places().values():
        mates = [name for name, (other, _) in generic_places().items() if other == body]
        generic = np.array([generic_places()[name][1] for name in mates])
        found.append((generic * [own[name][1] for name in mates]).sum() / (generic**2).sum())
    return np.array(found)


def augmented_places(scene: Scene, networks: Networks) -> Places:
    """Where the augmenter puts markers on the unscaled model's bodies, from true keypoints."""
    keypoints = {name: scene.keypoints[name] for name in VIDEO_KEYPOINTS}
    person = scene.person
    made = augment(keypoints, scene.time_s, networks, person.height_m, person.mass_kg)[::EVERY]
    poses = body_poses(scene.model, scene.angles[::EVERY])
    body = [poses.names.index(each) for each, _ in generic_places().values()]
    away = made - poses.position[:, body]
    return np.einsum("tmji,tmj->tmi", poses.rotation[:, body], away) / sizes(scene.model)[:, None]


def looked_at(seed: int, appearance: float, networks: Mapping[str, Networks]) -> dict[str, OnBody]:
    """Simulate a person, and find their markers by every augmenter."""
    scenes = [trial.scene for trial in simulate(plan_of(seed, appearance)).trials]
    bent_deg = [np.degrees(scene.angles[list(BENDING)].to_numpy()[::EVERY]) for scene in scenes]
    upright = tuple((np.abs(each) < UPRIGHT_DEG).all(1) for each in bent_deg)
    return {
        name: OnBody(tuple(augmented_places(scene, each) for scene in scenes), upright)
        for name, each in networks.items()
    }


def learn(average: Sequence[OnBody], different: Sequence[OnBody]) -> Learned:
    """Places and movement from people whose keypoints are the average person's, spread from others."""
    own = np.array([_own_place(each) for each in average])
    spread = np.std([_own_place(each) for each in different], axis=0, ddof=1)
    upright = [np.concatenate(each.places)[np.concatenate(each.upright)] for each in average]
    square = np.array([
        [((trial - place) ** 2).mean(0) for trial in person.places]
        for person, place in zip(average, own, strict=True)
    ])  # fmt: skip
    moving = [trial for person in average for trial in person.places[1:]]
    return Learned(
        np.median(own, axis=0),
        np.sqrt((spread**2).mean(-1)),
        np.sqrt(square.mean((0, 1, 3))),
        np.median([each.mean(0) for each in upright], axis=0),
        float(np.median([correlation_s(each) for each in moving])),
    )


def _own_place(person: OnBody) -> Float[np.ndarray, "43 3"]:
    return np.mean([trial.mean(0) for trial in person.places], axis=0)


def correlation_s(trial: Places, interval_s: float = EVERY / 100) -> float:
    """After which time deviations of a trial's markers resemble themselves by less than 1/e; median."""
    deviation = trial - trial.mean(0)
    lags = range(len(trial) // 2)
    alike = np.array([(deviation[lag:] * deviation[: len(trial) - lag]).mean(0) for lag in lags])
    unlike = alike < alike[0] / np.e
    first = np.where(unlike.any(0), unlike.argmax(0), len(lags))
    return float(np.median(first)) * interval_s


def table(learned: Mapping[str, Learned]) -> str:
    """The file's text."""
    lines = [f"# {line}".rstrip() for line in ABOUT]
    for network, found in learned.items():
        lines += ["", *(f"# {line}" for line in summary(found)), f"[{network}]"]
        places = found.place_m.round(4).tolist()
        spreads = zip(found.person_spread_m, found.moving_m, strict=True)
        for name, place, (person, moving) in zip(MARKERS, places, spreads, strict=True):
            body = generic_places()[name][0]
            lines.append(
                f'"{name}" = {{ body = "{body}", place_m = {place}, '
                f"person_spread_m = {person:.4f}, moving_m = {moving:.4f} }}"
            )
    return "\n".join(lines) + "\n"


def summary(found: Learned) -> list[str]:
    """How far places are from the model's own, and how far they depend on the poses looked at."""
    generic = np.array([place for _, place in generic_places().values()])
    pelvis = [body == "pelvis" for body, _ in generic_places().values()]
    away_mm = 1e3 * np.linalg.norm(found.place_m - generic, axis=-1)
    upright_mm = 1e3 * np.linalg.norm(found.upright_m - found.place_m, axis=-1)
    return [
        f"{away_mm.mean():.1f} mm on average from where the model has them ({away_mm[pelvis].mean():.1f} "
        f"at the pelvis, {away_mm.max():.1f} at most).",
        f"Of upright poses alone, places are {upright_mm.mean():.1f} mm from these on average, "
        f"{upright_mm.max():.1f} at most.",
        f"Deviations of moving people resemble themselves for {found.correlation_s:.2f} s.",
    ]


def main() -> None:
    """Learn, and print or write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"replace models/fitting/{FILE}")
    writes = parser.parse_args().write
    torch.set_num_threads(1)
    networks = {name: load_networks(Settings(network=name)) for name in NETWORKS}
    people = track(range(PEOPLE), "people", console=Console(stderr=True))
    pairs = [[looked_at(FIRST_SEED + n, size, networks) for size in (0.0, 1.0)] for n in people]
    text = table({
        name: learn([average[name] for average, _ in pairs], [other[name] for _, other in pairs])
        for name in NETWORKS
    })  # fmt: skip
    if writes:
        with replacing(Path(models.fitting.__file__).with_name(FILE)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
