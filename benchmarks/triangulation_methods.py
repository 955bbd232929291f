"""The methods of triangulation that are compared, each run on one recording."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.chains import direct_linear
from benchmarks.pose2sim import PeerFailed, triangulated
from benchmarks.triangulation_recordings import Recording
from calibration.aniposelib_toml import write_toml
from models.geometric import Points, Tolerances, triangulate
from models.learned import load_network, triangulate_learned
from models.multiview import BodyFrames, Estimate, Views
from models.volumetric import Volumetric
from pipeline.errors import PipelineError
from stages.export import read_trc
from stages.poses import write_poses

PLAIN, GEOMETRIC, ALGEBRAIC = "plain DLT", "geometric", "algebraic"
ALONE, VOLUMETRIC, PEER = "volumetric without context", "volumetric", "Pose2Sim"
METHODS = (PLAIN, PEER, GEOMETRIC, ALGEBRAIC, ALONE, VOLUMETRIC)
"""In the order of the tables."""

Networks = Mapping[str, nn.Module]
"""By method."""


class WithoutContext(nn.Module):
    """A volumetric network whose joints do not know of each other after the volume."""

    def __init__(self, network: Volumetric):
        super().__init__()
        self.network = network

    def algebraic(self, views: Views, frames: BodyFrames):
        """Triangulate without a volume."""
        return self.network.algebraic(views, frames)

    def estimate(
        self, views: Views, frames: BodyFrames, measured: Float[Tensor, "window segment"]
    ) -> Estimate:
        """Return joints in the body's frame: the volume says where to look, the evidence the rest."""
        estimate, trust, equations = self.algebraic(views, frames)
        everywhere = torch.ones_like(views.seen[..., 0, 0])
        volume = self.network.look(equations, trust, estimate, everywhere)
        return self.network.zoom(equations, trust, volume, use_prior=False)


@dataclass(frozen=True)
class Found:
    """What a method makes of some frames."""

    position: Float[np.ndarray, "frame keypoint 3"]
    """m; NaN where it gives none."""
    deviation: Float[np.ndarray, "frame keypoint 3"]
    """Its own standard deviation of that, m; NaN of methods that do not say."""

    @classmethod
    def nothing(cls, recording: Recording, frames: slice) -> "Found":
        """A method that gave up."""
        return cls.unsure(np.full((*recording.pixels[0, frames].shape[:2], 3), np.nan))

    @classmethod
    def unsure(cls, position: Float[np.ndarray, "frame keypoint 3"]) -> "Found":
        """Points without a word on how sure they are."""
        return cls(position, np.full(position.shape, np.nan))


@cache
def shipped_networks() -> Networks:
    """The networks that are shipped, on the CPU. Raises PipelineError if their weights are not there."""
    return with_variant({name: load_network(name, "cpu") for name in (ALGEBRAIC, VOLUMETRIC)})


def with_variant(networks: Networks) -> Networks:
    """Networks by method, the one without context among them."""
    alone = WithoutContext(networks[VOLUMETRIC])
    return {ALGEBRAIC: networks[ALGEBRAIC], ALONE: alone, VOLUMETRIC: networks[VOLUMETRIC]}


def by_all(
    recording: Recording, frames: slice, networks: Networks, peer: str | None = None
) -> dict[str, Found]:
    """Triangulate some frames of a recording with every method; `peer` is Pose2Sim's Python.

    What looks at neighbouring frames gets the whole recording. Ours get it with exchanged sides put
    right, as in the pipeline.
    """
    plain = direct_linear(recording.image[:, frames], recording.camera_from_world)
    found = {PLAIN: Found.unsure(plain)} | by_ours(recording.repaired(), frames, networks)
    if peer:
        found[PEER] = _by_pose2sim(recording, frames, peer)
    return {name: found[name] for name in METHODS if name in found}


def by_ours(recording: Recording, frames: slice, networks: Networks) -> dict[str, Found]:
    """Triangulate some frames with the geometric method and with networks."""
    seeds = geometric(recording)
    found = {GEOMETRIC: Found(seeds.position[frames], seeds.standard_deviation[frames])}
    return found | {name: learned(recording, frames, net, seeds) for name, net in networks.items()}


def geometric(recording: Recording) -> Points:
    """Triangulate a whole recording as the pipeline does without a network."""
    return triangulate(
        recording.image,
        recording.confidence,
        recording.camera_from_world,
        recording.interval_s,
        Tolerances(),
    )


def learned(recording: Recording, frames: slice, network: nn.Module, seeds: Points) -> Found:
    """Triangulate frames with a network, from the geometric points of the whole recording."""
    try:
        points = triangulate_learned(
            network,
            recording.image[:, frames],
            recording.confidence[:, frames],
            recording.camera_from_world,
            recording.names,
            _of_frames(seeds, frames),
            Tolerances(),
        )
    except PipelineError:  # the person is nowhere to be found
        return Found.nothing(recording, frames)
    return Found(points.position, points.standard_deviation)


def _of_frames(points: Points, frames: slice) -> Points:
    """Keep some frames."""
    values = {each.name: getattr(points, each.name) for each in fields(Points)}
    of_point = ("position", "standard_deviation")
    return Points(**{n: v[frames] if n in of_point else v[:, frames] for n, v in values.items()})


def _by_pose2sim(recording: Recording, frames: slice, python: str) -> Found:
    """Let Pose2Sim triangulate the same keypoints, with its demo's settings, but no gaps filled."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        calibration = folder / "Calib.toml"
        write_toml([camera.in_world("+z") for camera in recording.cameras], calibration)
        views = zip(recording.cameras, recording.pixels, recording.confidence, strict=True)
        for camera, pixels, confidence in views:
            target = folder / "poses" / f"{camera.name}_json"
            write_poses(target, np.arange(len(pixels)), pixels, confidence)
        settings = {"frame_rate": f"{1 / recording.interval_s:g}", "undistort_points": "true"}
        try:
            trc = triangulated(python, folder / "peer", calibration, folder / "poses", settings)
        except PeerFailed:
            return Found.nothing(recording, frames)
        return Found.unsure(points_of_trc(trc, recording)[frames])


def points_of_trc(trc: Path, recording: Recording) -> Float[np.ndarray, "time keypoint 3"]:
    """Pose2Sim's points in our order, NaN in frames that it cut off and where it has none."""
    time_s, names, values = read_trc(trc)
    position = np.full((*recording.pixels.shape[1:3], 3), np.nan)
    frame = np.round(time_s / recording.interval_s).astype(int)
    for index, name in enumerate(recording.names):
        theirs = "Hip" if name == "midHip" else name
        if theirs in names:
            position[frame, index] = values[:, names.index(theirs)]
    return position
