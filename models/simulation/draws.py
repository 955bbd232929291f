"""Draws: random tensors from an explicit generator, on its device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """What is drawn next depends on the generator alone."""

    generator: torch.Generator
    dtype: torch.dtype

    def normal(self, *shape: int) -> Float[Tensor, "..."]:
        """Of mean 0 and variance 1."""
        return torch.randn(
            shape, generator=self.generator, device=self.generator.device, dtype=self.dtype
        )

    def uniform(self, low: float, high: float, *shape: int) -> Float[Tensor, "..."]:
        """Evenly between two numbers."""
        drawn = torch.rand(
            shape, generator=self.generator, device=self.generator.device, dtype=self.dtype
        )
        return low + (high - low) * drawn

    def happens(self, share: float | Tensor, *shape: int) -> Bool[Tensor, "..."]:
        """True in a share of cases, which broadcasts to the shape."""
        return self.uniform(0, 1, *shape) < share

    def choice(self, shares: Sequence[float], *shape: int) -> Int[Tensor, "..."]:
        """Number of one of several, in proportion to their shares."""
        bounds = torch.tensor(shares, dtype=self.dtype, device=self.generator.device).cumsum(0)
        drawn = self.uniform(0, 1, *shape) * bounds[-1]
        return torch.searchsorted(bounds[:-1], drawn, right=True)
