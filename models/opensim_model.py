"""OpenSim through its Python package: generic models, inverse and forward kinematics.

Seth et al., OpenSim: Simulating musculoskeletal dynamics and neuromuscular control to study human
and animal movement, PLoS Comput Biol 14(7), 2018.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from models.assets import asset_folder, is_present
from pipeline.errors import PipelineError

ACCURACY = 1e-5
"""Of the inverse kinematics; 1e-3 is 2.5 times faster and costs one to two degrees."""
CONSTRAINT_WEIGHT = float("inf")
"""Constraints hold exactly."""


@dataclass(frozen=True)
class GenericModel:
    """An unscaled model with what is needed to fit it to a person."""

    name: str
    asset: str
    model: str
    markers: str
    scaling_setup: str
    ik_setup: str
    note: str
    """What a reader of its angles must know."""

    @property
    def folder(self) -> Path:
        """Where its files are; fetched if need be."""
        return asset_folder(self.asset)


MODELS = (
    GenericModel(
        "lai-uhlrich-2022",
        "opensim-lai-uhlrich-2022",
        "LaiUhlrich2022.osim",
        "LaiUhlrich2022_markers_augmenter.xml",
        "Setup_scaling_LaiUhlrich2022.xml",
        "Setup_IK.xml",
        "OpenCap's model: the lumbar spine is one joint of three coordinates.",
    ),
    GenericModel(
        "pose2sim",
        "opensim-pose2sim",
        "Model_Pose2Sim_simple.osim",
        "Markers_LSTM.xml",
        "Scaling_Setup_Pose2Sim_LSTM.xml",
        "IK_Setup_Pose2Sim_withHands_LSTM.xml",
        "Pose2Sim's simple model: no muscles, stiff spine above L5/S1. Pelvis, hip and lumbar "
        "angles in bending differ by 10-20° from OpenCap's model.",
    ),
    GenericModel(
        "pose2sim-muscles",
        "opensim-pose2sim",
        "Model_Pose2Sim_muscles_flex.osim",
        "Markers_LSTM.xml",
        "Scaling_Setup_Pose2Sim_LSTM.xml",
        "IK_Setup_Pose2Sim_withHands_LSTM.xml",
        "Pose2Sim's model with muscles and jointed lumbar spine: seven times slower to solve. "
        "Pelvis, hip and lumbar angles in bending differ by 10-20° from OpenCap's model.",
    ),
)
"""Best first."""


def generic_model(name: str) -> GenericModel:
    """Return a model by name, or with `best` the best one whose files are cached.

    Raises PipelineError, with the names there are, if it is unknown.
    """
    if name == "best":
        return next((each for each in MODELS if is_present(each.asset)), MODELS[1])
    for each in MODELS:
        if each.name == name:
            return each
    names = ", ".join(each.name for each in MODELS)
    raise PipelineError(f"there is no OpenSim model '{name}'. There are: best, {names}")


@cache
def opensim() -> Any:
    """Import OpenSim, which takes a second, and make it quiet.

    Raises PipelineError if it is not installed or does not load.
    """
    try:
        import opensim as package
    except (ImportError, OSError) as error:
        raise PipelineError(
            f"OpenSim does not load ({error}). Install it into this Python (3.11 or 3.12, 64 bit): "
            "pip install opensim"
        ) from error
    package.Logger.setLevelString("off")
    package.Logger.removeFileSink()  # else it writes opensim.log where the user stands
    return package


@contextmanager
def telling_opensim_errors(doing: str):
    """Turn OpenSim's exceptions into one line for the user."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise PipelineError(f"OpenSim failed while {doing}: {' '.join(lines[:2])}") from error


def load_model(path: Path):
    """Load a model file and make it ready."""
    with telling_opensim_errors(f"reading {path}"):
        model = opensim().Model(str(path))
        model.initSystem()
    return model


