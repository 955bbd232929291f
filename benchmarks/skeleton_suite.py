"""The simulated sessions on which ways to fit the skeleton are compared.

Persons, cameras, motions and errors are of seeds that nothing was tuned or trained on, and nobody was
ever trained on drop jumps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.accuracy import ACTIVE, MODEL, noise_of, plan, run_all
from benchmarks.skeleton_variants import (
    BATCHED,
    IMAGES,
    VARIANTS,
    Changes,
    Fitted,
    run_variants,
)
from models.simulation.detector import Errors
from models.simulation.scene import random_for
from models.simulation.subject import SEGMENT_SPREAD, Person, draw_person, scaled_to
from pipeline.simulate import Plan, person_of

FIRST = 400
"""Seed of the first movement's person; each movement has one."""
CAMERAS, NOISES = (2, 4), (0.0, 1.0, 1.5)
"""Noise 0 is none, 1 is `pipeline simulate`'s default."""
FEWEST, DEFAULT = CAMERAS[0], 1.0
SPREADS = 4.5
"""How far from the average a segment of an unusual person is, in standard deviations."""
UNUSUAL = {
    "long thighs, short shanks": {"thigh": 1, "shank": -1},
    "short thighs, long shanks": {"thigh": -1, "shank": 1},
    "short legs, long trunk": {"thigh": -1, "shank": -1, "trunk": 1},
}
"""Groups of bodies that are larger (1) or smaller (-1)."""
APPEARANCE = 3.0
FEW = {name: VARIANTS[name] for name in (BATCHED, IMAGES)}
SOURCES = (
    ("calibration",), ("appearance",), ("view_bias",), ("jitter", "blur"), ("occlusion", "missed"),
    ("outliers", "swaps"), ("clock", "dropped_frames"),
)  # fmt: skip
"""Of errors, as they are looked at together."""
STATIC, SEVERAL = "with a static trial", "with a static trial and three other movements"
TRIALS = {
    IMAGES: VARIANTS[IMAGES],
    f"{IMAGES} of all trials": {"kinematics": {"fit": "images", "fit_trials": "session"}},
}
OPENCAP = Path(__file__).parents[2] / "shared" / "data" / "opencap"
"""OpenCap's model, where it is beside the checkout."""
COORDINATES = {
    "hip_flexion": "hip flexion (°)", "knee_angle": "knee flexion (°)",
    "ankle_angle": "ankle flexion (°)", "pelvis_tilt": "pelvis tilt (°)",
    "L5_S1_Flex_Ext": "lumbar extension (°)",
}  # fmt: skip
"""What is shown, both sides together, with its heading."""
HEADINGS = COORDINATES | {
    "lower limb": "lower limb, MAE (°)", "segments": "segment lengths (mm)", "known": "known (%)",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A session, and what it shows."""

    kind: str
    """`suite`, a source of errors, an unusual person, or a model."""
    plan: Plan
    variants: dict[str, Changes]
    peer: bool = False


def suite() -> list[Case]:
    """Every movement, number of cameras and size of all errors; one person a movement."""
    return [
        Case("suite", plan(motion, cameras, Errors().scaled(noise), seed), VARIANTS, peer=True)
        for seed, motion in enumerate(ACTIVE, FIRST)
        for cameras in CAMERAS
        for noise in NOISES
    ]


def single_errors() -> list[Case]:
    """The sessions of two cameras with few sources of errors alone, at noise 1."""
    fit = {IMAGES: VARIANTS[IMAGES]}
    return [
        Case(
            " and ".join(sources).replace("_", " "),
            plan(
                motion, FEWEST, Errors.none().model_copy(update=dict.fromkeys(sources, 1.0)), seed
            ),
            fit,
        )
        for sources in SOURCES
        for seed, motion in enumerate(ACTIVE, FIRST)
    ]


def told_plans() -> list[Plan]:
    """The sessions of two cameras in which a fit is told parts of the truth."""
    return [
        plan(motion, FEWEST, Errors().scaled(DEFAULT), seed)
        for seed, motion in enumerate(ACTIVE, FIRST)
    ]


def more_evidence() -> list[Case]:
    """Sessions of two cameras in which the person also stands, and ones in which they do all movements."""
    cases = []
    for seed, motion in enumerate(ACTIVE, FIRST):
        standing = plan(motion, FEWEST, Errors().scaled(DEFAULT), seed, static=True)
        others = [each for each in ACTIVE if each != motion]
        several = standing.model_copy(update={"motion": (*others, motion)})
        cases.append(Case(STATIC, standing, FEW))
        cases.append(Case(SEVERAL, several, TRIALS))
    return cases


def unusual_persons(folder: Path) -> list[Case]:
    """Sessions of two cameras with people whom the priors hold for hardly possible.

    Their models are written into `folder`.
    """
    cases = []
    for seed, (what, signs) in enumerate(UNUSUAL.items(), FIRST + len(ACTIVE)):
        path = folder / f"{what}.osim"
        unusual_model(seed, signs).printToXML(str(path))
        there = {"model": str(path), "resize": False}
        motion = ACTIVE[seed % len(ACTIVE)]
        for noise in (0.0, DEFAULT):
            of_noise = plan(motion, FEWEST, Errors().scaled(noise), seed)
            cases.append(Case(what, of_noise.model_copy(update=there), FEW))
    return cases


def unusual_model(seed: int, signs: dict[str, int]):
    """A model of a random person, some segments of whom are `SPREADS` off the average."""
    drawn = draw_person(random_for(seed, "person"))
    factors = drawn.segment_factors | {
        f"{group}_{side}": 1 + sign * SPREADS * SEGMENT_SPREAD
        for group, sign in signs.items()
        for side in "rl"
    }
    person = Person(drawn.sex, drawn.height_m, drawn.mass_kg, factors)
    _, average = person_of(Plan(model=MODEL, resize=False))
    return scaled_to(average, person)[1]


def unusual_keypoints() -> list[Case]:
    """Sessions of two cameras whose detector marks this person's keypoints `APPEARANCE` times as far from
    the average person's as the prior says.
    """
    return [
        Case(
            f"keypoints marked {APPEARANCE:g} times as far off",
            plan(motion, FEWEST, errors.model_copy(update={"appearance": APPEARANCE}), seed), FEW,
        )
        for seed, motion in enumerate(ACTIVE, FIRST)
        for errors in (Errors.none(), Errors().scaled(DEFAULT))
    ]  # fmt: skip


def other_model() -> list[Case]:
    """People simulated on OpenCap's model, fitted with Pose2Sim's; none where it is not there."""
    if not OPENCAP.is_dir():
        return []
    there = {
        "model": str(OPENCAP / "LaiUhlrich2022.osim"),
        "markers": str(OPENCAP / "LaiUhlrich2022_markers_augmenter.xml"),
    }
    return [
        Case(
            "LaiUhlrich2022",
            plan(motion, FEWEST, Errors().scaled(noise), seed).model_copy(update=there),
            FEW,
        )
        for seed, motion in enumerate(ACTIVE, FIRST)
        for noise in (0.0, DEFAULT)
    ]


def run_cases(cases: Sequence[Case], peer: str | None, what: str) -> pd.DataFrame:
    """Run sessions: a row for each way of each (`rows_of`); `peer` is Pose2Sim's Python."""
    found = run_all(partial(_run, peer=peer), cases, what)
    return pd.concat(map(rows_of, cases, found), ignore_index=True)


def _run(case: Case, peer: str | None) -> dict[str, Fitted]:
    return run_variants(case.plan, case.variants, MODEL, peer if case.peer else None)


def rows_of(case: Case, fitted: dict[str, Fitted]) -> pd.DataFrame:
    """One row for each way: errors (degrees, mm), what the fit states, seconds and frames."""
    rows = []
    for name, each in fitted.items():
        outcome = each.outcome
        stated = {f"stated {joint}": of_both(each.stated_deg, joint) for joint in COORDINATES}
        rows.append(
            {
                "kind": case.kind, "movement": case.plan.motion, "cameras": case.plan.cameras,
                "noise": f"{noise_of(case.plan):g}", "seed": case.plan.seed, "chain": name,
                "session": f"{case.kind}, {case.plan.model_dump_json()}",
                **{joint: of_both(outcome.rmse_deg, joint) for joint in COORDINATES},
                "lower limb": outcome.mae_lower_limb_deg, "segments": each.length_rms_mm,
                "known": 100 * outcome.known, "refused": outcome.refused, "instead": each.instead,
                "why": each.summary.get("fit", {}).get("why_not", ""),
                "frames": each.frames,
                **{f"own {joint}": of_both(each.own.rmse_deg, joint) for joint in COORDINATES},
                **{f"seconds {stage}": value for stage, value in outcome.seconds.items()}, **stated,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def of_both(values: Mapping[str, float], name: str) -> float:
    """Mean over both sides of a joint, or the value on the midline; NaN where unknown."""
    sides = [values.get(each, np.nan) for each in (f"{name}_r", f"{name}_l")]
    return float(values.get(name, np.mean(sides)))
