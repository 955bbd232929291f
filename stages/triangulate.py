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
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.trial import Progress, Trial

NEEDS = ("frames", "synchronize")

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


def triangulate(
    image: Float[np.ndarray, "camera *points 2"],
    confidence: Float[np.ndarray, "camera *points"],
    camera_from_world: Float[np.ndarray, "camera 3 4"],
    settings: Settings,
) -> Points:
    """Triangulate all points at once by robust, confidence-weighted linear least squares.

    `image` holds undistorted image coordinates (focal length 1), NaN where nothing was seen.
    The equations are those of the inhomogeneous linear method (Hartley and Zisserman, Multiple
    View Geometry, 2nd ed., section 12.2) left unscaled, so that a residual is the distance in
    metres between point and ray. That is the error to minimise: pose networks look at a crop of
    the person, so they err by a share of the body, not by a number of pixels.

    Where views contradict each other, every pair of cameras proposes a point, the proposal that
    most confidence agrees with wins, and views that do not agree with it are dropped: the cost
    grows with the square of the number of cameras, not exponentially. Two views that contradict
    each other cannot be arbitrated, and their point is NaN.

    The standard deviation is that of least squares with the residuals' own scatter, shrunk
    towards `typical_error_m` since a point has few views. It knows nothing of errors that all
    views share, such as a keypoint that sits on the skin and not in the joint.
    """
    shape = confidence.shape
    image, confidence = image.reshape(shape[0], -1, 2), confidence.reshape(shape[0], -1)
    seen = np.isfinite(image).all(-1) & (confidence >= settings.min_confidence)
    weight = np.where(seen, confidence, 0.0) ** 2
    equations = _equations(np.where(seen[..., None], image, 0.0), camera_from_world)

    position = _solve(equations, weight)
    distance = _ray_distance(equations, position, camera_from_world)
    contested = np.flatnonzero((seen & ~(distance <= settings.max_ray_distance_m)).any(0))
    if contested.size:
        position[contested] = _best_pair(
            equations[:, contested], weight[:, contested], camera_from_world, settings
        )
    for _ in range(2):
        distance = _ray_distance(equations, position, camera_from_world)
        used = seen & (distance <= settings.max_ray_distance_m)
        trust = (
            weight
            * used
            / (1 + (np.where(used, distance, 0) / (2 * settings.typical_error_m)) ** 2)
        )
        position = _solve(equations, trust)
    distance = _ray_distance(equations, position, camera_from_world)
    trusted = (used.sum(0) >= 2) & ~(used & ~(distance <= settings.max_ray_distance_m)).any(0)
    position[~trusted] = np.nan
    deviation = _standard_deviation(equations, trust, distance, settings.typical_error_m)
    deviation[~trusted] = np.nan
    return Points(
        position=position.reshape(*shape[1:], 3),
        standard_deviation=deviation.reshape(*shape[1:], 3),
        ray_distance=np.where(seen & trusted, distance, np.nan).reshape(shape),
        view_used=(used & trusted).reshape(shape),
    )


def _equations(image, camera_from_world):
    """Rows (camera, point, 2, 4) that a point in homogeneous coordinates makes zero, in metres."""
    return image[..., None] * camera_from_world[:, None, None, 2] - camera_from_world[:, None, :2]


def _solve(equations, weight):
    """Weighted least-squares points (point, 3); NaN where the views do not determine one."""
    normal = np.einsum("cp,cpri,cprj->pij", weight, equations, equations, optimize=True)
    inverse = _inverse(normal[:, :3, :3])
    return -np.einsum("pij,pj->pi", inverse, normal[:, :3, 3])


def _inverse(normal):
    """Inverses of normal matrices (point, 3, 3); NaN where rays are parallel to within 0.1°."""
    trace = np.trace(normal, axis1=1, axis2=2)
    determined = np.linalg.det(normal) > 1e-7 * (trace / 3) ** 3
    inverse = np.linalg.inv(np.where(determined[:, None, None], normal, np.eye(3)))
    return np.where(determined[:, None, None], inverse, np.nan)


def _ray_distance(equations, position, camera_from_world):
    """Metres (camera, point) between point and ray; infinite for points behind the camera."""
    residual = equations[..., :3] @ position[..., None] + equations[..., 3:]
    depth = position @ camera_from_world[:, 2, :3].T + camera_from_world[:, 2, 3]
    return np.where(depth.T > 0, np.linalg.norm(residual[..., 0], axis=-1), np.inf)


