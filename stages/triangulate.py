"""Triangulate: 2D keypoints of calibrated cameras to 3D points, robust to bad views."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field

from calibration import Camera, check_geometry, read_cameras
from models.geometric import Points, Tolerances, triangulate
from models.learned import load_network, torch_device, triangulate_learned
from models.swaps import Swapped, exchange, find_swaps
from models.vocabulary import chains
from models.weights import shipped_weights
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from stages.frames import image_sizes
from stages.heatmap_file import FILE as HEATMAPS
from stages.heatmap_file import opened
from stages.heatmaps import MapsOf, exchanged, on_timeline
from stages.trial import Progress, Trial, no_progress

NEEDS = ("frames", "keypoints", "synchronize")

NOTED_SWAPS = 0.05
"""A camera in which more of the frames had exchanged sides is named."""


class Settings(Tolerances):
    """Options of the triangulation."""

    method: Literal["geometric", "algebraic", "volumetric"] = "geometric"
    """Geometric trusts what the views agree on. Algebraic learned which keypoints to trust.
    Volumetric also learned how a body holds together: for few cameras and hidden limbs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto is a GPU if there is one."""
    swaps: Literal["repair", "keep"] = "repair"
    """Left and right exchanged in a view, as the other views show it: repair, or keep what the pose
    model gave."""
    max_dropped_share: float = Field(0.35, gt=0, le=1)
    """The trial is refused if more of what cameras see must be dropped. One camera of four that is
    wrong throughout is 0.25."""
    check_body: bool = True
    """Refuse a trial in which the body is mirrored or not upright most of the time. Turn it off for
    exercises that are done lying down."""


@dataclass(frozen=True)
class Seen:
    """What calibrated cameras saw at the same times."""

    cameras: Sequence[Camera]
    position: Float[np.ndarray, "camera time keypoint 2"]
    """px; NaN where not seen."""
    confidence: Float[np.ndarray, "camera time keypoint"]
    image: Float[np.ndarray, "camera time keypoint 2"]
    """Undistorted image coordinates (focal length 1)."""

    @classmethod
    def through_lenses(
        cls, cameras: Sequence[Camera], position: np.ndarray, confidence: np.ndarray
    ) -> "Seen":
        """Take lens distortion out of pixel positions."""
        views = zip(cameras, position, strict=True)
        image = np.stack([camera.undistort(pixels) for camera, pixels in views])
        return cls(cameras, position, confidence, image)

    @classmethod
    def of(cls, cameras: Sequence[Camera], keypoints: xr.Dataset) -> "Seen":
        """What is in a dataset of synchronised keypoints."""
        return cls.through_lenses(
            cameras,
            keypoints.position.transpose("camera", "time", "keypoint", "axis").values,
            keypoints.confidence.transpose("camera", "time", "keypoint").values,
        )

    @property
    def camera_from_world(self) -> Float[np.ndarray, "camera 3 4"]:
        """Extrinsics."""
        return np.stack([camera.camera_from_world[:3] for camera in self.cameras])

    def exchanged(self, swapped: Swapped, names: Sequence[str]) -> "Seen":
        """Exchange left and right where they are swapped."""
        values = self.position, self.confidence, self.image
        return Seen(self.cameras, *(exchange(each, swapped, names) for each in values))


def find_exchanged(
    seen: Seen, interval_s: float, names: Sequence[str], settings: Settings
) -> Swapped:
    """In which views, and when, left and right are exchanged; nowhere if they are to be kept."""
    if settings.swaps == "keep":
        return {chain: np.zeros(seen.confidence.shape[:2], bool) for chain in chains(names)}
    return find_swaps(
        seen.image, seen.confidence, seen.camera_from_world, interval_s, names,
        settings.min_confidence,
    )  # fmt: skip


def triangulate_keypoints(
    seen: Seen,
    interval_s: float,
    names: Sequence[str],
    settings: Settings,
    progress: Progress = no_progress,
    heatmaps: MapsOf | None = None,
) -> tuple[Points, Float[np.ndarray, "camera time keypoint"], dict[str, str], list[str]]:
    """Triangulate what cameras saw through their full model, distortion included.

    Returns the points; each view's reprojection error in pixels, NaN where a keypoint was not seen
    or the point is not trusted; how they came about; and notices. The learned methods start from the
    geometric points, and keep them, with a notice, where there are no weights or too little memory.
    `heatmaps` are for the volumetric method.
    """
    rays = seen.image, seen.confidence, seen.camera_from_world
    points = triangulate(*rays, interval_s, settings, progress)
    how, notices = {"method": "geometric", "evidence": "keypoints"}, []
    if settings.method != "geometric":
        learned, notices = _learned(points, (*rays, names), settings, progress, heatmaps)
        if learned:
            evidence = "keypoints and heatmaps" if heatmaps else "keypoints"
            points, how = learned, {"method": settings.method, "evidence": evidence}
    projected = np.stack([camera.project(points.position) for camera in seen.cameras])
    error = np.linalg.norm(projected - seen.position, axis=-1)
    return points, np.where(np.isfinite(points.ray_distance), error, np.nan), how, notices


def _learned(
    points: Points, seen: tuple, settings: Settings, progress: Progress, heatmaps: MapsOf | None
) -> tuple[Points | None, list[str]]:
    """Points of a learned method, None where it cannot run, and notices."""
    instead = f"{settings.method} triangulation did not run, and geometric did instead"
    device = torch_device(settings.device, "triangulate.device")
    if shipped_weights(settings.method) is None:
        return None, [f"{instead}: it has no weights here."]
    try:
        network = load_network(settings.method, device)
        learned = triangulate_learned(network, *seen, points, settings, progress, heatmaps)
    except torch.OutOfMemoryError:
        return None, [f"{instead}: {device} has too little free memory."]
    placed = np.isfinite(learned.position).all(-1) & (learned.view_used.sum(0) < 2)
    if (share := placed.mean()) < 0.01:
        return learned, []
    return learned, [
        f"{share:.0%} of the points are placed by the learned skeleton more than by the cameras: fewer "
        "than two views agree with them."
    ]


def as_dataset(
    points: Points, error_px: np.ndarray, keypoints: xr.Dataset, swapped: Swapped
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
            "view_seen": (view, points.view_seen, {"units": "1"}),
            "view_used": (view, used, {"units": "1"}),
            "view_error": (view, error_px, {"units": "px"}),
            "swapped": (
                ("camera", "time", "chain"),
                np.stack(list(swapped.values()), -1),
                {"units": "1"},
            ),
        },
        coords={
            "camera": keypoints.camera,
            "time": keypoints.time,
            "keypoint": keypoints.keypoint,
            "axis": ["x", "y", "z"],
            "chain": list(swapped),
        },
        attrs=keypoints.attrs | {"world": "right-handed, Y up, metres"},
    )


def swapped_in(points: xr.Dataset, cameras: Sequence[str]) -> Swapped:
    """Where left and right were exchanged, of `as_dataset`'s points, for some cameras in their order."""
    swapped = points.swapped.sel(camera=list(cameras)).transpose("chain", "camera", "time")
    return dict(zip(map(str, points.chain.values), swapped.values, strict=True))


