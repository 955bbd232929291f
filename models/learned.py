"""Learned triangulation of a whole trial: shipped networks, seeded by the geometric method's points."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from models.context import segment_lengths
from models.geometric import Points, Tolerances, ray_distances
from models.heatmaps import Heatmaps
from models.multiview import JOINTS, BodyFrames, Estimate, Views, body_frames
from models.weights import load_weights, shipped_weights
from pipeline.errors import PipelineError

Method = Literal["algebraic", "volumetric"]
CHUNK_FRAMES = {"cpu": 8, "cuda": 32}
"""Frames worked on at once. A cube of 64³ voxels takes 0.1 GB a frame and view at its largest."""
FEWEST_JOINTS = 6
"""A view sees a person if it shows so many of their joints."""


def torch_device(name: Literal["auto", "cpu", "cuda"], asked: str) -> str:
    """Return the device to use; auto is a GPU if there is one.

    Raises PipelineError, with what the user `asked` for, if that is a GPU and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise PipelineError(
            f"{asked} is cuda, but torch finds no CUDA device here. Use auto or cpu, or install torch "
            "for CUDA: https://pytorch.org/get-started. `pipeline doctor` tells more."
        )
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def load_network(method: Method, device: str) -> nn.Module:
    """Load the network that is shipped. Raises PipelineError if there are no weights, or bad ones."""
    path = shipped_weights(method)
    if path is None:
        raise PipelineError(
            f"there are no weights for {method} triangulation. Train some: pipeline train {method}"
        )
    network = load_weights(path, method).to(device).eval()
    network.mixed_precision = torch.device(device).type == "cuda"
    return network


def triangulate_learned(
    network: nn.Module,
    image: Float[np.ndarray, "camera time keypoint 2"],
    confidence: Float[np.ndarray, "camera time keypoint"],
    camera_from_world: Float[np.ndarray, "camera 3 4"],
    names: Sequence[str],
    geometric: Points,
    tolerances: Tolerances,
    progress: Callable[[int, int], None] = lambda done, total: None,
    heatmaps: Callable[[slice], Heatmaps] | None = None,
) -> Points:
    """Triangulate the joints that the network knows; other keypoints keep their geometric points.

    `image` holds undistorted image coordinates as for `geometric.triangulate`, whose `Points` say
    where the person is and faces. World Y up, m. `heatmaps` gives those of some samples, for the
    volumetric network.

    A joint is NaN in frames in which fewer than two cameras see the person, or none sees the joint.
    Where fewer than two views agree with it, it stands where the network's idea of a body has it:
    `view_used` tells, and the standard deviation.
    """
    known = [name for name in names if name in JOINTS]
    columns, joints = [list(names).index(n) for n in known], [JOINTS.index(n) for n in known]
    views = _views(image[:, :, columns], confidence[:, :, columns], camera_from_world, joints)
    frames, found = trial_frames(geometric.position, names)
    seen = views.seen[0]
    several = (seen.sum(-1) >= FEWEST_JOINTS).sum(1) >= 2
    trusted = (several & torch.from_numpy(found))[:, None] & seen.any(1)
    estimate = _estimate(network, views, frames, progress, heatmaps)
    position = torch.where(trusted[..., None], estimate.position[0], torch.nan)[:, joints]
    deviation = estimate.standard_deviation[0][:, joints]
    position, deviation = position.numpy(), deviation.numpy()
    seen_there = image[:, :, columns], confidence[:, :, columns], camera_from_world
    distance = ray_distances(*seen_there, position, tolerances)
    result = Points(*(getattr(geometric, each.name).copy() for each in fields(Points)))
    result.position[:, columns] = position
    result.standard_deviation[:, columns] = np.where(np.isfinite(position), deviation, np.nan)
    result.ray_distance[:, :, columns] = distance
    result.view_used[:, :, columns] = distance <= tolerances.max_ray_distance_m
    return result


def _views(image, confidence, camera_from_world, joints) -> Views:
    seen = np.isfinite(image).all(-1) & (confidence > 0)
    shape = (1, image.shape[1], image.shape[0], len(JOINTS))
    at, sure = torch.zeros(*shape, 2), torch.zeros(shape)
    at[..., joints, :] = _tensor(np.where(seen[..., None], image, 0.0).swapaxes(0, 1))
    sure[..., joints] = _tensor(np.where(seen, confidence, 0.0).swapaxes(0, 1))
    return Views(at, sure, _tensor(camera_from_world)[None])


def _tensor(values) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def trial_frames(
    position: Float[np.ndarray, "time keypoint 3"], names: Sequence[str]
) -> tuple[BodyFrames, Bool[np.ndarray, "time"]]:
    """Where a person's middle is and how they are turned, from points of a world with Y up.

    Gaps are interpolated. Also tells in which frames there is a point at all. Raises PipelineError
    if hips and shoulders are never known.
    """
    at = {name: position[:, list(names).index(name)] for name in names if name in JOINTS}
    needed = ("RHip", "LHip", "RShoulder", "LShoulder")
    if missing := [name for name in needed if name not in at]:
        raise PipelineError(
            f"learned triangulation needs the keypoints {', '.join(missing)}, which are not there"
        )
    hips = _filled((at["RHip"] + at["LHip"]) / 2, "hips")
    across = at["RHip"] - at["LHip"] + at["RShoulder"] - at["LShoulder"]
    frames = body_frames(_tensor(hips)[None], _tensor(_filled(across, "hips and shoulders"))[None])
    return frames, np.isfinite(position).any((1, 2))


def _filled(values: Float[np.ndarray, "time 3"], what: str) -> Float[np.ndarray, "time 3"]:
    known = np.isfinite(values).all(1)
    if not known.any():
        raise PipelineError(
            f"the {what} are nowhere seen by two cameras that agree, so learned triangulation has no "
            "place to look at. Look at the notices about the cameras; try geometric triangulation."
        )
    time = np.arange(len(values))
    return np.stack([np.interp(time, time[known], axis[known]) for axis in values.T], 1)


def _estimate(network, views, frames, progress, heatmaps) -> Estimate:
    """Run the network over chunks of frames, twice: first for the subject's segment lengths."""
    device = next(network.parameters()).device
    chunks = list(_chunks(views.image.shape[1], CHUNK_FRAMES[device.type]))
    views = views.to(device)
    frames = BodyFrames(frames.rotation.to(device), frames.origin.to(device))

    def of(chunk):
        return views.of_frames(chunk), BodyFrames(
            frames.rotation[:, chunk], frames.origin[:, chunk]
        )

    estimates = []
    with torch.inference_mode():
        first = _joined([network.algebraic(*of(chunk))[0] for chunk in chunks])
        length = segment_lengths(first, views.seen.sum(2) > 1)
        for index, chunk in enumerate(chunks, start=1):
            some, there = of(chunk)
            maps = () if heatmaps is None else (heatmaps(chunk).to(device),)
            estimates.append(there.to_world(network.estimate(some, there, length, *maps)))
            progress(index, len(chunks))
    return _joined([Estimate(each.position.cpu(), each.covariance.cpu()) for each in estimates])


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _joined(estimates: Sequence[Estimate]) -> Estimate:
    return Estimate(
        torch.cat([each.position for each in estimates], 1),
        torch.cat([each.covariance for each in estimates], 1),
    )
