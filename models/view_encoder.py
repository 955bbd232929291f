"""View encoder: how far to trust each view's keypoint, and whether its sides are exchanged."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.losses import mean_of
from models.multiview import (
    JOINTS,
    MIRRORED,
    BodyFrames,
    Estimate,
    Views,
    ray_equations,
    residuals,
    robust,
    solve,
)
from models.simulation.detector import LEGS

PerRay = Float[Tensor, "window frame view joint"]
SCALE_M = 0.03
"""A keypoint's usual error at the person."""
FEATURES = 17


@dataclass(frozen=True)
class Trust:
    """What a network makes of every view's keypoints, in the body's frame."""

    precision: PerRay
    """1/m²; 0 where not seen."""
    exchanged: PerRay
    """Probability that the keypoint is the one of the other side."""
    outlier: PerRay
    """Probability that it is neither."""
    token: Float[Tensor, "window frame view joint channel"]


def exchange(values: Tensor, dim: int) -> Tensor:
    """Swap left and right joints along one axis."""
    return values.index_select(dim, torch.tensor(MIRRORED, device=values.device))


def feed_forward(channels: int) -> nn.Sequential:
    """Return a normalised two-layer perceptron, to be added to its input."""
    return nn.Sequential(
        nn.LayerNorm(channels),
        nn.Linear(channels, 2 * channels),
        nn.GELU(),
        nn.Linear(2 * channels, channels),
    )


class Attention(nn.Module):
    """Multi-head attention among joints (Vaswani et al., 2017) with a bias of its scores."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, 3 * channels)
        self.merge = nn.Linear(channels, channels)

    def forward(
        self,
        tokens: Float[Tensor, "*batch joint channel"],
        bias: Float[Tensor, "*batch head joint joint"] | None = None,
    ) -> Float[Tensor, "*batch joint channel"]:
        """Return what each joint takes from the others."""
        split = self.project(self.norm(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.movedim(-3, 0).transpose(-2, -3)  # … head joint channel
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.merge(mixed.transpose(-2, -3).flatten(-2))


class EncoderLayer(nn.Module):
    """Joints of a view look at each other; then each joint looks at all views of it."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.attention = Attention(channels, heads)
        self.across = nn.Sequential(
            nn.LayerNorm(3 * channels), nn.Linear(3 * channels, channels), nn.GELU(),
            nn.Linear(channels, channels),
        )  # fmt: skip
        self.forward_part = feed_forward(channels)

    def forward(self, tokens, seen):
        """Tokens are (window, frame, view, joint, channel); `seen` the same without channels."""
        tokens = tokens + self.attention(tokens)
        weight = seen[..., None].to(tokens.dtype)
        mean = (tokens * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True).clamp(min=1)
        largest = tokens.masked_fill(weight == 0, -10.0).amax(2, keepdim=True)
        both = torch.cat([mean, largest], -1).expand(-1, -1, tokens.shape[2], -1, -1)
        tokens = tokens + self.across(torch.cat([tokens, both], -1))
        return tokens + self.forward_part(tokens)


class ViewEncoder(nn.Module):
    """Judges keypoints by how all joints of all views fit together: any number of views, any order.

    Iskakov et al., Learnable triangulation of human pose, ICCV 2019, learn such confidences from the
    image; here they come from the keypoints' own confidences and from geometry.
    """

    def __init__(self, channels: int, layers: int, heads: int = 4):
        super().__init__()
        self.embed = nn.Linear(FEATURES, channels)
        self.joint = nn.Parameter(0.1 * torch.randn(len(JOINTS), channels))
        self.layers = nn.ModuleList(EncoderLayer(channels, heads) for _ in range(layers))
        self.judge = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 3))
        nn.init.zeros_(self.judge[1].weight)
        self.judge[1].bias.data = torch.tensor([0.0, -6.0, -3.0])

    def forward(
        self,
        equations: Float[Tensor, "window frame view joint 2 4"],
        confidence: PerRay,
        cameras: Float[Tensor, "window frame view 3 4"],
    ) -> Trust:
        """Judge rays, given in the body's frame."""
        seen = confidence > 0
        tokens = self.embed(_features(equations, confidence, cameras)) + self.joint
        for layer in self.layers:
            tokens = layer(tokens, seen)
        scale, exchanged, outlier = self.judge(tokens).float().unbind(-1)
        precision = torch.exp(-2 * scale.clamp(-3, 3)) / SCALE_M**2
        return Trust(
            precision * seen, torch.sigmoid(exchanged), torch.sigmoid(outlier).clamp(1e-3), tokens
        )


def _features(equations, confidence, cameras):
    """Where a ray passes beside the body's middle, the robust point, and the other side's point."""
    with torch.no_grad():
        point = robust(equations, confidence**2).position
    own, other = residuals(equations, point), residuals(equations, exchange(point, 2))
    seen = (confidence > 0).to(confidence.dtype)[..., None]
    sure = torch.logit(confidence.clamp(1e-3, 1 - 1e-3))[..., None] / 4
    size = own.norm(dim=-1, keepdim=True)
    camera = cameras[..., 1:3, :3].flatten(-2)[..., None, :].expand(*confidence.shape, 6)
    rays = torch.cat([equations[..., 3], torch.tanh(own / 0.1), torch.tanh(other / 0.3)], -1)
    return torch.cat([rays * seen, sure * seen, seen, torch.tanh(size / 0.05) * seen,
                      torch.log(size + 1e-3) * seen / 3, confidence[..., None], camera], -1)  # fmt: skip


def exchange_loss(
    trust: Trust,
    swapped: Bool[Tensor, "window frame view"],
    seen: Bool[Tensor, "window frame view joint"],
) -> Tensor:
    """Cross-entropy of the probability that a leg's keypoint is the other leg's."""
    legs = torch.tensor([name[1:] in LEGS for name in JOINTS], device=seen.device) & seen
    told = trust.exchanged.clamp(1e-6, 1 - 1e-6)
    wrong = -torch.log(torch.where(swapped[..., None], told, 1 - told))
    return mean_of(wrong, legs)


def triangulate_trusting(
    encoder: ViewEncoder, views: Views, frames: BodyFrames
) -> tuple[Estimate, Trust, Float[Tensor, "window frame view joint 2 4"]]:
    """Least squares in the body's frame with a network's trust: estimate, trust, ray equations.

    Each ray counts for its own joint, and for the other side's as far as sides may be exchanged.
    """
    cameras = frames.cameras(views.camera_from_world)
    equations = ray_equations(views.image, cameras)
    trust = encoder(equations, views.confidence, cameras)
    kept = trust.precision * (1 - trust.outlier)
    own, other = kept * (1 - trust.exchanged), exchange(kept * trust.exchanged, 3)
    rays = torch.cat([equations, exchange(equations, 3)], 2)
    return solve(rays, torch.cat([own, other], 2)), trust, equations
