"""Both solvers of the inverse kinematics on the demo's markers: time, marker errors, angles.

    python -m benchmarks.kinematics [RESULTS]

RESULTS is the results folder of a trial that has run, the demo's by default. Times are CPU time of one
thread, of one run after a short one, as ratios to OpenSim's. Then milliseconds a frame of the batched
solver, since that is how its goal is told (at most 0.5 on two cores): the same markers forwards and
backwards until there are 800 samples, the best of five runs, where torch may use one thread or two
(the solver takes one: its operations are too small to be shared).
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
LONG, RUNS = 800, 5
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
    for threads in (1, 2):
        torch.set_num_threads(threads)
        elapsed, busy = milliseconds_a_frame(batched, model, setup, markers)
        print(
            f"{LONG} samples, {threads} threads: {elapsed:.3f} ms a frame, {busy:.3f} of CPU time"
        )


def timed(solve, model, setup: Path, times: np.ndarray, markers: dict) -> tuple[Motion, float]:
    """A motion, and the CPU time that it took, s; not counting what is slow the first time only."""
    few = {name: values[:3] for name, values in markers.items()}
    solve(model, setup, times[:3], few, no_progress)
    begun = time.process_time()
    return solve(model, setup, times, markers, no_progress), time.process_time() - begun


def milliseconds_a_frame(solve, model, setup: Path, markers: dict) -> tuple[float, float]:
    """Elapsed time and CPU time, ms, for each sample of a long trial: the least of some runs."""
    there = np.arange(len(next(iter(markers.values()))))
    order = np.resize(np.concatenate([there, there[::-1]]), LONG)
    long = {name: values[order] for name, values in markers.items()}
    runs = []
    for _ in range(RUNS):
        begun = time.perf_counter(), time.process_time()
        solve(model, setup, np.arange(LONG) / 60, long, no_progress)
        runs.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    elapsed, busy = 1000 * np.min(runs, 0) / LONG
    return elapsed, busy


def costs(motion: Motion, weights: dict[str, float]) -> np.ndarray:
    """Weighted mean of squared marker errors, m², by sample."""
    weight = np.array(list(weights.values()))
    squared = motion.marker_error_m[list(weights)].to_numpy() ** 2
    return np.nansum(squared * weight, 1) / (np.isfinite(squared) @ weight)


if __name__ == "__main__":
    main()
