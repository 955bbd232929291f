"""Context: where a joint must be, from the other joints and the lengths of the subject's segments.

In the spirit of Ma et al., Context modeling in 3D human pose estimation, CVPR 2021: attention among
joints that prefers partners at the distance that the skeleton allows.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.multiview import JOINTS, Estimate
from models.view_encoder import Attention, feed_forward

_SIDED = (
    ("Shoulder", "Elbow"), ("Elbow", "Wrist"), ("Hip", "Knee"), ("Knee", "Ankle"),
    ("Ankle", "Heel"), ("Ankle", "BigToe"), ("Ankle", "SmallToe"), ("Heel", "BigToe"),
    ("Heel", "SmallToe"), ("BigToe", "SmallToe"), ("Eye", "Ear"),
)  # fmt: skip
_OF_THE_MIDDLE = (
    ("LShoulder", "RShoulder"), ("LHip", "RHip"), ("Neck", "Nose"), ("Neck", "Head"),
    ("LEar", "REar"), ("LEye", "REye"), ("Nose", "Head"),
)  # fmt: skip
_HALVES = (("Neck", "Shoulder"), ("midHip", "Hip"), ("Nose", "Eye"), ("Nose", "Ear"))
SEGMENTS = tuple(
    (JOINTS.index(start), JOINTS.index(end))
    for pairs in (
        [(side + start, side + end) for start, end in _SIDED for side in "RL"],
        [(start, side + end) for start, end in _HALVES for side in "RL"],
        _OF_THE_MIDDLE,
    )
    for start, end in pairs
)
"""Pairs of joints that stay about equally far apart: right and left of a kind one after the other."""
PAIRED = 2 * (len(_SIDED) + len(_HALVES))
CONFIDENT_M = 0.10
"""Lengths less certain than this in a frame are not looked at."""


def joint_distances(
    position: Float[Tensor, "*batch joint 3"],
) -> Float[Tensor, "*batch segment"]:
    """Distances between the ends of the segments, m."""
    start, end = torch.tensor(SEGMENTS, device=position.device).unbind(1)
    return (position[..., start, :] - position[..., end, :]).norm(dim=-1)


def segment_lengths(
    estimate: Estimate, several: Bool[Tensor, "window frame joint"]
) -> Float[Tensor, "window segment"]:
    """A subject's segment lengths, m: weighted medians over confident frames, both sides alike.

    `several` says where at least two views see a joint. NaN where no frame is confident.
    """
    start, end = torch.tensor(SEGMENTS, device=several.device).unbind(1)
    length = joint_distances(estimate.position)
    variance = estimate.covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    variance = variance[..., start] + variance[..., end]
    sure = several[..., start] & several[..., end] & (variance < CONFIDENT_M**2)
    weight = torch.where(sure, 1 / variance, 0.0)
    order = length.argsort(1)
    passed = weight.gather(1, order).cumsum(1)
    middle = (passed < passed[:, -1:] / 2).sum(1, keepdim=True)
    median = length.gather(1, order.gather(1, middle.clamp(max=length.shape[1] - 1)))[:, 0]
    median = torch.where(passed[:, -1] > 0, median, torch.nan)
    sides = median[:, :PAIRED].unflatten(1, (-1, 2)).nanmean(-1, keepdim=True).expand(-1, -1, 2)
    return torch.cat([sides.flatten(1), median[:, PAIRED:]], 1)


class ContextLayer(nn.Module):
    """Attention among joints, weighted by how well their distance fits the segment's length."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.place = nn.Linear(10, channels)
        self.attention = Attention(channels, heads)
        self.forward_part = feed_forward(channels)
        self.move = nn.Linear(channels, 3)
        self.kinds = nn.Parameter(torch.zeros(heads, len(JOINTS), len(JOINTS)))
        self.fit = nn.Parameter(torch.zeros(heads))
        nn.init.zeros_(self.move.weight)
        nn.init.zeros_(self.move.bias)

    def forward(self, tokens, position, deviation, length):
        """Return tokens and positions; `deviation` are the coarse standard deviations, m."""
        stretch, pull, fits = _springs(position, length, tokens.dtype)
        sure = torch.log(deviation + 1e-3) / 3
        tokens = tokens + self.place(
            torch.cat([position, torch.tanh(pull / 0.05), stretch, sure], -1)
        )
        bias = self.kinds + self.fit[:, None, None] * fits[..., None, :, :]
        tokens = tokens + self.attention(tokens, bias.to(tokens.dtype))
        tokens = tokens + self.forward_part(tokens)
        return tokens, position + 0.05 * self.move(tokens)


