"""An OpenSim model as a torch module: differentiable forward kinematics of many poses at once.

Scale factors mean what they do in OpenSim's Model.scale: everything that is fixed to a body (joint
frames, markers) is stretched along that body's axes, and a joint's translation functions by the
factors of its parent body, unless they are themselves coordinates.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from models.skeleton_parts import Axis, Coordinates, Joint, Parts, read_parts
from models.spatial_functions import PiecewisePolynomials


class FramesAndAxes(NamedTuple):
    """Ground and each joint's child body, and each joint's three axes of rotation, three of translation."""

    rotation: Float[Tensor, "*batch frame 3 3"]
    """From the frame to ground."""
    position: Float[Tensor, "*batch frame 3"]
    """In ground, m."""
    velocity: Float[Tensor, "*batch axis 3"]
    """In ground: what the joint's child turns by (first three axes) or moves by (others) as the
    coordinate that drives it grows, rad or m per rad or m."""
    origin: Float[Tensor, "*batch joint 3"]
    """A point that the joint's three axes of rotation pass through, in ground, m."""


class Skeleton(nn.Module):
    """Bodies, coordinates and markers of a model; made by `read_skeleton`, in float64.

    Run it outside of autocast: half precision loses millimetres.
    """

    bodies: tuple[str, ...]
    coordinates: tuple[str, ...]
    markers: tuple[str, ...]
    lower: Float[Tensor, "coordinate"]
    """Of each coordinate's range, rad or m."""
    upper: Float[Tensor, "coordinate"]
    default: Float[Tensor, "coordinate"]
    clamped: Bool[Tensor, "coordinate"]
    """Whether the model keeps the coordinate within its range; `forward` does not."""
    locked: Bool[Tensor, "coordinate"]
    """Whether the model keeps the coordinate at its default; `forward` does not."""
    coupled: Bool[Tensor, "coordinate"]
    """Whether the coordinate follows another. What is given for it does not matter."""
    driven_by: Int[Tensor, "axis"]
    """The coordinate, itself not coupled, that moves each of the joints' six axes; -1 if none does."""

    def __init__(self, parts: Parts):
        super().__init__()
        self.bodies, self.coordinates = parts.bodies, parts.coordinates.names
        self.markers = tuple(parts.markers)
        joints = [joint for level in parts.levels for joint in level]
        self._register_coordinates(parts.coordinates)
        frames = self._register_tree(parts.levels)
        self._register_rotations(joints)
        self._register_translations(joints)
        self._register_functions([axis for joint in joints for axis in joint.axes])
        attached = parts.markers.values()
        self._register("marker_frame", [frames.index(each.body) for each in attached], int)
        located = np.reshape([each.location for each in attached], (-1, 3, 3))
        self._register("marker_location", located)

    def _register(self, name: str, values: Any, dtype: type = float) -> None:
        self.register_buffer(name, torch.from_numpy(np.array(values, dtype)))

    def _register_coordinates(self, coordinates: Coordinates) -> None:
        for name in ("lower", "upper", "default"):
            self._register(name, getattr(coordinates, name))
        for name in ("clamped", "locked"):
            self._register(name, getattr(coordinates, name), bool)
        couplings = coordinates.couplings
        source = np.arange(len(coordinates.names))
        source[list(couplings)] = len(source) + np.arange(len(couplings))
        self._register("coupled", source >= len(source), bool)
        self._register("coupled_source", source, int)
        self._register("driver", [driver for driver, _ in couplings.values()], int)
        self.couplers = PiecewisePolynomials([function for _, function in couplings.values()])

    def _register_tree(self, levels: list[list[Joint]]) -> list[str]:
        """Order frames: ground, then the child of each joint, level by level; return their names."""
        self.level_sizes = [len(level) for level in levels]
        children = [["ground"]] + [[joint.child.body for joint in level] for level in levels]
        frames = [name for level in children for name in level]
        parents = [joint.parent.body for level in levels for joint in level]
        in_level = {name: index for level in children for index, name in enumerate(level)}
        self._register("parent", [frames.index(name) for name in parents], int)
        self._register("parent_in_level_above", [in_level[name] for name in parents], int)
        self._register("body_of_joint", [self.bodies.index(name) for name in frames[1:]], int)
        self._register("frame_of_body", [frames.index(name) for name in self.bodies], int)
        return frames

    def _register_rotations(self, joints: list[Joint]) -> None:
        """Rodrigues' formula: a rotation is fixed + cosine * cos + sine * sin of its angle.

        The first of a joint's three leaves from its frame in the parent, the last arrives in the
        child.
        """
        axis = np.array([[each.direction for each in joint.axes[:3]] for joint in joints])
        fixed = axis[..., :, None] * axis[..., None, :]
        cross = np.cross(axis[..., None, :], np.eye(3)).swapaxes(-1, -2)
        terms = np.stack([fixed, np.eye(3) - fixed, cross])  # (term, joint, axis, 3, 3)
        terms[:, :, 0] = np.array([joint.parent.rotation for joint in joints]) @ terms[:, :, 0]
        terms[:, :, 2] = terms[:, :, 2] @ np.array([joint.child.rotation.T for joint in joints])
        self._register("rotation_terms", terms)
        axis[:, 0] = [joint.parent.rotation @ joint.axes[0].direction for joint in joints]
        self._register("rotation_axes", axis)

    def _register_translations(self, joints: list[Joint]) -> None:
        axis = np.array([[each.direction for each in joint.axes[3:]] for joint in joints])
        scaled = np.array([[each.scaled for each in joint.axes[3:]] for joint in joints])
        frames = np.array([joint.parent.rotation for joint in joints])
        self._register("translation_axes", frames @ axis.swapaxes(1, 2))
        self._register("stretch", scaled[..., None] * abs(axis))
        self._register("unscaled", ~scaled)
        self._register("location_in_parent", [joint.parent.location for joint in joints])
        self._register("location_in_child", [joint.child.location for joint in joints])

    def _register_functions(self, axes: list[Axis]) -> None:
        """Take an axis's displacement from its coordinate's value, from a curve's, or from 0."""
        curved = [axis for axis in axes if not axis.function.is_line]
        self.curves = PiecewisePolynomials([axis.function for axis in curved])
        self._register("curve_coordinate", [axis.coordinate for axis in curved], int)
        zero = len(self.coordinates) + len(curved)
        places = iter(range(len(self.coordinates), zero))
        sources, lines = [], []
        for axis in axes:
            if axis.function.is_line:
                sources.append(zero if axis.coordinate is None else axis.coordinate)
                lines.append(axis.function.line)
            else:
                sources.append(next(places))
                lines.append((1.0, 0.0))
        own = [-1 if axis.coordinate is None else axis.coordinate for axis in axes]
        leads = torch.cat([torch.arange(len(self.coordinates)), self.driver])[self.coupled_source]
        self.register_buffer(
            "driven_by", functional.pad(leads, (0, 1), value=-1)[torch.tensor(own)]
        )
        self._register("source", sources, int)
        self._register("slope", [slope for slope, _ in lines])
        self._register("intercept", [intercept for _, intercept in lines])

    def forward(
        self,
        coordinates: Float[Tensor, "*batch coordinate"],
        scale: Float[Tensor, "*batch body 3"] | None = None,
    ) -> tuple[Float[Tensor, "*batch body 3 3"], Float[Tensor, "*batch body 3"]]:
        """Return the rotation of each body's frame, from body to ground, and its position, m.

        Batches of coordinates (rad or m) and scale factors broadcast. NaN where a coordinate that
        moves the body is.
        """
        rotation, position = self._frames(self._displacements(coordinates)[0], scale)
        return rotation[..., self.frame_of_body, :, :], position[..., self.frame_of_body, :]

    def marker_positions(
        self,
        coordinates: Float[Tensor, "*batch coordinate"],
        scale: Float[Tensor, "*batch body 3"] | None = None,
        offsets: Float[Tensor, "*batch marker 3"] | None = None,
    ) -> Float[Tensor, "*batch marker 3"]:
        """Return where markers are in ground, m.

        Offsets, m, are from where the scaled model has the markers, along their bodies' axes.
        """
        rotation, position = self._frames(self._displacements(coordinates)[0], scale)
        location = _apply(self.marker_location, self._frame_scale(scale)[..., self.marker_frame, :])
        if offsets is not None:
            location = location + offsets
        turned = _apply(rotation[..., self.marker_frame, :, :], location)
        return position[..., self.marker_frame, :] + turned

    def settled(
        self, coordinates: Float[Tensor, "*batch coordinate"]
    ) -> Float[Tensor, "*batch coordinate"]:
        """Return the coordinates with coupled ones as those that they follow want them."""
        return self._settled(coordinates)[0]

    def frames_and_axes(self, coordinates: Float[Tensor, "*batch coordinate"]) -> "FramesAndAxes":
        """Return where frames are, and the axes that their joints turn about and slide along."""
        displacement, slope = self._displacements(coordinates)
        rotation, position = self._frames(displacement, None)
        angle, length = displacement.split(3, -1)
        first, second, _ = self._turns(angle)
        about = self.rotation_axes
        second_axis = _apply(first, about[:, 1])
        third_axis = _apply(first, _apply(second, about[:, 2]))
        spin = torch.stack([about[:, 0].expand_as(second_axis), second_axis, third_axis], -2)
        slide = self.translation_axes.mT.expand_as(spin)
        above = rotation[..., self.parent, :, :]
        direction = torch.cat([spin, slide], -2) @ above.mT
        joint = self.location_in_parent.sum(-1) + _apply(self.translation_axes, length)
        origin = position[..., self.parent, :] + _apply(above, joint)
        velocity = slope[..., None] * direction.flatten(-3, -2)
        return FramesAndAxes(rotation, position, velocity, origin)

    def _frame_scale(self, scale: Tensor | None) -> Float[Tensor, "*batch frame 3"]:
        if scale is None:
            return self.stretch.new_ones(1 + len(self.bodies), 3)
        _expect(scale.shape[-2], self.bodies, "bodies' scale factors")
        return functional.pad(scale[..., self.body_of_joint, :], (0, 0, 1, 0), value=1.0)

    def _settled(
        self, coordinates: Float[Tensor, "*batch coordinate"]
    ) -> tuple[Float[Tensor, "*batch coordinate"], Float[Tensor, "*batch coordinate"]]:
        """Settled coordinates, and how fast they change with those that they follow, or are."""
        _expect(coordinates.shape[-1], self.coordinates, "coordinates")
        followers, slopes = self.couplers.with_slopes(coordinates[..., self.driver])
        settled = torch.cat([coordinates, followers], -1)[..., self.coupled_source]
        own = torch.ones_like(coordinates)
        return settled, torch.cat([own, slopes], -1)[..., self.coupled_source]

    def _displacements(
        self, coordinates: Float[Tensor, "*batch coordinate"]
    ) -> tuple[Float[Tensor, "*batch joint 6"], Float[Tensor, "*batch axis"]]:
        """Angles about a joint's three axes, rad, and lengths along three, before scaling, m.

        And how fast they change with the coordinate that drives them.
        """
        coordinates, slope = self._settled(coordinates)
        curves, steep = self.curves.with_slopes(coordinates[..., self.curve_coordinate])
        values = functional.pad(torch.cat([coordinates, curves], -1), (0, 1))[..., self.source]
        steep = steep * slope[..., self.curve_coordinate]
        slopes = functional.pad(torch.cat([slope, steep], -1), (0, 1))[..., self.source]
        displacement = values * self.slope + self.intercept
        return displacement.unflatten(-1, (-1, 6)), slopes * self.slope

    def _turns(self, angle: Float[Tensor, "*batch joint 3"]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotation matrices (*batch, joint, 3, 3) about a joint's three axes."""
        fixed, cosine, sine = self.rotation_terms
        turn = fixed + angle.cos()[..., None, None] * cosine + angle.sin()[..., None, None] * sine
        return turn.unbind(-3)

    def _steps(
        self, displacement: Float[Tensor, "*batch joint 6"], scale: Tensor | None
    ) -> tuple[Float[Tensor, "*batch joint 3 3"], Float[Tensor, "*batch joint 3"]]:
        """Rotation and position of each joint's child body in its parent body."""
        angle, length = displacement.split(3, -1)
        first, second, third = self._turns(angle)
        rotation = first @ second @ third
        scale = self._frame_scale(scale)
        of_parent, of_child = scale[..., self.parent, :], scale[..., 1:, :]
        length = length * (self.unscaled + _apply(self.stretch, of_parent))
        joint = _apply(self.location_in_parent, of_parent) + _apply(self.translation_axes, length)
        return rotation, joint - _apply(rotation, _apply(self.location_in_child, of_child))

    def _frames(
        self, displacement: Float[Tensor, "*batch joint 6"], scale: Tensor | None
    ) -> tuple[Float[Tensor, "*batch frame 3 3"], Float[Tensor, "*batch frame 3"]]:
        """Rotation and position of ground and each joint's child body, level by level."""
        turns, steps = self._steps(displacement, scale)
        turns = turns.expand(*steps.shape[:-1], 3, 3)
        rotation = torch.eye(3, dtype=steps.dtype, device=steps.device)
        rotations = [rotation.expand(*steps.shape[:-2], 1, 3, 3)]
        positions = [torch.zeros_like(steps[..., :1, :])]
        for turn, step, parent in zip(
            turns.split(self.level_sizes, -3),
            steps.split(self.level_sizes, -2),
            self.parent_in_level_above.split(self.level_sizes),
            strict=True,
        ):
            above = rotations[-1][..., parent, :, :]
            positions.append(positions[-1][..., parent, :] + _apply(above, step))
            rotations.append(above @ turn)
        return torch.cat(rotations, -3), torch.cat(positions, -2)


def read_skeleton(model: Any) -> Skeleton:
    """Make a Skeleton of an OpenSim model that is ready, as `load_model` gives it.

    Raises PipelineError, with the name, if the model has a joint, function or constraint that is
    not supported, or if its bodies do not form a tree on the ground.
    """
    return Skeleton(read_parts(model))


def _apply(
    matrix: Float[Tensor, "*batch rows columns"], vector: Float[Tensor, "*batch columns"]
) -> Float[Tensor, "*batch rows"]:
    return (matrix @ vector[..., None])[..., 0]


def _expect(count: int, names: tuple[str, ...], what: str) -> None:
    if count != len(names):
        raise ValueError(f"{count} {what} given; the skeleton has {len(names)}")
