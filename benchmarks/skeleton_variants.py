"""The ways from 2D keypoints to a scaled model and its angles, each run on one simulated session."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.chains import (
    PEER,
    Made,
    Outcome,
    Truth,
    branched,
    by_pose2sim,
    judged,
    result_of,
    tried,
    written,
)
from models.opensim_model import body_poses, load_model
from pipeline.config import configure
from pipeline.runner import run_trial
from pipeline.simulate import Plan, Simulation
from stages.trial import Trial, no_progress

SECONDS = "seconds.json"
Changes = Mapping[str, Mapping[str, Any]]
"""Settings by stage, as session.toml has them."""

CLASSICAL, BATCHED = "classical chain", "classical, batched IK"
MARKERS, KEYPOINTS, IMAGES = "fit to markers", "fit to keypoints", "fit to images"
RETRAINED = {"augment": {"network": "retrained"}}
VARIANTS: dict[str, Changes] = {
    CLASSICAL: {"kinematics": {"fit": "classical"}},
    BATCHED: {"kinematics": {"fit": "classical", "solver": "batched"}},
    "classical, retrained augmenter": RETRAINED
    | {"kinematics": {"fit": "classical", "solver": "batched"}},
    MARKERS: {"kinematics": {"fit": "markers"}},
    "fit to markers, retrained augmenter": RETRAINED | {"kinematics": {"fit": "markers"}},
    KEYPOINTS: {"kinematics": {"fit": "keypoints"}},
    IMAGES: {"kinematics": {"fit": "images"}},
}
"""By name, with what they change."""

SEGMENTS = {
    "pelvis": ("femur_r", "femur_l"),
    **{
        f"{name} {side}": (f"{start}_{side.lower()}", f"{end}_{side.lower()}")
        for name, start, end in (
            ("thigh", "femur", "tibia"), ("shank", "tibia", "talus"), ("foot", "calcn", "toes"),
        )
        for side in "RL"
    },
}  # fmt: skip
"""Bodies from whose origins to which a segment is long, legs straight."""


@dataclass(frozen=True)
class Fitted:
    """What one way made of one session, and how good that is."""

    outcome: Outcome
    """By the samples that all ways solved."""
    own: Outcome
    """By all that this way solved."""
    length_error_mm: dict[str, float] = field(default_factory=dict)
    """By segment: the fitted model's minus the true one's."""
    stated_deg: dict[str, float] = field(default_factory=dict)
    """The fit's own standard deviation of each rotation (m of a translation)."""
    summary: dict[str, Any] = field(default_factory=dict)
    """`kinematics.json`."""

    frames: int = 0
    """Samples of the trial."""

    @property
    def length_rms_mm(self) -> float:
        """Error of the segments' lengths, RMS."""
        return root_mean_square(list(self.length_error_mm.values()))

    @property
    def instead(self) -> bool:
        """Whether the fit was refused, and the classical chain's result is what there is."""
        fit = self.summary.get("fit", {})
        return fit.get("done") != fit.get("asked")


def run_variants(
    plan: Plan,
    variants: Mapping[str, Changes],
    model: str,
    peer: str | None = None,
) -> dict[str, Fitted]:
    """Simulate a session, and make each variant of its last trial's results.

    `model` is what is fitted, whatever the person is simulated on; `peer` is Pose2Sim's Python. Stages
    that no variant changes run once. All are judged by the samples that all solved.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "session"
        simulation, trial = written(plan, folder)
        made = made_by_variants(trial, variants, model)
        if peer:
            made[PEER] = tried(
                by_pose2sim, trial, simulation, folder, Path(scratch) / "peer", peer, True
            )
        outcomes = judged(simulation, made, list(made))
        truth = Truth.of(simulation)
        return {
            name: _fitted(simulation, outcomes[name], truth.judge(each), each)
            for name, each in made.items()
        }


def made_by_variants(
    trial: Trial, variants: Mapping[str, Changes], model: str
) -> dict[str, Made | str]:
    """The result of each variant, or why there is none; a variant's results are in a folder of its own."""
    shared = tried(_run, trial, model, {}, "smooth")
    if isinstance(shared, str):
        return dict.fromkeys(variants, shared)
    return {
        name: tried(_result, branched(trial, name), model, changes)
        for name, changes in variants.items()
    }


def settings_with(trial: Trial, model: str, changes: Changes):
    """A trial's settings with a model, and a variant's changes."""
    kinematics = {"model": model} | dict(changes.get("kinematics", {}))
    return configure(trial.activity, {**changes, "kinematics": kinematics})


def _run(trial: Trial, model: str, changes: Changes, last: str) -> None:
    """Run a trial up to some stage, which other trials may be needed for, and time its own stages.

    Seconds are the processor's, which does not depend on what else the machine does; they are kept
    beside the results, for those who go on from them.
    """
    configured = partial(settings_with, model=model, changes=changes)
    path = trial.results / SECONDS
    seconds = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    began = time.process_time()
    for each in run_trial(trial, configured, lambda *_: no_progress, last=last):
        # Other trials' stages go before, under the same names.
        if not each.skipped:
            seconds[each.stage] = time.process_time() - began
        began = time.process_time()
    path.write_text(json.dumps(seconds), encoding="utf-8")


def _result(trial: Trial, model: str, changes: Changes) -> Made:
    _run(trial, model, changes, "kinematics")
    seconds = json.loads((trial.results / SECONDS).read_text(encoding="utf-8"))
    return result_of(trial, seconds)


def _fitted(simulation: Simulation, outcome: Outcome, own: Outcome, made: Made | str) -> Fitted:
    if isinstance(made, str):
        return Fitted(outcome, own)
    true = segment_lengths_mm(simulation.trials[-1].scene.model)
    lengths = segment_lengths_mm(load_model(made.model))
    error = {name: lengths[name] - true[name] for name in SEGMENTS}
    path = made.model.with_name("kinematics.json")
    summary = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return Fitted(outcome, own, error, stated_deg(summary), summary, len(made.time_s))


def segment_lengths_mm(model) -> dict[str, float]:
    """Lengths of a model's segments, between joint centres."""
    straight = pd.DataFrame({"knee_angle_r": [0.0], "knee_angle_l": [0.0]})
    poses = body_poses(model, straight)
    place = dict(zip(poses.names, poses.position[0], strict=True))
    return {
        name: 1000 * float(np.linalg.norm(place[start] - place[end]))
        for name, (start, end) in SEGMENTS.items()
    }


def stated_deg(summary: Mapping[str, Any]) -> dict[str, float]:
    """The standard deviations that a fit states, in the angles' units, by coordinate."""
    return summary.get("fit", {}).get("uncertainty", {})


def root_mean_square(values: Sequence[float]) -> float:
    """Of the values that are known; NaN without any."""
    known = np.array(values, float)
    known = known[np.isfinite(known)]
    return float(np.sqrt((known**2).mean())) if len(known) else np.nan
