"""Kinematics: fit an OpenSim model to the person, and joint angles to their markers or keypoints."""

import json
from pathlib import Path
from typing import Literal

import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from models.assets import fingerprint
from models.opensim_model import GenericModel, generic_model, opensim, rotational_coordinates
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from stages.classical_fit import fit_classically
from stages.motion_files import in_file_units, write_mot
from stages.skeleton_fit import DEVIATIONS, PARAMETERS, evidence_files, fit_skeleton, gathered
from stages.solved import Solved, error_table, kinds_of, notices_about
from stages.trial import Progress, Trial

NEEDS = ("frames", "synchronize", "triangulate", "augment")


class Settings(BaseModel):
    """Options of scaling and inverse kinematics."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "best"
    """`lai-uhlrich-2022`, `pose2sim`, `pose2sim-muscles`, or `best`: the first that is cached."""
    fit: Literal[
        "classical", "markers", "keypoints", "images", "markers+keypoints", "markers+images"
    ] = "classical"
    """What the model is fitted to. Classical is OpenSim's chain: the model is scaled by a stretch of
    standing, and follows the augmented markers. The others are one fit of the body's sizes, of where
    points are on it, and of the movement: to the augmented markers, to the triangulated keypoints, or to
    the 2D keypoints in every image; and they say how uncertain the angles are."""
    fit_trials: Literal["trial", "session"] = "trial"
    """Whose samples tell such a fit the body's sizes: this trial's and its static trial's, or those of all
    trials of the session by the same cameras."""
    solver: Literal["opensim", "batched"] = "opensim"
    """Of the classical chain: OpenSim's own, sample after sample, or ours, which minimises the same for
    all samples at once."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the batched solver runs; auto is a GPU if there is one."""
    scaling_window_s: float = Field(0.5, gt=0)
    """Length of the stretch of standing that the model is scaled by."""


def other_trials(trial: Trial, settings: Settings) -> tuple[Trial, ...]:
    """Trials besides this one whose results are read, as far as `augment`."""
    static = (trial.scaling_trial,) if trial.scaling_trial else ()
    if settings.fit == "classical" or settings.fit_trials == "trial" or trial.model:
        return static
    known = {each.name for each in static}
    return (*static, *(each for each in trial.session_trials if each.name not in known))


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    generic = generic_model("best" if trial.model else settings.model)
    static = trial.scaling_trial.folder("augment") / "markers.nc" if trial.scaling_trial else None
    needed: dict[str, object] = {
        "scaling_trial": static,
        "model": trial.model or generic.name,
        "assets": fingerprint(generic.asset),
    }
    if settings.fit == "classical" or trial.model:
        return needed
    others = {each.name: evidence_files(each) for each in other_trials(trial, settings)}
    return needed | {
        "height_m": trial.subject.height_m,
        "calibration": trial.calibration,
        "world_up": trial.world_up,
        "others": others,
        "left_out": trial.left_out,
    }


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Fit a model to the person, and its coordinates to one trial."""
    labelled = load_dataset(trial.folder("augment") / "markers.nc")
    generic = generic_model("best" if trial.model else settings.model)
    solved, why_not = _joint_fit(trial, generic, labelled, settings, progress)
    done, solver = settings.fit, "joint fit"
    if solved is None:
        done, solver = "classical", settings.solver
        solved = fit_classically(trial, generic, labelled, settings, out, progress)
    if solved.motion.angles.empty:
        raise PipelineError("no sample of this trial has enough markers for inverse kinematics")
    name = trial.model.name if trial.model else generic.name
    note = "The session's own model." if trial.model else generic.note
    about = {
        "model": {"name": name, "note": note, "opensim": opensim().GetVersion()},
        "solver": solver,
        "fit": {"asked": settings.fit, "done": done, "why_not": why_not} | solved.fit,
        "scaling": solved.scaling,
        "samples": len(labelled.time),
        "samples_solved": len(solved.motion.angles),
    }
    _write(solved, about, out)
    notices = []
    if why_not:
        notices.append(
            f"the joint fit was not made: {why_not.rstrip('.')}. The angles are those of the classical "
            "chain."
        )
    if settings.fit == "classical" and settings.fit_trials == "session":
        notices.append(
            "kinematics.fit_trials has no effect: the classical chain scales the model by one trial. Name a "
            "kinematics.fit too."
        )
    if done != "classical" and trial.left_out:
        notices.append(
            f"left out of the fit: {', '.join(trial.left_out)}, which failed. Run each alone to see "
            "why."
        )
    notices += [*solved.notices, f"angles are those of the OpenSim model {name}. {note}"]
    return notices + notices_about(solved, len(labelled.time))


def _write(solved: Solved, about: dict[str, object], out: Path) -> None:
    """Write the model, its movement, what is left of errors, and what there is to say of them."""
    solved.model.printToXML(str(out / "scaled_model.osim"))
    rotational = rotational_coordinates(solved.model)
    angles = in_file_units(solved.motion.angles, rotational)
    write_mot(out / "angles.mot", angles)
    errors = error_table(solved.motion.marker_error_m)
    errors.to_csv(out / "marker_errors.csv", lineterminator="\n", float_format="%.6f")
    if solved.parameters is not None:
        table = solved.parameters.rename_axis("parameter")
        table.to_csv(out / PARAMETERS, lineterminator="\n", float_format="%.6f")
    if solved.deviation is not None:
        table = in_file_units(solved.deviation, rotational)
        table.round(4).to_csv(out / DEVIATIONS, lineterminator="\n")
    about |= {"units": {name: "deg" if name in rotational else "m" for name in angles}}
    about |= {"error_of": " and ".join(f"{kind}s" for kind in kinds_of(errors))}
    for kind in kinds_of(errors):
        about |= {
            f"{kind}_{what}_m": float(errors[f"{kind}_{what}_m"].mean())
            for what in ("median", "rms")
        }
        about[f"{kind}_max_m"] = float(errors[f"{kind}_max_m"].max())
    text = json.dumps(about, indent=2)
    (out / "kinematics.json").write_text(text, encoding="utf-8")


def _joint_fit(
    trial: Trial,
    generic: GenericModel,
    labelled: xr.Dataset,
    settings: Settings,
    progress: Progress,
) -> tuple[Solved | None, str]:
    """Fit model and movement at once, if asked for; None and why, where that cannot be."""
    if settings.fit == "classical":
        return None, ""
    if trial.model:
        return None, "the session brings its own scaled model, whose scales are kept."
    evidence = gathered(trial, other_trials(trial, settings), settings.fit.split("+"))
    height_m, mass_kg = trial.subject.height_m, float(labelled.attrs["mass_kg"])
    try:
        return fit_skeleton(trial.name, evidence, generic, height_m, mass_kg, progress), ""
    except PipelineError as error:
        return None, str(error)
