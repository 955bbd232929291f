"""The ways from 2D keypoints to joint angles that are compared, each run on one simulated session."""

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.pose2sim import PeerFailed, run_pose2sim
from calibration import read_cameras
from models.augmenter import MARKERS, VIDEO_KEYPOINTS
from models.opensim_model import rotational_coordinates
from pipeline.config import STAGES, configure
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from pipeline.runner import run_trial
from pipeline.session import Session
from pipeline.simulate import Plan, Simulation, simulate
from pipeline.simulated_session import write_session
from stages.compare import compare_angles
from stages.export import read_trc
from stages.motion_files import in_file_units, read_mot
from stages.series import by_name
from stages.trial import Trial, no_progress

FLEXIONS = ("hip_flexion", "knee_angle", "ankle_angle")
OURS, PEER = "this pipeline", "Pose2Sim"
PLAIN, POINTS = "plain DLT, not smoothed", "angles between keypoints"


@dataclass(frozen=True)
class Outcome:
    """What one chain made of one session."""

    rmse_deg: dict[str, float] = field(default_factory=dict)
    """By coordinate; only its own where a chain has a few."""
    mae_lower_limb_deg: float = np.nan
    """Mean over twelve rotations of hips, knees, ankles and subtalar joints."""
    keypoints_mm: float = np.nan
    """Mean distance of the 20 video keypoints from where a detector without noise marks them."""
    markers_mm: float = np.nan
    """Mean distance of the 43 anatomical markers."""
    known: float = 1.0
    """Share of the samples that have angles."""
    seconds: dict[str, float] = field(default_factory=dict)
    refused: str = ""
    """Why there are no angles."""

    def flexion_deg(self, joint: str) -> float:
        """Mean RMSE of both sides of a joint's flexion."""
        return float(np.mean([self.rmse_deg.get(f"{joint}_{side}", np.nan) for side in "rl"]))


def run_case(plan: Plan, peer: str | None = None, baselines: bool = False) -> dict[str, Outcome]:
    """Simulate a session, and run the chains on its last trial; `peer` is Pose2Sim's Python."""
    with tempfile.TemporaryDirectory() as scratch:
        simulation = simulate(plan)
        folder = Path(scratch) / "session"
        write_session(simulation, folder, "pipeline", False, no_progress)
        trial = next(t for t in Session(folder).trials() if t.name == simulation.trials[-1].name)
        truth = Truth.of(simulation)
        outcomes = {OURS: _ours(trial, plan, truth)}
        if baselines:
            outcomes |= {PLAIN: _plain(trial, plan, truth), POINTS: _points(trial, truth)}
        if peer:
            outcomes[PEER] = _pose2sim(
                trial, simulation, truth, folder, Path(scratch) / "peer", peer
            )
        return outcomes


@dataclass(frozen=True)
class Truth:
    """The last trial of a simulation, as files have it."""

    angles: pd.DataFrame
    """Degrees and metres, indexed by seconds."""
    rotational: set[str]
    time_s: np.ndarray
    points: dict[str, np.ndarray]
    """Keypoints and markers by name, m."""

    @classmethod
    def of(cls, simulation: Simulation) -> "Truth":
        """Take the truth out of a simulation."""
        scene = simulation.trials[-1].scene
        rotational = rotational_coordinates(scene.model)
        angles = in_file_units(scene.angles, rotational)
        return cls(angles, rotational, scene.time_s, scene.keypoints | scene.markers)

    def distance_mm(self, points: dict[str, np.ndarray], time_s: np.ndarray, names) -> float:
        """Mean distance of points from the truth, over names and samples that are known."""
        there = [self._at(name, time_s) for name in names if name in points]
        here = [points[name] for name in names if name in points]
        return float(np.nanmean(np.linalg.norm(np.stack(here) - there, axis=-1)) * 1000)

    def _at(self, name, time_s):
        true = self.points[name]
        columns = [np.interp(time_s, self.time_s, true[:, axis]) for axis in range(3)]
        return np.stack(columns, axis=1)

    def compared(self, angles: pd.DataFrame, samples: int, **others) -> Outcome:
        """Compare angles (degrees) with the truth; `samples` is how many there could be."""
        compared = compare_angles(angles, self.angles, self.rotational)
        return Outcome(
            compared.table["rmse"].to_dict(),
            float(compared.lower_limb["mae"]),
            known=len(angles) / samples,
            **others,
        )


def _configure(trial: Trial, plan: Plan):
    return configure(trial.activity, {"kinematics": {"model": plan.model}})


def _ours(trial: Trial, plan: Plan, truth: Truth) -> Outcome:
    try:
        outcomes = list(
            run_trial(
                trial, partial(_configure, plan=plan), lambda *_: no_progress, last="kinematics"
            )
        )
    except PipelineError as error:
        return Outcome(known=0.0, refused=str(error))
    seconds = {outcome.stage: outcome.seconds for outcome in outcomes}  # a static trial's go before
    return _result(trial, truth, seconds)


