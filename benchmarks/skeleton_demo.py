"""Ways to fit the skeleton on the demo's footage: with all of its cameras, and with every two of them."""

import tempfile
from collections.abc import Mapping
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from benchmarks.accuracy import MODEL, run_all
from benchmarks.chains import Made, ticks
from benchmarks.skeleton_variants import (
    BATCHED,
    IMAGES,
    KEYPOINTS,
    MARKERS,
    VARIANTS,
    made_by_variants,
    root_mean_square,
    segment_lengths_mm,
)
from benchmarks.triangulation_demo import DEMO
from calibration import Camera, read_cameras
from models.augmenter import MARKERS as AUGMENTED
from models.augmenter import VIDEO_KEYPOINTS
from models.geometric import Tolerances
from models.metrics import point_distances_mm
from models.opensim_model import (
    BodyPoses,
    body_poses,
    load_model,
    marker_positions,
    rotational_coordinates,
)
from models.simulation.landmarks import placements, stacked
from models.simulation.subject import stature_m
from pipeline.files import load_dataset
from pipeline.session import open_session
from stages.motion_files import in_model_units
from stages.poses import write_poses
from stages.trial import Trial

SHOWN = {name: VARIANTS[name] for name in (BATCHED, MARKERS, KEYPOINTS, IMAGES)}
NO_MODEL = "smoothed points, no model"
VOCABULARY = "blazepose-33"


def demo_tables() -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """How well each way's model meets what cameras saw, and its segments; None where it was not run.

    Means over all choices of as many cameras; segments are those of all cameras.
    """
    if not (DEMO / "results" / "balancing" / "04_synchronize" / "keypoints.nc").is_file():
        return None
    trial = next(each for each in open_session(DEMO).trials() if each.name == "balancing")
    seen = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    names = [str(name) for name in seen.camera.values]
    choices = [tuple(names), *combinations(names, 2)]
    found = run_all(partial(_judged, trial), choices, "demo")
    rows = pd.concat([figures for figures, _ in found])
    means = rows.groupby(["cameras", "chain"], sort=False).mean().reset_index()
    return means, found[0][1]


