"""What a fit of the skeleton costs as trials get longer: time and memory."""

import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from benchmarks.accuracy import MODEL
from benchmarks.chains import branched, rerun, written
from benchmarks.skeleton_suite import DEFAULT, FEWEST
from benchmarks.skeleton_variants import (
    BATCHED,
    CLASSICAL,
    IMAGES,
    KEYPOINTS,
    MARKERS,
    VARIANTS,
    settings_with,
)
from models.opensim_model import rotational_coordinates
from models.simulation.detector import Errors
from models.simulation.repeated import performed
from pipeline.runner import run_trial
from pipeline.simulate import Plan, person_of
from stages.motion_files import in_file_units, write_mot
from stages.trial import Trial, no_progress

SEED, MOTION, SECONDS = 404, "squats", (4.5, 18.0, 72.0)
SHOWN = (CLASSICAL, BATCHED, MARKERS, KEYPOINTS, IMAGES)


def scaling_table(seconds: Sequence[float] = SECONDS) -> pd.DataFrame:
    """Processor time of the kinematics stage and its peak of memory, by the trial's length and the way."""
    rows = []
    for length_s in seconds:
        with tempfile.TemporaryDirectory() as scratch:
            trial = _recorded(length_s, Path(scratch))
            # A process each: what one leaves in memory is not another's.
            with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
                measured = list(pool.map(partial(_measured, trial), SHOWN))
        rows += [{"chain": n, **each} for n, each in zip(SHOWN, measured, strict=True)]
    table = pd.DataFrame(rows)
    shortest = table[table.chain == CLASSICAL].iloc[0]
    table["time a frame, of the first's"] = (
        table.seconds / table.frames / (shortest.seconds / shortest.frames)
    )
    return table


def _recorded(length_s: float, folder: Path) -> Trial:
    """A trial of a movement that is repeated for a while, with the stages before kinematics done."""
    _, model = person_of(Plan(model=MODEL, seed=SEED))
    angles = performed(MOTION, model, SEED, "motion", length_s)[:length_s]
    mot = folder / f"{MOTION}.mot"
    write_mot(mot, in_file_units(angles, rotational_coordinates(model)))
    errors = Errors().scaled(DEFAULT)
    plan = Plan(
        motion=str(mot), model=MODEL, cameras=FEWEST, seed=SEED, errors=errors, static=False
    )
    _, trial = written(plan, folder / "session")
    configured = partial(settings_with, model=MODEL, changes={})
    for _ in run_trial(trial, configured, lambda *_: no_progress, last="export"):
        pass
    return trial


def _measured(trial: Trial, name: str) -> dict[str, float]:
    torch.set_num_threads(1)
    branch = branched(trial, name)
    configuration = settings_with(branch, MODEL, VARIANTS[name])
    began = time.process_time()
    rerun(branch, ("kinematics",), configuration)
    seconds = time.process_time() - began
    frames = len(pd.read_csv(branch.folder("kinematics") / "marker_errors.csv"))
    return {"frames": frames, "seconds": seconds, "memory (MiB)": _peak_mib()}


def _peak_mib() -> float:
    """Most memory that this process has had resident so far."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