def marker_names(model) -> list[str]:
    """Names of a model's markers."""
    markers = model.getMarkerSet()
    return [markers.get(index).getName() for index in range(markers.getSize())]


def add_markers(model, marker_set: Path) -> None:
    """Give a model the markers of a file instead of its own."""
    with telling_opensim_errors(f"reading {marker_set}"):
        model.updateMarkerSet(opensim().MarkerSet(str(marker_set)))
        model.initSystem()


def check_markers(model, names: Iterable[str]) -> None:
    """Raise PipelineError if a model lacks some of these markers."""
    if missing := sorted(set(names) - set(marker_names(model))):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise PipelineError(
            f"the model lacks the markers {', '.join(missing[:5])}{more}. Name a file that has the "
            "augmenter's marker set (--markers), or choose a packaged model: best, "
            + ", ".join(each.name for each in MODELS)
        )


def scaled_copy(model, factors: Mapping[str, Float[np.ndarray, "3"]], mass_kg: float) -> Any:
    """Copy a model with bodies stretched by factors along their axes, and of some mass in all."""
    package, copy, scales = opensim(), model.clone(), opensim().ScaleSet()
    copy.finalizeConnections()
    for body, factor in factors.items():
        scale = package.Scale()
        scale.setSegmentName(body)
        scale.setScaleFactors(package.Vec3(*map(float, factor)))
        scale.setApply(True)
        scales.cloneAndAppend(scale)
    copy.scale(copy.initSystem(), scales, True, float(mass_kg))
    copy.initSystem()
    return copy


def stripped_copy(model) -> tuple[Any, dict[str, tuple[str, Any, float]]]:
    """Copy a model without what the pose does not depend on: forces and patellae.

    Returns the copy, and for each coordinate that went with a patella the coordinate that drives
    it, the function that does (radians to radians), and a factor to that function. Solving is up to
    eight times faster, with the same angles.
    """
    package, copy = opensim(), model.clone()
    copy.updForceSet().clearAndDestroy()
    copy.finalizeConnections()
    joints, bodies, constraints = copy.updJointSet(), copy.updBodySet(), copy.updConstraintSet()
    driven = {}
    removed = []
    for index in reversed(range(joints.getSize())):
        joint = joints.get(index)
        body = joint.getChildFrame().findBaseFrame().getName()
        if "patella" in body.lower():
            removed += [joint.get_coordinates(i).getName() for i in range(joint.numCoordinates())]
            joints.remove(index)
            bodies.remove(bodies.getIndex(body))
    for index in reversed(range(constraints.getSize())):
        coupler = package.CoordinateCouplerConstraint.safeDownCast(constraints.get(index))
        if coupler and coupler.getDependentCoordinateName() in removed:
            name = coupler.getDependentCoordinateName()
            driver = coupler.getIndependentCoordinateNames().get(0)
            factor = package.PropertyHelper.getValueDouble(
                coupler.getPropertyByName("scale_factor")
            )
            driven[name] = (driver, coupler.getFunction().clone(), factor)
            constraints.remove(index)
    copy.finalizeConnections()
    return copy, driven


@dataclass(frozen=True)
class Motion:
    """The result of inverse kinematics; only samples that could be solved have a row."""

    angles: pd.DataFrame
    """Every coordinate of the whole model by name, rad or m; indexed by seconds."""
    marker_error_m: pd.DataFrame
    """Distance of each marker from the model's, m; indexed by seconds."""


