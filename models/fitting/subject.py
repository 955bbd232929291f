"""Subject: fit a model to a person, by samples of all their trials together.

As AddBiomechanics does for markers (Werling et al., AddBiomechanics: Automating model scaling, inverse
kinematics, and inverse dynamics from human motion data through sequential optimization, PLoS ONE
18(11), 2023), here for any evidence, and with priors in the place of bounds: what the data do not
determine stays at the prior, and is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.augmenter import MARKERS, VIDEO_KEYPOINTS
from models.batched_kinematics import Solver
from models.fitting.augmented_markers import augmented_markers
from models.fitting.evidence import TrialEvidence
from models.fitting.person import UNSEEN, heights_m, model_with_keypoints, proportions, scaled_model
from models.fitting.poses import Person, neutral
from models.fitting.priors import PLACE, priors, stem
from models.fitting.rows import AXES, KINDS, Layout, Measured, layout_of, measured
from models.fitting.subject_equations import Estimate, Prior, SubjectFit
from models.opensim_model import GenericModel
from models.skeleton import Skeleton, read_skeleton
from pipeline.errors import PipelineError

SPACING_S = 0.1
"""Between samples that the person is fitted by: nearer ones err alike."""
FEWEST_SAMPLES, MOST_SAMPLES = 10, 96
STILL_DEG, STILL_SHARE = 25.0, 0.05
MOVING = ("hip_flexion", "knee_angle", "arm_flex", "elbow_flex")
"""Somebody who bends none of these so far is too still; the least and most, which may be noise, left out."""
FITTED = {*VIDEO_KEYPOINTS, *MARKERS}
"""Keypoints of the face would bend the trunk where a model's neck does not bend far enough."""
USUAL_HEIGHT_M = 1.70
"""Where the fit starts if nobody has stated the height."""
ARM, ARM_STEPS, ELBOW = ("arm_", "elbow_", "pro_sup"), 50, 0.8
"""Coordinates of arms; steps of inverse kinematics from arms that hang, bent by so much (rad)."""
KNOWN_SHARE = 0.5
"""A sample in which fewer of the points are seen does not count."""
CONTRADICTION_M, CONTRADICTION = 0.08, 3.0
"""A given height that is so far from what the data say, and so many standard deviations."""
AXIS_NAMES = {2: ("across", "down"), 3: ("x", "y", "z")}


class CannotFit(PipelineError):
    """The data do not allow a joint fit; the message says why."""


@dataclass(frozen=True)
class FittedSubject:
    """A person, as fitted."""

    model: Any
    """The scaled OpenSim model, with its markers and the keypoints where they are on this person."""
    factors: dict[str, Float[np.ndarray, "3"]]
    """Scale factors by body."""
    moved_m: dict[str, float]
    """How far each keypoint or marker is from where people usually have it."""
    parameters: pd.DataFrame
    """By name: `kind` (scale, offset, constant error), `value`, `prior_sd`, `posterior_sd`, `determined` (the
    share of the prior's variance that the data took away). Scales as logarithms, others in m."""
    deviation: pd.Series
    """By coordinate: standard deviation of angles by what is not known of the person, rad or m: the median
    over the samples. NaN for coordinates that points do not tell of."""
    noise: dict[str, float]
    """Size of errors that change, by kind (`rows.KINDS`), 1 as the priors say."""
    bias: dict[str, float]
    """Of those that stay."""
    samples: dict[str, int]
    """How many were used of each trial."""
    stature_m: float
    """The fitted model's height."""
    person: Person
    layout: Layout
    constant_m: Float[Tensor, "row"]
    """Errors that stay, of each row."""


