"""Triangulate: 2D keypoints of calibrated cameras to 3D points, robust to bad views."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field

from calibration import Camera, check_geometry, read_cameras
from models.continuity import most_continuous
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.frames import image_sizes
from stages.synchronize import MAX_LAG_S, apparent_lag_s
from stages.trial import Progress, Trial, no_progress

NEEDS = ("frames", "synchronize")

CANDIDATES = 3
"""Where views contradict each other, so many different points are considered."""
TIMING_SAMPLES, TIMING_SHARE = 600, 0.08
"""Synchronisation is looked at in so many samples, and doubted if a lag explains so much."""
PRIOR_FREEDOM = 3.0
"""The assumed error counts as much as this many residuals: a point seen by two cameras has one."""


class Settings(BaseModel):
    """Options of the triangulation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_confidence: float = Field(0.3, ge=0, le=1)
    """Keypoints that the pose model is less sure of than this are not used."""
    max_ray_distance_m: float = Field(0.10, gt=0)
    """A view is dropped when its ray passes farther than this from the point. In metres at the
    subject, not in pixels, so that it means the same for every camera and distance."""
    typical_error_m: float = Field(0.015, gt=0)
    """How far a good keypoint's ray usually misses its joint: the scale at which views are
    down-weighted, and the noise that is assumed where views are too few to measure it."""
    max_dropped_share: float = Field(0.35, gt=0, le=1)
    """The trial is refused if more of what cameras see must be dropped. One camera of four that is
    wrong throughout is 0.25."""
    check_body: bool = True
    """Refuse a trial in which the body is mirrored or not upright most of the time. Turn it off for
    exercises that are done lying down."""
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

    def solve(self, weight) -> Float[np.ndarray, "point 3"]:
        """Weighted least-squares points; NaN where the views do not determine one."""
        equations = self.equations
        normal = np.einsum("cp,cpri,cprj->pij", weight, equations, equations, optimize=True)
        return -np.einsum("pij,pj->pi", _inverse(normal[:, :3, :3]), normal[:, :3, 3])

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
    settings: Settings,
    progress: Progress = no_progress,
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
    starts = range(0, times, settings.chunk_frames)
    chunks = [slice(start, start + settings.chunk_frames) for start in starts]

    def rays_of(chunk):
        return _rays(image[:, chunk], confidence[:, chunk], camera_from_world, settings)

    candidates, costs, points = [], [], []
    for index, chunk in enumerate(chunks, start=1):
        candidate, cost = _propose(rays_of(chunk), settings)
        candidates.append(candidate.reshape(-1, keypoints, CANDIDATES, 3))
        costs.append(cost.reshape(-1, keypoints, CANDIDATES))
        progress(index, 2 * len(chunks))
    path = most_continuous(np.concatenate(candidates), np.concatenate(costs), interval_s)
    for index, chunk in enumerate(chunks, start=1):
        points.append(_refine(rays_of(chunk), path[chunk].reshape(-1, 3), settings))
        progress(len(chunks) + index, 2 * len(chunks))
    return Points(
        np.concatenate([each.position for each in points]).reshape(times, keypoints, 3),
        np.concatenate([each.standard_deviation for each in points]).reshape(times, keypoints, 3),
        np.concatenate([each.ray_distance for each in points], axis=1).reshape(confidence.shape),
        np.concatenate([each.view_used for each in points], axis=1).reshape(confidence.shape),
    )


def _rays(image, confidence, camera_from_world, settings) -> _Rays:
    cameras = len(image)
    image, confidence = image.reshape(cameras, -1, 2), confidence.reshape(cameras, -1)
    seen = np.isfinite(image).all(-1) & (confidence >= settings.min_confidence)
    x_and_y = np.where(seen[..., None], image, 0.0)[..., None]
    equations = x_and_y * camera_from_world[:, None, None, 2] - camera_from_world[:, None, :2]
    return _Rays(seen, np.where(seen, confidence, 0.0) ** 2, equations, camera_from_world[:, 2])


def _propose(rays: _Rays, settings: Settings):
    """Candidates (point, candidate, 3), the likeliest first, and their costs (point, candidate)."""
    position = np.full((rays.seen.shape[1], CANDIDATES, 3), np.nan)
    cost = np.full(position.shape[:2], np.inf)
    position[:, 0] = rays.solve(rays.weight)
    distance = rays.distance(position[:, 0])
    determined = np.isfinite(position[:, 0]).all(-1)
    contested = np.flatnonzero((rays.seen & ~(distance <= settings.max_ray_distance_m)).any(0))
    cost[determined, 0] = _disagreement(rays.weight, distance, settings)[determined]
    if contested.size:
        position[contested], cost[contested] = _best_pairs(rays.of(contested), settings)
    return position, cost


def _best_pairs(rays: _Rays, settings: Settings):
    """The proposals of camera pairs that most confidence agrees with, each a different point."""
    proposals, costs = [], []
    for pair in combinations(range(len(rays.seen)), 2):
        chosen = np.zeros((len(rays.seen), 1))
        chosen[list(pair)] = 1
        proposal = rays.solve(rays.weight * chosen)
        cost = _disagreement(rays.weight, rays.distance(proposal), settings)
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
        costs[apart <= settings.max_ray_distance_m] = np.inf
    return np.where(np.isfinite(cost)[..., None], position, np.nan), cost


