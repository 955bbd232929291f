"""Rows: how far a person's model is from the evidence, one row for each measured number.

A row is about one axis of one point: right or down in a view's image plane at the person, or x, y or z of
the world. What is measured is what the model has, plus an error that stays (the shift of this keypoint in
this view), plus one that changes; all in metres at the person. Errors that change are Student's t, since
keypoints are now and then elsewhere altogether; weights are those of iteratively reweighted least
squares (Lange, Little and Taylor, J Am Stat Assoc 84(408), 1989).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.fitting.augmented_markers import augmented_markers
from models.fitting.evidence import ImageEvidence, PointEvidence, TrialEvidence
from models.fitting.floor import SOLES, standing_flat
from models.fitting.priors import priors
from models.simulation.detector import by_keypoint, parameters

TRIANGULATED, AUGMENTED, FLOOR = "/triangulated", "/markers", "/floor"
"""Sources of evidence besides cameras, which cannot have such names."""
KINDS = ("keypoints", "markers", "floor")
"""Kinds of errors."""
NOISE = ((0.02, 5.0), (1.0, 5.0), (1.0, 1.0))
"""Within which the size of each kind's changing errors is sought, 1 as the priors say. Augmented markers
agree with each other better than with the truth, so that theirs is not smaller."""
BIAS = ((0.02, 5.0), (0.02, 5.0), (1.0, 1.0))
"""The same of constant errors."""
KIND_OF = {AUGMENTED: 1, FLOOR: 2}
AXES = {TRIANGULATED: (0, 1, 2), AUGMENTED: (0, 1, 2), FLOOR: (1,)}
"""What a source tells of its points; cameras tell two axes of their images."""
LEAST_CERTAIN, MOST_CERTAIN = 0.05, 4.0
LEAST_DEPTH_M = 0.1
"""Points nearer to a camera, or behind it, are taken to be so far in front of it."""


@dataclass(frozen=True)
class Layout:
    """What each row is about, and how large its errors usually are (m); the same in all samples."""

    sources: tuple[str, ...]
    point: Int[Tensor, "row"]
    source: Int[Tensor, "row"]
    axis: Int[Tensor, "row"]
    slow_m: Float[Tensor, "row"]
    """Standard deviation of wandering errors."""
    quick_m: Float[Tensor, "row"]
    """Of errors that are new in every frame."""
    bias_m: Float[Tensor, "row"]
    """Of the error that stays."""
    correlation_s: Float[Tensor, "row"]
    """For how long wandering errors resemble themselves."""
    kind: Int[Tensor, "row"]
    """Of `KINDS`."""
    shared_m: Float[Tensor, "row"]
    """Of an error that stays and is the same for all rows of a source and axis."""
    mates: Float[Tensor, "row row"]
    """1 where two rows are of the same point in the same source."""

    def shared_columns(self) -> Float[Tensor, "row column"]:
        """Which rows have each shared error in common, times its size; columns of none are left out."""
        columns = torch.nn.functional.one_hot(3 * self.source + self.axis).to(self.shared_m)
        columns = columns * self.shared_m[:, None]
        return columns[:, columns.abs().sum(0) > 0]

    def single_variance(self, noise: Float[Tensor, "kind"]) -> Float[Tensor, "row"]:
        """Variance of changing errors in one sample, m²; noise is their size, 1 as the priors say."""
        return noise[self.kind] ** 2 * (self.quick_m**2 + self.slow_m**2)

    def variance(self, interval_s: float, noise: Float[Tensor, "kind"]) -> Float[Tensor, "row"]:
        """The same for many samples, so far apart, that are treated as independent.

        Wandering is correlated; so many samples of it tell as much of what lies below as fewer
        independent ones (the spectral density of a first-order autoregression at frequency 0).
        """
        kept = torch.exp(-interval_s / self.correlation_s)
        slow = self.slow_m**2 * (1 + kept) / (1 - kept)
        return noise[self.kind] ** 2 * (self.quick_m**2 + slow)


@dataclass(frozen=True)
class _Source:
    """One camera, or one kind of points in space."""

    name: str
    points: tuple[str, ...]
    augmenter: str = ""

    @property
    def axes(self) -> tuple[int, ...]:
        """Of its rows."""
        return AXES.get(self.name, (0, 1))

    def sizes(self) -> Float[np.ndarray, "5 point"]:
        """Of each point: slow, quick, constant and shared errors, m, and the slow ones' correlation, s."""
        errors, floor, one = priors()["errors"], priors()["floor"], np.ones(len(self.points))
        wander_s = parameters()["wander"]["correlation_s"] * one
        if self.name == AUGMENTED:
            known = augmented_markers(self.augmenter)
            bodies = Counter(known[name].body for name in self.points)
            moving = [known[n].moving_m * bodies[known[n].body] ** 0.5 for n in self.points]
            correlation_s = errors["marker_correlation_s"] * one
            bias = errors["marker_bias_m"] * one
            return np.stack([moving, 0 * one, bias, 0 * one, correlation_s])
        if self.name == FLOOR:
            moving, bias, height = floor["sole_m"], floor["sole_bias_m"], floor["height_m"]
            return np.stack([moving * one, 0 * one, bias * one, height * one, wander_s])
        shared = 0.0 if self.name == TRIANGULATED else errors["view_m"]
        keys = ("wander_m", "jitter_m", "bias_m")
        sizes = (by_keypoint(self.points, key) for key in keys)
        return np.stack([*sizes, shared * one, wander_s])


