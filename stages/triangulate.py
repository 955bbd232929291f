"""Triangulate: 2D keypoints of calibrated cameras to 3D points, robust to bad views."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float
from pydantic import Field

from calibration import Camera, check_geometry, read_cameras
from models.geometric import Points, Tolerances, triangulate
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.frames import image_sizes
from stages.trial import Progress, Trial, no_progress

NEEDS = ("frames", "synchronize")


class Settings(Tolerances):
    """Options of the triangulation."""

    max_dropped_share: float = Field(0.35, gt=0, le=1)
    """The trial is refused if more of what cameras see must be dropped. One camera of four that is
    wrong throughout is 0.25."""
    check_body: bool = True
    """Refuse a trial in which the body is mirrored or not upright most of the time. Turn it off for
    exercises that are done lying down."""


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
            "view_seen": (view, points.view_seen, {"units": "1"}),
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


def dropped_views(points: xr.Dataset) -> xr.DataArray:
    """1 where a view was dropped, 0 where it was used, of keypoints that several views show."""
    several = points.view_seen.sum("camera") > 1
    return 1 - points.view_used.where(points.view_seen & several)


def notices_about(points: xr.Dataset, settings: Settings) -> list[str]:
    """What the user should know about these points: cameras that disagree with the rest.

    Raises PipelineError if the cameras contradict each other too often for any result.
    """
    dropped = dropped_views(points)
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


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    return {"calibration": trial.calibration, "world_up": trial.world_up}


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
    labelled = as_dataset(points, error_px, keypoints)
    notices += notices_about(labelled, settings)
    notices += checked_geometry(cameras, labelled, settings)
    save_dataset(labelled, out / "points.nc")
    return notices
