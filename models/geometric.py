"""Geometric triangulation: robust, confidence-weighted least squares over all views at once."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field

from models.continuity import most_continuous

CANDIDATES = 3
"""Where views contradict each other, so many different points are considered."""
PRIOR_FREEDOM = 3.0
"""The assumed error counts as much as this many residuals: a point seen by two cameras has one."""


class Tolerances(BaseModel):
    """How far keypoints are trusted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_confidence: float = Field(0.3, ge=0, le=1)
    """Keypoints that the pose model is less sure of than this are not used."""
    max_ray_distance_m: float = Field(0.10, gt=0)
    """A view is dropped when its ray passes farther than this from the point. In metres at the
    subject, not in pixels, so that it means the same for every camera and distance."""
    typical_error_m: float = Field(0.015, gt=0)
    """How far a good keypoint's ray usually misses its joint: the scale at which views are
    down-weighted, and the noise that is assumed where views are too few to measure it."""
    chunk_frames: int = Field(500, gt=0)
    """Frames worked on at once: bounds the memory."""


@dataclass(frozen=True)
class Points:
    """Triangulated points and how far to trust each; NaN where fewer than two views agree."""

    position: Float[np.ndarray, "*points 3"]
    """m, in the cameras' world."""
    standard_deviation: Float[np.ndarray, "*points 3"]
    """m, along each world axis."""
    ray_distance: Float[np.ndarray, "camera *points"]
    """m between the point and each view's ray, at the point's depth; NaN where not observed."""
    view_seen: Bool[np.ndarray, "camera *points"]
    """Where a view shows the keypoint with enough confidence."""
    view_used: Bool[np.ndarray, "camera *points"]


@dataclass(frozen=True)
class _Rays:
    """What the cameras saw of some points: a ray each, as two equations."""

    seen: Bool[np.ndarray, "camera point"]
    weight: Float[np.ndarray, "camera point"]
    """The confidence, squared; 0 where not seen."""
    equations: Float[np.ndarray, "camera point 2 4"]
    """Rows that a point in homogeneous coordinates makes zero, in metres."""
    depth: Float[np.ndarray, "camera 4"]
    """Row that gives a point's depth, m."""

    def of(self, points) -> "_Rays":
        """Keep some points only."""
        chosen = (self.seen[:, points], self.weight[:, points], self.equations[:, points])
        return _Rays(*chosen, self.depth)

    def solve(self, weight) -> tuple[Float[np.ndarray, "point 3"], Float[np.ndarray, "point 3 3"]]:
        """Weighted least-squares points, and the inverses of their normal matrices.

        NaN where the views do not determine a point.
        """
        equations = self.equations
        normal = np.einsum("cp,cpri,cprj->pij", weight, equations, equations, optimize=True)
        inverse = _inverse(normal[:, :3, :3])
        return -np.einsum("pij,pj->pi", inverse, normal[:, :3, 3]), inverse

    def distance(self, position) -> Float[np.ndarray, "camera point"]:
        """Metres between point and ray; infinite for points behind the camera."""
        residual = self.equations[..., :3] @ position[..., None] + self.equations[..., 3:]
        depth = position @ self.depth[:, :3].T + self.depth[:, 3]
        return np.where(depth.T > 0, np.linalg.norm(residual[..., 0], axis=-1), np.inf)