def layout_of(trials: Sequence[TrialEvidence], points: Sequence[str]) -> Layout:
    """Rows for everything that any of the trials has of these points."""
    sources = list(_sources(trials, points))
    rows = [
        np.array([[points.index(name), index, axis] for name in each.points for axis in each.axes])
        for index, each in enumerate(sources)
    ]  # fmt: skip
    point, source, axis = torch.from_numpy(np.concatenate(rows)).T
    sizes = [np.repeat(each.sizes(), len(each.axes), axis=1) for each in sources]
    slow, quick, bias, shared, correlation_s = torch.from_numpy(np.concatenate(sizes, axis=1))
    observation = source * len(points) + point
    mates = (observation[:, None] == observation).double()
    names = tuple(each.name for each in sources)
    kind = torch.tensor([KIND_OF.get(name, 0) for name in names])[source]
    return Layout(
        names, point, source, axis, slow, quick, bias, correlation_s, kind, shared, mates
    )  # fmt: skip


def _sources(trials: Sequence[TrialEvidence], points: Sequence[str]) -> Iterator[_Source]:
    def those_of(evidence: Iterable[ImageEvidence | PointEvidence | None]) -> tuple[str, ...]:
        known = {name for each in evidence if each for name in each.names}
        return tuple(name for name in points if name in known)

    seen = those_of(each.images for each in trials)
    for camera in dict.fromkeys(n for each in trials if each.images for n in each.images.cameras):
        yield _Source(camera, seen)
    for name, attribute in ((TRIANGULATED, "keypoints"), (AUGMENTED, "markers")):
        if known := those_of(getattr(each, attribute) for each in trials):
            yield _Source(name, known, trials[0].augmenter)
    if soles := tuple(name for name in points if name in SOLES):
        yield _Source(FLOOR, soles)


@dataclass(frozen=True)
class Measured:
    """Evidence of some samples, sorted into a layout's rows."""

    view: Float[Tensor, "source 3 4"]
    """From the world to the camera; zeros for points in space."""
    in_image: Float[Tensor, "row"]
    """1 for rows of cameras, 0 for those of points in space."""
    value: Float[Tensor, "sample row"]
    """Image coordinates, or m; 0 where unknown."""
    certainty: Float[Tensor, "sample row"]
    """What one over the variance is multiplied by; 0 where unknown."""
    depth_m: Float[Tensor, "sample row"]
    """How far in front of the camera the point is, about: errors in images are in m there. It stays as it
    is in a fit: else whoever is smaller and nearer errs less."""

    def of(self, samples: Int[Tensor, "chosen"]) -> "Measured":
        """Some of the samples."""
        return replace(
            self,
            value=self.value[samples],
            certainty=self.certainty[samples],
            depth_m=self.depth_m[samples],
        )

    def seen_at(self, layout: Layout, position: Float[Tensor, "sample point 3"]) -> "Measured":
        """The same, of points that are about there, m."""
        forwards = self.view[layout.source][:, 2]
        depth = (position[:, layout.point] * forwards[:, :3]).sum(-1) + forwards[:, 3]
        return replace(self, depth_m=depth.clamp(min=LEAST_DEPTH_M))


def measured(trial: TrialEvidence, layout: Layout, points: Sequence[str]) -> Measured:
    """Sort a trial's evidence into rows."""
    shape = len(trial.time_s), len(layout.point)
    value, certainty = np.full(shape, np.nan), np.zeros(shape)
    view = np.zeros((len(layout.sources), 3, 4))
    source, axis = layout.source.numpy(), layout.axis.numpy()
    row_points = np.array(points)[layout.point.numpy()]
    for index, name in enumerate(layout.sources):
        rows = np.flatnonzero(source == index)
        found = _of_source(trial, name)
        if found is None:
            continue
        names, position, sure = found
        rows = rows[np.isin(row_points[rows], names)]
        column = [names.index(point) for point in row_points[rows]]
        value[:, rows] = position[:, column, axis[rows]]
        certainty[:, rows] = sure[:, column]
        if trial.images and name in trial.images.cameras:
            view[index] = trial.images.camera_from_world[trial.images.cameras.index(name)]
    known = np.isfinite(value) & np.isfinite(certainty)
    in_image = np.isin(layout.sources, tuple(AXES), invert=True)[source]
    arrays = (
        view,
        in_image.astype(float),
        np.where(known, value, 0.0),
        np.where(known, certainty, 0.0),
        np.ones(shape),
    )
    return Measured(*(torch.from_numpy(each) for each in arrays))


