"""The simulated recordings on which methods of triangulation are compared, and what comes out.

Persons, cameras, motions and errors are of seeds that training never uses, and nobody was ever
trained on drop jumps.
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from benchmarks.accuracy import ACTIVE, complete, means, noise_of, plan, rows_of, run_all
from benchmarks.chains import run_methods
from benchmarks.triangulation_methods import (
    ALGEBRAIC,
    GEOMETRIC,
    VOLUMETRIC,
    Networks,
    by_all,
    by_ours,
    shipped_networks,
)  # fmt: skip
from benchmarks.triangulation_recordings import Recording, filmed, with_swaps
from benchmarks.triangulation_scores import errors_of, swap_shares
from models.simulation.detector import Errors
from pipeline.simulate import Plan

FIRST, SEEDS = 1000, 2
CAMERAS, NOISES = (2, 3, 4, 8), (0.25, 0.5, 1.0)
RATE_HZ = 30.0
EVERY, EVERY_SWAPPED = 5, 3
"""Of the frames, so-manieth ones are judged, and triangulated by networks, which see each frame alone.
Neighbours have nearly the same errors."""
SWAP_CAMERAS = (2, 3, 4)
ANGLE_CAMERAS, ANGLE_NOISES = (2, 4), (0.5, 1.0)


def _plan(motion: str, cameras: int, errors: Errors, seed: int) -> Plan:
    return plan(motion, cameras, errors, seed).model_copy(update={"rates_hz": (RATE_HZ,)})


def suite(seeds: int = SEEDS) -> list[Plan]:
    """Every movement, number of cameras and size of all errors; the same persons in all of those."""
    return [
        _plan(motion, cameras, Errors().scaled(noise), FIRST + 10 * index + seed)
        for index, motion in enumerate(ACTIVE)
        for seed in range(seeds)
        for cameras in CAMERAS
        for noise in NOISES
    ]


def swap_plans() -> list[Plan]:
    """Recordings of noise 0.5, without swaps but those that are made later."""
    errors = Errors().scaled(0.5).model_copy(update={"swaps": 0.0})
    return [
        _plan(motion, cameras, errors, FIRST + 10 * index + seed)
        for index, motion in enumerate(ACTIVE)
        for seed in range(SEEDS)
        for cameras in SWAP_CAMERAS
    ]


def judged(recording: Recording, networks: Networks, peer: str | None = None) -> pd.DataFrame:
    """Rows of all methods' errors on one recording."""
    frames = slice(None, None, EVERY)
    found = by_all(recording, frames, networks, peer)
    return errors_of(found, recording.truth[frames], recording.names)


def suite_rows(plans: Sequence[Plan], peer: str | None) -> pd.DataFrame:
    """Rows of all methods' errors, with what they are of."""
    return pd.concat(run_all(partial(_suite_rows, peer=peer), plans, "suite"), ignore_index=True)


def _suite_rows(case: Plan, peer: str | None) -> pd.DataFrame:
    rows = judged(filmed(case), shipped_networks(), peer)
    return rows.assign(
        movement=case.motion, cameras=case.cameras, noise=noise_of(case), seed=case.seed
    )


def swap_rows(peer: str | None) -> pd.DataFrame:
    """One row a method and frame: `swapped`, `right`, `known`."""
    plans = swap_plans()
    return pd.concat(run_all(partial(_swap_rows, peer=peer), plans, "swaps"), ignore_index=True)


def _swap_rows(case: Plan, peer: str | None) -> pd.DataFrame:
    recording, swapped = with_swaps(filmed(case), case.seed)
    frames = slice(None, None, EVERY_SWAPPED)
    found = by_all(recording, frames, shipped_networks(), peer)
    kept = by_ours(recording, frames, shipped_networks())
    found |= {f"{name}, sides kept": each for name, each in kept.items()}
    truth = recording.truth[frames]
    return pd.concat(
        pd.DataFrame(swap_shares(each, truth, recording.names)).assign(
            swapped=swapped[frames], method=method, cameras=case.cameras
        )
        for method, each in found.items()
    )


def swap_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Percent of swapped frames that are right, of them without legs, and of other frames right."""
    grouped = rows.groupby(["cameras", "method"], sort=False)

    def figures(each: pd.DataFrame) -> pd.Series:
        swapped, others = each[each.swapped], each[~each.swapped]
        return pd.Series(
            {
                "swapped frames": len(swapped),
                "corrected (%)": 100 * swapped.right.mean(),
                "no legs given (%)": 100 * (1 - swapped.known.mean()),
                "right without a swap (%)": 100 * others.right.mean(),
            }
        )

    table = grouped.apply(figures, include_groups=False).reset_index()
    return table.astype({"swapped frames": int}).sort_values("cameras", kind="stable")


def angle_table() -> pd.DataFrame:
    """Errors of joint angles through the whole pipeline, by cameras, noise and method."""
    plans = [
        _plan(motion, cameras, Errors().scaled(noise), FIRST + 10 * index)
        for index, motion in enumerate(ACTIVE)
        for cameras in ANGLE_CAMERAS
        for noise in ANGLE_NOISES
    ]
    methods = (GEOMETRIC, ALGEBRAIC, VOLUMETRIC)
    rows = rows_of(plans, run_all(partial(run_methods, methods=methods), plans, "joint angles"))
    rows["noise"] = rows["noise"].astype(float)
    refused = rows.groupby(["cameras", "noise", "chain"])["refused"].agg(lambda e: sum(e != ""))
    table = means(complete(rows), ["cameras", "noise", "chain"])
    table = table.sort_values(["cameras", "noise"], kind="stable")
    keys = table.set_index(["cameras", "noise", "chain"]).index
    return table.assign(refused=refused.reindex(keys).values).rename(columns={"chain": "method"})


def cells(rows: pd.DataFrame, by: Sequence[str], pair: Sequence[str]) -> pd.DataFrame:
    """Mean of two columns over the samples that both have."""
    return rows.dropna(subset=list(pair)).groupby(list(by))[list(pair)].mean().reset_index()
