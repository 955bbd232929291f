"""Evidence: how well every place in a volume explains what the views saw of each joint."""

import torch
from jaxtyping import Float
from torch import Tensor

from models.multiview import Estimate
from models.view_encoder import Trust, exchange

OUTLIER_AREA_M2 = 1.0
"""A keypoint that is wrong lies anywhere on so large a part of the image's plane at the person."""

Equations = Float[Tensor, "window frame view joint 2 4"]


def grid(count: int, like: Tensor) -> Float[Tensor, "voxel 3"]:
    """Centres of the voxels of a cube from -1/2 to 1/2; z runs fastest."""
    at = (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count - 0.5
    return torch.cartesian_prod(at, at, at)


def local(
    equations: Equations,
    center: Float[Tensor, "window #frame #joint 3"],
    side: Float[Tensor, "window #frame #joint 3"],
) -> Equations:
    """Ray equations for places given in units of a volume's sides (m) from its centre (m)."""
    center, side = center[:, :, None, :, None, :, None], side[:, :, None, :, None, :]
    constant = equations[..., :3][..., None, :] @ center  # … 2 1 1
    return torch.cat([equations[..., :3] * side, constant[..., 0] + equations[..., 3:]], -1)


def log_evidence(
    equations: Equations,
    trust: Trust,
    unit: Float[Tensor, "voxel 3"],
    count: int,
    equations_of_other: Equations | None = None,
    drawn: Float[Tensor, "window frame view joint voxel"] | None = None,
) -> Float[Tensor, "window frame joint voxel"]:
    """Logarithm of how likely all views' keypoints are for a joint in each voxel, to a constant.

    Each view contributes a mixture: its keypoint is the joint's, with a round Gaussian error of
    the trusted precision; or its keypoint of the other side is; or neither says anything. The
    Gaussians are drawn where voxels lie beside the keypoints' rays, and blurred by half a voxel so
    that none falls between voxels.

    `equations` are in the volume's own units (`local`); `count` is its number of voxels along a
    side. Where joints have volumes of their own, `equations_of_other` are each joint's partner's in
    the joint's volume; where they share one, they are not needed. `drawn` are densities (1/m², blurred
    by half a voxel) that take the place of Gaussians in a shared volume; NaN where there is none.
    """
    precision = _blurred(equations, trust.precision, count)
    density = torch.exp(_exponent(equations, precision, unit))
    if drawn is not None:
        height = (precision / (2 * torch.pi)).clamp(min=1e-6)  # 0 where not seen
        density = torch.where(drawn.isnan(), density, drawn / height[..., None])
    if equations_of_other is None:
        partner, density_of_other = exchange(precision, 3), exchange(density, 3)
    else:
        partner = _blurred(equations_of_other, exchange(trust.precision, 3), count)
        density_of_other = torch.exp(_exponent(equations_of_other, partner, unit))
    kept, seen = (1 - trust.outlier) / (2 * torch.pi), trust.precision > 0
    own = kept * (1 - trust.exchanged) * precision * seen
    other = kept * exchange(trust.exchanged, 3) * partner * seen
    floor = torch.where(seen, trust.outlier / OUTLIER_AREA_M2, 1.0)
    mixed = own[..., None] * density + other[..., None] * density_of_other + floor[..., None]
    return torch.log(mixed).sum(2)


def _blurred(equations, precision, count):
    """1/m², with the variance of half a voxel along the image's axes, their mean, added."""
    variance = equations[..., :3].square().sum((-1, -2)) / (2 * (2 * count) ** 2)
    return precision / (1 + precision * variance)


def _exponent(equations, precision, unit):
    """-(distance from the ray)² · precision / 2: a polynomial of the place, so one product."""
    a, b = equations[..., :3], equations[..., 3:]
    square = a.mT @ a
    rows, columns = torch.triu_indices(3, 3, device=unit.device)
    twice = torch.where(rows == columns, 1.0, 2.0).to(unit.dtype)
    linear = 2 * (a.mT @ b)[..., 0]
    constant = b.square().sum((-1, -2))[..., None]
    factors = torch.cat([constant, linear, twice * square[..., rows, columns]], -1)
    terms = torch.cat([torch.ones_like(unit[:, :1]), unit, unit[:, rows] * unit[:, columns]], 1)
    return (-0.5 * precision[..., None] * factors) @ terms.mT


def moments(
    log_probability: Float[Tensor, "*batch voxel"], unit: Float[Tensor, "voxel 3"]
) -> Estimate:
    """Soft-argmax over a `grid`: mean and covariance, in units of its side.

    Sun et al., Integral human pose regression, ECCV 2018, with the second moments too. The extent
    of a voxel is part of the covariance, which is therefore never singular.
    """
    probability = torch.softmax(log_probability, -1)
    mean = probability @ unit
    rows, columns = torch.triu_indices(3, 3, device=unit.device)
    second = probability @ (unit[:, rows] * unit[:, columns])
    upper = second - mean[..., rows] * mean[..., columns]
    covariance = upper.new_zeros(*upper.shape[:-1], 3, 3)
    covariance[..., rows, columns] = upper
    covariance[..., columns, rows] = upper
    voxel = torch.eye(3, dtype=upper.dtype, device=upper.device) / len(unit) ** (2 / 3)
    return Estimate(mean, covariance + voxel / 12)
