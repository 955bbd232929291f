"""Cost: what a network must calculate and move for a frame, and how fast that can be at best."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from models.context import joint_distances
from models.losses import uncertain_frames
from models.simulation.population import Examples

BYTES_OF_A_NUMBER = 2
"""In bfloat16."""


@dataclass(frozen=True)
class Processor:
    """What a device does at most."""

    name: str
    flops_per_s: float
    """Floating-point operations, of matrix products."""
    bytes_per_s: float
    """Between memory and processor."""


H200 = Processor("NVIDIA H200", 989e12, 4.8e12)
"""NVIDIA H200 SXM data sheet, 2024: bfloat16 tensor cores without sparsity, HBM3e."""


@dataclass(frozen=True)
class Cost:
    """Of a frame."""

    parameters: int
    flops: int
    """Of matrix products and convolutions; a multiplication and an addition are two."""
    bytes: int
    """All parameters read once, and the results of matrix products and convolutions written once and
    read once, in bfloat16. All else counts as done on the way."""

    def is_bound_by_arithmetic(self, processor: Processor) -> bool:
        """Tell what takes longer: to calculate, or to move numbers."""
        return self.flops / processor.flops_per_s > self.bytes / processor.bytes_per_s

    def floor_s(self, processor: Processor) -> float:
        """No processor of this kind can be faster."""
        return max(self.flops / processor.flops_per_s, self.bytes / processor.bytes_per_s)


class _Results(TorchDispatchMode):
    """Counts the numbers that matrix products and convolutions give."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        if function._overloadpacket in flop_registry:
            several = results if isinstance(results, tuple | list) else [results]
            self.count += sum(each.numel() for each in several if isinstance(each, Tensor))
        return results


def cost_of(network: nn.Module, examples: Examples, generator: torch.Generator) -> Cost:
    """Let a network estimate joints, as `models.learned` does, and count (torch's FlopCounterMode)."""
    frames = uncertain_frames(examples.position, generator)
    measured = joint_distances(examples.position).mean(1)
    with torch.no_grad(), FlopCounterMode(display=False) as flops, _Results() as results:
        network.estimate(examples.views, frames, measured)
    count = examples.position.shape[0] * examples.position.shape[1]
    parameters = sum(each.numel() for each in network.parameters())
    return Cost(
        parameters,
        flops.get_total_flops() // count,
        BYTES_OF_A_NUMBER * (parameters + 2 * results.count // count),
    )
