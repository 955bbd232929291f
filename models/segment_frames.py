"""Segment frames: axes that each part of the body carries along, from keypoints alone.

Positions in them do not change where the person turns or goes: what is learned of them holds at any
heading. They are no anatomical frames, only ones that move nearly as the bones do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Ways = tuple[tuple[str, str], ...]
"""From which keypoint to which: a direction is the sum of such ways."""


@dataclass(frozen=True)
class Segment:
    """How a segment's frame is made of keypoints."""

    origin: str
    first: Ways
    """The first axis."""
    second: Ways
    """The second axis as far as it is square to the first; the third is square to both."""


def _sides(name: str, origin: str, first: Ways, second: Ways) -> dict[str, Segment]:
    """The same on both sides; written for the right one, with keypoints such as `RKnee`."""

    def mirrored(keypoint: str) -> str:
        other = {"R": "L", "L": "R"}
        sided = keypoint[0] in other and keypoint[1].isupper()
        return other[keypoint[0]] + keypoint[1:] if sided else keypoint

    def of_left(ways: Ways) -> Ways:
        return tuple((mirrored(start), mirrored(end)) for start, end in ways)

    return {
        f"{name}_r": Segment(origin, first, second),
        f"{name}_l": Segment(mirrored(origin), of_left(first), of_left(second)),
    }


_UP, _HIPS, _SHOULDERS = (("midHip", "Neck"),), (("LHip", "RHip"),), (("LShoulder", "RShoulder"),)
_ACROSS = (("RHip", "LHip"),)
_DOWN_AND_INWARDS = (("Neck", "midHip"), ("RShoulder", "LShoulder"))
"""No arm reaches along it, and few against it."""
SEGMENTS = {
    "pelvis": Segment("midHip", _UP, _HIPS),
    "torso": Segment("Neck", _UP, _SHOULDERS),
    **_sides("thigh", "RKnee", (("RKnee", "RHip"),), _ACROSS),
    **_sides("shank", "RAnkle", (("RAnkle", "RKnee"),), _ACROSS),
    **_sides("foot", "RHeel", (("RHeel", "RBigToe"),), (("RHeel", "RAnkle"),)),
    **_sides("upper_arm", "RElbow", (("RElbow", "RShoulder"),), _DOWN_AND_INWARDS),
    **_sides("forearm", "RWrist", (("RWrist", "RElbow"),), _DOWN_AND_INWARDS),
}


class SegmentFrames(nn.Module):
    """Frames of some `SEGMENTS` from named keypoints."""

    def __init__(self, segments: Sequence[str], keypoints: Sequence[str]):
        super().__init__()
        number = {name: index for index, name in enumerate(keypoints)}
        chosen = [SEGMENTS[name] for name in segments]

        def sums(directions: Sequence[Ways]) -> Float[Tensor, "segment keypoint"]:
            table = torch.zeros(len(directions), len(keypoints))
            for row, ways in zip(table, directions, strict=True):
                for start, end in ways:
                    row[number[end]] += 1
                    row[number[start]] -= 1
            return table

        origins = torch.tensor([number[each.origin] for each in chosen])
        for name, values in (
            ("origins", origins),
            ("first", sums([each.first for each in chosen])),
            ("second", sums([each.second for each in chosen])),
        ):
            self.register_buffer(name, values, persistent=False)

    def forward(
        self, keypoints: Float[Tensor, "*batch keypoint 3"]
    ) -> tuple[Float[Tensor, "*batch segment 3"], Float[Tensor, "*batch segment 3 3"]]:
        """Return origins, m, and axes: rotations from the frame to the world, in columns."""
        first = functional.normalize(self.first @ keypoints, dim=-1)
        second = self.second @ keypoints
        second = second - (second * first).sum(-1, keepdim=True) * first
        second = functional.normalize(second, dim=-1)
        third = torch.linalg.cross(first, second)
        return keypoints[..., self.origins, :], torch.stack([first, second, third], -1)