def _disagreement(weight, distance, settings):
    """Squared distances in typical errors; a view that is dropped costs the same however far off."""
    distance = np.minimum(distance, settings.max_ray_distance_m)
    return (weight * (distance / settings.typical_error_m) ** 2).sum(0)


def _refine(rays: _Rays, position, settings: Settings) -> Points:
    """Solve again from the views that agree with each point, the more the better they agree."""
    for _ in range(2):
        distance = rays.distance(position)
        used = rays.seen & (distance <= settings.max_ray_distance_m)
        error = np.where(used, distance, 0) / (2 * settings.typical_error_m)
        trust = rays.weight * used / (1 + error**2)
        position = rays.solve(trust)
    distance = rays.distance(position)
    disagrees = used & ~(distance <= settings.max_ray_distance_m)
    trusted = (used.sum(0) >= 2) & ~disagrees.any(0)
    deviation = _standard_deviation(rays.equations, trust, distance, settings.typical_error_m)
    return Points(
        position=np.where(trusted[:, None], position, np.nan),
        standard_deviation=np.where(trusted[:, None], deviation, np.nan),
        ray_distance=np.where(rays.seen & trusted, distance, np.nan),
        view_used=used & trusted,
    )


def _inverse(normal):
    """Inverses of normal matrices (point, 3, 3); NaN where rays are parallel to within 0.1°."""
    trace = np.trace(normal, axis1=1, axis2=2)
    determined = np.linalg.det(normal) > 1e-7 * (trace / 3) ** 3
    inverse = np.linalg.inv(np.where(determined[:, None, None], normal, np.eye(3)))
    return np.where(determined[:, None, None], inverse, np.nan)


def _standard_deviation(equations, weight, distance, typical_error_m):
    normal = np.einsum(
        "cp,cpri,cprj->pij", weight, equations[..., :3], equations[..., :3], optimize=True
    )
    used = weight > 0
    squares = (weight * np.where(used, distance, 0.0) ** 2).sum(0)
    freedom = np.maximum(2 * used.sum(0) - 3, 0)
    variance = (PRIOR_FREEDOM * typical_error_m**2 + squares) / (PRIOR_FREEDOM + freedom)
    return np.sqrt(variance[:, None] * np.diagonal(_inverse(normal), axis1=1, axis2=2))


def triangulate_keypoints(
    cameras: Sequence[Camera],
    position: Float[np.ndarray, "camera time keypoint 2"],
    confidence: Float[np.ndarray, "camera time keypoint"],
    interval_s: float,
    settings: Settings,
    progress: Progress = no_progress,
) -> tuple[Points, Float[np.ndarray, "camera time keypoint"]]:
    """Triangulate pixel positions through the full camera model, distortion included.

    Returns the points, and each view's reprojection error in pixels, NaN where a keypoint was not
    seen or the point is not trusted.
    """
    views = zip(cameras, position, strict=True)
    image = np.stack([camera.undistort(pixels) for camera, pixels in views])
    extrinsics = np.stack([camera.camera_from_world[:3] for camera in cameras])
    points = triangulate(image, confidence, extrinsics, interval_s, settings, progress)
    projected = np.stack([camera.project(points.position) for camera in cameras])
    error = np.linalg.norm(projected - position, axis=-1)
    return points, np.where(np.isfinite(points.ray_distance), error, np.nan)


def as_dataset(
    points: Points, error_px: np.ndarray, seen: np.ndarray, keypoints: xr.Dataset
) -> xr.Dataset:
    """Label triangulated points; errors are means over the views used."""
    used = points.view_used
    views = used.sum(0)

    def mean_over_views(values):
        return np.where(views > 0, np.where(used, values, 0).sum(0) / np.maximum(views, 1), np.nan)

    point, view = ("time", "keypoint"), ("camera", "time", "keypoint")
    return xr.Dataset(
        {
            "position": ((*point, "axis"), points.position, {"units": "m"}),
            "standard_deviation": ((*point, "axis"), points.standard_deviation, {"units": "m"}),
            "reprojection_error": (point, mean_over_views(error_px), {"units": "px"}),
            "reprojection_error_m": (point, mean_over_views(points.ray_distance), {"units": "m"}),
            "views": (point, views, {"units": "1"}),
            "view_seen": (view, seen, {"units": "1"}),
            "view_used": (view, used, {"units": "1"}),
            "view_error": (view, error_px, {"units": "px"}),
        },
        coords={
            "camera": keypoints.camera,
            "time": keypoints.time,
            "keypoint": keypoints.keypoint,
            "axis": ["x", "y", "z"],
        },
        attrs=keypoints.attrs | {"world": "right-handed, Y up, metres"},
    )


