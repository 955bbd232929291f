"""Classical fit: scale an OpenSim model by a stretch of standing, and let it follow the markers."""

from pathlib import Path
from typing import Protocol

import xarray as xr

from models.augmenter import MARKERS
from models.batched_kinematics import solve_inverse_kinematics_batched
from models.learned import torch_device
from models.opensim_model import (
    GenericModel,
    Motion,
    load_model,
    marker_names,
    solve_inverse_kinematics,
)
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from stages.scaling import fit_model, notices_about_markers, notices_about_scale
from stages.series import by_name
from stages.solved import Solved
from stages.trial import Progress, Trial


class ClassicalOptions(Protocol):
    """Those of the kinematics' settings that the classical chain has."""

    solver: str
    device: str
    scaling_window_s: float


def fit_classically(
    trial: Trial,
    generic: GenericModel,
    labelled: xr.Dataset,
    settings: ClassicalOptions,
    out: Path,
    progress: Progress,
) -> Solved:
    """Scale a model by where the person stands best, place its markers, and follow them."""
    if trial.model:
        model, scaling, notices = _brought_model(trial.model), {"source": trial.model.name}, []
    else:
        model, scaling, notices = _scaled_model(trial, generic, labelled, settings, out)
    markers = by_name(labelled.position, "marker")
    setup = generic.folder / generic.ik_setup
    motion = _solve(model, setup, labelled.time.values, markers, settings, progress)
    return Solved(model, motion, scaling, notices)


def _solve(
    model, setup: Path, time_s, markers, settings: ClassicalOptions, progress: Progress
) -> Motion:
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
