"""Subject: a random adult, and an OpenSim model scaled to them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from models.opensim_model import body_poses, scaled_copy, telling_opensim_errors
from models.simulation.landmarks import SOLE_HEIGHT_M, check_bodies, keypoint_positions

STATURE_M = {"female": (1.629, 0.064), "male": (1.756, 0.069)}
"""Mean and standard deviation of stature (Gordon et al., 2012 Anthropometric Survey of U.S. Army
Personnel, ANSUR II, NATICK/TR-15/007, 2014)."""
PERCENTILES = (0.05, 0.95)
BODY_MASS_INDEX = (24.0, 2.5)
SEGMENT_SPREAD = 0.03
"""Standard deviation of a segment's length at a given stature, as a share of it: ANSUR II's
coefficients of variation of leg and arm lengths, stature taken out, are about 3 %."""
ASYMMETRY_SPREAD = 0.01
"""Standard deviation of a right segment against the left, as a share of it: legs, of two segments,
then differ by 5 mm on average (Knutson, Chiropr Osteopat 13:11, 2005)."""
GROUPS = {
    "pelvis": ("pelvis", "sacrum"), "trunk": ("torso", "head"), "thigh": ("femur", "patella"),
    "shank": ("tibia",), "foot": ("talus", "calcn", "toes"), "upper_arm": ("humerus",),
    "forearm": ("ulna", "radius", "hand"),
}  # fmt: skip
"""Bodies (without side) that are scaled together."""


@dataclass(frozen=True)
class Person:
    """Size of a person, and how their segments differ from the average."""

    sex: str
    height_m: float
    mass_kg: float
    segment_factors: dict[str, float]
    """By body group and side (`thigh_r`): length relative to the average at this height."""


def draw_person(random: np.random.Generator) -> Person:
    """Draw a person between the 5th and the 95th percentile of their sex's height."""
    sex = str(random.choice(list(STATURE_M)))
    height_m = float(norm.ppf(random.uniform(*PERCENTILES), *STATURE_M[sex]))
    mass_kg = random.normal(*BODY_MASS_INDEX) * height_m**2
    factors = {}
    for group in GROUPS:
        both = 1 + SEGMENT_SPREAD * np.clip(random.normal(), -2, 2)
        paired = group not in ("pelvis", "trunk")
        difference = ASYMMETRY_SPREAD * np.clip(random.normal(), -2, 2) if paired else 0.0
        factors[f"{group}_r"] = both * (1 + difference / 2)
        factors[f"{group}_l"] = both * (1 - difference / 2)
    return Person(sex, height_m, mass_kg, factors)


def stature_m(model) -> float:
    """From the sole to the top of the head of a model that stands upright."""
    upright = pd.DataFrame({name: [0.0] for name in ("knee_angle_r", "knee_angle_l")})
    placed = keypoint_positions(body_poses(model, upright))
    sole = min(placed[name][0, 1] for name in ("RHeel", "LHeel", "RBigToe", "LBigToe"))
    return float(placed["Head"][0, 1] - sole + SOLE_HEIGHT_M)


def scaled_to(model, person: Person, resize: bool = True) -> tuple[Person, Any]:
    """Return a copy of a model that has the person's height, proportions and mass, and the person.

    Without `resize` the model stays, and the person has its height, mass and proportions.

    Raises PipelineError if it lacks bodies that keypoints are placed on.
    """
    bodies = {model.getBodySet().get(i).getName() for i in range(model.getBodySet().getSize())}
    check_bodies(bodies)
    if not resize:
        mass_kg = model.getTotalMass(model.initSystem())
        return Person(person.sex, stature_m(model), mass_kg, {}), model
    proportioned = _scaled(model, {body: _factor(body, person) for body in bodies}, person.mass_kg)
    size = person.height_m / stature_m(proportioned)
    return person, _scaled(proportioned, dict.fromkeys(bodies, size), person.mass_kg)


def group_and_side(body: str) -> tuple[str, str]:
    """Which of `GROUPS` a body is scaled with, and its side; `r` on the midline."""
    stem, _, side = body.rpartition("_") if body.endswith(("_r", "_l")) else (body, "", "r")
    return next((name for name, stems in GROUPS.items() if stem in stems), "trunk"), side


def _factor(body: str, person: Person) -> float:
    return person.segment_factors["_".join(group_and_side(body))]


def _scaled(model, factors: dict[str, float], mass_kg: float):
    along_axes = {body: np.full(3, factor) for body, factor in factors.items()}
    with telling_opensim_errors("scaling the simulated person's model"):
        return scaled_copy(model, along_axes, mass_kg)
