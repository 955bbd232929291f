"""Algebraic triangulation: the linear method with learned trust in every view's keypoints.

After Iskakov et al., Learnable triangulation of human pose, ICCV 2019, section 3.1.
"""

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from models.losses import mean_distance_mm, position_loss, uncertain_frames
from models.multiview import BodyFrames, Estimate, Views
from models.simulation.population import Examples
from models.view_encoder import Trust, ViewEncoder, exchange_loss, triangulate_trusting


class Architecture(BaseModel):
    """Sizes of the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(64, gt=0)
    layers: int = Field(3, gt=0)


class Algebraic(nn.Module):
    """A network that judges keypoints, and weighted least squares."""

    mixed_precision = False
    """Plays no part: all of it is geometry, or small."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        self.encoder = ViewEncoder(architecture.channels, architecture.layers)

    def algebraic(self, views: Views, frames: BodyFrames) -> tuple[Estimate, Trust, Tensor]:
        """Return joints in the body's frame, the trust in each ray, and the rays' equations."""
        return triangulate_trusting(self.encoder, views, frames)

    def estimate(
        self, views: Views, frames: BodyFrames, measured: Float[Tensor, "window segment"]
    ) -> Estimate:
        """Return joints in the body's frame. Segment lengths play no part."""
        return self.algebraic(views, frames)[0]

    def loss(self, examples: Examples, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss, and metrics."""
        frames = uncertain_frames(examples.position, generator)
        truth, seen = frames.from_world(examples.position), examples.views.seen
        estimate, trust, _ = self.algebraic(examples.views, frames)
        counted = examples.known[:, None] & (seen.sum(2) > 1)
        loss = position_loss(estimate, truth, counted)
        exchanged = exchange_loss(trust, examples.swapped, seen)
        return {
            "loss": loss + exchanged,
            "mpjpe_mm": mean_distance_mm(estimate, truth, counted),
            "exchange": exchanged,
        }
