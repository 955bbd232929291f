"""Kinematics: scale an OpenSim model to the person, and find the joint angles that fit the markers."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from models.assets import fingerprint
from models.augmenter import MARKERS
from models.batched_kinematics import solve_inverse_kinematics_batched
from models.learned import torch_device
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
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from stages.motion_files import in_file_units, write_mot
from stages.scaling import fit_model, notices_about_markers, notices_about_scale
from stages.series import by_name
from stages.trial import Progress, Trial

NEEDS = ("augment",)

RMS_GUIDANCE_M, MAX_GUIDANCE_M = 0.02, 0.04
"""OpenSim's own guidance: a good solution has marker errors below 2 cm RMS and 4 cm at most."""
LEG_COORDINATES = ("hip_flexion", "knee_angle", "ankle_angle", "subtalar_angle")


class Settings(BaseModel):
    """Options of scaling and inverse kinematics."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "best"
    """`lai-uhlrich-2022`, `pose2sim`, `pose2sim-muscles`, or `best`: the first that is cached."""
    solver: Literal["opensim", "batched"] = "opensim"
    """OpenSim's own, sample after sample, or ours, which minimises the same for all samples at once."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the batched solver runs; auto is a GPU if there is one."""
    scaling_window_s: float = Field(0.5, gt=0)
    """Length of the stretch of standing that the model is scaled by."""


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
    motion = _solve(model, setup, labelled.time.values, markers, settings, progress)
    if motion.angles.empty:
        raise PipelineError("no sample of this trial has enough markers for inverse kinematics")
    rotational = rotational_coordinates(model)
    write_mot(out / "angles.mot", in_file_units(motion.angles, rotational))
    errors = _error_table(motion)
    errors.to_csv(out / "marker_errors.csv", lineterminator="\n", float_format="%.6f")
    summary = {
        "model": {"name": name, "note": note, "opensim": opensim().GetVersion()},
        "solver": settings.solver,
        "scaling": scaling,
        "units": {name: "deg" if name in rotational else "m" for name in motion.angles},
        "marker_rms_m": float(errors.marker_rms_m.mean()),
        "marker_max_m": float(errors.marker_max_m.max()),
        "samples": len(labelled.time),
        "samples_solved": len(motion.angles),
    }
    text = json.dumps(summary, indent=2)
    (out / "kinematics.json").write_text(text, encoding="utf-8")
    notices.append(f"angles are those of the OpenSim model {name}. {note}")
    notices += notices_about_limits(motion, model)
    return notices + notices_about_fit(motion, len(labelled.time))


def _solve(model, setup: Path, time_s, markers, settings: Settings, progress: Progress) -> Motion:
    if settings.solver == "opensim":
        return solve_inverse_kinematics(model, setup, time_s, markers, progress)
    device = torch_device(settings.device, "kinematics.device")
    return solve_inverse_kinematics_batched(model, setup, time_s, markers, progress, device)


def _scaled_model(trial, generic: GenericModel, labelled, settings, out):
    """Scale by the static trial if there is one, else by the best stretch of this one."""
    source, name = labelled, "this trial"
    if trial.scaling_trial:
        name = f"static trial {trial.scaling_trial.name}"
        source = load_dataset(trial.scaling_trial.folder("augment") / "markers.nc")
    own, points = (by_name(each.position, "marker") for each in (labelled, source))
    fitted = fit_model(
        generic, source.time.values, points, own, float(labelled.attrs["mass_kg"]),
        settings.scaling_window_s, out,
    )  # fmt: skip
    window, factors = fitted.window, fitted.factors
    scaling = {
        "source": name,
        "start_s": window.start_s,
        "end_s": window.end_s,
        "standing": window.standing,
        "description": f"{name}: {window}. Markers placed where this trial has them",
        "factors": {segment: factor.tolist() for segment, factor in factors.items()},
        "markers_moved_m": fitted.markers_moved_m,
    }
    notices = notices_about_scale(factors) + notices_about_markers(fitted.markers_moved_m)
    if not window.standing:
        notices.append(
            f"nobody stands upright and still in {name} ({window}): the model's segments were scaled "
            "there. A static trial may give better ones."
        )
    return fitted.model, scaling, notices


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
