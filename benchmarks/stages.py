"""Seconds per stage on the demo, and Pose2Sim's on the same 2D keypoints in the same run.

    python -m benchmarks.stages [--pose2sim PYTHON]

`--pose2sim` is the Python of an environment in which Pose2Sim is installed (it clashes with ours).
Both start from the same keypoints of the same demo. Ours are written for it as OpenPose JSON of the
HALPE_26 skeleton, which its marker augmentation needs: neck and mid-hip are the middles of shoulders
and hips, and a small toe, which BlazePose does not know, is the one that we estimate in 3D, seen by
each camera. Its settings are those of its own demo, but that it must accept BlazePose's reprojection
errors (60 px instead of 15) and show no windows.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.pose2sim import PeerResult, run_pose2sim
from calibration import read_cameras
from models.assets import asset_folder
from models.augmenter import MARKERS
from models.opensim_model import (
    load_model,
    marker_names,
    marker_positions,
    rotational_coordinates,
)
from models.vocabulary import vocabulary
from pipeline.config import configure
from pipeline.demo import build_demo
from pipeline.files import load_dataset
from pipeline.runner import run_trial
from pipeline.session import open_session
from stages import ORDER
from stages.export import read_trc
from stages.motion_files import in_model_units, read_mot
from stages.poses import write_poses
from stages.trial import Trial, no_progress

AFTER_KEYPOINTS = ORDER[ORDER.index("synchronize") : ORDER.index("report")]
PEER_SETTINGS = {"frame_rate": "60", "reproj_error_threshold_triangulation": "60"}


def our_seconds(folder: Path) -> tuple[dict[str, float], Trial]:
    """Run the demo from nothing; return seconds by stage, and the trial."""
    session = open_session(build_demo(folder))
    (trial,) = session.select()
    outcomes = run_trial(
        trial, lambda each: configure(each.activity, {}), lambda *_: no_progress, force=True
    )
    return {outcome.stage: outcome.seconds for outcome in outcomes}, trial


def as_halpe_26(trial: Trial) -> xr.DataArray:
    """The demo's keypoints as (camera, time, keypoint, [x px, y px, confidence])."""
    keypoints = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    markers = load_dataset(trial.folder("augment") / "markers.nc").position
    confidence = keypoints.confidence.expand_dims({"axis": ["confidence"]})
    values = xr.concat([keypoints.position, confidence], "axis")
    values = values.transpose("camera", "time", "keypoint", "axis")
    cameras, _ = read_cameras(trial.calibration, [str(name) for name in values.camera.values])

    def middle(one, other):
        return values.sel(keypoint=[one, other]).mean("keypoint", skipna=False)

    def small_toe(side):
        toe = values.sel(keypoint=f"{side}BigToe", drop=True).copy()
        place = markers.sel(marker=f"{side}SmallToe").values
        toe[..., :2] = np.stack([camera.project(place) for camera in cameras])
        return toe

    points = {name: values.sel(keypoint=name, drop=True) for name in values.keypoint.values}
    points |= {"Neck": middle("LShoulder", "RShoulder"), "midHip": middle("LHip", "RHip")}
    points |= {"Head": points["Nose"], "LSmallToe": small_toe("L"), "RSmallToe": small_toe("R")}
    names = vocabulary("halpe-26").keypoints
    return xr.concat([points[name] for name in names], "keypoint").transpose(*values.dims)


def run_peer(python: str, trial: Trial, scratch: Path) -> PeerResult:
    """Run Pose2Sim on the same keypoints in its own environment."""
    poses = scratch / "poses"
    for camera in as_halpe_26(trial):
        folder = poses / f"{camera.camera.item()}_json"
        write_poses(folder, np.arange(len(camera)), camera[..., :2].values, camera[..., 2].values)
    calibration = asset_folder("demo-single-person") / "Calib.qca.txt"
    return run_pose2sim(python, scratch / "pose2sim", calibration, poses, PEER_SETTINGS)


def marker_rms_m(model_file: Path, mot: Path, trc: Path) -> float:
    """Mean over time of the RMS distance between the augmenter's markers and the moving model's."""
    model, angles = load_model(model_file), read_mot(mot)
    time_s, names, position = read_trc(trc)
    used = [name for name in MARKERS if name in names and name in marker_names(model)]
    there = position[np.abs(time_s - angles.index.values[:, None]).argmin(1)]
    there = there[:, [names.index(name) for name in used]]
    here = marker_positions(model, in_model_units(angles, rotational_coordinates(model)), used)
    return float(np.sqrt(((here - there) ** 2).sum(-1).mean(-1)).mean())


def show(what: str, value: float, unit: str) -> None:
    """Print one line of the table."""
    print(f"{what:36}{value:8.2f} {unit}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pose2sim", metavar="PYTHON", help="Python that has Pose2Sim")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ours, trial = our_seconds(Path(scratch) / "demo")
        for stage, seconds in ours.items():
            show(stage, seconds, "s")
        total = sum(ours[stage] for stage in AFTER_KEYPOINTS)
        show("after keypoints, to angles", total, "s")
        folder = trial.folder("kinematics")
        rms = marker_rms_m(
            folder / "scaled_model.osim",
            folder / "angles.mot",
            trial.folder("export") / "markers.trc",
        )
        show("marker error, RMS", rms * 1000, "mm")
        if not arguments.pose2sim:
            return
        peer = run_peer(arguments.pose2sim, trial, Path(scratch))
        for stage, seconds in peer.seconds.items():
            show(f"Pose2Sim {stage}", seconds, "s")
        theirs = sum(peer.seconds.values())
        show("Pose2Sim, calibration to angles", theirs, "s")
        rms = marker_rms_m(peer.model, peer.mot, peer.trc)
        show("Pose2Sim marker error, RMS", rms * 1000, "mm")
        show("ours, of Pose2Sim's time", 100 * total / theirs, "%")


if __name__ == "__main__":
    main()
