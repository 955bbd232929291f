"""Scaling: fit a generic OpenSim model to a person, by the stretch in which they stand best."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from models.augmenter import MARKERS
from models.opensim_model import GenericModel
from models.scaling import place_markers, scale_segments
from pipeline.errors import PipelineError
from stages.export import write_trc

PLAUSIBLE_SCALE = (0.6, 1.6)
SYMMETRIC_WITHIN = 0.10
UPRIGHT_KNEE_DEG, FEWEST_TO_PLACE, MOST_TO_PLACE = 30.0, 10, 40
"""Markers are placed on the model by samples with straighter knees, if there are so many."""
FAR_M = 0.06
"""The augmenter's markers are usually within 2 to 4 cm of where a generic model has them."""
STANDING_KNEE_DEG, STANDING_LEAN_DEG, STANDING_SPEED_M_S = 15.0, 20.0, 0.05
"""Keypoints that sit on the skin make straight knees look bent by up to 10°."""


@dataclass(frozen=True)
class ScalingWindow:
    """A stretch of time that the model is scaled by, and what the person does in it."""

    start_s: float
    end_s: float
    knee_deg: float
    """Mean flexion of both knees, from hips, knees and ankles."""
    lean_deg: float
    """The trunk's mean angle to the vertical."""
    speed_m_s: float
    """Mean speed of the markers."""

    @property
    def standing(self) -> bool:
        """Whether the person stands upright and still."""
        upright = self.knee_deg < STANDING_KNEE_DEG and self.lean_deg < STANDING_LEAN_DEG
        return upright and self.speed_m_s < STANDING_SPEED_M_S

    def __str__(self) -> str:
        return (
            f"most upright, slowest {self.end_s - self.start_s:.2f} s, from {self.start_s:.2f} s on: "
            f"knees at {self.knee_deg:.0f}°, trunk leaning {self.lean_deg:.0f}°, markers at "
            f"{self.speed_m_s * 100:.0f} cm/s"
        )


def choose_scaling_window(
    keypoints: dict[str, Float[np.ndarray, "time 3"]],
    markers: Float[np.ndarray, "time marker 3"],
    time_s: Float[np.ndarray, "time"],
    length_s: float,
) -> ScalingWindow:
    """Return the most upright, slowest stretch.

    Each sample costs its knee flexion (5° count as one), its trunk's lean (10°) and its mean marker
    speed (0.05 m/s). All markers must be known throughout. Shorter than asked for if need be.

    Raises PipelineError if no stretch of a tenth of a second has all markers.
    """
    knee_deg = np.mean([_knee_flexion_deg(keypoints, side) for side in "RL"], axis=0)
    trunk = keypoints["Neck"] - keypoints["midHip"]
    lean_deg = np.degrees(np.arccos(trunk[:, 1] / np.linalg.norm(trunk, axis=-1)))
    speed = np.linalg.norm(np.gradient(markers, time_s, axis=0), axis=-1).mean(-1)
    cost = knee_deg / 5 + lean_deg / 10 + speed / 0.05
    complete = np.isfinite(cost) & np.isfinite(markers).all((1, 2))
    interval = float(np.median(np.diff(time_s)))
    for length in (length_s, length_s / 2, 0.1):
        count = max(int(round(length / interval)) + 1, 2)
        whole = np.convolve(complete, np.ones(count), "valid") == count
        if not len(time_s) >= count or not whole.any():
            continue
        mean = np.convolve(np.where(complete, cost, 0), np.ones(count) / count, "valid")
        start = int(np.where(whole, mean, np.inf).argmin())
        chosen = slice(start, start + count)
        return ScalingWindow(
            float(time_s[start]),
            float(time_s[start + count - 1]),
            *(float(values[chosen].mean()) for values in (knee_deg, lean_deg, speed)),
        )
    missing = np.isnan(markers).any(-1).mean(0)
    worst = ", ".join(MARKERS[index] for index in np.argsort(-missing)[:3])
    raise PipelineError(
        f"no stretch of 0.1 s has all markers, so the model cannot be scaled. Most missing: {worst}"
    )


