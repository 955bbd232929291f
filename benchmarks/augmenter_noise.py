"""Which errors keypoints still have after triangulation and smoothing: what the augmenter is trained on.

    python -m benchmarks.augmenter_noise

Simulated sessions of people, motions and seeds of the training (never the suite's) run through the
pipeline up to smoothing. Prints `models/simulation/smoothed_errors.toml`.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track

from benchmarks.chains import written
from models.augmenter import VIDEO_KEYPOINTS
from models.simulation.detector import Errors
from models.simulation.landmarks import stacked
from models.simulation.performances import MOTIONS
from models.simulation.scene import interpolated
from models.simulation.smoothed_errors import GROUPS, group_of
from pipeline.config import Configuration, configure
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from pipeline.runner import run_trial
from pipeline.simulate import Plan
from stages.series import by_name
from stages.trial import Trial, no_progress

FIRST_SEED = 300_000
CAMERAS, NOISES, SEEDS = (2, 3, 4), (0.5, 1.0), 3
SECONDS, RATE_HZ = 4.5, 60.0
LAG = 3
"""Samples after which wandering is compared with itself."""
ABOUT = (
    "How far triangulated and smoothed keypoints are off, m, for noise 1. MEASURED by",
    "`python -m benchmarks.augmenter_noise` on simulated sessions of the training's motions and seeds,",
    "where cameras stand in front: along depth (X), up (Y) and to the right (Z), standard deviations of",
    "the mean over time and of the rest; what all keypoints have in common is taken out.",
    "correlation_s: 10th and 90th percentile of the width of the normal curve by which the rest",
    "resembles itself. unevenness: standard deviation of the logarithm of its size over sessions.",
)


def plans() -> Iterator[Plan]:
    """Sessions of every motion that is trained on, each with people of its own."""
    seed = FIRST_SEED
    for cameras in CAMERAS:
        for noise in NOISES:
            for motion in MOTIONS:
                for _ in range(SEEDS):
                    yield Plan(
                        motion=motion, model="pose2sim", cameras=cameras, seed=seed, static=False,
                        errors=Errors().scaled(noise), duration_s=SECONDS,
                    )  # fmt: skip
                    seed += 1


def errors_m(plan: Plan) -> Float[np.ndarray, "time keypoint 3"]:
    """Smoothed keypoints against where a detector without noise marks this person; NaN if unknown."""
    with tempfile.TemporaryDirectory() as scratch:
        simulation, trial = written(plan, Path(scratch) / "session")
        list(run_trial(trial, _configured, lambda *_: no_progress, last="smooth"))
        points = load_dataset(trial.folder("smooth") / "points.nc").position
    scene, time_s = simulation.trials[-1].scene, points.time.values
    true = {name: scene.keypoints[name] for name in VIDEO_KEYPOINTS}
    true = stacked(interpolated(true, scene.time_s, time_s), VIDEO_KEYPOINTS)
    return stacked(by_name(points, "keypoint"), VIDEO_KEYPOINTS) - true


def _configured(trial: Trial) -> Configuration:
    return configure(trial.activity, {})


def sizes(errors: list[Float[np.ndarray, "time keypoint 3"]]) -> dict[str, np.ndarray]:
    """Standard deviations along depth, up and across (m), by group: of shifts, and of wandering.

    A shift is the mean over time, wandering the rest; of both, what all keypoints have in common is
    taken out, as no augmenter could know it.
    """
    own = [each - np.nanmean(each, 1, keepdims=True) for each in errors]
    shift = np.array([np.nanmean(each, 0) for each in own])
    squares = np.array([np.nanvar(each, 0) for each in own])
    groups = [[group_of(name) == group for name in VIDEO_KEYPOINTS] for group in GROUPS]
    return {
        "shift_m": np.array([np.sqrt(np.nanmean(shift[:, g] ** 2, (0, 1))) for g in groups]),
        "wander_m": np.array([np.sqrt(np.nanmean(squares[:, g], (0, 1))) for g in groups]),
    }


def unevenness(errors: list[Float[np.ndarray, "time keypoint 3"]]) -> float:
    """Standard deviation of the logarithm of how far a keypoint wanders in a session, by keypoint."""
    far = [np.sqrt(np.nanvar(each, 0).sum(-1)) for each in errors]
    return float(np.nanmean(np.nanstd(np.log(far), 0)))


def correlation_s(errors: list[Float[np.ndarray, "time keypoint 3"]]) -> list[float]:
    """Widths of the normal curves by which wandering resembles itself: 10th and 90th percentile.

    From the correlation after `LAG` samples, of each session, keypoint and axis.
    """
    widths = []
    for each in errors:
        wander = each - np.nanmean(each, 0)
        alike = np.nanmean(wander[LAG:] * wander[:-LAG], 0) / np.nanvar(each, 0)
        widths.append(LAG / RATE_HZ / np.sqrt(-2 * np.log(np.clip(alike, 0.01, 0.99))))
    return np.nanpercentile(widths, (10, 90)).round(3).tolist()


def table(known: dict[int, list[Float[np.ndarray, "time keypoint 3"]]]) -> str:
    """The file's text, from errors for noise 1 by number of cameras."""
    everything = [each for errors in known.values() for each in errors]
    lines = [
        *(f"# {line}" for line in ABOUT),
        f"correlation_s = {correlation_s(everything)}",
        f"unevenness = {np.mean([unevenness(errors) for errors in known.values()]):.2f}",
    ]
    for cameras, errors in known.items():
        lines += ["", f"[cameras.{cameras}]   # {len(errors)} sessions"]
        for group, *rows in zip(GROUPS, *sizes(errors).values(), strict=True):
            shift, wander = (np.round(row, 4).tolist() for row in rows)
            lines.append(f"{group} = {{ shift_m = {shift}, wander_m = {wander} }}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    known: dict[int, list] = {cameras: [] for cameras in CAMERAS}
    console = Console(stderr=True)
    for plan in track(list(plans()), "sessions", console=console):
        try:
            known[plan.cameras].append(errors_m(plan) / plan.errors.jitter)
        except PipelineError as error:
            console.print(f"{plan.motion}, {plan.cameras} cameras, seed {plan.seed}: {error}")
    print(table(known), end="")


if __name__ == "__main__":
    main()
