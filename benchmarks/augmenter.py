"""Published against retrained marker augmenter: joint angles of sessions that neither was trained on.

    python -m benchmarks.augmenter

People, cameras and performances are those of seeds from 900 on, which no training draws; drop jumps are
not trained on at all. Everything but the augmenter is the same.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import track

from benchmarks.accuracy import ACTIVE, HEADINGS, MODEL, SECONDS, table
from benchmarks.chains import FLEXIONS, Outcome, judged, result_of, tried, written
from models.simulation.detector import Errors
from pipeline.config import configure
from pipeline.runner import run_trial
from pipeline.simulate import Plan, Simulation
from stages.trial import Trial, no_progress

NETWORKS = ("published", "retrained")
FIRST_SEED, SEEDS = 900, 2
CAMERAS, NOISES = (2, 4), (0.0, 0.5, 1.0)


def plans() -> list[Plan]:
    """A movement has the same person with any number of cameras and at any noise."""
    return [
        Plan(
            motion=motion, model=MODEL, cameras=cameras, seed=FIRST_SEED + len(ACTIVE) * again + index,
            errors=Errors().scaled(noise), static=False, duration_s=SECONDS,
        )
        for again in range(SEEDS)
        for index, motion in enumerate(ACTIVE)
        for cameras in CAMERAS
        for noise in NOISES
    ]  # fmt: skip


def compare(plan: Plan) -> dict[str, Outcome]:
    """Simulate a session, and run the pipeline on it with each network."""
    with tempfile.TemporaryDirectory() as scratch:
        return compared(*written(plan, Path(scratch) / "session"))


def compared(simulation: Simulation, trial: Trial) -> dict[str, Outcome]:
    """Run the pipeline on a session with each network; judged where both gave angles."""
    made = {network: tried(_run, trial, network) for network in NETWORKS}
    return judged(simulation, made, NETWORKS)


def _run(trial: Trial, network: str):
    settings = {"kinematics": {"model": MODEL}, "augment": {"network": network}}

    def configured(any_trial: Trial):
        return configure(any_trial.activity, settings)

    list(run_trial(trial, configured, lambda *_: no_progress, last="kinematics"))
    return result_of(trial, {})


def rows_of(cases: Sequence[Plan], outcomes: Sequence[Mapping[str, Outcome]]) -> pd.DataFrame:
    """One row for each network of each session."""
    return pd.DataFrame(
        {
            "movement": plan.motion, "cameras": plan.cameras, "noise": f"{plan.errors.jitter:g}",
            "network": network, **{joint: outcome.flexion_deg(joint) for joint in FLEXIONS},
            "lower limb": outcome.mae_lower_limb_deg, "markers": outcome.markers_mm,
            "refused": outcome.refused,
        }
        for plan, both in zip(cases, outcomes, strict=True)
        for network, outcome in both.items()
    )  # fmt: skip


def means(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Means over sessions."""
    grouped = rows.groupby([*by, "network"], sort=False)
    shown = [name for name in HEADINGS if name in rows]
    return grouped[shown].mean().assign(sessions=grouped.size()).reset_index()


def report(rows: pd.DataFrame) -> str:
    """Tables by cameras and noise, by movement, and in all; of sessions that neither refused."""
    kept = rows[rows.refused == ""]
    by = (["cameras", "noise"], ["movement"], [])
    text = "\n\n".join(table(means(kept, each)) for each in by)
    return f"{text}\n\n{(rows.refused != '').sum() // len(NETWORKS)} sessions were refused."


def main() -> None:
    """Run all, and print tables."""
    torch.set_num_threads(1)
    cases = plans()
    outcomes = [compare(plan) for plan in track(cases, "sessions", console=Console(stderr=True))]
    print(report(rows_of(cases, outcomes)))


if __name__ == "__main__":
    main()
