"""Losses: how far an estimate is from the truth, and whether it knows that."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.multiview import JOINTS, BodyFrames, Estimate, body_frames, rightwards

FREEDOM = 4.0
"""Of Student's t: errors are heavier-tailed than a Gaussian's."""
USUAL_ERROR_M = 0.02
FRAME_ERRORS = ((0.05, 10.0), (0.15, 30.0))
"""Standard deviations of where the body's frame is taken to be: m along each axis, degrees of
heading; the second kind in a tenth of the frames."""


def position_loss(
    estimate: Estimate,
    truth: Float[Tensor, "window frame joint 3"],
    counted: Bool[Tensor, "window #frame joint"],
) -> Tensor:
    """Mean distance in usual errors, and a little of the negative log-likelihood of the truth."""
    error = truth - estimate.position
    distance = error.square().sum(-1).clamp(min=1e-10).sqrt()
    floor = 1e-6 * torch.eye(3, dtype=error.dtype, device=error.device)
    factor = torch.linalg.cholesky_ex(estimate.covariance + floor)[0]
    surprise = torch.linalg.solve_triangular(factor, error[..., None], upper=False)
    volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    unlikely = volume + (FREEDOM + 3) / 2 * torch.log1p(surprise.square().sum((-1, -2)) / FREEDOM)
    return mean_of(distance / USUAL_ERROR_M + 0.1 * unlikely, counted)


def mean_of(values: Float[Tensor, "*batch"], counted: Bool[Tensor, "*#batch"]) -> Tensor:
    """Mean of the values that count; 0 if there are none."""
    weight = counted.expand(values.shape).to(values.dtype)
    return (torch.where(weight > 0, values, 0.0) * weight).sum() / weight.sum().clamp(min=1)


def mean_distance_mm(
    estimate: Estimate,
    truth: Float[Tensor, "window frame joint 3"],
    counted: Bool[Tensor, "window #frame joint"],
) -> Tensor:
    """Mean per joint position error (MPJPE), mm."""
    return 1000 * mean_of((estimate.position - truth).norm(dim=-1), counted)


def uncertain_frames(
    truth: Float[Tensor, "window frame joint 3"], generator: torch.Generator
) -> BodyFrames:
    """Body frames of true joints, with errors such as a first triangulation makes."""

    def normal(*shape):
        return torch.randn(*shape, generator=generator, device=truth.device, dtype=truth.dtype)

    shape = truth.shape[:2]
    rare = torch.rand(shape, generator=generator, device=truth.device) < 0.1
    place_m, turn_deg = (torch.where(rare, *pair[::-1]) for pair in zip(*FRAME_ERRORS, strict=True))
    across = rightwards(truth)
    angle = torch.deg2rad(turn_deg) * normal(*shape)
    x, z = across[..., 0], across[..., 2]
    turned = torch.stack(
        [x * angle.cos() + z * angle.sin(), 0 * x, z * angle.cos() - x * angle.sin()], -1
    )
    hips = truth[:, :, [JOINTS.index("RHip"), JOINTS.index("LHip")]].mean(2)
    return body_frames(hips + place_m[..., None] * normal(*shape, 3), turned)
