"""How good triangulated points are: rows of errors with a column for each method, and what they sum to."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from benchmarks.chains import flexions_between
from benchmarks.triangulation_methods import GEOMETRIC, Found
from models.augmenter import VIDEO_KEYPOINTS
from models.metrics import point_distances_mm

DISTANCE, DEVIATION, LENGTH = "distance (mm)", "stated deviation (mm)", "length's deviation (mm)"
KNEE, ANKLE = "knee (°)", "ankle (°)"
TRUTH = "truth"
LIMBS = tuple(
    (f"{side}{start}", f"{side}{end}")
    for start, end in (
        ("Shoulder", "Elbow"), ("Elbow", "Wrist"), ("Hip", "Knee"), ("Knee", "Ankle"),
        ("Ankle", "BigToe"), ("Heel", "BigToe"),
    )
    for side in "RL"
)  # fmt: skip
"""Segments whose keypoints stay about equally far apart."""
SWAPPING_JOINTS = ("Hip", "Knee", "Ankle", "Heel", "BigToe")
CORRECT_M = 0.05

LABELS = ("movement", "cameras", "noise", "seed", "quantity")
"""Columns of rows that say what an error is of; all others are methods."""

Position = Float[np.ndarray, "frame keypoint 3"]


def errors_of(found: Mapping[str, Found], truth: Position, names: Sequence[str]) -> pd.DataFrame:
    """One row for each error that all methods have a share in, with its `quantity`; NaN if unknown."""
    judged = [list(names).index(name) for name in VIDEO_KEYPOINTS]
    positions = {method: each.position for method, each in found.items()}
    distance = {
        method: point_distances_mm(each, truth)[:, judged].ravel()
        for method, each in positions.items()
    }
    stated = {
        method: 1000 * np.linalg.norm(each.deviation, axis=-1)[:, judged].ravel()
        for method, each in found.items()
    }
    tables = {DISTANCE: distance, DEVIATION: stated, **_angle_errors(positions, truth, names)}
    tables[LENGTH] = length_deviations_mm(positions | {TRUTH: truth}, names)
    return pd.concat(
        [pd.DataFrame(table).assign(quantity=name) for name, table in tables.items()],
        ignore_index=True,
    )


def _angle_errors(positions, truth, names):
    """Errors of flexion between keypoints, degrees: knees, ankles."""
    true = flexions_between(by_name(truth, names))
    made = {method: flexions_between(by_name(each, names)) for method, each in positions.items()}

    def error(angles, joint):
        both = [angles[f"{joint}_{side}"] - true[f"{joint}_{side}"] for side in "rl"]
        return (np.concatenate(both) + 180) % 360 - 180

    return {
        quantity: {method: error(angles, joint) for method, angles in made.items()}
        for quantity, joint in ((KNEE, "knee_angle"), (ANKLE, "ankle_angle"))
    }


def by_name(position: Position, names: Sequence[str]) -> dict[str, Float[np.ndarray, "frame 3"]]:
    """Points by name."""
    return dict(zip(names, np.moveaxis(position, 1, 0), strict=True))


def length_deviations_mm(
    positions: Mapping[str, Position], names: Sequence[str]
) -> dict[str, Float[np.ndarray, "segment"]]:
    """Standard deviation of each limb segment's length over the frames that all methods know, mm.

    NaN with fewer than two such frames. Segments whose keypoints there are not are left out.
    """
    lengths = {method: _lengths_mm(each, names) for method, each in positions.items()}
    known = np.all([np.isfinite(each) for each in lengths.values()], axis=0)
    enough = known.sum(0) > 1
    spread = {
        method: np.where(known, each, 0).std(0, where=known | ~enough)
        for method, each in lengths.items()
    }
    return {method: np.where(enough, each, np.nan) for method, each in spread.items()}


def _lengths_mm(position, names):
    names = list(names)
    ends = [[names.index(end) for end in pair] for pair in LIMBS if set(pair) <= set(names)]
    start, end = np.transpose(ends)
    return 1000 * np.linalg.norm(position[:, start] - position[:, end], axis=-1)


def mean(values: pd.Series) -> float:
    """Mean of what is known."""
    return float(values.mean())


def percentile(values: pd.Series) -> float:
    """95th percentile of what is known."""
    return float(values.quantile(0.95))


def root_mean_square(values: pd.Series) -> float:
    """Of what is known."""
    return float(np.sqrt((values**2).mean()))


def share_known(values: pd.Series) -> float:
    """Percent that is known."""
    return 100 * float(values.notna().mean())


Statistic = Callable[[pd.Series], float]


def summed(
    rows: pd.DataFrame, by: Sequence[str], quantity: str, statistic: Statistic, shared: bool
) -> pd.DataFrame:
    """A statistic of each method's column by some labels; `shared`: of what all methods know."""
    columns = [name for name in rows.columns if name not in LABELS]
    rows = rows[rows["quantity"] == quantity].dropna(axis=1, how="all")
    columns = [name for name in columns if name in rows]
    rows = rows.dropna(subset=columns) if shared else rows
    return rows.groupby(list(by))[columns].agg(statistic).reset_index()


def overall(rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """One row a method: everything that is measured, over all recordings of `rows`."""
    distance = rows[rows.quantity == DISTANCE].reset_index(drop=True)
    stated = rows[rows.quantity == DEVIATION].reset_index(drop=True)
    all_know = distance[list(methods)].notna().all(axis=1)
    missing = distance[GEOMETRIC].isna()
    angles = {joint: rows[rows.quantity == joint].dropna(subset=methods) for joint in (KNEE, ANKLE)}
    lengths = rows[rows.quantity == LENGTH]
    return pd.DataFrame(
        {
            "method": method,
            "MPJPE (mm)": mean(distance[method][all_know]),
            "95th percentile (mm)": percentile(distance[method][all_know]),
            "known (%)": share_known(distance[method]),
            "MPJPE, own (mm)": mean(distance[method]),
            "MPJPE where geometric has none (mm)": mean(distance[method][missing]),
            "error / stated SD": root_mean_square(distance[method])
            / root_mean_square(stated[method]),
            "segment lengths' SD (mm)": mean(lengths[method]),
            **{joint: root_mean_square(each[method]) for joint, each in angles.items()},
        }
        for method in methods
    )


def swap_shares(found: Found, truth: Position, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Whether legs are right in each frame, and whether they are known at all.

    Right: hips, knees, ankles, heels and big toes are on average within 5 cm of the truth and nearer
    to it than to the other side's. Known: more than half of them are there.
    """
    names = list(names)
    own = [names.index(f"{side}{part}") for side in "RL" for part in SWAPPING_JOINTS]
    other = [names.index(f"{side}{part}") for side in "LR" for part in SWAPPING_JOINTS]
    there = found.position[:, own]
    present = np.isfinite(there).all(-1)
    count = np.maximum(present.sum(1), 1)

    def distance_m(indices):
        distance = np.linalg.norm(there - truth[:, indices], axis=-1)
        return np.where(present, distance, 0).sum(1) / count

    right, wrong = distance_m(own), distance_m(other)
    known = present.mean(1) > 0.5
    return {"right": known & (right < CORRECT_M) & (right < wrong), "known": known}