def _knee_flexion_deg(keypoints, side):
    thigh = keypoints[f"{side}Hip"] - keypoints[f"{side}Knee"]
    shank = keypoints[f"{side}Ankle"] - keypoints[f"{side}Knee"]
    cosine = (
        (thigh * shank).sum(-1) / np.linalg.norm(thigh, axis=-1) / np.linalg.norm(shank, axis=-1)
    )
    return 180 - np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def notices_about_scale(factors: dict[str, np.ndarray]) -> list[str]:
    """What is doubtful about the scale factors of the model's segments.

    Raises PipelineError for factors that no adult has: the scale of the data is wrong then.
    """
    notices = []
    for segment, factor in factors.items():
        if not PLAUSIBLE_SCALE[0] <= min(factor) <= max(factor) <= PLAUSIBLE_SCALE[1]:
            listed = ", ".join(f"{value:.2f}" for value in factor)
            raise PipelineError(
                f"the model's {segment} would be scaled by {listed}, which no person needs. Check "
                "the calibration's scale, and in the overlay videos that keypoints follow the body."
            )
        other = factors.get(f"{segment[:-2]}_l") if segment.endswith("_r") else None
        if other is not None and np.abs(factor / other - 1).max() > SYMMETRIC_WITHIN:
            notices.append(
                f"{segment[:-2]}: the right one is scaled to {factor.mean() / other.mean():.0%} of "
                "the left one. One of them is seen badly, or the person is that asymmetric."
            )
    return notices


@dataclass(frozen=True)
class FittedModel:
    """A model scaled to a person, and how."""

    model: Any
    window: ScalingWindow
    factors: dict[str, Float[np.ndarray, "3"]]
    """By segment."""
    markers_moved_m: dict[str, float]


def fit_model(
    generic: GenericModel,
    time_s: Float[np.ndarray, "time"],
    standing: dict[str, Float[np.ndarray, "time 3"]],
    own: dict[str, Float[np.ndarray, "sample 3"]],
    mass_kg: float,
    window_length_s: float,
    scratch: Path,
) -> FittedModel:
    """Scale a model's segments by where a person stands best, and place its markers by their trial.

    `standing` and `own` have the video keypoints and markers (m) of the trial that scales (at
    `time_s`) and of the one whose angles are sought, which may be the same. Writes `scaling.trc`.
    """
    anatomical = np.stack([standing[name] for name in MARKERS], axis=1)
    window = choose_scaling_window(standing, anatomical, time_s, window_length_s)
    trc = scratch / "scaling.trc"
    write_trc(trc, time_s, list(standing), np.stack(list(standing.values()), axis=1))
    span = (window.start_s, window.end_s)
    model, factors = scale_segments(generic, trc, span, mass_kg, scratch)
    upright, chosen = upright_samples(own), own
    if len(upright) < FEWEST_TO_PLACE:
        upright, chosen = np.flatnonzero((time_s >= span[0]) & (time_s <= span[1])), standing
    placing = {name: values[upright] for name, values in chosen.items()}
    moved_m = place_markers(model, generic.folder / generic.ik_setup, placing)
    return FittedModel(model, window, factors, moved_m)


def notices_about_markers(moved_m: dict[str, float]) -> list[str]:
    """Which markers the person has far from where the model usually has them."""
    far = {name: distance for name, distance in moved_m.items() if distance > FAR_M}
    if not far:
        return []
    listed = ", ".join(f"{name} {distance * 100:.0f} cm" for name, distance in far.items())
    return [
        f"markers far from where the scaled model usually has them: {listed}. They were placed where "
        "they are, but keypoints or scaling may be wrong there."
    ]


def upright_samples(keypoints: dict[str, Float[np.ndarray, "time 3"]]) -> Int[np.ndarray, "sample"]:
    """Samples, evenly chosen and not too many, in which all is known and both knees are straight.

    Straighter than `UPRIGHT_KNEE_DEG`: there, markers are augmented best.
    """
    known = np.isfinite(np.stack([keypoints[name] for name in MARKERS], axis=1)).all((1, 2))
    bend = np.maximum(*(_knee_flexion_deg(keypoints, side) for side in "RL"))
    upright = np.flatnonzero(known & (bend < UPRIGHT_KNEE_DEG))
    chosen = np.linspace(0, len(upright) - 1, min(len(upright), MOST_TO_PLACE))
    return upright[chosen.astype(int)]
