"""Methods of triangulation on the demo's footage, with all of its cameras and without some."""

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.accuracy import run_all
from benchmarks.triangulation_methods import GEOMETRIC, Found, Networks, by_all, shipped_networks
from benchmarks.triangulation_recordings import Recording, of_trial
from benchmarks.triangulation_scores import length_deviations_mm
from models.augmenter import VIDEO_KEYPOINTS
from models.geometric import Tolerances
from models.metrics import mean_known, point_distances_mm
from pipeline.session import open_session

DEMO = Path(__file__).parent.parent / "sessions" / "demo"
EVERY = 5
FRAMES = slice(None, None, EVERY)
FEWEST = 2

Chosen = tuple[int, ...]


def demo_recording() -> Recording | None:
    """The demo's synchronised keypoints, exchanged sides put right; None where it was not run."""
    if not (DEMO / "results" / "balancing" / "04_synchronize" / "keypoints.nc").is_file():
        return None
    trials = open_session(DEMO).trials()
    return of_trial(next(each for each in trials if each.name == "balancing")).repaired()


def demo_table() -> pd.DataFrame | None:
    """Means over all choices of as many cameras, for each method; None where the demo was not run."""
    recording = demo_recording()
    if recording is None:
        return None
    count = len(recording.cameras)
    choices = [
        chosen
        for kept in range(count, FEWEST - 1, -1)
        for chosen in combinations(range(count), kept)
    ]
    found = run_all(partial(_shipped, recording), choices, "demo")
    return compared(recording, dict(zip(choices, found, strict=True)))


def _shipped(recording: Recording, chosen: Chosen) -> dict[str, Found]:
    return by_choice(recording, chosen, shipped_networks())


def by_choice(recording: Recording, chosen: Chosen, networks: Networks) -> dict[str, Found]:
    """Triangulate with some of the cameras."""
    return by_all(recording.by_cameras(chosen), FRAMES, networks)


def compared(recording: Recording, found: dict[Chosen, dict[str, Found]]) -> pd.DataFrame:
    """Means over the choices of as many cameras; the first choice is all of them."""
    whole = next(iter(found.values()))
    rows = [
        {"cameras": len(chosen), "method": method}
        | _figures(recording, chosen, each.position, whole[method].position, whole)
        | {"segment lengths' SD (mm)": lengths[method]}
        for chosen, methods in found.items()
        for lengths in [_length_deviations(methods, recording.names)]
        for method, each in methods.items()
    ]
    grouped = pd.DataFrame(rows).groupby(["cameras", "method"], sort=False)
    return grouped.mean().reset_index()


def _length_deviations(methods: dict[str, Found], names: Sequence[str]) -> dict[str, float]:
    positions = {method: each.position for method, each in methods.items()}
    deviations = length_deviations_mm(positions, names)
    return {method: mean_known(each) for method, each in deviations.items()}


def _figures(recording, chosen, position, own, whole) -> dict[str, float]:
    judged = [i for i, name in enumerate(recording.names) if name in VIDEO_KEYPOINTS]
    error = reprojection_px(recording, position)[:, :, judged]
    removed = [index for index in range(len(error)) if index not in chosen]

    def distance_mm(other):
        return mean_known(point_distances_mm(position, other)[:, judged])

    return {
        "known (%)": 100 * np.isfinite(position[:, judged]).all(-1).mean(),
        "reprojection (px)": _median_known(error[list(chosen)]),
        "on removed cameras (px)": _median_known(error[removed]),
        "from its own with all (mm)": distance_mm(own),
        "from geometric with all (mm)": distance_mm(whole[GEOMETRIC].position),
    }


def reprojection_px(recording: Recording, position: np.ndarray) -> np.ndarray:
    """Distance of points from each camera's keypoints, px; NaN of those that it is too unsure of."""
    projected = np.stack([camera.project(position) for camera in recording.cameras])
    error = np.linalg.norm(projected - recording.pixels[:, FRAMES], axis=-1)
    sure = recording.confidence[:, FRAMES] >= Tolerances().min_confidence
    return np.where(sure, error, np.nan)


def _median_known(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan
