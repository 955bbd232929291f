"""How well cameras' clocks are found: simulated recordings that start seconds apart, and the demo's.

    python -m benchmarks.synchronization [--pose2sim PYTHON] [--write]

`--pose2sim` is the Python of an environment that has Pose2Sim: it synchronises the same keypoints.
`--write` puts the tables into docs/synchronization.md. Everything is seeded.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.progress import track as progress

from benchmarks.accuracy import run_all, table, version_of
from benchmarks.recordings import CLOCKS, Case, Film, cases, film, scene_of
from benchmarks.synchronization_peer import compared, peer_rows
from calibration import read_cameras
from models.clock_agreement import agreed_clocks
from models.clock_search import Search
from models.synchronization import STEP_S, Track
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, replacing
from pipeline.session import open_session
from stages.clocks import ERRORS, Decision, decide
from stages.frames import image_sizes
from stages.persons import of_subject, only_person
from stages.synchronize import own_clocks, tracks_of
from stages.trial import Trial

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "synchronization.md"
DEMO = HERE.parent / "sessions" / "demo"
LARGEST_S = 10.0
SEEDS = (1, 2)
DEMO_SHIFTS_S = ((0.0, 0.05, -0.1, 0.15), (0.0, 0.213, 0.107, -0.061), (0.0, -0.3, 0.02, 0.1))


def judged(film: Film) -> Iterator[dict]:
    """A row for each camera whose clock is to be found."""
    names = list(film.views)
    began = time.perf_counter()
    decision: Decision | None = None
    why = ""
    try:
        decision = decide(names, film.tracks, Search.of(film.tracks, LARGEST_S), {})
    except PipelineError as error:
        why = str(error).split(": ")[1].split(".")[0]
    seconds = time.perf_counter() - began
    for camera, row in enumerate(film.truths(), start=1):
        row |= {"seconds": seconds, "why": why}
        if decision:
            error_s = decision.clocks.offset_s[camera] - row["offset"]
            around = ERRORS * decision.clocks.error_s[camera]
            low = not around <= row["half"]
            row |= {"error": abs(error_s), "z": error_s / max(around / ERRORS, 1e-9), "low": low}
        yield row


def filmed(chosen: Sequence[Case]) -> list[Film]:
    """The recordings; those of one movement and seed are of one scene."""
    scenes, films = {}, []
    for case in progress(chosen, "filming"):
        key = case.motion, case.seed
        scenes[key] = scenes.get(key) or scene_of(*key)
        films.append(film(scenes[key], case))
    return films


def simulated(films: Sequence[Film]) -> pd.DataFrame:
    """A row for each camera of each recording."""
    return pd.DataFrame(row for each in progress(films, "this pipeline") for row in judged(each))


def by_pose2sim(films: Sequence[Film], python: str) -> pd.DataFrame:
    """The same by Pose2Sim, of the first seed's recordings whose cameras have one rate.

    It knows no other rates, and takes long.
    """
    first = [each for each in films if each.case.seed == SEEDS[0]]
    alike = [each for each in first if len(set(each.rates_hz)) == 1]
    return pd.DataFrame(sum(run_all(partial(peer_rows, python), alike, "Pose2Sim"), []))


def summary(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Errors of those that were found, and how many were flagged or refused."""

    def of(group):
        found = group.dropna(subset="error")
        missed = found.error > found.half
        return pd.Series(
            {
                "cameras found": len(found),
                "median (ms)": 1e3 * found.error.median(),
                "95th percentile (ms)": 1e3 * found.error.quantile(0.95),
                "largest (ms)": 1e3 * found.error.max(),
                "under half a frame (%)": 100 * (~missed).mean(),
                "larger misses": int(missed.sum()),
                "of them flagged": int((missed & found.low.astype(bool)).sum()),
                "low confidence (%)": 100 * found.low.astype(float).mean(),
                "refused (%)": 100 * (1 - len(found) / len(group)),
                "time (s)": group.seconds.mean(),
            }
        )

    grouped = rows.groupby(list(by), sort=False).apply(of, include_groups=False).reset_index()
    counts = ["cameras found", "larger misses", "of them flagged"]
    return grouped.astype(dict.fromkeys(counts, int))