def _of_source(trial: TrialEvidence, name: str):
    """Names, positions (time, point, axis) and certainties (time, point), if the trial has them."""
    if name == FLOOR:
        flat, floor_m = standing_flat(trial.start, trial.time_s)
        certain = np.stack([flat[sole[0]] for sole in SOLES], axis=1).astype(float)
        return tuple(SOLES), np.full((*certain.shape, 3), floor_m), certain
    if name in (TRIANGULATED, AUGMENTED):
        found = trial.keypoints if name == TRIANGULATED else trial.markers
        if found is None:
            return None
        deviation = found.standard_deviation
        known = np.isfinite(deviation)
        usual = np.median(deviation[known]) if known.any() else 1.0
        sure = np.where(known, (usual / np.where(known, deviation, usual)) ** 2, 1.0)
        return found.names, found.position, np.clip(sure, LEAST_CERTAIN, MOST_CERTAIN)
    if trial.images is None or name not in trial.images.cameras:
        return None
    index = trial.images.cameras.index(name)
    confidence = trial.images.confidence[index]
    sure = np.where(confidence > 0, np.clip(confidence, LEAST_CERTAIN, 1.0), 0.0)
    return trial.images.names, trial.images.image[index], sure


@dataclass(frozen=True)
class Compared:
    """The model against the evidence."""

    residual: Float[Tensor, "sample row"]
    """Measured less model, m; 0 where unknown. Constant errors are still in it."""
    direction: Float[Tensor, "sample row 3"]
    """How the model's side of a row moves with its point."""


def compare(
    evidence: Measured, layout: Layout, position: Float[Tensor, "sample point 3"]
) -> Compared:
    """Compare points of a model, m, with the evidence.

    In an image, a row's metres are its image coordinates times the evidence's depth.
    """
    axis, known = layout.axis, evidence.certainty > 0
    view, here = evidence.view[layout.source], position[:, layout.point]
    in_image = evidence.in_image > 0
    across = torch.take_along_dim(view, axis.clamp(max=1)[:, None, None], 1)[:, 0]
    there, away = ((here * of[:, :3]).sum(-1) + of[:, 3] for of in (across, view[:, 2]))
    away = away.clamp(min=LEAST_DEPTH_M)
    image, size = there / away, (evidence.depth_m / away)[..., None]
    own = torch.nn.functional.one_hot(axis, 3).to(view)
    seen = size * (across[:, :3] - image[..., None] * view[:, 2, :3])
    model = torch.where(in_image, evidence.depth_m * image, (own * here).sum(-1))
    wanted = torch.where(in_image, evidence.depth_m * evidence.value, evidence.value)
    direction = torch.where(in_image[:, None], seen, own)
    return Compared(torch.where(known, wanted - model, 0.0), direction)


@dataclass(frozen=True)
class Weighed:
    """What rows count, and what they cost."""

    weight: Float[Tensor, "sample row"]
    """1/m²."""
    cost: Float[Tensor, "sample"]
    squares: Float[Tensor, "sample row"]
    """Squared errors over their usual variance, times how little they are outliers: 1 on average."""


def weigh(
    error_m: Float[Tensor, "sample row"],
    evidence: Measured,
    layout: Layout,
    variance: Float[Tensor, "row"],
    noise: Float[Tensor, "kind"],
) -> Weighed:
    """Weights and cost of errors, constant ones taken off, in samples whose rows have a variance (m²)."""
    freedom = priors()["errors"]["degrees_of_freedom"]
    single = layout.single_variance(noise)
    square = error_m**2 * evidence.certainty / single
    of_point = square @ layout.mates
    axes = (evidence.certainty > 0).to(square) @ layout.mates
    inlying = (freedom + axes) / (freedom + of_point)
    share = single / variance
    cost = share * (freedom + axes) / axes.clamp(min=1) * torch.log1p(of_point / freedom) / 2
    known = evidence.certainty > 0
    return Weighed(
        inlying * evidence.certainty / variance, (cost * known).sum(-1), square * inlying * known
    )
