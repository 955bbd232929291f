"""Pose2Sim's synchronisation of the same recordings."""

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.accuracy import table
from benchmarks.pose2sim import Lag, PeerFailed, synchronized
from benchmarks.recordings import Film
from models.simulation.scene import View
from stages.poses import write_poses

CLOCK = ["movement", "seed", "rate (Hz)", "cameras", "camera"]
"""What a row is of."""


def write_frames(folder: Path, view: View) -> None:
    """Write a camera's keypoints, a file a frame; nothing is found in those that the camera lost.

    Pose2Sim counts files: left out, every lost frame would move the rest.
    """
    lost = view.position.shape[1:]
    position = np.full((view.number[-1] + 1, *lost), np.nan)
    confidence = np.zeros(position.shape[:2])
    position[view.number], confidence[view.number] = view.position, view.confidence
    write_poses(folder, np.arange(len(position)), position, confidence)


def peer_rows(python: str, film: Film) -> list[dict]:
    """A row for each camera whose clock is to be found: Pose2Sim's error, s, or why it failed."""
    (rate_hz,) = set(film.rates_hz)
    lags: dict[str, Lag] = {}
    why = ""
    with tempfile.TemporaryDirectory() as scratch:
        for name, view in film.views.items():
            write_frames(Path(scratch) / "pose" / f"{name}_json", view)
        began = time.perf_counter()
        try:
            lags = synchronized(python, Path(scratch), rate_hz)
        except PeerFailed as error:
            why = str(error)
        seconds = time.perf_counter() - began
    rows = list(film.truths())
    for row in rows:
        row |= {"seconds": seconds, "why": why, "error": np.nan, "correlation": np.nan}
        if lags:
            first, camera = (lags[name] for name in (next(iter(film.views)), row["camera"]))
            offset_s = (first.frames - camera.frames) / rate_hz
            row["error"] = abs(offset_s - row["offset"])
            row["correlation"] = min(first.correlation, camera.correlation)
    return rows


def compared(ours: pd.DataFrame, peers: pd.DataFrame) -> dict[str, object]:
    """What the document says of both on the recordings that Pose2Sim was given."""
    same = ours.merge(peers[CLOCK], on=CLOCK, validate="one_to_one")
    methods = {"this pipeline": same, "Pose2Sim": peers.assign(low=False)}
    both = pd.DataFrame({"method": name} | errors_of(rows) for name, rows in methods.items())
    missed = peers.error > peers.half
    return {
        "recordings": len(peers.groupby(CLOCK[:-1])),
        "table": table(both),
        "by": [table(_by(peers, by)) for by in ("movement", "rate (Hz)", "cameras")],
        "right": peers.correlation[~missed].median(),
        "missed": peers.correlation[missed].median(),
        "best_missed": peers.correlation[missed].max(),
        "failures": sorted(set(peers.why) - {""}),
    }


def errors_of(rows: pd.DataFrame) -> dict[str, object]:
    """Figures of the clocks that were found, and how many larger misses were flagged."""
    found = rows.dropna(subset="error")
    missed = found.error > found.half
    return {
        "clocks": len(rows),
        "failed or refused": len(rows) - len(found),
        "median (ms)": 1e3 * found.error.median(),
        "95th percentile (ms)": 1e3 * found.error.quantile(0.95),
        "under half a frame (%)": 100 * (~missed).mean(),
        "over 100 ms (%)": 100 * (found.error > 0.1).mean(),
        "larger misses": int(missed.sum()),
        "of them flagged": int((missed & found.low.astype(bool)).sum()),
    }


def _by(peers: pd.DataFrame, column: str) -> pd.DataFrame:
    """The figures that matter most, by movement, rate or number of cameras."""
    groups = peers.assign(low=False).groupby(column, sort=False)
    figures = pd.DataFrame({column: value} | errors_of(rows) for value, rows in groups)
    return figures[[column, "median (ms)", "under half a frame (%)", "over 100 ms (%)"]]
