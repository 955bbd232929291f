"""Whose error a joint fit's is: the truth in the place of what the fit must find out about the person."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from benchmarks.accuracy import MODEL, noise_of, run_all
from benchmarks.chains import Made, Truth, written
from benchmarks.skeleton_suite import COORDINATES, of_both
from benchmarks.skeleton_variants import IMAGES, VARIANTS, settings_with
from models.fitting.motion import fit_motion
from models.fitting.person import model_with_keypoints
from models.fitting.poses import Person
from models.fitting.subject import FittedSubject, fit_subject
from models.opensim_model import body_poses, generic_model, opensim, rotational_coordinates
from models.simulation.detector import view_bias
from models.simulation.scene import random_for
from models.simulation.subject import scaled_to
from models.skeleton import read_skeleton
from pipeline.runner import run_trial
from pipeline.simulate import Plan, Simulation
from stages.motion_files import in_file_units
from stages.skeleton_fit import read_evidence
from stages.trial import no_progress

NOTHING = "nothing"
PERSON = "sizes, and places of keypoints on the body"
BIASES = "that, and what stays of the detector's errors in each view"
CAMERAS = "that, and the cameras"


def truth_tables(plans: Sequence[Plan]) -> pd.DataFrame:
    """Mean errors of the angles (degrees) of a fit to images, by what of the truth it is told."""
    cameras = [_with_true_cameras(each) for each in plans]
    found = run_all(told, [*plans, *cameras], "the truth in parts")
    rows = [
        *found[: len(plans)],
        *(each.tail(1).assign(**{"the fit is told": CAMERAS}) for each in found[len(plans) :]),
    ]
    return pd.concat(rows).groupby(["noise", "the fit is told"], sort=False).mean().reset_index()


def _with_true_cameras(plan: Plan) -> Plan:
    """The same session, its calibration without errors."""
    return plan.model_copy(update={"errors": plan.errors.model_copy(update={"calibration": 0.0})})


def told(plan: Plan) -> pd.DataFrame:
    """Errors of one session's angles, a row by what of the truth the fit is told."""
    with tempfile.TemporaryDirectory() as scratch:
        simulation, trial = written(plan, Path(scratch) / "session")
        configured = partial(settings_with, model=MODEL, changes=VARIANTS[IMAGES])
        for _ in run_trial(trial, configured, lambda *_: no_progress, last="augment"):
            pass
        evidence = read_evidence(trial, {"images"})
    truth, person = Truth.of(simulation), simulation.person
    size = person.height_m, person.mass_kg
    fitted = fit_subject(generic_model(MODEL), [evidence], *size, no_progress)
    known = known_subject(fitted, simulation)
    subjects = {
        NOTHING: fitted,
        PERSON: replace(known, constant_m=torch.zeros_like(known.constant_m)),
        BIASES: known,
    }
    rows = []
    for what, subject in subjects.items():
        angles = fit_motion(subject, evidence, no_progress).angles
        angles = in_file_units(angles, rotational_coordinates(subject.model))
        outcome = truth.judge(Made(angles, evidence.time_s, {}, {}))
        errors = {joint: of_both(outcome.rmse_deg, joint) for joint in COORDINATES}
        rows.append({"the fit is told": what, "noise": f"{noise_of(plan):g}", **errors})
    return pd.DataFrame(rows)


def known_subject(fitted: FittedSubject, simulation: Simulation) -> FittedSubject:
    """The person as they are, and the errors that stay as they are, in the place of fitted ones."""
    points, layout = fitted.person.skeleton.markers, fitted.layout
    model = true_model(simulation, points)
    skeleton = read_skeleton(model).with_markers(points)
    shape = fitted.person.proportions
    average = torch.zeros(len(shape.names), dtype=torch.float64)
    unmoved = torch.zeros(len(points), 3, dtype=torch.float64)
    bias_m = view_biases(simulation)
    constant_m = fitted.constant_m.clone()
    rows = zip(layout.source.tolist(), layout.point.tolist(), layout.axis.tolist(), strict=True)
    for row, (source, point, axis) in enumerate(rows):
        if layout.sources[source] in bias_m:
            constant_m[row] = bias_m[layout.sources[source]][points[point]][axis]
    return replace(
        fitted,
        model=model,
        person=Person(skeleton, shape, average, unmoved, fitted.person.free),
        constant_m=constant_m,
    )


def true_model(simulation: Simulation, points: Sequence[str]):
    """A person's model with keypoints where this person's are marked, and a fit's other points."""
    scene = simulation.trials[-1].scene
    average = model_with_keypoints(generic_model(MODEL), points)
    model = scaled_to(average, simulation.person)[1]
    there = [name for name in scene.angles if model.getCoordinateSet().contains(name)]
    poses = body_poses(model, scene.angles[there].iloc[:1])
    for name in (each for each in points if each in scene.keypoints):
        marker = model.updMarkerSet().get(name)
        index = poses.names.index(marker.getParentFrame().findBaseFrame().getName())
        away = scene.keypoints[name][0] - poses.position[0, index]
        place = poses.rotation[0, index].T @ away
        marker.set_location(opensim().Vec3(*map(float, place)))
    model.initSystem()
    return model


def view_biases(simulation: Simulation) -> dict[str, dict[str, Float[np.ndarray, "2"]]]:
    """How far each camera's detector shifts each keypoint, right and down at the person, m."""
    plan, names = simulation.plan, simulation.keypoints
    found = {}
    for camera in simulation.cameras:
        shift = view_bias(names, plan.errors, random_for(plan.seed, f"bias {camera.name}"))
        found[camera.name] = dict(zip(names, shift, strict=True))
    return found
