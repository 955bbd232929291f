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
    position, times = by_name(labelled.position, "marker"), labelled.time.values
    markers = {name: position[name] for name in MARKERS}
    model = load_model(results / "09_kinematics" / "scaled_model.osim")
    generic = generic_model("best")
    setup = generic.folder / generic.ik_setup
    weights = marker_weights(setup, set(MARKERS))
    batched = partial(solve_inverse_kinematics_batched, device="cpu")
    theirs, seconds = timed(solve_inverse_kinematics, model, setup, times, markers)
    ours, taken = timed(batched, model, setup, times, markers)
    mine, other = costs(ours, weights), costs(theirs, weights)
    rows = {
        "OpenSim": (1.0, 1000 * np.sqrt(other.mean()), (other < mine).sum()),
        "batched": (taken / seconds, 1000 * np.sqrt(mine.mean()), (mine < other).sum()),
    }
    columns = (
        "time, of OpenSim's", "weighted marker error, RMS (mm)", "samples in which it is the lower",
    )  # fmt: skip
    print(f"{len(times)} samples, {len(weights)} markers, {len(ours.angles.columns)} coordinates")
    print(pd.DataFrame(rows, columns).T.round(3).to_string())
    legs = [name for name in theirs.angles if name.startswith(LEGS) and "beta" not in name]
    rmse = np.sqrt((np.degrees(ours.angles[legs] - theirs.angles[legs]) ** 2).mean())
    print(
        f"pelvis and legs differ by {rmse.mean():.3f}° RMSE, {rmse.idxmax()} most: {rmse.max():.3f}°"
    )


def timed(solve, model, setup: Path, times: np.ndarray, markers: dict) -> tuple[Motion, float]:
    """A motion, and the CPU time that it took, s; not counting what is slow the first time only."""
    few = {name: values[:3] for name, values in markers.items()}
    solve(model, setup, times[:3], few, no_progress)
    begun = time.process_time()
    return solve(model, setup, times, markers, no_progress), time.process_time() - begun


def costs(motion: Motion, weights: dict[str, float]) -> np.ndarray:
    """Weighted mean of squared marker errors, m², by sample."""
    weight = np.array(list(weights.values()))
    squared = motion.marker_error_m[list(weights)].to_numpy() ** 2
    return np.nansum(squared * weight, 1) / (np.isfinite(squared) @ weight)


if __name__ == "__main__":
    main()
