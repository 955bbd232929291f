"""The ways from 2D keypoints to joint angles that are compared, each run on one simulated session."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from benchmarks.pose2sim import PeerFailed, run_pose2sim
from calibration import read_cameras
from models.augmenter import MARKERS, VIDEO_KEYPOINTS
from models.metrics import mean_known, point_distances_mm
from models.opensim_model import rotational_coordinates
from models.simulation.landmarks import stacked
from models.simulation.scene import interpolated
from pipeline.config import STAGES, configure
from pipeline.errors import PipelineError
from pipeline.files import load_dataset, save_dataset
from pipeline.runner import run_trial
from pipeline.session import open_session
from pipeline.simulate import Plan, Simulation, simulate
from pipeline.simulated_session import write_session
from stages.compare import compare_angles
from stages.export import read_trc
from stages.motion_files import in_file_units, read_mot
from stages.series import by_name
from stages.trial import Trial, no_progress
from stages.triangulate import Seen

FLEXIONS = ("hip_flexion", "knee_angle", "ankle_angle")
OURS, PEER = "this pipeline", "Pose2Sim"
PLAIN, POINTS = "plain DLT, not smoothed", "angles between keypoints"


@dataclass(frozen=True)
class Made:
    """What one chain made of one session."""

    angles: pd.DataFrame
    """Degrees and metres, indexed by seconds; samples without angles have no row."""
    time_s: np.ndarray
    """Of the points."""
    points: dict[str, np.ndarray]
    """Keypoints and markers by name, m."""
    seconds: dict[str, float]
    model: Path | None = None
    """The scaled model's file, if there is one."""


@dataclass(frozen=True)
class Outcome:
    """How good that is."""

    rmse_deg: dict[str, float] = field(default_factory=dict)
    """By coordinate; only its own where a chain has a few."""
    mae_lower_limb_deg: float = np.nan
    """Mean over twelve rotations of hips, knees, ankles and subtalar joints."""
    keypoints_mm: float = np.nan
    """Mean distance of the 20 video keypoints from where a detector without noise marks them."""
    markers_mm: float = np.nan
    """Mean distance of the 43 anatomical markers."""
    known: float = 0.0
    """Share of the movement's samples that have angles."""
    seconds: dict[str, float] = field(default_factory=dict)
    refused: str = ""
    """Why there are no angles."""

    def flexion_deg(self, joint: str) -> float:
        """Mean RMSE of both sides of a joint's flexion."""
        return float(np.mean([self.rmse_deg.get(f"{joint}_{side}", np.nan) for side in "rl"]))


def run_case(plan: Plan, peer: str | None = None, baselines: bool = False) -> dict[str, Outcome]:
    """Simulate a session, and run the chains on its last trial; `peer` is Pose2Sim's Python.

    All chains are judged by the same samples, those that this pipeline and Pose2Sim both solved: what
    one of them leaves out as too uncertain, the other is not charged for.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "session"
        simulation, trial = written(plan, folder)
        made = {OURS: tried(_ours, trial, plan)}
        if baselines:
            made |= {PLAIN: tried(_plain, trial, plan), POINTS: tried(_points, trial, plan)}
        if peer:
            made[PEER] = tried(by_pose2sim, trial, simulation, folder, Path(scratch) / "peer", peer)
    return judged(simulation, made, (OURS, PEER))


def run_methods(plan: Plan, methods: Sequence[str]) -> dict[str, Outcome]:
    """Simulate a session, and run the pipeline on it with each method of triangulation.

    All are judged by the samples that all of those solved that gave angles.
    """
    with tempfile.TemporaryDirectory() as scratch:
        simulation, trial = written(plan, Path(scratch) / "session")
        made = {method: tried(_ours, trial, plan, method) for method in methods}
    return judged(simulation, made, methods)


def written(plan: Plan, folder: Path) -> tuple[Simulation, Trial]:
    """A simulated session, and its last trial as the pipeline finds it."""
    simulation = simulate(plan)
    write_session(simulation, folder, "pipeline", False, no_progress)
    name = simulation.trials[-1].name
    return simulation, next(each for each in open_session(folder).trials() if each.name == name)


def judged(
    simulation: Simulation, made: Mapping[str, "Made | str"], deciding: Sequence[str]
) -> dict[str, "Outcome"]:
    """Each chain's outcome, by the samples that all of the deciding ones solved."""
    truth = Truth.of(simulation)
    solved = [made[chain] for chain in deciding if isinstance(made.get(chain), Made)]
    shared = [ticks(each.angles.index.values) for each in solved]
    samples = np.array(sorted(set.intersection(*map(set, shared)))) if shared else None
    return {chain: truth.judge(each, samples) for chain, each in made.items()}