def solve_inverse_kinematics(
    model,
    ik_setup: Path,
    time_s: Float[np.ndarray, "time"],
    markers: dict[str, np.ndarray],
    progress,
    pulled: bool = False,
) -> Motion:
    """Find the coordinates that bring the model's markers nearest to the measured ones.

    The solver of OpenSim's InverseKinematicsTool, with the weights of its setup file, called frame
    by frame on a stripped copy of the model. (The tool itself prints to the terminal, and fails as
    a whole where a single frame has no markers.) Markers missing in a frame do not count there; a
    frame in which more than half of the weight is missing is not solved.

    With `pulled`, coordinates are also drawn towards a value where the setup asks for it, as
    Pose2Sim's does with the lumbar spine. Where the spine bends, hip flexion is then off by degrees
    even with perfect markers.
    """
    package = opensim()
    tracked = tracked_markers(model, ik_setup, markers)
    names, position, solvable = tracked.names, tracked.position, tracked.solvable
    with telling_opensim_errors("solving inverse kinematics"):
        copy, driven = stripped_copy(model)
        state = copy.initSystem()
        pulls = _coordinate_references(copy, ik_setup if pulled else None)
        solver = _solver(copy, names, tracked.weight, time_s, position, pulls)
        coordinates = [
            copy.getCoordinateSet().get(i) for i in range(copy.getCoordinateSet().getSize())
        ]
        angles, errors = [], []
        for index in range(len(time_s)):
            if solvable[index]:
                state.setTime(float(time_s[index]))
                if index and solvable[index - 1]:
                    solver.track(state)
                else:
                    solver.assemble(state)
                angles.append([coordinate.getValue(state) for coordinate in coordinates])
                errors.append([solver.computeCurrentMarkerError(name) for name in names])
            progress(index + 1, len(time_s))
    index = pd.Index(time_s[solvable], name="time")
    table = pd.DataFrame(angles, index, [coordinate.getName() for coordinate in coordinates])
    for name, (driver, function, factor) in driven.items():
        values = [factor * function.calcValue(package.Vector(1, value)) for value in table[driver]]
        table[name] = values
    whole = model.getCoordinateSet()
    table = table[[whole.get(i).getName() for i in range(whole.getSize())]]
    known = np.isfinite(position[solvable]).all(-1)
    shown = np.where(known, np.reshape(errors, (-1, len(names))), np.nan)
    return Motion(table, pd.DataFrame(shown, index, names))


@dataclass(frozen=True)
class TrackedMarkers:
    """The markers that a setup file wants to be tracked and that both model and data have."""

    names: list[str]
    weight: Float[np.ndarray, "marker"]
    position: Float[np.ndarray, "time marker 3"]
    """m; NaN where missing."""
    solvable: Bool[np.ndarray, "time"]
    """Whether more than half of the weight is there."""


def tracked_markers(model, ik_setup: Path, markers: dict[str, np.ndarray]) -> TrackedMarkers:
    """Gather what inverse kinematics tracks. Raises PipelineError as `marker_weights` does."""
    weights = marker_weights(ik_setup, set(marker_names(model)) & set(markers))
    names, weight = list(weights), np.array(list(weights.values()))
    position = np.stack([markers[name] for name in names], axis=1)
    known = np.isfinite(position).all(-1)
    return TrackedMarkers(names, weight, position, known @ weight > 0.5 * weight.sum())


def marker_weights(ik_setup: Path, available: set[str]) -> dict[str, float]:
    """Weights of the markers that a setup file wants to be tracked and that are available.

    Raises PipelineError if these are fewer than half.
    """
    tasks = ElementTree.parse(ik_setup).iter("IKMarkerTask")
    weights = {
        task.get("name"): float(task.findtext("weight"))
        for task in tasks
        if task.findtext("apply", "true").strip().lower() == "true"
    }
    used = {name: weight for name, weight in weights.items() if name in available and weight > 0}
    if len(used) < 0.5 * len(weights):
        missing = ", ".join(sorted(set(weights) - available))
        raise PipelineError(f"the model and the data share too few markers. Missing: {missing}")
    return used


