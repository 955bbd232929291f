"""Whose error it is: the chain without noise, with the truth put in the place of one part after another."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.chains import FLEXIONS, Made, Truth
from models.assets import asset_folder
from models.augmenter import MARKERS, VIDEO_KEYPOINTS, load_augmenter
from models.opensim_model import generic_model, solve_inverse_kinematics
from models.simulation.scene import interpolated
from pipeline.simulate import Plan, simulate
from stages.augment import ASSET, augment
from stages.kinematics import Settings
from stages.motion_files import in_file_units
from stages.scaling import fit_model
from stages.trial import no_progress

STEPS = {
    "true markers, true model": "inverse kinematics alone",
    "augmented markers, true model": "and the augmenter",
    "true markers, scaled model": "and scaling, without the augmenter",
    "augmented markers, scaled model": "the whole chain after triangulation",
}
RATE_HZ = 60.0


def split_error(plan: Plan) -> dict[str, dict[str, float]]:
    """RMSE (degrees) of hip, knee and ankle flexion by step, from true keypoints of one session."""
    simulation = simulate(plan)
    scene, truth = simulation.trials[-1].scene, Truth.of(simulation)
    generic = generic_model(plan.model)
    time_s = np.arange(0, scene.time_s[-1], 1 / RATE_HZ)
    wanted = {name: scene.keypoints[name] for name in VIDEO_KEYPOINTS}
    keypoints = interpolated(wanted, scene.time_s, time_s)
    true = interpolated(scene.markers, scene.time_s, time_s)
    person = simulation.person
    networks = [load_augmenter(asset_folder(ASSET) / part) for part in ("lower", "upper")]
    made = augment(keypoints, time_s, networks, person.height_m, person.mass_kg)
    augmented = dict(zip(MARKERS, np.moveaxis(made, 1, 0), strict=True))

    def error(markers, model):
        setup = generic.folder / generic.ik_setup
        motion = solve_inverse_kinematics(model, setup, time_s, keypoints | markers, no_progress)
        angles = in_file_units(motion.angles, truth.rotational)
        outcome = truth.judge(Made(angles, time_s, {}, {}))
        return {joint: outcome.flexion_deg(joint) for joint in FLEXIONS}

    def scaled(markers):
        with tempfile.TemporaryDirectory() as scratch:
            points, window_s = keypoints | markers, Settings().scaling_window_s
            folder = Path(scratch)
            return fit_model(
                generic, time_s, points, points, person.mass_kg, window_s, folder
            ).model

    errors = (
        error(true, scene.model),
        error(augmented, scene.model),
        error(true, scaled(true)),
        error(augmented, scaled(augmented)),
    )
    return dict(zip(STEPS, errors, strict=True))