def tried(chain, *arguments) -> Made | str:
    """What a chain makes, or why it refuses to."""
    try:
        return chain(*arguments)
    except (PipelineError, PeerFailed) as error:
        return str(error)


def ticks(time_s: np.ndarray) -> np.ndarray:
    """Times as whole numbers of 0.1 ms, to be compared."""
    return np.round(time_s * 1e4).astype(int)


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

    def judge(self, made: Made | str, judged: np.ndarray | None = None) -> Outcome:
        """Compare with the truth, at some times (in ticks) or all that the chain solved."""
        if isinstance(made, str):
            return Outcome(refused=made)
        if judged is None:
            judged = ticks(made.angles.index.values)
        angles = made.angles[np.isin(ticks(made.angles.index.values), judged)]
        rows = np.isin(ticks(made.time_s), judged)
        points = {name: values[rows] for name, values in made.points.items()}
        compared = compare_angles(angles, self.angles, self.rotational)
        return Outcome(
            compared.table["rmse"].to_dict(),
            float(compared.lower_limb["mae"]) if "subtalar_angle_r" in angles else np.nan,
            self._distance_mm(points, made.time_s[rows], VIDEO_KEYPOINTS),
            self._distance_mm(points, made.time_s[rows], MARKERS),
            len(made.angles) / len(made.time_s),
            made.seconds,
        )

    def _distance_mm(self, points, time_s, names) -> float:
        """Mean distance of points from the truth, over names and samples that are known."""
        names = [name for name in names if name in points]
        if not names:
            return np.nan
        true = interpolated({name: self.points[name] for name in names}, self.time_s, time_s)
        return mean_known(point_distances_mm(stacked(points, names), stacked(true, names)))


def _configure(trial: Trial, plan: Plan, method: str = "geometric"):
    settings = {"kinematics": {"model": plan.model}, "triangulate": {"method": method}}
    return configure(trial.activity, settings)


def _ours(trial: Trial, plan: Plan, method: str = "geometric") -> Made:
    configured = partial(_configure, plan=plan, method=method)
    outcomes = run_trial(trial, configured, lambda *_: no_progress, last="kinematics")
    # A static trial's stages go before, under the same names.
    return result_of(trial, {outcome.stage: outcome.seconds for outcome in outcomes})


def result_of(trial: Trial, seconds: dict[str, float]) -> Made:
    """What the stages of a trial wrote."""
    markers = load_dataset(trial.folder("augment") / "markers.nc").position
    folder = trial.folder("kinematics")
    angles, model = read_mot(folder / "angles.mot"), folder / "scaled_model.osim"
    return Made(angles, markers.time.values, by_name(markers, "marker"), seconds, model)


def _plain(trial: Trial, plan: Plan) -> Made:
    """Our chain, its triangulation and smoothing replaced by least squares of all that is seen."""
    plain = branched(trial, "plain")
    points = load_dataset(trial.folder("triangulate") / "points.nc")
    points["position"] = (points.position.dims, _linear(trial))
    save_dataset(points, plain.folder("smooth") / "points.nc")
    rerun(plain, ("augment", "kinematics"), _configure(plain, plan))
    return result_of(plain, {})


def branched(trial: Trial, name: str) -> Trial:
    """The same trial with a copy of its results, to go on from there in another way."""
    branch = replace(trial, results=trial.results.with_name(name))
    shutil.copytree(trial.results, branch.results)
    return branch


def rerun(trial: Trial, stages: Sequence[str], configuration: Any) -> None:
    """Run some stages again, whatever is there. Raises PipelineError as the stages do."""
    for stage in stages:
        out = trial.folder(stage)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        STAGES[stage].run(trial, getattr(configuration, stage), out, no_progress)


def _linear(trial: Trial) -> np.ndarray:
    keypoints = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    cameras, _ = read_cameras(trial.calibration, trial.cameras)
    keypoints = keypoints.sel(camera=trial.cameras)
    seen = Seen.of(cameras, keypoints)
    return direct_linear(seen.image, seen.camera_from_world)


