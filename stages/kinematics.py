"""Kinematics: scale an OpenSim model to the person, and find the joint angles that fit the markers."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field

from models.assets import fingerprint
from models.augmenter import MARKERS
from models.opensim_model import (
    GenericModel,
    Motion,
    generic_model,
    load_model,
    marker_names,
    opensim,
    rotational_coordinates,
    solve_inverse_kinematics,
)
from models.scaling import place_markers, scale_segments
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, replacing
from stages.export import write_trc
from stages.series import by_name
from stages.trial import Progress, Trial

NEEDS = ("augment",)

RMS_GUIDANCE_M, MAX_GUIDANCE_M = 0.02, 0.04
"""OpenSim's own guidance: a good solution has marker errors below 2 cm RMS and 4 cm at most."""
LEG_COORDINATES = ("hip_flexion", "knee_angle", "ankle_angle", "subtalar_angle")
PLAUSIBLE_SCALE = (0.6, 1.6)
SYMMETRIC_WITHIN = 0.10
UPRIGHT_KNEE_DEG, FEWEST_TO_PLACE, MOST_TO_PLACE = 30.0, 10, 40
"""Markers are placed on the model by samples with straighter knees, if there are so many."""
STANDING_KNEE_DEG, STANDING_LEAN_DEG, STANDING_SPEED_M_S = 15.0, 20.0, 0.05
"""Keypoints that sit on the skin make straight knees look bent by up to 10°."""


class Settings(BaseModel):
    """Options of scaling and inverse kinematics."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "best"
    """`lai-uhlrich-2022`, `pose2sim`, `pose2sim-muscles`, or `best`: the first that is cached."""
    scaling_window_s: float = Field(0.5, gt=0)
    """Length of the stretch of standing that the model is scaled by."""


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
        """Whether the person stands upright and still, as a pose for placing markers must be."""
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


def notices_about_fit(motion: Motion, samples: int) -> list[str]:
    """What the user should know about how well the model fits the markers."""
    notices = []
    rms = np.sqrt((motion.marker_error_m**2).mean(axis=1))
    if rms.mean() > RMS_GUIDANCE_M:
        notices.append(
            f"marker errors of the inverse kinematics: {rms.mean() * 100:.1f} cm RMS; OpenSim's "
            f"guidance is below {RMS_GUIDANCE_M * 100:.0f} cm."
        )
    worst = motion.marker_error_m.max()
    if worst.max() > MAX_GUIDANCE_M:
        notices.append(
            f"largest marker error of the inverse kinematics: {worst.max() * 100:.1f} cm "
            f"({worst.idxmax()}); OpenSim's guidance is below {MAX_GUIDANCE_M * 100:.0f} cm."
        )
    if len(motion.angles) < samples:
        missing = samples - len(motion.angles)
        notices.append(f"{missing} of {samples} samples have no angles, since markers are missing.")
    return notices


def notices_about_limits(motion: Motion, model) -> list[str]:
    """Which of the legs' coordinates sit at a limit of the model's range, and how long."""
    notices = []
    for name, values in motion.angles.items():
        if name.rsplit("_", 1)[0] in LEG_COORDINATES:
            coordinate = model.getCoordinateSet().get(name)
            low, high = coordinate.getRangeMin(), coordinate.getRangeMax()
            share = ((values < low + 1e-3) | (values > high - 1e-3)).mean()
            if share > 0.01:
                notices.append(
                    f"{name} sits at the limit of the model's range ({np.degrees(low):.0f} to "
                    f"{np.degrees(high):.0f}°) in {share:.0%} of the samples: its true value may lie "
                    "beyond, or the keypoints are wrong there."
                )
    return notices


def in_file_units(angles: pd.DataFrame, rotational: set[str]) -> pd.DataFrame:
    """Radians to degrees; translations stay metres."""
    return angles * [180 / np.pi if name in rotational else 1.0 for name in angles]


def in_model_units(angles: pd.DataFrame, rotational: set[str]) -> pd.DataFrame:
    """Degrees to radians; translations stay metres."""
    return angles * [np.pi / 180 if name in rotational else 1.0 for name in angles]


def write_mot(path: Path, angles: pd.DataFrame) -> None:
    """Write coordinates (degrees and metres, indexed by seconds) as an OpenSim motion file."""
    rows, columns = angles.shape
    header = (
        f"Coordinates\nversion=1\nnRows={rows}\nnColumns={columns + 1}\ninDegrees=yes\nendheader\n"
    )
    table = angles.to_csv(sep="\t", index_label="time", float_format="%.8f", lineterminator="\n")
    with replacing(path) as temporary:
        temporary.write_text(header + table, encoding="utf-8", newline="\n")


def read_mot(path: Path) -> pd.DataFrame:
    """Read an OpenSim motion file: columns by name, indexed by seconds, in the file's units.

    Raises PipelineError if it is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        start = next(i for i, line in enumerate(lines) if line.strip().lower() == "endheader") + 1
        rows = [line.split() for line in lines[start:] if line.strip()]
        table = pd.DataFrame(np.array(rows[1:], dtype=float), columns=rows[0])
        return table.set_index("time")
    except (OSError, UnicodeDecodeError, StopIteration, IndexError, ValueError, KeyError) as error:
        raise PipelineError(f"{path} is not an OpenSim motion file: {error!r}") from error


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    static = trial.scaling_trial.folder("augment") / "markers.nc" if trial.scaling_trial else None
    generic = generic_model("best" if trial.model else settings.model)
    return {
        "scaling_trial": static,
        "model": trial.model or generic.name,
        "assets": fingerprint(generic.asset),
    }


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Scale the model and solve one trial's inverse kinematics."""
    began = time.perf_counter()
    labelled = load_dataset(trial.folder("augment") / "markers.nc")
    markers = by_name(labelled.position, "marker")
    if trial.model:
        model, scaling, notices = _brought_model(trial.model), {"source": str(trial.model.name)}, []
        name, note, setup = trial.model.name, "The session's own model.", _setup_for_any_model()
    else:
        generic = generic_model(settings.model)
        model, scaling, notices = _scaled_model(trial, generic, labelled, settings, out)
        name, note, setup = generic.name, generic.note, generic.folder / generic.ik_setup
    model.printToXML(str(out / "scaled_model.osim"))
    solving = time.perf_counter()
    motion = solve_inverse_kinematics(model, setup, labelled.time.values, markers, progress)
    if motion.angles.empty:
        raise PipelineError("no sample of this trial has enough markers for inverse kinematics")
    seconds = time.perf_counter() - solving
    rotational = rotational_coordinates(model)
    write_mot(out / "angles.mot", in_file_units(motion.angles, rotational))
    errors = _error_table(motion)
    errors.to_csv(out / "marker_errors.csv", lineterminator="\n", float_format="%.6f")
    summary = {
        "model": {"name": name, "note": note, "opensim": opensim().GetVersion()},
        "scaling": scaling,
        "units": {name: "deg" if name in rotational else "m" for name in motion.angles},
        "marker_rms_m": float(errors.marker_rms_m.mean()),
        "marker_max_m": float(errors.marker_max_m.max()),
        "samples": len(labelled.time),
        "samples_solved": len(motion.angles),
        "seconds": round(time.perf_counter() - began, 3),
        "seconds_per_sample": round(seconds / len(motion.angles), 5),
    }
    text = json.dumps(summary, indent=2)
    (out / "kinematics.json").write_text(text, encoding="utf-8")
    notices.append(f"angles are those of the OpenSim model {name}. {note}")
    notices += notices_about_limits(motion, model)
    return notices + notices_about_fit(motion, len(labelled.time))


