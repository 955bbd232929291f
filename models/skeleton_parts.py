"""What an OpenSim model's kinematics consist of: read once, as plain numbers.

Every joint is read as OpenSim's CustomJoint: three rotations, one after the other, and three
translations along axes of the parent's joint frame, each a function of at most one coordinate
(Seth et al., Minimal formulation of joint motion for biomechanisms, Nonlinear Dynamics 62, 2010).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from models.opensim_model import marker_names, opensim
from models.spatial_functions import IDENTITY, ZERO, PiecewisePolynomial, read_function
from pipeline.errors import PipelineError

DRIVEN_AXES = {
    "WeldJoint": (),
    "PinJoint": (2,),
    "SliderJoint": (3,),
    "UniversalJoint": (0, 1),
    "PlanarJoint": (2, 3, 4),
    "BallJoint": (0, 1, 2),
    "GimbalJoint": (0, 1, 2),
    "FreeJoint": (0, 1, 2, 3, 4, 5),
}
"""Which of a joint's axes, three of rotation and three of translation, its coordinates move."""


@dataclass(frozen=True)
class Attachment:
    """A frame or point fixed to a body."""

    body: str
    rotation: Float[np.ndarray, "3 3"]
    """From the frame to the body."""
    location: Float[np.ndarray, "3 3"]
    """Times the body's scale factors: where it is in the body, m. A matrix because offset frames
    may sit on offset frames, and each one's translation is scaled along its own axes."""


@dataclass(frozen=True)
class Axis:
    """One of the six axes of a joint."""

    direction: Float[np.ndarray, "3"]
    """Of length 1, in the joint's frame in the parent."""
    coordinate: int | None = None
    """None if nothing moves along it."""
    function: PiecewisePolynomial = ZERO
    scaled: bool = False
    """Whether it is a translation, along x, y or z, that grows with the parent body."""


@dataclass(frozen=True)
class Joint:
    """How a body hangs on another."""

    parent: Attachment
    child: Attachment
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Coordinates:
    """What a model says of its coordinates, rad or m."""

    names: tuple[str, ...]
    lower: list[float]
    upper: list[float]
    default: list[float]
    clamped: list[bool]
    locked: list[bool]
    couplings: dict[int, tuple[int, PiecewisePolynomial]]
    """For a dependent coordinate: the one it depends on, and how."""


@dataclass(frozen=True)
class Parts:
    """A model's kinematics."""

    bodies: tuple[str, ...]
    coordinates: Coordinates
    levels: list[list[Joint]]
    """Joints whose parent is ground, joints whose parent is a child of those, and so on."""
    markers: dict[str, Attachment]


def read_parts(model: Any) -> Parts:
    """Read a model that is ready, as `load_model` gives it.

    Raises PipelineError, with the name, if it has a joint, function or constraint of a kind that is
    not supported, or bodies that do not form a tree on the ground.
    """
    bodies = tuple(body.getName() for body in _members(model.getBodySet()))
    coordinates = _read_coordinates(model)
    joints = [_read_joint(joint, coordinates.names) for joint in _members(model.getJointSet())]
    markers = {name: _read_marker(model.getMarkerSet().get(name)) for name in marker_names(model)}
    return Parts(bodies, coordinates, _levels(bodies, joints), markers)


def _members(collection: Any) -> list:
    return [collection.get(index) for index in range(collection.getSize())]


def _read_coordinates(model: Any) -> Coordinates:
    coordinates = _members(model.getCoordinateSet())
    names = tuple(each.getName() for each in coordinates)
    for each in coordinates:
        if each.getDefaultIsPrescribed():
            raise PipelineError(
                f"the model prescribes the coordinate '{each.getName()}' as a function of time, "
                "which is not supported. Set its 'prescribed' to false"
            )
    return Coordinates(
        names,
        [each.getRangeMin() for each in coordinates],
        [each.getRangeMax() for each in coordinates],
        [each.getDefaultValue() for each in coordinates],
        [each.getDefaultClamped() for each in coordinates],
        [each.getDefaultLocked() for each in coordinates],
        _read_couplings(model, names),
    )


def _read_couplings(model: Any, names: Sequence[str]) -> dict[int, tuple[int, PiecewisePolynomial]]:
    package, couplings = opensim(), {}
    for constraint in _members(model.getConstraintSet()):
        coupler = package.CoordinateCouplerConstraint.safeDownCast(constraint)
        where = f"the model's constraint '{constraint.getName()}'"
        if not constraint.get_isEnforced():
            continue
        if not coupler:
            kind = constraint.getConcreteClassName()
            raise PipelineError(
                f"{where} is a {kind}, which is not supported. Supported is: "
                "CoordinateCouplerConstraint"
            )
        name = coupler.getDependentCoordinateName()
        dependent = model.getCoordinateSet().get(name)
        if dependent.getMotionType() == package.Coordinate.Translational:
            raise PipelineError(
                f"{where} couples the translation '{name}', which is not supported: a body's scale "
                "factors do not say how it grows"
            )
        scale = package.PropertyHelper.getValueDouble(coupler.getPropertyByName("scale_factor"))
        independent = names.index(coupler.getIndependentCoordinateNames().get(0))
        function = read_function(coupler.getFunction(), f"the function of {where}").times(scale)
        couplings[names.index(name)] = independent, function
    for independent, _ in couplings.values():
        if independent in couplings:
            raise PipelineError(
                f"the model couples coordinates to '{names[independent]}', which itself follows "
                "another. Couple them to that one"
            )
    return couplings


