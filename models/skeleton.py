"""An OpenSim model as a torch module: differentiable forward kinematics of many poses at once.

Scale factors mean what they do in OpenSim's Model.scale: everything that is fixed to a body (joint
frames, markers) is stretched along that body's axes, and a joint's translation functions by the
factors of its parent body, unless they are themselves coordinates.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from models.batch_last import (
    constant,
    fixed,
    leading,
    matrices,
    product,
    products,
    trailing,
    turned,
)
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
        child. So products of them are sums over products of 1, cosines and sines.
        """
        axis = np.array([[each.direction for each in joint.axes[:3]] for joint in joints])
        fixed = axis[..., :, None] * axis[..., None, :]
        cross = np.cross(axis[..., None, :], np.eye(3)).swapaxes(-1, -2)
        terms = np.stack([fixed, np.eye(3) - fixed, cross])  # (term, joint, axis, 3, 3)
        terms[:, :, 0] = np.array([joint.parent.rotation for joint in joints]) @ terms[:, :, 0]
        terms[:, :, 2] = terms[:, :, 2] @ np.array([joint.child.rotation.T for joint in joints])
        first, second, third = np.moveaxis(terms, 2, 0)
        both = np.einsum("ajxy, bjyz -> jabxz", first, second)
        turns = np.einsum("jabxy, cjyz -> jabcxz", both, third)
        self._register("turn_terms", turns.reshape(len(joints), 27, 9).swapaxes(1, 2))
        about = np.zeros((len(joints), 3, 3, 3, 3))  # (joint, first's term, second's, 3, axis)
        about[:, 0, 0, :, 0] = [joint.parent.rotation @ joint.axes[0].direction for joint in joints]
        about[:, :, 0, :, 1] = np.einsum("ajxy, jy -> jax", first, axis[:, 1])
        about[:, :, :, :, 2] = np.einsum("jabxy, jy -> jabx", both, axis[:, 2])
        self._register("axis_terms", about.reshape(len(joints), 9, 9).swapaxes(1, 2))

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
        coordinates, scale = self._aligned(coordinates, scale)
        frames = self._frames(self._displacements(coordinates)[0], scale)
        rotation, position = (each[self.frame_of_body] for each in frames)
        return trailing(rotation, 3), trailing(position, 2)

    def marker_positions(
        self,
        coordinates: Float[Tensor, "*batch coordinate"],
        scale: Float[Tensor, "*batch body 3"] | None = None,
        offsets: Float[Tensor, "*batch marker 3"] | None = None,
    ) -> Float[Tensor, "*batch marker 3"]:
        """Return where markers are in ground, m.

        Offsets, m, are from where the scaled model has the markers, along their bodies' axes.
        """
        offsets = torch.zeros_like(self.marker_location[..., 0]) if offsets is None else offsets
        coordinates, scale, offsets = self._aligned(coordinates, scale, offsets)
        rotation, position = self._frames(self._displacements(coordinates)[0], scale)
        location = fixed(self.marker_location, scale[self.marker_frame]) + leading(offsets, 2)
        place = position[self.marker_frame] + turned(rotation[self.marker_frame], location)
        return trailing(place, 2)

    def with_markers(self, names: Sequence[str]) -> "Skeleton":
        """Return the same skeleton with only some of its markers, in this order."""
        chosen = [self.markers.index(name) for name in names]
        fewer = copy.copy(self)
        fewer.markers, fewer._buffers = tuple(names), dict(self._buffers)
        fewer.marker_frame = self.marker_frame[chosen]
        fewer.marker_location = self.marker_location[chosen]
        return fewer

    def scaled(
        self,
        scale: Float[Tensor, "body 3"],
        offsets: Float[Tensor, "marker 3"] | None = None,
    ) -> "Skeleton":
        """Return the skeleton of one person, with scale factors and offsets as in `marker_positions`."""
        person, frames = copy.copy(self), self._frame_scale(scale)
        person._buffers = dict(self._buffers)
        of_parent = frames[self.parent]
        person.location_in_parent = self.location_in_parent * of_parent[:, None]
        person.location_in_child = self.location_in_child * frames[1:, None]
        person.marker_location = self.marker_location * frames[self.marker_frame, None]
        if offsets is not None:
            place = person.marker_location.sum(-1) + offsets
            person.marker_location = torch.diag_embed(place)
        longer = self.unscaled + _apply(self.stretch, of_parent)
        longer = torch.cat([torch.ones_like(longer), longer], -1)
        person.slope = (self.slope.unflatten(0, (-1, 6)) * longer).flatten()
        person.intercept = (self.intercept.unflatten(0, (-1, 6)) * longer).flatten()
        return person

    def settled(
        self, coordinates: Float[Tensor, "*batch coordinate"]
    ) -> Float[Tensor, "*batch coordinate"]:
        """Return the coordinates with coupled ones as those that they follow want them."""
        return self._settled(coordinates)[0]

    def limits(self) -> tuple[Float[Tensor, "coordinate"], Float[Tensor, "coordinate"]]:
        """Return the ranges that the model keeps coordinates within; infinite if it does not."""
        return (
            self.lower.masked_fill(~self.clamped, -torch.inf),
            self.upper.masked_fill(~self.clamped, torch.inf),
        )

    def hanging(self) -> Bool[Tensor, "joint frame"]:
        """Return whether a frame hangs on a joint. Frame 0 is ground, then come joints' children."""
        joints = len(self.parent)
        hangs = torch.zeros(joints, joints + 1, dtype=torch.bool, device=self.parent.device)
        for joint, parent in enumerate(self.parent.tolist()):
            hangs[:, joint + 1] = hangs[:, parent]
            hangs[joint, joint + 1] = True
        return hangs

    def frames_and_axes(self, coordinates: Float[Tensor, "*batch coordinate"]) -> "FramesAndAxes":
        """Return where frames are, and the axes that their joints turn about and slide along."""
        coordinates, scale = self._aligned(coordinates, None)
        displacement, slope = self._displacements(coordinates)
        rotation, position = self._frames(displacement, scale)
        spin = matrices(self.axis_terms, products(displacement[:, :2]))
        slide = constant(self.translation_axes, spin.ndim).expand_as(spin)
        axes = torch.cat([spin, slide], 2)  # (joint, 3, axis, *batch)
        velocity = (product(rotation[self.parent], axes) * slope[:, None]).transpose(1, 2)
        origin = position[1:] + turned(rotation[1:], fixed(self.location_in_child, scale[1:]))
        return FramesAndAxes(
            trailing(rotation, 3),
            trailing(position, 2),
            trailing(velocity.flatten(0, 1), 2),
            trailing(origin, 2),
        )

    def _aligned(self, coordinates: Tensor, scale: Tensor | None, *others: Tensor) -> list[Tensor]:
        """Coordinates, frames' scale factors and others, with as many axes of their batches.

        Scale factors (frame, 3, *batch) come with the batch last, as all has it inside: arithmetic
        then runs along it.
        """
        given = [coordinates[..., None], self._frame_scale(scale), *others]
        dimensions = max(each.ndim for each in given)
        coordinates, scale, *others = (each[(None,) * (dimensions - each.ndim)] for each in given)
        return [coordinates[..., 0], leading(scale, 2), *others]

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
        if not len(self.driver):
            return coordinates, torch.ones_like(coordinates)
        followers, slopes = self.couplers.with_slopes(coordinates[..., self.driver])
        settled = torch.cat([coordinates, followers], -1)[..., self.coupled_source]
        own = torch.ones_like(coordinates)
        return settled, torch.cat([own, slopes], -1)[..., self.coupled_source]

    def _displacements(
        self, coordinates: Float[Tensor, "*batch coordinate"]
    ) -> tuple[Float[Tensor, "joint 6 *batch"], Float[Tensor, "joint 6 *batch"]]:
        """Angles about a joint's three axes, rad, and lengths along three, before scaling, m.

        And how fast they change with the coordinate that drives them.
        """
        coordinates, slope = self._settled(coordinates)
        curves, steep = self.curves.with_slopes(coordinates[..., self.curve_coordinate])
        steep = steep * slope[..., self.curve_coordinate]
        factor, shift = (constant(each, slope.ndim) for each in (self.slope, self.intercept))

        def by_axis(values: Tensor) -> Tensor:
            return leading(functional.pad(values, (0, 1)), 1).contiguous()[self.source]

        displacement = by_axis(torch.cat([coordinates, curves], -1)) * factor + shift
        slopes = by_axis(torch.cat([slope, steep], -1)) * factor
        return displacement.unflatten(0, (-1, 6)), slopes.unflatten(0, (-1, 6))

    def _steps(
        self, displacement: Float[Tensor, "joint 6 *batch"], scale: Float[Tensor, "frame 3 *batch"]
    ) -> tuple[Float[Tensor, "joint 3 3 *batch"], Float[Tensor, "joint 3 *batch"]]:
        """Rotation and position of each joint's child body in its parent body."""
        angle, length = displacement.split(3, 1)
        rotation = matrices(self.turn_terms, products(angle))
        of_parent, of_child = scale[self.parent], scale[1:]
        unscaled = constant(self.unscaled, length.ndim)
        length = length * (unscaled + fixed(self.stretch, of_parent))
        joint = fixed(self.location_in_parent, of_parent) + fixed(self.translation_axes, length)
        return rotation, joint - turned(rotation, fixed(self.location_in_child, of_child))

    def _frames(
        self, displacement: Float[Tensor, "joint 6 *batch"], scale: Float[Tensor, "frame 3 *batch"]
    ) -> tuple[Float[Tensor, "frame 3 3 *batch"], Float[Tensor, "frame 3 *batch"]]:
        """Rotation and position of ground and each joint's child body, level by level."""
        turns, steps = self._steps(displacement, scale)
        turns = turns.expand(*turns.shape[:3], *steps.shape[2:])
        ground = torch.eye(4, dtype=steps.dtype, device=steps.device)[None]
        ground = constant(ground, turns.ndim).expand(-1, -1, -1, *steps.shape[2:])
        joints = torch.cat([turns, steps[:, :, None]], 2)
        joints = torch.cat([joints, ground[:, 3:].expand_as(joints[:, :1])], 1)
        frames = [ground[:, :3]]
        for joint, parent in zip(
            joints.split(self.level_sizes),
            self.parent_in_level_above.split(self.level_sizes),
            strict=True,
        ):
            frames.append(product(frames[-1][parent], joint))
        frame = torch.cat(frames)
        return frame[:, :, :3], frame[:, :, 3]


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