def notices_about(points: xr.Dataset, settings: Settings) -> list[str]:
    """What the user should know about these points: cameras that disagree with the rest.

    Raises PipelineError if the cameras contradict each other too often for any result.
    """
    several = points.view_seen.sum("camera") > 1
    dropped = 1 - points.view_used.where(points.view_seen & several)
    by_camera = dropped.mean(("time", "keypoint"))
    off = f"{settings.max_ray_distance_m * 100:.0f} cm"
    if not float(dropped.mean()) <= settings.max_dropped_share:  # nor if nothing was seen twice
        listed = ", ".join(f"{name} {share:.0%}" for name, share in _shares(by_camera))
        raise PipelineError(
            f"triangulation failed: the cameras contradict each other by more than {off}. Dropped of "
            f"each camera's keypoints: {listed}. Check that the calibration belongs to these videos "
            "(names, image sizes, moved cameras), that the cameras are synchronised, and that they "
            "follow the same person."
        )
    return [
        f"camera {name}: {share:.0%} of its keypoints disagree with the other cameras by more than "
        f"{off} and were dropped. Check its calibration, its synchronisation, and whether it follows "
        "the same person."
        for name, share in _shares(by_camera)
        if share > 0.2
    ]


def _shares(by_camera):
    return zip(by_camera.camera.values, by_camera.fillna(1.0).values, strict=True)


def checked_geometry(
    cameras: Sequence[Camera], points: xr.Dataset, settings: Settings
) -> list[str]:
    """Return what is doubtful about the set-up. Raises PipelineError for an impossible one."""
    position = points.position.transpose("time", "keypoint", "axis").values
    problems, doubts = check_geometry(cameras, position, [str(k) for k in points.keypoint.values])
    if problems and settings.check_body:
        raise PipelineError(
            f"{'. '.join(problems)}. (For exercises lying down: triangulate.check_body = false.)"
        )
    return problems + doubts


def notice_about_timing(
    cameras: Sequence[Camera],
    position: Float[np.ndarray, "camera time keypoint 2"],
    confidence: Float[np.ndarray, "camera time keypoint"],
    time_s: Float[np.ndarray, "time"],
    offsets_s: dict[str, float],
    settings: Settings,
) -> list[str]:
    """Which camera seems late or early against all the others, by the middle of the trial.

    Each camera is compared with what the others triangulate; two alone cannot tell. One that is off
    makes the others look off too, so that only the one whose lag explains most is named.
    """
    if len(cameras) < 3:
        return []
    middle = len(time_s) // 2
    shown = slice(max(middle - TIMING_SAMPLES // 2, 0), middle + TIMING_SAMPLES // 2)
    position, confidence, time_s = position[:, shown], confidence[:, shown], time_s[shown]
    interval_s = float(np.median(np.diff(time_s)))
    lags, shares = [], []
    for index, camera in enumerate(cameras):
        rest = [other for other in range(len(cameras)) if other != index]
        points, _ = triangulate_keypoints(
            [cameras[other] for other in rest],
            position[rest],
            confidence[rest],
            interval_s,
            settings,
        )
        sure = confidence[index, ..., None] >= settings.min_confidence
        lag_s, share = apparent_lag_s(
            camera.project(points.position), np.where(sure, position[index], np.nan), time_s
        )
        lags.append(lag_s)
        shares.append(share)
    worst = int(np.argmax(shares))
    name, lag_s, share = cameras[worst].name, lags[worst], shares[worst]
    if abs(lag_s) < interval_s or share < TIMING_SHARE:
        return []
    if abs(lag_s) > MAX_LAG_S - interval_s:
        return [
            f"the cameras seem out of step by {MAX_LAG_S:g} s or more (camera {name} stands out most, "
            "but it may be another). Synchronise the videos, or set clock_offsets_s in session.toml."
        ]
    return [
        f"camera {name} seems {'late' if lag_s > 0 else 'early'} by {abs(lag_s):.3f} s "
        f"({abs(lag_s) / interval_s:.1f} samples): that would explain {share:.0%} of its disagreement "
        "with the others. If its video is not synchronised, set clock_offsets_s = "
        f"{{ {name} = {offsets_s.get(name, 0.0) - lag_s:.3f} }} in session.toml, and look again."
    ]


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    return {
        "calibration": trial.calibration,
        "world_up": trial.world_up,
        "clock_offsets_s": trial.clock_offsets_s,
    }


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Triangulate the synchronised keypoints of one trial into `points.nc`."""
    keypoints = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    names = [str(name) for name in keypoints.camera.values]
    cameras, notices = read_cameras(trial.calibration, names, image_sizes(timeline), trial.world_up)
    position = keypoints.position.transpose("camera", "time", "keypoint", "axis").values
    confidence = keypoints.confidence.transpose("camera", "time", "keypoint").values
    interval_s = 1 / timeline.attrs["rate_hz"]
    points, error_px = triangulate_keypoints(
        cameras, position, confidence, interval_s, settings, progress
    )
    seen = confidence >= settings.min_confidence
    labelled = as_dataset(points, error_px, seen, keypoints)
    notices += notices_about(labelled, settings)
    notices += checked_geometry(cameras, labelled, settings)
    notices += notice_about_timing(
        cameras,
        position,
        confidence,
        keypoints.time.values,
        trial.clock_offsets_s,
        settings,
    )
    save_dataset(labelled, out / "points.nc")
    return notices