def _best_pair(equations, weight, camera_from_world, settings):
    """For each point, the proposal of the camera pair that most confidence agrees with."""
    best_cost = np.full(weight.shape[1], np.inf)
    best = np.full((weight.shape[1], 3), np.nan)
    limit = settings.max_ray_distance_m
    for pair in combinations(range(len(weight)), 2):
        chosen = np.zeros(len(weight))
        chosen[list(pair)] = 1
        proposal = _solve(equations, weight * chosen[:, None])
        distance = np.minimum(_ray_distance(equations, proposal, camera_from_world), limit)
        cost = (weight * distance**2).sum(0)
        better = cost < best_cost  # never so for NaN
        best[better], best_cost[better] = proposal[better], cost[better]
    return best


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
    settings: Settings,
    progress: Progress,
) -> tuple[Points, Float[np.ndarray, "camera time keypoint"]]:
    """Triangulate pixel positions, a chunk of frames at a time.

    Returns the points, and each view's reprojection error in pixels through the full camera model
    (distortion included), NaN where a keypoint was not seen or the point is not trusted.
    """
    extrinsics = np.stack([camera.camera_from_world[:3] for camera in cameras])
    chunks, errors = [], []
    for start in range(0, position.shape[1], settings.chunk_frames):
        pixels = position[:, start : start + settings.chunk_frames]
        image = np.stack(
            [camera.undistort(view) for camera, view in zip(cameras, pixels, strict=True)]
        )
        seen = confidence[:, start : start + settings.chunk_frames]
        points = triangulate(image, seen, extrinsics, settings)
        projected = np.stack([camera.project(points.position) for camera in cameras])
        error = np.linalg.norm(projected - pixels, axis=-1)
        errors.append(np.where(np.isfinite(points.ray_distance), error, np.nan))
        chunks.append(points)
        progress(min(start + settings.chunk_frames, position.shape[1]), position.shape[1])
    joined = Points(
        np.concatenate([chunk.position for chunk in chunks]),
        np.concatenate([chunk.standard_deviation for chunk in chunks]),
        np.concatenate([chunk.ray_distance for chunk in chunks], axis=1),
        np.concatenate([chunk.view_used for chunk in chunks], axis=1),
    )
    return joined, np.concatenate(errors, axis=1)


def as_dataset(points: Points, error_px: np.ndarray, keypoints: xr.Dataset) -> xr.Dataset:
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

    Raises PipelineError if hardly anything could be triangulated.
    """
    seen = np.isfinite(points.view_error)
    if float(np.isfinite(points.position).all("axis").mean()) < 0.05:
        raise PipelineError(
            "triangulation failed: fewer than 5 % of the keypoints could be placed within "
            f"{settings.max_ray_distance_m:g} m of the rays of two cameras. Check that the "
            "calibration belongs to these videos (names, image sizes, moved cameras) and that the "
            "cameras are synchronised."
        )
    dropped = 1 - points.view_used.where(seen).mean(("time", "keypoint"))
    return [
        f"camera {name}: {share:.0%} of its keypoints disagree with the other cameras by more than "
        f"{settings.max_ray_distance_m * 100:.0f} cm and were dropped. Check its calibration, its "
        "synchronisation, and whether it follows the same person."
        for name, share in zip(points.camera.values, dropped.values, strict=True)
        if share > 0.2
    ]


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    return {"calibration": trial.calibration}


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Triangulate the synchronised keypoints of one trial into `points.nc`."""
    keypoints = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    names = [str(name) for name in keypoints.camera.values]
    sizes = {
        name: (int(timeline.width.sel(camera=name)), int(timeline.height.sel(camera=name)))
        for name in names
    }
    cameras, notices = read_cameras(trial.calibration, names, sizes)
    points, error_px = triangulate_keypoints(
        cameras,
        keypoints.position.transpose("camera", "time", "keypoint", "axis").values,
        keypoints.confidence.transpose("camera", "time", "keypoint").values,
        settings,
        progress,
    )
    labelled = as_dataset(points, error_px, keypoints)
    notices += notices_about(labelled, settings)
    notices += check_geometry(cameras, points.position, [str(k) for k in keypoints.keypoint.values])
    save_dataset(labelled, out / "points.nc")
    return notices
