"""Motion: the coordinates of one trial, given a fitted person."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.fitting.evidence import TrialEvidence
from models.fitting.motion_equations import MotionFit
from models.fitting.person import UNSEEN
from models.fitting.rows import Layout, measured
from models.fitting.subject import KNOWN_SHARE, CannotFit, FittedSubject, rough_poses, seen_share
from models.skeleton import read_skeleton


@dataclass(frozen=True)
class FittedMotion:
    """A trial's movement."""

    angles: pd.DataFrame
    """Every coordinate of the model, rad or m, indexed by seconds; samples without evidence have no row."""
    error_m: pd.DataFrame
    """How far each point is from its evidence, m at the person: the root mean square over the views that
    see it, errors that stay not counted; NaN where it is not seen."""
    deviation: pd.DataFrame
    """Standard deviation of each coordinate, rad or m: by what was measured and by what is not known of the
    person; as far as the body moves as the model does. NaN where points do not tell of it."""


def fit_motion(subject: FittedSubject, trial: TrialEvidence, progress) -> FittedMotion:
    """Find a trial's likeliest movement.

    Raises CannotFit if it has fewer than three samples, or they are not at equal intervals.
    """
    interval = np.diff(trial.time_s)
    if len(interval) < 2 or not np.allclose(interval, interval[0], atol=1e-6):
        raise CannotFit(f"{trial.name} needs at least three samples at equal intervals of time.")
    points = subject.person.skeleton.markers
    evidence = measured(trial, subject.layout, points)
    fit = MotionFit(
        subject.person, subject.layout, evidence, subject.constant_m,
        torch.tensor(list(subject.noise.values()), dtype=torch.float64), float(interval[0]),
    )  # fmt: skip
    coordinates = fit.solve(rough_poses(read_skeleton(subject.model), trial), progress)
    error, measured_rows = fit.errors(coordinates)
    known = (seen_share(evidence, subject.layout) > KNOWN_SHARE).numpy()
    settled = subject.person.settled(coordinates).numpy()
    index = pd.Index(trial.time_s[known], name="time")
    angles = pd.DataFrame(settled[known], index, list(subject.person.skeleton.coordinates))
    distance = _of_points(error, measured_rows, subject.layout, len(points)).numpy()
    table = pd.DataFrame(distance[known], index, list(points)).drop(columns=list(UNSEEN))
    own = pd.DataFrame(fit.deviation(coordinates).numpy()[known], index, angles.columns)
    return FittedMotion(angles, table, np.sqrt(own**2 + subject.deviation**2))


def _of_points(
    error_m: Float[Tensor, "sample row"],
    known: Bool[Tensor, "sample row"],
    layout: Layout,
    points: int,
) -> Float[Tensor, "sample point"]:
    """Root mean square over observations, each of two or three rows, of every point."""

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros(len(values), points).index_add(1, layout.point, values)

    one = known / layout.mates.sum(1)
    return torch.sqrt(summed(error_m**2 * known) / summed(one.to(error_m)))
