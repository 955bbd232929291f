"""How far a skeleton's markers are from targets, and how that changes with its coordinates.

Markers of one body move together. So sums over them are made once for all poses, and bodies are what
is left: moments J = sum of w p y', 4x4, where p = (x, y, z, 1) is a marker, y its target and w its
weight. J is T times the moment in the body's own frame, with T the matrix that takes points of the
body to ground. What hangs on an axis moves with it by X p, with X the 4x4 matrix of the axis's
angular and linear velocity, and its moments add up, as those of composite rigid bodies do
(Featherstone, Rigid body dynamics algorithms, 2008, chapter 6). Half the sum of w |p - y|² then has

    a gradient             sum of w (X p) . (p - y)
    second derivatives     sum of w (X_a y) . (X_b p)    where axis a carries axis b, or is it

over what b carries. The latter joins w (X_a p) . (X_b p), of the squares, and w (p - y) . (X_a X_b p),
of the curved paths: X_a turns X_b p, and may turn p - y the other way instead. What curves and
couplings of coordinates add is left out. With p in place of y it is what Gauss and Newton have, which
is never negative.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from models.skeleton import Skeleton


class Targets(NamedTuple):
    """What there is to know of the targets of some samples' markers; NaN ones do not count."""

    moment: Float[Tensor, "sample body 4 4"]
    """Sum of w x y', with x the marker in its body and y its target, from their centre."""
    own_moment: Float[Tensor, "sample body 4 4"]
    """Sum of w x x'."""
    squares: Float[Tensor, "sample"]
    """Sum of w |y|²."""
    centre: Float[Tensor, "sample 3"]
    """Of the targets, in ground, m: numbers stay small however far away the person is."""

    def of(self, chosen: Tensor) -> "Targets":
        """These of the samples."""
        return Targets(*(each[chosen] for each in self))


class Place(NamedTuple):
    """Poses of some samples, what moves there and how far the markers are from targets."""

    coordinates: Float[Tensor, "sample coordinate"]
    cost: Float[Tensor, "sample"]
    """Sum of w |p - y|², m²."""
    frame: Float[Tensor, "sample body 4 4"]
    """T of each body that has markers, from the targets' centre."""
    motion: Float[Tensor, "sample axis 3 4"]
    """X without its last row, which is 0, per rad or m of the coordinate that drives the axis."""

    def of(self, chosen: Tensor) -> "Place":
        """These of the samples."""
        return Place(*(each[chosen] for each in self))

    def where(self, chosen: Bool[Tensor, "sample"], other: "Place") -> "Place":
        """These of the samples, and the others of another place."""
        mixed = []
        for mine, others in zip(self, other, strict=True):
            flags = chosen.reshape(-1, *[1] * (mine.ndim - 1))
            mixed.append(torch.where(flags, mine, others))
        return Place(*mixed)