def dropped_views(points: xr.Dataset) -> xr.DataArray:
    """1 where a view was dropped, 0 where it was used, of keypoints that several views show."""
    several = points.view_seen.sum("camera") > 1
    return 1 - points.view_used.where(points.view_seen & several)


def swap_notices(points: xr.Dataset) -> list[str]:
    """Name the cameras in which left and right were exchanged often."""
    notices = []
    for name, of_camera in points.swapped.groupby("camera"):
        shares = of_camera.squeeze("camera").mean("time").to_series()
        if shares.max() > NOTED_SWAPS:
            listed = " and ".join(f"those of the {k} in {share:.0%}" for k, share in shares.items())
            notices.append(
                f"camera {name}: the pose model exchanged left and right, {listed} of the frames. They "
                "were put right by the other cameras and the frames before. To keep what the pose "
                'model gave: triangulate.swaps = "keep".'
            )
    return notices


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


def runs_network(trial: Trial, settings: Settings) -> bool:
    """Whether the stage asks for a worker with a GPU, where a batch has any."""
    return settings.method == "volumetric"


@contextmanager
def heatmaps_of(
    trial: Trial,
    settings: Settings,
    keypoints: xr.Dataset,
    timeline: xr.Dataset,
    cameras: Sequence[Camera],
) -> Iterator[MapsOf | None]:
    """Open the trial's heatmaps, if they were kept and the method looks at them."""
    path = trial.folder("keypoints") / HEATMAPS
    if settings.method != "volumetric" or not path.is_file():
        yield None
        return
    with opened(path) as stored:
        yield on_timeline(stored, keypoints, timeline, cameras)


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    return {"calibration": trial.calibration, "world_up": trial.world_up}


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Triangulate the synchronised keypoints of one trial into `points.nc`."""
    keypoints = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    names = [str(name) for name in keypoints.camera.values]
    cameras, notices = read_cameras(trial.calibration, names, image_sizes(timeline), trial.world_up)
    known = [str(name) for name in keypoints.keypoint.values]
    of_trial = 1 / timeline.attrs["rate_hz"], known, settings
    seen = Seen.of(cameras, keypoints)
    swapped = find_exchanged(seen, *of_trial)
    with heatmaps_of(trial, settings, keypoints, timeline, cameras) as stored:
        heatmaps = exchanged(stored, swapped) if stored else None
        points, error_px, how, more = triangulate_keypoints(
            seen.exchanged(swapped, known), *of_trial, progress, heatmaps
        )
    labelled = as_dataset(points, error_px, keypoints, swapped).assign_attrs(how)
    notices += more + swap_notices(labelled) + notices_about(labelled, settings)
    notices += checked_geometry(cameras, labelled, settings)
    save_dataset(labelled, out / "points.nc")
    return notices