def _springs(position, length, dtype):
    """How a joint's segments are stretched or pressed.

    Returns their mean absolute stretch (10 cm; one channel), the sum of their pulls (m), and scores
    of the fit between pairs of joints (joint, joint): 0 at the right length, less elsewhere.
    """
    start, end = torch.tensor(SEGMENTS, device=position.device).unbind(1)
    way = position[..., end, :] - position[..., start, :]
    apart = way.norm(dim=-1).clamp(min=1e-3)
    known = torch.isfinite(length)[:, None].to(position.dtype)
    excess = (apart - torch.nan_to_num(length)[:, None]) * known
    force = way * (excess / apart)[..., None]
    pull = torch.zeros_like(position)
    pull = pull.index_add(-2, start, force).index_add(-2, end, -force)
    size = torch.zeros_like(position[..., 0])
    size = size.index_add(-1, start, excess.abs()).index_add(-1, end, excess.abs())
    score = -0.5 * (excess / 0.05).square().clamp(max=18) * known
    fits = position.new_zeros(*position.shape[:-1], len(JOINTS))
    fits[..., start, end] = score
    fits[..., end, start] = score
    return torch.tanh(size[..., None] / 0.1).to(dtype), pull, fits


class Context(nn.Module):
    """Refines joints from each other: layers of attention that move them step by step."""

    def __init__(self, channels: int, layers: int, seen_channels: int, heads: int = 4):
        super().__init__()
        self.embed = nn.Linear(seen_channels + 6, channels)
        self.joint = nn.Parameter(0.1 * torch.randn(len(JOINTS), channels))
        self.lengths = nn.Sequential(
            nn.Linear(2 * len(SEGMENTS), 64), nn.GELU(), nn.Linear(64, len(SEGMENTS))
        )
        self.layers = nn.ModuleList(ContextLayer(channels, heads) for _ in range(layers))
        self.spread = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 3))
        nn.init.zeros_(self.lengths[2].weight)
        nn.init.zeros_(self.lengths[2].bias)
        self.register_buffer("usual", torch.full((len(SEGMENTS),), 0.25))

    def likely_lengths(
        self, measured: Float[Tensor, "window segment"]
    ) -> Float[Tensor, "window segment"]:
        """Lengths (m) that agree with each other and the population, from measured ones or NaN."""
        known = torch.isfinite(measured)
        relative = torch.where(known, torch.log(measured.clamp(min=0.01) / self.usual), 0.0)
        mean = relative.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
        relative = torch.where(known, relative - mean, 0.0)
        change = self.lengths(torch.cat([relative, known.to(relative.dtype)], 1))
        return self.usual * torch.exp(mean + relative + change)

    def forward(
        self,
        coarse: Estimate,
        seen: Float[Tensor, "window frame joint channel"],
        measured: Float[Tensor, "window segment"],
    ) -> tuple[Estimate, Float[Tensor, "window segment"]]:
        """Return where joints must be (body's frame), and the lengths used.

        `coarse` is where the evidence alone has them, and `seen` what else is known of them.
        """
        length = self.likely_lengths(measured)
        position, deviation = coarse.position, coarse.standard_deviation
        facts = torch.cat([seen, position, torch.log(deviation + 1e-3) / 3], -1)
        tokens = self.embed(facts) + self.joint
        for layer in self.layers:
            tokens, position = layer(tokens, position, deviation, length)
        spread = 0.03 * torch.exp(self.spread(tokens).float().clamp(-3, 3))
        return Estimate(position, torch.diag_embed(spread.square())), length