def triangulate(
    image: Float[np.ndarray, "camera time keypoint 2"],
    confidence: Float[np.ndarray, "camera time keypoint"],
    camera_from_world: Float[np.ndarray, "camera 3 4"],
    interval_s: float,
    tolerances: Tolerances,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Points:
    """Triangulate all points at once by robust, confidence-weighted linear least squares.

    `image` holds undistorted image coordinates (focal length 1), NaN where nothing was seen, at
    equal intervals of time. The equations are those of the inhomogeneous linear method (Hartley and
    Zisserman, Multiple View Geometry, 2nd ed., section 12.2) left unscaled, so that a residual is
    the distance in metres between point and ray. That is the error to minimise: pose networks look
    at a crop of the person, so they err by a share of the body, not by a number of pixels.

    Where views contradict each other, every pair of cameras proposes a point, and the proposals
    that most confidence agrees with are kept: the cost grows with the square of the number of
    cameras, not exponentially. The whole trial then decides which of them is right, since one pair
    of cameras often agrees as well as another, and a joint does not jump. Views that do not agree
    with the chosen point are dropped. Two views alone that contradict each other cannot be
    arbitrated: their point is NaN.

    The standard deviation is that of least squares with the residuals' own scatter, shrunk
    towards `typical_error_m` since a point has few views. It knows nothing of errors that all
    views share, such as a keypoint that sits on the skin and not in the joint.

    Memory, besides input and output: 100 bytes per point, and 1 kB per point of a chunk.
    """
    times, keypoints = image.shape[1:3]
    starts = range(0, times, tolerances.chunk_frames)
    chunks = [slice(start, start + tolerances.chunk_frames) for start in starts]

    def rays_of(chunk):
        return _rays(image[:, chunk], confidence[:, chunk], camera_from_world, tolerances)

    candidates, costs, points = [], [], []
    for index, chunk in enumerate(chunks, start=1):
        candidate, cost = _propose(rays_of(chunk), tolerances)
        candidates.append(candidate.reshape(-1, keypoints, CANDIDATES, 3))
        costs.append(cost.reshape(-1, keypoints, CANDIDATES))
        progress(index, 2 * len(chunks))
    path = most_continuous(np.concatenate(candidates), np.concatenate(costs), interval_s)
    for index, chunk in enumerate(chunks, start=1):
        points.append(_refine(rays_of(chunk), path[chunk].reshape(-1, 3), tolerances))
        progress(len(chunks) + index, 2 * len(chunks))
    return Points(
        np.concatenate([each.position for each in points]).reshape(times, keypoints, 3),
        np.concatenate([each.standard_deviation for each in points]).reshape(times, keypoints, 3),
        np.concatenate([each.ray_distance for each in points], axis=1).reshape(confidence.shape),
        np.concatenate([each.view_seen for each in points], axis=1).reshape(confidence.shape),
        np.concatenate([each.view_used for each in points], axis=1).reshape(confidence.shape),
    )


def ray_distances(
    image: Float[np.ndarray, "camera time keypoint 2"],
    confidence: Float[np.ndarray, "camera time keypoint"],
    camera_from_world: Float[np.ndarray, "camera 3 4"],
    position: Float[np.ndarray, "time keypoint 3"],
    tolerances: Tolerances,
) -> Float[np.ndarray, "camera time keypoint"]:
    """Metres between points and rays, as `Points` has them; infinite behind a camera."""
    rays = _rays(image, confidence, camera_from_world, tolerances)
    observed = rays.seen & np.isfinite(position).all(-1).ravel()
    distance = np.where(observed, rays.distance(position.reshape(-1, 3)), np.nan)
    return distance.reshape(confidence.shape)


def ray_equations(
    image: Float[np.ndarray, "camera *points 2"],
    camera_from_world: Float[np.ndarray, "camera 3 4"],
) -> Float[np.ndarray, "camera *points 2 4"]:
    """Rows that a point in homogeneous coordinates makes zero, in metres."""
    between = (slice(None), *[None] * (image.ndim - 2))
    last, first = camera_from_world[*between, None, 2], camera_from_world[*between, :2]
    return image[..., None] * last - first


def _rays(image, confidence, camera_from_world, tolerances) -> _Rays:
    cameras = len(image)
    image, confidence = image.reshape(cameras, -1, 2), confidence.reshape(cameras, -1)
    seen = np.isfinite(image).all(-1) & (confidence >= tolerances.min_confidence)
    equations = ray_equations(np.where(seen[..., None], image, 0.0), camera_from_world)
    return _Rays(seen, np.where(seen, confidence, 0.0) ** 2, equations, camera_from_world[:, 2])


def _propose(rays: _Rays, tolerances: Tolerances):
    """Candidates (point, candidate, 3), the likeliest first, and their costs (point, candidate)."""
    position = np.full((rays.seen.shape[1], CANDIDATES, 3), np.nan)
    cost = np.full(position.shape[:2], np.inf)
    position[:, 0], _ = rays.solve(rays.weight)
    distance = rays.distance(position[:, 0])
    determined = np.isfinite(position[:, 0]).all(-1)
    contested = np.flatnonzero((rays.seen & ~(distance <= tolerances.max_ray_distance_m)).any(0))
    cost[determined, 0] = _disagreement(rays.weight, distance, tolerances)[determined]
    if contested.size:
        position[contested], cost[contested] = _best_pairs(rays.of(contested), tolerances)
    return position, cost


def _best_pairs(rays: _Rays, tolerances: Tolerances):
    """The proposals of camera pairs that most confidence agrees with, each a different point."""
    proposals, costs = [], []
    for pair in combinations(range(len(rays.seen)), 2):
        chosen = np.zeros((len(rays.seen), 1))
        chosen[list(pair)] = 1
        proposal, _ = rays.solve(rays.weight * chosen)
        cost = _disagreement(rays.weight, rays.distance(proposal), tolerances)
        proposals.append(proposal)
        costs.append(np.where(np.isfinite(proposal).all(-1), cost, np.inf))
    proposals, costs = np.stack(proposals, 1), np.stack(costs, 1)  # (point, pair, …)
    point = np.arange(len(costs))
    position = np.full((len(costs), CANDIDATES, 3), np.nan)
    cost = np.full((len(costs), CANDIDATES), np.inf)
    for index in range(CANDIDATES):
        best = costs.argmin(1)
        position[:, index], cost[:, index] = proposals[point, best], costs[point, best]
        apart = np.linalg.norm(proposals - position[:, None, index], axis=-1)
        costs[apart <= tolerances.max_ray_distance_m] = np.inf
    return np.where(np.isfinite(cost)[..., None], position, np.nan), cost


def _disagreement(weight, distance, tolerances):
    """Squared distances in typical errors; a view that is dropped costs the same however far off."""
    distance = np.minimum(distance, tolerances.max_ray_distance_m)
    return (weight * (distance / tolerances.typical_error_m) ** 2).sum(0)


def _refine(rays: _Rays, position, tolerances: Tolerances) -> Points:
    """Solve again from the views that agree with each point, the more the better they agree."""
    for _ in range(2):
        distance = rays.distance(position)
        used = rays.seen & (distance <= tolerances.max_ray_distance_m)
        error = np.where(used, distance, 0) / (2 * tolerances.typical_error_m)
        trust = rays.weight * used / (1 + error**2)
        position, inverse = rays.solve(trust)
    distance = rays.distance(position)
    disagrees = used & ~(distance <= tolerances.max_ray_distance_m)
    trusted = (used.sum(0) >= 2) & ~disagrees.any(0)
    deviation = _standard_deviation(inverse, trust, distance, tolerances.typical_error_m)
    return Points(
        position=np.where(trusted[:, None], position, np.nan),
        standard_deviation=np.where(trusted[:, None], deviation, np.nan),
        ray_distance=np.where(rays.seen & trusted, distance, np.nan),
        view_seen=rays.seen,
        view_used=used & trusted,
    )


def _inverse(normal):
    """Inverses of normal matrices (point, 3, 3); NaN where rays are parallel to within 0.1°."""
    trace = np.trace(normal, axis1=1, axis2=2)
    determined = np.linalg.det(normal) > 1e-7 * (trace / 3) ** 3
    inverse = np.linalg.inv(np.where(determined[:, None, None], normal, np.eye(3)))
    return np.where(determined[:, None, None], inverse, np.nan)


def _standard_deviation(inverse, weight, distance, typical_error_m):
    used = weight > 0
    squares = (weight * np.where(used, distance, 0.0) ** 2).sum(0)
    freedom = np.maximum(2 * used.sum(0) - 3, 0)
    variance = (PRIOR_FREEDOM * typical_error_m**2 + squares) / (PRIOR_FREEDOM + freedom)
    return np.sqrt(variance[:, None] * np.diagonal(inverse, axis1=1, axis2=2))
