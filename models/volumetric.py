"""Volumetric triangulation: joints read out of a volume around the person that all views fill.

After Iskakov et al., Learnable triangulation of human pose, ICCV 2019, section 3.2; the encoder-decoder
follows Moon et al., V2V-PoseNet, CVPR 2018. Evidence is drawn through the calibrated cameras into a
cube, refined by 3D convolutions and read out by soft-argmax; the context of the other joints
(`models/context.py`) makes a prior of it; and a small volume around each joint, zoomed until its
voxels are small against what the evidence leaves open, gives the result with its uncertainty.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.context import Context, joint_distances, segment_lengths
from models.evidence import grid, local, log_evidence, moments
from models.heatmaps import Heatmaps, density
from models.losses import mean_distance_mm, position_loss, uncertain_frames
from models.multiview import JOINTS, BodyFrames, Estimate, Views
from models.simulation.population import Examples
from models.view_encoder import Trust, ViewEncoder, exchange, exchange_loss, triangulate_trusting

ZOOM_DEVIATIONS = 6.0
"""Side of a joint's own volume, in standard deviations along each axis."""
SMALLEST_M, LARGEST_M = 0.004, 0.25
"""Standard deviations between which volumes are made."""
IDEA = 7
"""Channels of what the cube adds to the evidence alone."""
LOOKED_AT = 1 / 16
"""Share of the frames whose cube is made in training, where it costs most of the time; the other
frames train what comes after it from the algebraic estimate."""


class Architecture(BaseModel):
    """Sizes of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(64, gt=0)
    """Of a ray's token."""
    layers: int = Field(3, gt=0)
    context_channels: int = Field(96, gt=0)
    context_layers: int = Field(4, gt=0)
    cube_m: float = Field(2.5, gt=0)
    voxels: int = Field(64, gt=7)
    """Along each side of the cube."""
    volume_channels: int = Field(32, gt=0)
    zoom_voxels: int = Field(8, gt=3)
    zooms: int = Field(2, gt=0)


@dataclass(frozen=True)
class Stages:
    """What the parts of the network think, each building on those before; in the body's frame."""

    algebraic: Estimate
    volume: Estimate
    context: Estimate
    result: Estimate
    trust: Trust
    length: Float[Tensor, "window segment"]


class Residual(nn.Module):
    """Two convolutions added to their input."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(4, channels), nn.GELU(), nn.Conv3d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels), nn.GELU(), nn.Conv3d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, volume):
        """Return the sum."""
        return volume + self.body(volume)


class Volume(nn.Module):
    """3D encoder-decoder at half the cube's resolution, from evidence to corrections of it."""

    def __init__(self, channels: int):
        super().__init__()
        joints, wide, wider = len(JOINTS), 2 * channels, 4 * channels
        self.stem = nn.Conv3d(joints, channels, 4, stride=2, padding=1)
        self.fine = Residual(channels)
        self.down = nn.Sequential(nn.Conv3d(channels, wide, 2, stride=2), Residual(wide))
        self.bottom = nn.Sequential(
            nn.Conv3d(wide, wider, 2, stride=2), Residual(wider),
            nn.ConvTranspose3d(wider, wide, 2, stride=2),
        )  # fmt: skip
        self.up = nn.Sequential(Residual(wide), nn.ConvTranspose3d(wide, channels, 2, stride=2))
        self.last = Residual(channels)
        self.read_out = nn.ConvTranspose3d(channels, joints, 4, stride=2, padding=1)
        nn.init.zeros_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)

    def forward(
        self, evidence: Float[Tensor, "frame joint x y z"]
    ) -> Float[Tensor, "frame joint x y z"]:
        """Return what to add to the logarithm of the evidence."""
        fine = self.fine(self.stem(evidence))
        coarse = self.down(fine)
        return self.read_out(self.last(fine + self.up(coarse + self.bottom(coarse))))