def _scaled_model(trial, generic: GenericModel, labelled, settings, out):
    """Scale by the static trial if there is one, else by the best stretch of this one."""
    source, name = labelled, "this trial"
    if trial.scaling_trial:
        name = f"static trial {trial.scaling_trial.name}"
        source = load_dataset(trial.scaling_trial.folder("augment") / "markers.nc")
    own, points = (by_name(each.position, "marker") for each in (labelled, source))
    fitted = fit_model(
        generic, source.time.values, points, own, float(labelled.attrs["mass_kg"]), settings, out
    )
    window, factors = fitted.window, fitted.factors
    scaling = {
        "source": name,
        "start_s": window.start_s,
        "end_s": window.end_s,
        "standing": window.standing,
        "description": f"{name}: {window}",
        "factors": {segment: factor.tolist() for segment, factor in factors.items()},
        "markers_moved_m": fitted.markers_moved_m,
    }
    notices = notices_about_scale(factors)
    if not window.standing:
        notices.append(
            f"nobody stands upright and still in {name} ({window}): the model's segments were scaled "
            "there. A static trial may give better ones."
        )
    return fitted.model, scaling, notices


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
    settings: Settings,
    scratch: Path,
) -> FittedModel:
    """Scale a model's segments by where a person stands best, and place its markers by their trial.

    `standing` and `own` have the video keypoints and markers (m) of the trial that scales (at
    `time_s`) and of the one whose angles are sought, which may be the same. Writes `scaling.trc`.
    """
    anatomical = np.stack([standing[name] for name in MARKERS], axis=1)
    window = choose_scaling_window(standing, anatomical, time_s, settings.scaling_window_s)
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


def upright_samples(keypoints: dict[str, Float[np.ndarray, "time 3"]]) -> Int[np.ndarray, "sample"]:
    """Samples, evenly chosen and not too many, in which all is known and both knees are straight.

    Straighter than `UPRIGHT_KNEE_DEG`: there, markers are augmented best.
    """
    known = np.isfinite(np.stack([keypoints[name] for name in MARKERS], axis=1)).all((1, 2))
    bend = np.maximum(*(_knee_flexion_deg(keypoints, side) for side in "RL"))
    upright = np.flatnonzero(known & (bend < UPRIGHT_KNEE_DEG))
    return upright[:: max(len(upright) // MOST_TO_PLACE, 1)]


def _brought_model(path: Path):
    """Load the session's own scaled model; it must have the markers."""
    model = load_model(path)
    missing = sorted(set(MARKERS) - set(marker_names(model)))
    if len(missing) > len(MARKERS) // 2:
        raise PipelineError(
            f"the model {path} lacks the markers {', '.join(missing)}. Scale it with the augmenter's "
            "marker set, or leave out `model` in session.toml to have one scaled."
        )
    return model


def _setup_for_any_model() -> Path:
    """The weights that fit models of OpenCap's kind, which all known scaled models are."""
    generic = generic_model("best")
    return generic.folder / generic.ik_setup


def _error_table(motion: Motion) -> pd.DataFrame:
    error = motion.marker_error_m
    return pd.DataFrame(
        {
            "marker_rms_m": np.sqrt((error**2).mean(axis=1)),
            "marker_max_m": error.max(axis=1),
            "worst_marker": error.idxmax(axis=1),
        },
        index=error.index.rename("time_s"),
    )