def started_later(track: Track, shift_s: float) -> Track:
    """The same recording by a camera that was started so much later, or earlier if below 0.

    Whole frames before its start are cut off; a part of a frame stays in the clock.
    """
    own = track.time_s - shift_s
    kept = own >= 0 if shift_s > 0 else np.ones(len(own), bool)
    return Track(own[kept], track.image[kept], track.camera_from_world)


def tracks_of_trial(trial: Trial) -> list[Track]:
    """What the cameras of a trial saw, whose keypoints have been found."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    keypoints = load_dataset(trial.folder("keypoints") / "keypoints.nc")
    own = own_clocks(timeline)
    cameras, _ = read_cameras(trial.calibration, list(own), image_sizes(timeline))
    subject = of_subject(keypoints, only_person(keypoints, "largest").person)
    return tracks_of(subject, cameras, own)


def agreed_s(tracks: Sequence[Track]) -> np.ndarray:
    """Offsets at which all cameras agree best: what the stage uses of a short recording."""
    start_s = Search.of(tracks, LARGEST_S).best({0: 0}) * STEP_S
    return agreed_clocks(tracks, start_s, range(1, len(tracks))).offset_s


def demo_rows() -> pd.DataFrame | None:
    """Known shifts of the demo's cameras, against what is found without; None if it was not run."""
    if not (DEMO / "results" / "balancing" / "03_keypoints").is_dir():
        return None
    trial = next(each for each in open_session(DEMO).trials() if each.name == "balancing")
    tracks = tracks_of_trial(trial)
    rows, unshifted_s = [], agreed_s(tracks)
    for shifts in [(0.0,) * len(tracks), *DEMO_SHIFTS_S]:
        moved = [started_later(each, shift) for each, shift in zip(tracks, shifts, strict=True)]
        decision = decide(trial.cameras, moved, Search.of(moved, LARGEST_S), {})
        for camera in range(1, len(tracks)):
            found_s = decision.clocks.offset_s[camera]
            rows.append(
                {
                    "camera": trial.cameras[camera],
                    "shift (ms)": 1e3 * shifts[camera],
                    "found by the stage (ms)": 1e3 * found_s,
                    "as": decision.source[camera],
                    "error (ms)": 1e3 * (agreed_s(moved) - unshifted_s - shifts)[camera],
                }
            )
    return pd.DataFrame(rows)


def document(
    rows: pd.DataFrame, demo: pd.DataFrame | None, peer: dict[str, object], minutes: float
) -> str:
    """Render docs/synchronization.md."""
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined)
    whole = summary(rows.assign(all="all"), ["all"])
    return environment.get_template("synchronization.md.j2").render(
        minutes=f"{minutes:.0f}",
        recordings=len(rows.groupby(["movement", "rate (Hz)", "cameras", "seed"])),
        spread=f"{CLOCKS.start_spread_s:g}",
        largest=f"{rows.offset.abs().max():.1f}",
        whole=table(whole),
        tables=[table(summary(rows, [by])) for by in ("movement", "rate (Hz)", "cameras")],
        refused=sorted(set(rows.why) - {""}),
        demo=table(demo) if demo is not None else "",
        peer=peer,
    )


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pose2sim", metavar="PYTHON", help="Python that has Pose2Sim")
    parser.add_argument("--write", action="store_true", help="write docs/synchronization.md")
    arguments = parser.parse_args()
    began = time.perf_counter()
    films = filmed(cases(SEEDS))
    rows, demo, peer = simulated(films), demo_rows(), {}
    if python := arguments.pose2sim:
        peer = {"version": version_of(python), **compared(rows, by_pose2sim(films, python))}
    text = document(rows, demo, peer, (time.perf_counter() - began) / 60)
    print(text)
    if arguments.write:
        with replacing(DOCUMENT) as path:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