def fit_subject(
    generic: GenericModel,
    trials: Sequence[TrialEvidence],
    height_m: float | None,
    mass_kg: float,
    progress,
) -> FittedSubject:
    """Fit a generic model's proportions, and where keypoints or markers are on it, to a person.

    Raises CannotFit if nothing can be fitted or the data contradict the height, and PipelineError for a
    model that is not supported.
    """
    model = model_with_keypoints(generic, VIDEO_KEYPOINTS, trials[0].augmenter)
    thinned = [trial.every(max(round(SPACING_S / _interval_s(trial)), 1)) for trial in trials]
    fit, estimate, samples = _problem(read_skeleton(model), thinned, height_m or USUAL_HEIGHT_M)
    rounds = 1 if height_m is None else 2
    estimate = fit.solve(estimate, lambda done, total: progress(done, rounds * total))
    if height_m is not None:
        _check_height(fit, estimate, height_m)
        fit = fit.knowing((height_m, priors()["height"]["known_m"]))
        estimate = fit.solve(estimate, lambda done, total: progress(total + done, rounds * total))
    return _told(model, fit, estimate, samples, mass_kg)


def _problem(
    whole: Skeleton, trials: Sequence[TrialEvidence], height_m: float
) -> tuple[SubjectFit, Estimate, dict[str, int]]:
    """The fit's equations, where it starts, and how many samples of each trial it looks at."""
    known = set().union(*(trial.points for trial in trials)) & FITTED
    points = [name for name in whole.markers if name in known]
    if not points:
        raise CannotFit("none of the keypoints or markers has a place on the model.")
    points += UNSEEN
    layout = layout_of(trials, points)
    ones = torch.ones(len(whole.bodies), 3, dtype=torch.float64)
    size = height_m / float(heights_m(whole, ones).max())
    usual = whole.scaled(size * ones)
    poses = [rough_poses(usual, trial) for trial in trials]
    placed = [usual.with_markers(points).marker_positions(each) for each in poses]
    evidence = [
        measured(trial, layout, points).seen_at(layout, position)
        for trial, position in zip(trials, placed, strict=True)
    ]
    chosen = choose_samples(whole, evidence, layout, poses)
    together = _together([each.of(rows) for each, rows in zip(evidence, chosen, strict=True)])
    start = torch.cat([each[rows] for each, rows in zip(poses, chosen, strict=True)])
    shape = proportions(whole.bodies, priors()["height"]["unknown"])
    spread_m = [_point_spread_m(name, trials[0].augmenter) for name in points]
    prior = Prior(shape, torch.tensor(spread_m, dtype=torch.float64), None, whole)
    spacing_s = max(SPACING_S, *(_interval_s(trial) for trial in trials))
    fit = SubjectFit(whole.with_markers(points), prior, layout, together, spacing_s)
    estimate = fit.start(start)
    estimate.parameter[0] = np.log(size) / shape.spread[0]
    samples = {trial.name: len(rows) for trial, rows in zip(trials, chosen, strict=True)}
    return fit, estimate, samples


def _point_spread_m(name: str, augmenter: str) -> float:
    if name in UNSEEN:
        return 0.0
    if name in MARKERS:
        return augmented_markers(augmenter)[name].person_spread_m
    return priors()["points"]["keypoint_m"]


def _interval_s(trial: TrialEvidence) -> float:
    return float(np.median(np.diff(trial.time_s))) if len(trial.time_s) > 1 else SPACING_S


def rough_poses(skeleton: Skeleton, trial: TrialEvidence) -> Float[Tensor, "time coordinate"]:
    """Poses to start from: inverse kinematics of smoothed points, and between them where they lack.

    Raises CannotFit if no sample has half of the points.
    """
    names = [name for name in skeleton.markers if name in trial.start]
    if not names:
        raise CannotFit(f"{trial.name} has no points to start from.")
    target = torch.from_numpy(np.stack([trial.start[name] for name in names], axis=1))
    known = target.isfinite().all(-1).double().mean(-1) > KNOWN_SHARE
    if not known.any():
        raise CannotFit(f"in no sample of {trial.name} are half of the keypoints known.")
    standing = skeleton.with_markers(names)
    standing.default = neutral(skeleton)
    solver = Solver(standing, dict.fromkeys(names, 1.0), "cpu")
    solved = _arms_near_neutral(solver, solver.solve(target[known]), target[known]).numpy()
    time_s, at = trial.time_s, trial.time_s[known.numpy()]
    between = [np.interp(time_s, at, column) for column in solved.T]
    return torch.from_numpy(np.stack(between, axis=1))