class RigidMarkers(nn.Module):
    """The weighted squared distances of some of a skeleton's markers from targets."""

    free: Int[Tensor, "free"]
    """The coordinates that move any of the markers and are neither locked nor coupled."""

    def __init__(self, skeleton: Skeleton, markers: Sequence[str]):
        super().__init__()
        self.skeleton = skeleton
        chosen = [skeleton.markers.index(name) for name in markers]
        bodies, body = skeleton.marker_frame[chosen].unique(return_inverse=True)
        location = functional.pad(skeleton.marker_location[chosen].sum(-1), (0, 1), value=1.0)
        on_body = body == torch.arange(len(bodies), device=body.device)[:, None]
        identity = torch.eye(4).to(location)
        self.register_buffer("bodies", bodies)
        self.register_buffer("location", location)
        self.register_buffer("places", (on_body[:, None] * location.mT).flatten(0, 1))
        self.register_buffer("last_row", identity[3:])
        axes = identity[:3, :3]
        crosses = torch.linalg.cross(axes[:, None], axes[None]).mT
        self.register_buffer("crosses", crosses.flatten(1))
        self._register_axes(skeleton.hanging())
        self.marked = skeleton.with_markers(markers)

    def _register_axes(self, hangs: Bool[Tensor, "joint frame"]) -> None:
        """Choose the axes that matter, in an order in which none carries one before it.

        A joint turns what has slid along its parent's axes.
        """
        driven_by = self.skeleton.driven_by
        moves = hangs[:, self.bodies].any(-1).repeat_interleave(6)
        moves &= (driven_by >= 0) & ~self.skeleton.locked[driven_by]
        order = torch.arange(len(driven_by), device=moves.device)
        order = order.unflatten(0, (-1, 6)).roll(3, -1).flatten()
        axis = order[moves[order]]
        joint, turns = axis // 6, (axis % 6 < 3)[:, None]
        free, column = driven_by[axis].unique(return_inverse=True)
        carries = hangs[joint][:, joint + 1].to(self.location)
        self.register_buffer("free", free)
        self.register_buffer("axis", axis)
        self.register_buffer("turns", turns.to(self.location))
        self.register_buffer("slides", (~turns).to(self.location))
        self.register_buffer("carries_body", hangs[joint][:, self.bodies].to(self.location))
        self.register_buffer("carries_axis", carries.triu(1) + torch.eye(len(axis)).to(carries) / 2)
        self.register_buffer("drives", functional.one_hot(column).to(self.location))

    def positions(
        self, coordinates: Float[Tensor, "*batch coordinate"]
    ) -> Float[Tensor, "*batch marker 3"]:
        """Return where the markers are in ground, m."""
        return self.marked.marker_positions(coordinates)

    def targets(
        self, position: Float[Tensor, "sample marker 3"], weight: Float[Tensor, "marker"]
    ) -> Targets:
        """Sum up what the markers' targets, in ground, m, and their weights mean for bodies."""
        known = position.isfinite().all(-1, keepdim=True)
        weight = weight[:, None] * known
        position = torch.where(known, position, 0.0)
        centre = (weight * position).sum(-2) / weight.sum(-2).clamp(min=1e-300)
        position = position - centre[:, None]
        squares = (weight * position**2).sum((-2, -1))
        position = functional.pad(position, (0, 1), value=1.0)
        moment = (self.places @ (weight * position)).unflatten(-2, (-1, 4))
        own = (self.places @ (weight * self.location)).unflatten(-2, (-1, 4))
        return Targets(moment, own, squares, centre)

    def look(self, coordinates: Float[Tensor, "sample coordinate"], targets: Targets) -> Place:
        """Return what there is at some poses, rad and m."""
        at = self.skeleton.frames_and_axes(coordinates)
        centre = targets.centre[:, None]
        position = at.position[:, self.bodies] - centre
        frame = torch.cat([at.rotation[:, self.bodies], position[..., None]], -1)
        frame = torch.cat([frame, self.last_row.expand_as(frame[..., :1, :])], -2)
        apart = frame @ targets.own_moment - 2 * targets.moment.mT
        cost = targets.squares + (frame * apart)[..., :3, :].sum((-3, -2, -1))
        velocity = at.velocity[:, self.axis].contiguous()
        spin = ((velocity * self.turns) @ self.crosses).unflatten(-1, (3, 3))
        origin = (at.origin - centre)[:, self.axis // 6]
        slide = velocity * self.slides - (spin @ origin[..., None])[..., 0]
        return Place(coordinates, cost, frame, torch.cat([spin, slide[..., None]], -1))

    def derivatives(
        self, place: Place, targets: Targets
    ) -> tuple[Float[Tensor, "sample free"], Float[Tensor, "sample free free"]]:
        """Return how half the cost falls with the free coordinates, and its second derivatives."""
        carried = self._carried(place.frame @ targets.moment)
        moved = place.motion @ carried  # sums of w (X p) y'
        towards = moved.diagonal(dim1=-2, dim2=-1).sum(-1)  # sums of w (X p) . y
        outwards = (place.motion[..., 3] * carried[..., :3, 3]).sum(-1)  # turning is never along p
        falls = towards - outwards
        return falls @ self.drives, self._second(place.motion, moved)

    def squares(self, place: Place, targets: Targets) -> Float[Tensor, "sample free free"]:
        """Return what the second derivatives are if markers move along straight paths."""
        carried = self._carried(place.frame @ targets.own_moment @ place.frame.mT)
        return self._second(place.motion, place.motion @ carried)

    def _carried(self, moment: Float[Tensor, "sample body 4 4"]) -> Tensor:
        """The moments of all that hangs on each axis."""
        return (self.carries_body @ moment.flatten(-2)).unflatten(-1, (4, 4))

    def _second(
        self, motion: Float[Tensor, "sample axis 3 4"], moved: Float[Tensor, "sample axis 3 4"]
    ) -> Tensor:
        """Sums of w (X_a y) . (X_b p), for the coordinates that drive both."""
        pairs = motion.flatten(-2) @ moved.flatten(-2).mT
        half = self.drives.mT @ pairs.mul_(self.carries_axis) @ self.drives
        return half + half.mT
