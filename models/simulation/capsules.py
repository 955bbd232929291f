"""Capsules: which joints the body's own segments hide, for many people and cameras at once.

The rule of `occlusion`, with all segments together.
"""

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from models.multiview import JOINTS
from models.simulation.landmarks import segments
from models.simulation.occlusion import AHEAD_M

_SEGMENTS = segments()
_STARTS = [JOINTS.index(segment.start) for segment in _SEGMENTS]
_ENDS = [JOINTS.index(segment.end) for segment in _SEGMENTS]

PerSegment = Float[Tensor, "window frame view joint segment"]


class _Products(NamedTuple):
    """Scalar products of a line of sight, a segment's axis, and the gap from eye to segment."""

    sight: Float[Tensor, "window frame view joint 1"]
    axis: Float[Tensor, "window frame view 1 segment"]
    gap: Float[Tensor, "window frame view 1 segment"]
    sight_axis: PerSegment
    sight_gap: PerSegment
    axis_gap: Float[Tensor, "window frame view 1 segment"]


def hidden_joints(
    points: Float[Tensor, "window frame view joint 3"],
    center: Float[Tensor, "window view 3"],
    height_m: Float[Tensor, "window"],
) -> Bool[Tensor, "window frame view joint"]:
    """Whether a segment stands between a camera's centre and each of a person's joints.

    Points (m) are as each view has them, since cameras are not quite synchronous.
    """
    products = _products(points - center[:, None, :, None])
    per_height = [segment.radius_per_height for segment in _SEGMENTS]
    radius = points.new_tensor(per_height) * height_m[:, None, None, None, None]
    nearest, along = _between_sight_and_axis(products)
    behind = products.sight.sqrt() * (1 - along) - radius
    between = (nearest < radius.square()) & (behind > AHEAD_M) & (along > 0)
    return (between & ~(_to_axis(products) < radius.square())).any(-1)


def _products(sight: Float[Tensor, "window frame view joint 3"]) -> _Products:
    gap = sight[..., _STARTS, :]
    axis = sight[..., _ENDS, :] - gap
    return _Products(
        sight.square().sum(-1)[..., None],
        axis.square().sum(-1)[..., None, :],
        gap.square().sum(-1)[..., None, :],
        sight @ axis.mT,
        sight @ gap.mT,
        (axis * gap).sum(-1)[..., None, :],
    )


def _between_sight_and_axis(p: _Products) -> tuple[PerSegment, PerSegment]:
    """Least squared distance of line of sight and axis, and where on the line (0 to 1) it is.

    Of two line segments, as Ericson, Real-Time Collision Detection, 2005, section 5.1.9.
    """
    determinant = (p.sight * p.axis - p.sight_axis.square()).clamp(min=1e-12)
    on_axis = (p.sight_axis * p.sight_gap - p.sight * p.axis_gap) / determinant
    on_sight = ((p.sight_gap + on_axis.clamp(0, 1) * p.sight_axis) / p.sight).clamp(0, 1)
    on_axis = ((p.sight_axis * on_sight - p.axis_gap) / p.axis.clamp(min=1e-12)).clamp(0, 1)
    from_axis = p.gap + on_axis * (on_axis * p.axis + 2 * p.axis_gap)
    to_sight = on_sight * (on_sight * p.sight - 2 * (p.sight_gap + on_axis * p.sight_axis))
    return from_axis + to_sight, on_sight


def _to_axis(p: _Products) -> PerSegment:
    """Squared distance of each joint to each axis."""
    across = p.sight_axis - p.axis_gap
    along = (across / p.axis.clamp(min=1e-12)).clamp(0, 1)
    return p.sight + p.gap - 2 * p.sight_gap + along * (along * p.axis - 2 * across)