def _read_joint(joint: Any, names: Sequence[str]) -> Joint:
    kind = joint.getConcreteClassName()
    own = [names.index(joint.get_coordinates(i).getName()) for i in range(joint.numCoordinates())]
    if kind == "CustomJoint":
        axes = _read_spatial_transform(opensim().CustomJoint.safeDownCast(joint), names)
    elif kind in DRIVEN_AXES:
        driven = dict(zip(DRIVEN_AXES[kind], own, strict=True))
        axes = tuple(
            Axis(direction, driven[index], IDENTITY) if index in driven else Axis(direction)
            for index, direction in enumerate(np.tile(np.eye(3), (2, 1)))
        )
    else:
        raise PipelineError(
            f"the model's joint '{joint.getName()}' is a {kind}, which is not supported. Supported "
            f"are: CustomJoint, {', '.join(DRIVEN_AXES)}"
        )
    return Joint(
        _attachment(joint.getParentFrame(), np.zeros(3)),
        _attachment(joint.getChildFrame(), np.zeros(3)),
        axes,
    )


def _read_spatial_transform(joint: Any, names: Sequence[str]) -> tuple[Axis, ...]:
    axes = []
    on_ground = joint.getParentFrame().findBaseFrame().getName() == "ground"
    for index in range(6):
        axis = joint.getSpatialTransform().getTransformAxis(index)
        direction = axis.getAxis().to_numpy()
        where = f"axis {index + 1} of the model's joint '{joint.getName()}'"
        function = read_function(axis.getFunction(), f"the function of {where}")
        by = axis.getCoordinateNamesInArray()
        coordinate = names.index(by.get(0)) if by.getSize() else None
        fixed = index < 3 or on_ground or _is_coordinate(axis.getFunction())
        scaled = not fixed and bool(np.any(function.coefficients))
        if scaled and not np.allclose(np.sort(abs(direction)), (0, 0, 1), atol=1e-6):
            raise PipelineError(
                f"{where} is a translation along {direction.round(6).tolist()}, which OpenSim does "
                "not scale correctly. Supported are translations along x, y or z"
            )
        unit = direction / np.linalg.norm(direction)
        axes.append(Axis(unit, coordinate, function, scaled))
    return tuple(axes)


def _is_coordinate(function: Any) -> bool:
    """Whether a translation is the coordinate itself, which OpenSim does not scale."""
    if function.getConcreteClassName() != "LinearFunction":
        return False
    line = opensim().LinearFunction.safeDownCast(function)
    return line.getSlope() == 1 and line.getIntercept() == 0


def _read_marker(marker: Any) -> Attachment:
    return _attachment(marker.getParentFrame(), marker.get_location().to_numpy())


def _attachment(frame: Any, point: Float[np.ndarray, "3"]) -> Attachment:
    """Where a frame is in its body, and a point of that frame."""
    rotation, location = np.eye(3), np.diag(point)
    while offset := opensim().PhysicalOffsetFrame.safeDownCast(frame):
        turn = Rotation.from_euler("XYZ", offset.get_orientation().to_numpy()).as_matrix()
        rotation, location = turn @ rotation, turn @ location
        location = location + np.diag(offset.get_translation().to_numpy())
        frame = offset.getParentFrame()
    if frame.getConcreteClassName() not in ("Body", "Ground"):
        raise PipelineError(
            f"the model's frame '{frame.getName()}' is a {frame.getConcreteClassName()}, which is "
            "not supported. Supported is: PhysicalOffsetFrame"
        )
    return Attachment(frame.getName(), rotation, location)


def _levels(bodies: Sequence[str], joints: Sequence[Joint]) -> list[list[Joint]]:
    """Sort joints by their distance from the ground."""
    children = [joint.child.body for joint in joints]
    if twice := sorted({name for name in children if children.count(name) > 1}):
        raise PipelineError(
            f"the model's body '{twice[0]}' hangs on several joints. Closed chains are not supported"
        )
    levels, reached, waiting = [], {"ground"}, list(joints)
    while level := [joint for joint in waiting if joint.parent.body in reached]:
        levels.append(level)
        reached |= {joint.child.body for joint in level}
        waiting = [joint for joint in waiting if joint.child.body not in reached]
    if lost := sorted(set(bodies) - reached):
        raise PipelineError(
            f"no joints lead, each from parent to child, from ground to the model's body '{lost[0]}'"
        )
    return levels