def _solver(model, names, weights, time_s, position, pulls):
    package = opensim()
    table = package.TimeSeriesTableVec3()
    table.setColumnLabels(names)
    for time, row in zip(time_s, position, strict=True):
        vectors = [package.Vec3(*map(float, point)) for point in row]
        table.appendRow(float(time), package.RowVectorVec3(vectors))
    table.addTableMetaDataString("DataRate", f"{1 / np.median(np.diff(time_s)):g}")
    table.addTableMetaDataString("Units", "m")
    weight_set = package.SetMarkerWeights()
    for name, weight in zip(names, weights, strict=True):
        weight_set.cloneAndAppend(package.MarkerWeight(name, float(weight)))
    references = package.MarkersReference(table, weight_set)
    solver = package.InverseKinematicsSolver(model, references, pulls, CONSTRAINT_WEIGHT)
    solver.setAccuracy(ACCURACY)
    return solver


def _coordinate_references(model, ik_setup: Path | None):
    """Coordinates that the setup draws towards a fixed value, weakly; none without a setup."""
    package, references = opensim(), opensim().SimTKArrayCoordinateReference()
    present = model.getCoordinateSet()
    if ik_setup is None:
        return references
    for task in ElementTree.parse(ik_setup).iter("IKCoordinateTask"):
        name, weight = task.get("name"), float(task.findtext("weight"))
        applied = task.findtext("apply", "true").strip().lower() == "true"
        if not applied or weight <= 0 or not present.contains(name):
            continue
        kind = task.findtext("value_type", "default_value").strip()
        value = (
            float(task.findtext("value"))
            if kind == "manual_value"
            else present.get(name).getDefaultValue()
        )
        reference = package.CoordinateReference(name, package.Constant(value))
        reference.setWeight(weight)
        references.push_back(reference)
    return references


def marker_positions(
    model, angles: pd.DataFrame, names: Sequence[str]
) -> Float[np.ndarray, "time marker 3"]:
    """Where a model's markers are, m, by forward kinematics; a row of angles (rad and m) a sample."""
    markers = [model.getMarkerSet().get(name) for name in names]
    return np.array([
        [marker.getLocationInGround(state).to_numpy() for marker in markers]
        for state in _posed(model, angles)
    ])  # fmt: skip


@dataclass(frozen=True)
class BodyPoses:
    """Where a model's bodies are over time."""

    names: tuple[str, ...]
    position: Float[np.ndarray, "time body 3"]
    """Of the bodies' origins in the world, m."""
    rotation: Float[np.ndarray, "time body 3 3"]
    """From body to world."""


def body_poses(model, angles: pd.DataFrame) -> BodyPoses:
    """Where all bodies are, by forward kinematics; a row of angles (rad and m) a sample."""
    bodies = [model.getBodySet().get(index) for index in range(model.getBodySet().getSize())]
    position, quaternion = [], []
    for state in _posed(model, angles):
        transforms = [body.getTransformInGround(state) for body in bodies]
        position.append([each.p().to_numpy() for each in transforms])
        turns = [each.R().convertRotationToQuaternion() for each in transforms]
        quaternion.append([[each.get(index) for index in range(4)] for each in turns])
    names = tuple(body.getName() for body in bodies)
    turn = Rotation.from_quat(np.reshape(quaternion, (-1, 4)), scalar_first=True)
    position = np.array(position)
    return BodyPoses(names, position, turn.as_matrix().reshape(*position.shape[:2], 3, 3))


def _posed(model, angles: pd.DataFrame):
    """Yield the model's state for each row of angles, constraints satisfied."""
    state = model.initSystem()
    coordinates = [model.getCoordinateSet().get(name) for name in angles]
    for row in angles.to_numpy(float):
        for coordinate, value in zip(coordinates, row, strict=True):
            coordinate.setValue(state, float(value), False)
        model.assemble(state)
        model.realizePosition(state)
        yield state


def rotational_coordinates(model) -> set[str]:
    """Names of the coordinates that are angles; the others are lengths, or follow another."""
    package, coordinates = opensim(), model.getCoordinateSet()
    each = (coordinates.get(index) for index in range(coordinates.getSize()))
    return {c.getName() for c in each if c.getMotionType() != package.Coordinate.Translational}