def _result(trial: Trial, truth: Truth, seconds: dict[str, float]) -> Outcome:
    markers = load_dataset(trial.folder("augment") / "markers.nc").position
    points, time_s = by_name(markers, "marker"), markers.time.values
    angles = read_mot(trial.folder("kinematics") / "angles.mot")
    return truth.compared(
        angles,
        len(time_s),
        keypoints_mm=truth.distance_mm(points, time_s, VIDEO_KEYPOINTS),
        markers_mm=truth.distance_mm(points, time_s, MARKERS),
        seconds=seconds,
    )


def _plain(trial: Trial, plan: Plan, truth: Truth) -> Outcome:
    """Our chain, its triangulation and smoothing replaced by least squares of all that is seen."""
    plain = replace(trial, results=trial.results.with_name("plain"))
    shutil.copytree(trial.results, plain.results)
    points = load_dataset(trial.folder("triangulate") / "points.nc")
    points["position"] = (points.position.dims, _linear(trial))
    save_dataset(points, plain.folder("smooth") / "points.nc")
    try:
        for stage in ("augment", "kinematics"):
            out = plain.folder(stage)
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            settings = getattr(_configure(plain, plan), stage)
            STAGES[stage].run(plain, settings, out, no_progress)
    except PipelineError as error:
        return Outcome(known=0.0, refused=str(error))
    return _result(plain, truth, {})


def _linear(trial: Trial) -> np.ndarray:
    """Points (time, keypoint, 3) by the direct linear transform of every view alike.

    Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 12.2, inhomogeneous.
    """
    keypoints = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    cameras, _ = read_cameras(trial.calibration, trial.cameras)
    rows = []
    for camera in cameras:
        image = camera.undistort(keypoints.position.sel(camera=camera.name).values)[..., None]
        pose = camera.camera_from_world[:3]
        equations = image * pose[2] - pose[:2]
        seen = np.isfinite(image).all((-2, -1), keepdims=True)
        rows.append(np.where(seen, equations, 0.0))
    equations = np.concatenate(rows, axis=-2)
    normal = np.swapaxes(equations, -1, -2) @ equations
    determined = np.linalg.det(normal[..., :3, :3]) > 1e-9
    solvable = np.where(determined[..., None, None], normal[..., :3, :3], np.eye(3))
    points = -np.linalg.solve(solvable, normal[..., :3, 3:])[..., 0]
    return np.where(determined[..., None], points, np.nan)


def _points(trial: Trial, truth: Truth) -> Outcome:
    """No augmenter and no model: angles between the segments that plain DLT gives."""
    keypoints = load_dataset(trial.folder("triangulate") / "points.nc")
    position = _linear(trial)
    names = [str(name) for name in keypoints.keypoint.values]
    points = dict(zip(names, np.moveaxis(position, 1, 0), strict=True))
    time_s = keypoints.time.values
    columns = {}
    for side in "RL":
        thigh = points[f"{side}Knee"] - points[f"{side}Hip"]
        shank = points[f"{side}Ankle"] - points[f"{side}Knee"]
        foot = points[f"{side}BigToe"] - points[f"{side}Heel"]
        trunk = points["midHip"] - points["Neck"]
        columns[f"hip_flexion_{side.lower()}"] = _between_deg(trunk, thigh)
        columns[f"knee_angle_{side.lower()}"] = _between_deg(thigh, shank)
        columns[f"ankle_angle_{side.lower()}"] = _between_deg(shank, foot) - 90
    angles = pd.DataFrame(columns, index=pd.Index(time_s, name="time")).dropna()
    outcome = truth.compared(
        angles, len(time_s), keypoints_mm=truth.distance_mm(points, time_s, VIDEO_KEYPOINTS)
    )
    return replace(outcome, mae_lower_limb_deg=np.nan)


def _between_deg(one, other):
    cosine = (one * other).sum(-1)
    cosine /= np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _pose2sim(trial, simulation, truth, session: Path, project: Path, python: str) -> Outcome:
    person = simulation.person
    settings = {
        "frame_rate": f"{simulation.plan.rates_hz[0]:g}",
        "participant_height": f"{person.height_m:.3f}",
        "participant_mass": f"{person.mass_kg:.1f}",
        "use_simple_model": "true",
        "undistort_points": "true",
    }
    try:
        made = run_pose2sim(
            python,
            project,
            session / "calibration" / "Calib.toml",
            session / "pose" / trial.name,
            settings,
        )
    except PeerFailed as error:
        return Outcome(known=0.0, refused=str(error))
    time_s, names, position = read_trc(made.trc)
    points = dict(zip(names, np.moveaxis(position, 1, 0), strict=True))
    points["midHip"] = points.get("midHip", points.get("Hip"))
    return truth.compared(
        read_mot(made.mot),
        len(time_s),
        keypoints_mm=truth.distance_mm(points, time_s, VIDEO_KEYPOINTS),
        markers_mm=truth.distance_mm(points, time_s, MARKERS),
        seconds=made.seconds,
    )