def _arms_near_neutral(
    solver: Solver, solved: Tensor, target: Float[Tensor, "sample marker 3"]
) -> Float[Tensor, "sample coordinate"]:
    """The poses with arms that hang down bent at first, if that fits as well and twists them less: an
    arm that is nearly straight fits its points in more than one way.
    """
    names = solver.skeleton.coordinates
    arms = [stem(name).startswith(ARM) for name in names]
    hanging = solved.clone()
    hanging[:, arms] = solver.skeleton.default[arms]
    hanging[:, [stem(name) == "elbow_flex" for name in names]] = ELBOW
    hanging, _ = solver.improve(hanging, target, ARM_STEPS)

    def cost(poses: Tensor) -> float:
        away = solver.distances(poses, target) / priors()["points"]["keypoint_m"]
        usual_rad = np.radians(priors()["pose_deg"]["other"])
        twist = poses[:, arms] / usual_rad
        return float(away.nan_to_num().square().sum() + twist.square().sum())

    return min(solved, hanging, key=cost)


def seen_share(evidence: Measured, layout: Layout) -> Float[Tensor, "sample"]:
    """Share of the points that a sample has anything of."""
    count = int(layout.point.max()) + 1
    measured_rows = layout.kind < KINDS.index("floor")
    seen = evidence.certainty.new_zeros(len(evidence.certainty), count)
    seen = seen.index_add(1, layout.point, ((evidence.certainty > 0) & measured_rows).double())
    of_any = layout.point[measured_rows].unique()
    return (seen[:, of_any] > 0).double().mean(-1)


def choose_samples(
    skeleton: Skeleton,
    evidence: Sequence[Measured],
    layout: Layout,
    poses: Sequence[Float[Tensor, "time coordinate"]],
) -> list[Int[Tensor, "chosen"]]:
    """Samples of each trial, apart in time and as different from each other as there are.

    Raises CannotFit if there are too few, or the person hardly moves.
    """
    candidates = [(seen_share(each, layout) > KNOWN_SHARE).nonzero()[:, 0] for each in evidence]
    owner = torch.cat([torch.full_like(rows, index) for index, rows in enumerate(candidates)])
    if len(owner) < FEWEST_SAMPLES:
        raise CannotFit(
            f"too short: {len(owner)} samples, a tenth of a second apart, show most of the body; "
            f"{FEWEST_SAMPLES} are needed."
        )
    pose = torch.cat([each[rows] for each, rows in zip(poses, candidates, strict=True)])
    bends = [stem(name) in MOVING for name in skeleton.coordinates]
    edges = torch.tensor([STILL_SHARE, 1 - STILL_SHARE], dtype=pose.dtype)
    least, most = pose[:, bends].quantile(edges, dim=0)
    moved_deg = torch.rad2deg(most - least).max()
    if moved_deg < STILL_DEG:
        raise CannotFit(
            f"too still: hips, knees, shoulders and elbows bend by {moved_deg:.0f}°, which does "
            f"not tell a segment's length from a point's place. {STILL_DEG:.0f}° are needed."
        )
    turning = [name not in PLACE for name in skeleton.coordinates]
    kept = _farthest_first(pose[:, turning], MOST_SAMPLES)
    return [rows[kept[owner == index]] for index, rows in enumerate(candidates)]


def _farthest_first(pose: Float[Tensor, "sample value"], most: int) -> Tensor:
    """Which of the samples to keep: one after the other the farthest from all before."""
    kept = torch.zeros(len(pose), dtype=torch.bool)
    away = torch.full((len(pose),), torch.inf, dtype=pose.dtype)
    nearest = (pose - pose.mean(0)).norm(dim=-1).argmin()
    for _ in range(min(most, len(pose))):
        kept[nearest] = True
        away = torch.minimum(away, (pose - pose[nearest]).norm(dim=-1))
        away[kept] = -1.0
        nearest = away.argmax()
    return kept