class Volumetric(nn.Module):
    """The whole model."""

    mixed_precision = False
    """Whether the cube's convolutions are in bfloat16; all else is geometry, which needs float32."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        sizes = self.architecture = architecture
        self.encoder = ViewEncoder(sizes.channels, sizes.layers)
        self.volume = Volume(sizes.volume_channels)
        self.context = Context(sizes.context_channels, sizes.context_layers, sizes.channels + IDEA)

    def forward(
        self,
        views: Views,
        frames: BodyFrames,
        measured: Float[Tensor, "window segment"] | None = None,
        looked_at: Bool[Tensor, "window frame"] | None = None,
        heatmaps: Heatmaps | None = None,
    ) -> Stages:
        """Triangulate.

        `measured` are the subject's segment lengths, m, by default those of these frames.
        `looked_at` are the frames whose volume is made; the others take the algebraic estimate.
        `heatmaps` fill the cube where there are some; the zoom keeps to the keypoints, which are
        finer than a map's cells.
        """
        algebraic, trust, equations = self.algebraic(views, frames)
        if measured is None:
            measured = segment_lengths(_detached(algebraic), views.seen.sum(2) > 1)
        if looked_at is None:
            looked_at = torch.ones_like(views.seen[..., 0, 0])
        maps = heatmaps and heatmaps.in_body(frames)
        volume = self.look(equations, trust, algebraic, looked_at, maps)
        with torch.no_grad():
            coarse = self.zoom(equations, trust, volume, use_prior=False)
            idea = _idea(volume, coarse, looked_at)
        seen = _mean_over_views(trust.token, views.confidence)
        context, length = self.context(coarse, torch.cat([seen, idea], -1), measured)
        result = self.zoom(equations, trust, context)
        return Stages(algebraic, volume, context, result, trust, length)

    def estimate(
        self,
        views: Views,
        frames: BodyFrames,
        measured: Float[Tensor, "window segment"],
        heatmaps: Heatmaps | None = None,
    ) -> Estimate:
        """Return joints in the body's frame, for a subject of known segment lengths (m)."""
        return self(views, frames, measured, None, heatmaps).result

    def algebraic(self, views: Views, frames: BodyFrames) -> tuple[Estimate, Trust, Tensor]:
        """Triangulate without a volume, as `Algebraic` does."""
        return triangulate_trusting(self.encoder, views, frames)

    def loss(self, examples: Examples, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of all parts, and metrics."""
        views, seen = examples.views, examples.views.seen
        frames = uncertain_frames(examples.position, generator)
        truth = frames.from_world(examples.position)
        chance = torch.rand(seen.shape[:2], generator=generator, device=seen.device)
        looked_at = chance < (LOOKED_AT if self.training else 1)
        stages = self(views, frames, None, looked_at)
        known, several = examples.known[:, None], examples.known[:, None] & (seen.sum(2) > 1)
        in_volume = several & looked_at[..., None]
        length = joint_distances(truth).mean(1)
        parts = {
            "result": position_loss(stages.result, truth, known),
            "context": 0.3 * position_loss(stages.context, truth, known),
            "volume": 0.3 * position_loss(stages.volume, truth, in_volume),
            "algebraic": 0.3 * position_loss(stages.algebraic, truth, several),
            "exchange": exchange_loss(stages.trust, examples.swapped, seen),
            "length": 10 * (stages.length - length).abs().mean(),
        }
        return parts | {
            "loss": torch.stack(list(parts.values())).sum(),
            "mpjpe_mm": mean_distance_mm(stages.result, truth, several),
            "algebraic_mm": mean_distance_mm(stages.algebraic, truth, several),
            "volume_mm": mean_distance_mm(stages.volume, truth, in_volume),
            "context_mm": mean_distance_mm(stages.context, truth, several),
            "length_mm": 1000 * (stages.length - length).abs().mean(),
        }

    def look(self, equations, trust, algebraic, looked_at, heatmaps=None) -> Estimate:
        """Soft-argmax of the cube; the algebraic estimate in frames that are not looked at."""
        if not looked_at.any():
            return algebraic
        count, side = self.architecture.voxels, self.architecture.cube_m
        unit = grid(count, equations)
        with torch.no_grad():
            few = Trust(*(getattr(trust, n)[looked_at][None] for n in
                          ("precision", "exchanged", "outlier", "token")))  # fmt: skip
            cube = equations.new_full((1, 1, 1, 3), side)
            rays = local(equations[looked_at][None], torch.zeros_like(cube), cube)
            maps = heatmaps and density(heatmaps.at(looked_at), side * unit, side / (2 * count))
            log = log_evidence(rays, few, unit, count, drawn=maps)[0]
            log = log - log.amax(-1, keepdim=True)
            views = (few.precision[0] > 0).sum(1).clamp(min=1)[..., None]
            heat = torch.exp(log / views).unflatten(-1, (count, count, count))
        with torch.autocast(heat.device.type, torch.bfloat16, enabled=self.mixed_precision):
            correction = self.volume(heat).flatten(2)
        log = log + correction.to(log.dtype)
        found = moments(log, unit)
        position, covariance = algebraic.position.clone(), algebraic.covariance.clone()
        position[looked_at], covariance[looked_at] = (
            side * found.position,
            side**2 * found.covariance,
        )
        return Estimate(position, covariance)

    def zoom(self, equations, trust, prior: Estimate, use_prior: bool = True) -> Estimate:
        """Mean and covariance of evidence times prior, in volumes of their own for the joints.

        Without `use_prior` its place and width only say where to look first.
        """
        unit = grid(self.architecture.zoom_voxels, prior.position)
        estimate = _detached(prior)
        for step in range(self.architecture.zooms):
            last = step == self.architecture.zooms - 1
            with torch.set_grad_enabled(last and torch.is_grad_enabled()):
                estimate = self._zoom_once(
                    equations, trust, prior if use_prior else None, estimate, unit
                )
        return estimate

    def _zoom_once(self, equations, trust, prior, at: Estimate, unit) -> Estimate:
        side = ZOOM_DEVIATIONS * at.standard_deviation.detach().clamp(SMALLEST_M, LARGEST_M)
        center = at.position.detach()
        own, other = (local(each, center, side) for each in (equations, exchange(equations, 3)))
        log = log_evidence(own, trust, unit, self.architecture.zoom_voxels, other)
        if prior is not None:
            width = side / prior.standard_deviation
            offset = (center - prior.position) / prior.standard_deviation
            away = width[..., None, :] * unit + offset[..., None, :]
            log = log - 0.5 * away.square().sum(-1)
        found = moments(log, unit)
        scale = side[..., :, None] * side[..., None, :]
        return Estimate(center + side * found.position, scale * found.covariance)


def _detached(estimate: Estimate) -> Estimate:
    return Estimate(estimate.position.detach(), estimate.covariance.detach())


def _idea(volume: Estimate, coarse: Estimate, looked_at) -> Tensor:
    """What the cube adds to the evidence alone: another place, how sure; and whether there is one."""
    moved = volume.position - coarse.position
    sure = torch.log(volume.standard_deviation) / 3
    idea = torch.cat([moved, sure, torch.ones_like(moved[..., :1])], -1)
    return torch.where(looked_at[..., None, None], idea, 0.0)


def _mean_over_views(token, confidence):
    weight = (confidence > 0).to(token.dtype)[..., None]
    return (token * weight).sum(2) / weight.sum(2).clamp(min=1)