def direct_linear(
    image: Float[np.ndarray, "camera time keypoint 2"],
    camera_from_world: Float[np.ndarray, "camera 3 4"],
) -> Float[np.ndarray, "time keypoint 3"]:
    """Points by the direct linear transform of every view alike; NaN where they do not meet.

    Hartley and Zisserman, Multiple View Geometry, 2nd ed., section 12.2, inhomogeneous. `image`
    holds undistorted image coordinates, NaN where nothing was seen.
    """
    pose = camera_from_world[:, None, None]
    equations = image[..., None] * pose[..., 2:, :] - pose[..., :2, :]
    equations = np.where(np.isfinite(image).all(-1)[..., None, None], equations, 0.0)
    equations = np.concatenate(list(equations), axis=-2)
    normal = np.swapaxes(equations, -1, -2) @ equations
    determined = np.linalg.det(normal[..., :3, :3]) > 1e-9
    solvable = np.where(determined[..., None, None], normal[..., :3, :3], np.eye(3))
    points = -np.linalg.solve(solvable, normal[..., :3, 3:])[..., 0]
    return np.where(determined[..., None], points, np.nan)


def _points(trial: Trial, plan: Plan) -> Made:
    """No augmenter and no model: angles about the hips' axis between segments that plain DLT gives."""
    keypoints = load_dataset(trial.folder("triangulate") / "points.nc")
    names = [str(name) for name in keypoints.keypoint.values]
    points = dict(zip(names, np.moveaxis(_linear(trial), 1, 0), strict=True))
    time_s = keypoints.time.values
    columns = flexions_between(points)
    angles = pd.DataFrame(columns, index=pd.Index(time_s, name="time")).dropna()
    return Made(angles, time_s, points, {})


def flexions_between(
    points: Mapping[str, Float[np.ndarray, "time 3"]],
) -> dict[str, Float[np.ndarray, "time"]]:
    """Flexion of hips, knees and ankles about the hips' axis, degrees, between keypoints by name."""
    axis = points["RHip"] - points["LHip"]
    axis = axis / np.linalg.norm(axis, axis=-1, keepdims=True)
    trunk, columns = points["midHip"] - points["Neck"], {}
    for side in "RL":
        thigh = points[f"{side}Knee"] - points[f"{side}Hip"]
        shank = points[f"{side}Ankle"] - points[f"{side}Knee"]
        foot = points[f"{side}BigToe"] - points[f"{side}Heel"]
        columns[f"hip_flexion_{side.lower()}"] = _turn_deg(trunk, thigh, axis)
        columns[f"knee_angle_{side.lower()}"] = _turn_deg(shank, thigh, axis)
        columns[f"ankle_angle_{side.lower()}"] = _turn_deg(shank, foot, axis) - 90
    return columns


def _turn_deg(one, other, axis):
    """Angle by which one direction turns into the other about an axis, seen along it."""
    across = (np.cross(one, other) * axis).sum(-1)
    along = (one * other).sum(-1) - (one * axis).sum(-1) * (other * axis).sum(-1)
    return np.degrees(np.arctan2(across, along))


def by_pose2sim(
    trial: Trial,
    simulation: Simulation,
    session: Path,
    project: Path,
    python: str,
    cpu_time: bool = False,
) -> Made:
    """What Pose2Sim makes of a session, in a new folder; its seconds are the processor's if wanted.

    Raises PeerFailed if it fails.
    """
    person = simulation.person
    settings = {
        "frame_rate": f"{simulation.plan.rates_hz[0]:g}",
        "participant_height": f"{person.height_m:.3f}",
        "participant_mass": f"{person.mass_kg:.1f}",
        "use_simple_model": "true",
        "undistort_points": "true",
    }
    calibration, poses = session / "calibration" / "Calib.toml", session / "pose" / trial.name
    made = run_pose2sim(python, project, calibration, poses, settings)
    time_s, names, position = read_trc(made.trc)
    points = dict(zip(names, np.moveaxis(position, 1, 0), strict=True))
    points["midHip"] = points.pop("Hip")
    seconds = made.cpu_seconds if cpu_time else made.seconds
    return Made(read_mot(made.mot), time_s, points, seconds, made.model)