def _together(evidence: Sequence[Measured]) -> Measured:
    view = torch.stack([each.view for each in evidence])
    found = view.abs().sum((2, 3)).argmax(0)  # a trial that has the source
    first = evidence[0]
    return replace(
        first,
        view=view[found, torch.arange(view.shape[1])],
        value=torch.cat([each.value for each in evidence]),
        certainty=torch.cat([each.certainty for each in evidence]),
        depth_m=torch.cat([each.depth_m for each in evidence]),
    )


def _check_height(fit: SubjectFit, estimate: Estimate, height_m: float) -> None:
    tall_m, slope = fit.stature(estimate)
    covariance = fit.covariance(estimate)[: len(slope), : len(slope)]
    spread_m = float((slope @ covariance @ slope).sqrt())
    apart_m = tall_m - height_m
    if abs(apart_m) > max(CONTRADICTION_M, CONTRADICTION * spread_m):
        raise CannotFit(
            f"height_m = {height_m:.2f} m contradicts the data, which are of somebody {tall_m:.2f} m "
            f"(± {spread_m:.2f}) tall. Check the height, and the scale of the calibration."
        )


def _told(
    model, fit: SubjectFit, estimate: Estimate, counts: Mapping[str, int], mass_kg: float
) -> FittedSubject:
    """Put what was found into words and into a model."""
    person = fit.person(estimate.parameter)
    deviation, poses = fit.deviations(estimate)
    points, skeleton = fit.skeleton.markers, fit.skeleton
    offset_m = fit.offset_m(estimate.parameter).numpy()
    factors = dict(zip(skeleton.bodies, person.scale.numpy(), strict=True))
    constant_m = fit.constant_of(estimate) @ estimate.parameter[fit.parts[2]]
    return FittedSubject(
        scaled_model(model, factors, dict(zip(points, offset_m, strict=True)), mass_kg),
        factors,
        {
            n: float(np.linalg.norm(o))
            for n, o in zip(points, offset_m, strict=True)
            if n not in UNSEEN
        },
        _parameter_table(fit, estimate, deviation),
        pd.Series(poses.median(0).values.numpy(), list(skeleton.coordinates)),
        dict(zip(KINDS, estimate.noise.tolist(), strict=True)),
        dict(zip(KINDS, estimate.bias.tolist(), strict=True)),
        dict(counts),
        fit.stature(estimate)[0],
        person,
        fit.layout,
        constant_m,
    )


def _parameter_table(
    fit: SubjectFit, estimate: Estimate, deviation: Float[Tensor, "parameter"]
) -> pd.DataFrame:
    """One row a parameter; errors common to all of a view are left out."""
    points, layout, prior = fit.skeleton.markers, fit.layout, fit.prior
    axes = [AXIS_NAMES[3 if name in AXES else 2] for name in layout.sources]
    names = list(prior.proportions.names)
    names += [f"{name}, {axis}" for name in points for axis in AXIS_NAMES[3]]
    names += [
        f"{layout.sources[source].removeprefix('/')} {points[point]}, {axes[source][axis]}"
        for point, source, axis in zip(
            layout.point.tolist(), layout.source.tolist(), layout.axis.tolist(), strict=True
        )
    ]
    kinds = ["scale"] * len(prior.proportions.names) + ["offset"] * 3 * len(points)
    kinds += ["constant error"] * len(layout.point)
    size = torch.cat(
        [prior.proportions.spread, prior.point_m.repeat_interleave(3), estimate.bias[layout.kind] * layout.bias_m]
    )  # fmt: skip
    count, spread = len(names), deviation.clamp(max=1.0)
    table = {
        "kind": kinds,
        "value": (estimate.parameter[:count] * size).numpy(),
        "prior_sd": size.numpy(),
        "posterior_sd": (spread[:count] * size).numpy(),
        "determined": (1 - spread[:count] ** 2).numpy(),
    }
    return pd.DataFrame(table, pd.Index(names, name="parameter"))
