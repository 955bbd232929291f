"""Both solvers of the inverse kinematics on the demo's markers: time, marker errors, angles.

    python -m benchmarks.kinematics [RESULTS]

RESULTS is the results folder of a trial that has run, the demo's by default. Times are CPU time of one
thread, of one run after a short one, as ratios to OpenSim's.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from models.augmenter import MARKERS
from models.batched_kinematics import solve_inverse_kinematics_batched
from models.opensim_model import (
    Motion,
    generic_model,
    load_model,
    marker_weights,
    solve_inverse_kinematics,
)
from pipeline.files import load_dataset
from stages.series import by_name
from stages.trial import no_progress

DEMO = Path("sessions/demo/results/balancing")
LEGS = ("hip_", "knee_angle", "ankle_angle", "subtalar_angle", "pelvis_t", "pelvis_l", "pelvis_r")


def main() -> None:
    """Solve the same samples with both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="?", default=DEMO)
    results = parser.parse_args().results
    torch.set_num_threads(1)
    labelled = load_dataset(results / "07_augment" / "markers.nc")
    markers = {name: by_name(labelled.position, "marker")[name] for name in MARKERS}
    model = load_model(results / "09_kinematics" / "scaled_model.osim")
    generic = generic_model("best")
    setup, times = generic.folder / generic.ik_setup, labelled.time.values
    weights = marker_weights(setup, set(MARKERS))
    solvers = {
        "OpenSim": solve_inverse_kinematics,
        "batched": partial(solve_inverse_kinematics_batched, device="cpu"),
    }
    found: dict[str, tuple[Motion, float]] = {}
    for name, solve in solvers.items():
        first = {marker: values[:3] for marker, values in markers.items()}
        solve(model, setup, times[:3], first, no_progress)
        begun = time.process_time()
        motion = solve(model, setup, times, markers, no_progress)
        found[name] = motion, time.process_time() - begun
    (theirs, seconds), (ours, _) = found["OpenSim"], found["batched"]
    legs = [name for name in theirs.angles if name.startswith(LEGS) and "beta" not in name]
    difference = np.degrees(ours.angles[legs] - theirs.angles[legs])
    rows = {
        name: {
            "time, of OpenSim's": taken / seconds,
            "weighted marker error, RMS (mm)": 1000 * np.sqrt(costs(motion, weights).mean()),
            "samples in which it is the lower": (
                costs(motion, weights) < min_of_others(found, name, weights)
            ).sum(),
        }
        for name, (motion, taken) in found.items()
    }
    print(f"{len(times)} samples, {len(weights)} markers, {len(ours.angles.columns)} coordinates")
    print(pd.DataFrame(rows).T.round(3).to_string())
    rmse = np.sqrt((difference**2).mean())
    print(
        f"pelvis and legs differ by {rmse.mean():.3f}° RMSE, {rmse.idxmax()} most: {rmse.max():.3f}°"
    )


def costs(motion: Motion, weights: dict[str, float]) -> np.ndarray:
    """Weighted mean of squared marker errors, m², by sample."""
    weight = np.array(list(weights.values()))
    squared = motion.marker_error_m[list(weights)].to_numpy() ** 2
    return np.nansum(squared * weight, 1) / (np.isfinite(squared) @ weight)


def min_of_others(
    found: dict[str, tuple[Motion, float]], name: str, weights: dict[str, float]
) -> np.ndarray:
    """The lowest cost by sample of the other solvers."""
    return np.min(
        [costs(motion, weights) for other, (motion, _) in found.items() if other != name], 0
    )


if __name__ == "__main__":
    main()
