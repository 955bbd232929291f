"""The retrained marker augmenter: video keypoints to anatomical markers, in frames of body segments.

As OpenCap's (`augmenter`), LSTMs over time for the body and for the arms. Other than there, keypoints
come in, and markers go out, in the `segment_frames` of the parts of the body, so that the network has
only to learn how markers are off them; and it looks at the movement in both directions of time.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

from models.augmenter import (
    LOWER_FEATURES,
    LOWER_RESPONSES,
    REFERENCE,
    UPPER_FEATURES,
    UPPER_RESPONSES,
)
from models.segment_frames import SegmentFrames

LEAST_SPREAD = 0.005
"""Of a feature, in body heights: what varies less is mostly errors."""
TYPICAL_MASS_KG = 70.0
_LEG = ("Hip", "Knee", "Ankle", "Heel", "BigToe", "SmallToe")
_ARM = ("Shoulder", "Elbow", "Wrist")
_BODY_SEEN = {
    "pelvis": LOWER_FEATURES,
    "torso": ("RShoulder", "LShoulder", "RHip", "LHip", REFERENCE),
    **{
        f"{segment}_{side.lower()}": tuple(f"{side}{part}" for part in _LEG)
        for segment in ("thigh", "shank", "foot")
        for side in "RL"
    },
}
_ARMS_SEEN = {
    "torso": (*UPPER_FEATURES, REFERENCE),
    **{
        f"{segment}_{side.lower()}": (*(f"{side}{part}" for part in _ARM), "Neck")
        for segment in ("upper_arm", "forearm")
        for side in "RL"
    },
}
"""Which keypoints are looked at in which segment's frame."""
_CARRIED_BY = {
    "pelvis": ("ASIS", "PSIS", "HJC"), "torso": ("shoulder", "C7"), "thigh": ("knee", "thigh"),
    "shank": ("sh1", "sh2", "sh3", "ankle"), "foot": ("toe", "meta", "calc"),
    "upper_arm": ("elbow",), "forearm": ("wrist",),
}  # fmt: skip
"""By words in a marker's name."""


def segment_of(marker: str) -> str:
    """Name the segment that carries a marker."""
    part = next(name for name, words in _CARRIED_BY.items() if any(w in marker for w in words))
    return part if part in ("pelvis", "torso") else f"{part}_{marker[0].lower()}"


class Architecture(BaseModel):
    """How large the networks are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    units: PositiveInt
    """Of the body's LSTMs, in each direction of time."""
    layers: PositiveInt
    arm_units: PositiveInt
    arm_layers: PositiveInt


class SegmentAugmenter(nn.Module):
    """One network, for the body or for the arms; called as `augmenter.Augmenter` is."""

    def __init__(
        self,
        features: tuple[str, ...],
        responses: tuple[str, ...],
        seen: Mapping[str, tuple[str, ...]],
        units: int,
        layers: int,
    ):
        super().__init__()
        keypoints, segments = (*features, REFERENCE), list(seen)
        self.frames = SegmentFrames(segments, keypoints)
        pairs = [(segments.index(name), keypoints.index(k)) for name in seen for k in seen[name]]
        carried_by = [segments.index(segment_of(marker)) for marker in responses]
        self.register_buffer("pairs", torch.tensor(pairs).T, persistent=False)
        self.register_buffer("carried_by", torch.tensor(carried_by), persistent=False)
        size = 3 * (len(pairs) + len(segments)) + 2
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("marker_mean", torch.zeros(len(responses), 3))
        self.register_buffer("marker_std", torch.ones(len(responses), 3))
        self.lstm = nn.LSTM(size, units, layers, batch_first=True, bidirectional=True)
        self.read_out = nn.Linear(2 * units + size, 3 * len(responses))
        nn.init.zeros_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)

    def forward(
        self,
        keypoints: Float[Tensor, "batch time keypoint 3"],
        reference: Float[Tensor, "batch time 3"],
        height_m: float | Float[Tensor, "batch"],
        mass_kg: float | Float[Tensor, "batch"],
    ) -> Float[Tensor, "batch time marker 3"]:
        """Return markers, m, from keypoints, m; Y up, any heading, sampled at 60 Hz."""
        height_m = torch.as_tensor(height_m).to(keypoints).expand(len(keypoints))
        mass_kg = torch.as_tensor(mass_kg).to(keypoints).expand(len(keypoints))
        features, origin, axes = self.look(keypoints, reference, height_m, mass_kg)
        features = (features - self.mean) / self.std
        hidden, _ = self.lstm(features)
        local = self.read_out(torch.cat([hidden, features], -1)).unflatten(-1, (-1, 3))
        local = (local * self.marker_std + self.marker_mean) * height_m[:, None, None, None]
        turned = axes[:, :, self.carried_by] @ local[..., None]
        return origin[:, :, self.carried_by] + turned[..., 0]

    def look(
        self,
        keypoints: Float[Tensor, "batch time keypoint 3"],
        reference: Float[Tensor, "batch time 3"],
        height_m: Float[Tensor, "batch"],
        mass_kg: Float[Tensor, "batch"],
    ) -> tuple[
        Float[Tensor, "batch time feature"],
        Float[Tensor, "batch time segment 3"],
        Float[Tensor, "batch time segment 3 3"],
    ]:
        """Return features, not normalised, and the segments' frames: origins, m, and axes.

        Features are keypoints in the frames, in body heights; which way is up there; height, m, and
        mass, in typical ones.
        """
        points = torch.cat([keypoints, reference[:, :, None]], 2)
        origin, axes = self.frames(points)
        segment, keypoint = self.pairs
        away = points[:, :, keypoint] - origin[:, :, segment]
        seen = (away[..., None, :] @ axes[:, :, segment])[..., 0, :] / height_m[:, None, None, None]
        up = axes[..., 1, :]
        body = torch.stack([height_m, mass_kg / TYPICAL_MASS_KG], -1)
        body = body[:, None].expand(-1, keypoints.shape[1], -1)
        return torch.cat([seen.flatten(2), up.flatten(2), body], -1), origin, axes

    @torch.no_grad()
    def learn_scale(
        self,
        keypoints: Float[Tensor, "batch time keypoint 3"],
        reference: Float[Tensor, "batch time 3"],
        height_m: Float[Tensor, "batch"],
        mass_kg: Float[Tensor, "batch"],
        markers: Float[Tensor, "batch time marker 3"],
    ) -> None:
        """Take the means and spreads of features and markers, by which they are normalised."""
        features, origin, axes = self.look(keypoints, reference, height_m, mass_kg)
        self.mean.copy_(features.mean((0, 1)))
        self.std.copy_(features.std((0, 1)).clamp(min=LEAST_SPREAD))
        away = (markers - origin[:, :, self.carried_by]) / height_m[:, None, None, None]
        local = (away[..., None, :] @ axes[:, :, self.carried_by])[..., 0, :]
        self.marker_mean.copy_(local.mean((0, 1)))
        self.marker_std.copy_(local.std((0, 1)).clamp(min=LEAST_SPREAD))


class RetrainedAugmenter(nn.Module):
    """Both networks; made with an `Architecture`."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        self.body = SegmentAugmenter(
            LOWER_FEATURES, LOWER_RESPONSES, _BODY_SEEN, architecture.units, architecture.layers
        )
        self.arms = SegmentAugmenter(
            UPPER_FEATURES, UPPER_RESPONSES, _ARMS_SEEN, architecture.arm_units,
            architecture.arm_layers,
        )  # fmt: skip