def _judged(trial: Trial, chosen: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Figures of each way by some cameras, and its segments."""
    seen = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    seen = seen.assign_coords(time=seen.time - seen.time[0])
    names = [str(name) for name in seen.camera.values]
    cameras, _ = read_cameras(trial.calibration, names)
    views = dict(zip(names, cameras, strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        own = _as_poses(trial, seen, chosen, Path(scratch))
        made = made_by_variants(own, SHOWN, MODEL)
        smoothed = load_dataset(own.folder("smooth") / "points.nc").position
        markers = {n: each for n, each in made.items() if isinstance(each, Made)}
        figures, segments = [], []
        for name, each in markers.items():
            model = load_model(each.model)
            figures.append({"chain": name, **_figures(model, each, smoothed, seen, views, chosen)})
            segments.append({"chain": name, **_segments(model)})
    points = smoothed.transpose("time", "keypoint", "axis").sel(keypoint=_judged_names(seen)).values
    at_points = seen.sel(time=smoothed.time, method="nearest")
    alone = {"chain": NO_MODEL, **_reprojection(points, at_points, views, chosen)}
    return pd.DataFrame([alone, *figures]).assign(cameras=len(chosen)), pd.DataFrame(segments)


def _as_poses(trial: Trial, seen: xr.Dataset, chosen: tuple[str, ...], folder: Path) -> Trial:
    """The same trial with keypoints of some cameras in the place of its videos."""
    poses = {}
    for name in chosen:
        one = seen.sel(camera=name)
        poses[name] = folder / f"{name}_json"
        position = one.position.transpose("time", "keypoint", "axis").values
        write_poses(poses[name], np.arange(len(seen.time)), position, one.confidence.values)
    rate = float(1 / np.median(np.diff(seen.time.values)))
    return Trial(
        trial.name, trial.activity, {}, trial.calibration, folder / "results", trial.subject,
        poses=poses, rate_hz=dict.fromkeys(chosen, rate), keypoints=VOCABULARY,
        clock_offsets_s=dict.fromkeys(chosen, 0.0),
    )  # fmt: skip


def _judged_names(seen: xr.Dataset) -> list[str]:
    there = {str(name) for name in seen.keypoint.values}
    return [name for name in VIDEO_KEYPOINTS if name in there]


def _figures(
    model,
    made: Made,
    smoothed: xr.DataArray,
    seen: xr.Dataset,
    views: Mapping[str, Camera],
    chosen: tuple[str, ...],
) -> dict[str, float]:
    """Distance of the model's markers from the augmented ones, and of its keypoints from the images'."""
    angles = in_model_units(made.angles, rotational_coordinates(model))
    times = angles.index.values
    measured = smoothed.transpose("time", "keypoint", "axis").sel(keypoint=_judged_names(seen))
    measured = measured.sel(time=times, method="nearest").values
    there = placements(tuple(body.getName() for body in model.getBodyList()))
    bodies = [there[name][0] for name in _judged_names(seen)]
    points = carried(measured, bodies, body_poses(model, angles))
    augmented = stacked(made.points, AUGMENTED)[np.isin(ticks(made.time_s), ticks(times))]
    distance = point_distances_mm(marker_positions(model, angles, AUGMENTED), augmented)
    return {
        "marker error, RMS (mm)": root_mean_square(distance),
        **_reprojection(points, seen.sel(time=times, method="nearest"), views, chosen),
    }


def carried(
    points: Float[np.ndarray, "time point 3"], bodies: list[str], poses: BodyPoses
) -> Float[np.ndarray, "time point 3"]:
    """Points as a model's bodies would carry them, each fixed to its body where it is in the median."""
    index = [poses.names.index(body) for body in bodies]
    origin, turn = poses.position[:, index], poses.rotation[:, index]
    local = np.einsum("tpji,tpj->tpi", turn, points - origin)
    return origin + np.einsum("tpij,pj->tpi", turn, np.nanmedian(local, axis=0))


def _reprojection(
    points: Float[np.ndarray, "time keypoint 3"],
    seen: xr.Dataset,
    views: Mapping[str, Camera],
    chosen: tuple[str, ...],
) -> dict[str, float]:
    """Median distance of points from where each camera saw them, of the cameras used and the others."""
    used, removed = ([n for n in views if (n in chosen) == which] for which in (True, False))
    found = {name: _distances(points, seen.sel(camera=name), views[name]) for name in views}

    def median(names: list[str], unit: int) -> float:
        values = np.concatenate([found[name][unit].ravel() for name in names] or [[np.nan]])
        return float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan

    return {
        "reprojection (px)": median(used, 0),
        "reprojection (mm)": median(used, 1),
        "on removed cameras (px)": median(removed, 0),
        "on removed cameras (mm)": median(removed, 1),
    }


def _distances(points, of_view: xr.Dataset, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Distances in px, and in mm at the person; NaN of keypoints that the view is too unsure of."""
    names = _judged_names(of_view)
    pixels = of_view.position.transpose("time", "keypoint", "axis").sel(keypoint=names).values
    sure = of_view.confidence.transpose("time", "keypoint").sel(keypoint=names).values
    error = np.linalg.norm(camera.project(points) - pixels, axis=-1)
    error = np.where(sure >= Tolerances().min_confidence, error, np.nan)
    pose = camera.camera_from_world[2]
    depth = points @ pose[:3] + pose[3]
    return error, 1000 * error * depth / camera.intrinsics[0, 0]


def _segments(model) -> dict[str, float]:
    """Lengths of the legs, mm, right and left, and the model's height."""
    lengths = segment_lengths_mm(model)
    shown = {f"{name} (mm)": value for name, value in lengths.items()}
    return shown | {"height (mm)": 1000 * stature_m(model)}
