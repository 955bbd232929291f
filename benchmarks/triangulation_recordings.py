"""What cameras saw of one person, as the methods of triangulation get it: simulated, or of a trial."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from calibration import Camera, read_cameras
from models.multiview import JOINTS, MIRRORED
from models.simulation.detector import LEGS, bursts
from models.simulation.landmarks import stacked
from models.simulation.scene import View, interpolated, random_for
from pipeline.files import load_dataset
from pipeline.simulate import Plan, simulate
from stages.frames import image_sizes
from stages.trial import Trial
from stages.triangulate import Seen, Settings, find_exchanged

SWAPS_PER_S, SWAP_S = 1.5, 0.4
"""How often a view's legs are exchanged where that is forced, and how long on average."""
SWAPPED = [
    JOINTS.index(f"{side}{part}") for side in "RL" for part in LEGS if f"{side}{part}" in JOINTS
]


@dataclass(frozen=True)
class Recording:
    """Keypoints of calibrated cameras on one timeline, and where they truly were."""

    names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    """As their calibration has them; world Y up, m."""
    pixels: Float[np.ndarray, "camera time keypoint 2"]
    """NaN where not found."""
    confidence: Float[np.ndarray, "camera time keypoint"]
    interval_s: float
    truth: Float[np.ndarray, "time keypoint 3"] | None = None
    """Where a detector without noise marks this person, m; None of real footage."""

    @cached_property
    def seen(self) -> Seen:
        """Through the lenses."""
        return Seen.through_lenses(self.cameras, self.pixels, self.confidence)

    @property
    def image(self) -> Float[np.ndarray, "camera time keypoint 2"]:
        """Undistorted image coordinates."""
        return self.seen.image

    @property
    def camera_from_world(self) -> Float[np.ndarray, "camera 3 4"]:
        """Extrinsics."""
        return self.seen.camera_from_world

    def by_cameras(self, chosen: Sequence[int]) -> "Recording":
        """Keep some cameras."""
        cameras = tuple(self.cameras[index] for index in chosen)
        pixels, confidence = self.pixels[list(chosen)], self.confidence[list(chosen)]
        return replace(self, cameras=cameras, pixels=pixels, confidence=confidence)

    def repaired(self) -> "Recording":
        """Exchange left and right again where a view has them exchanged, as the pipeline does."""
        swapped = find_exchanged(self.seen, self.interval_s, self.names, Settings())
        seen = self.seen.exchanged(swapped, self.names)
        return replace(self, pixels=seen.position, confidence=seen.confidence)


def filmed(plan: Plan) -> Recording:
    """Simulate a session's last trial; its frames are numbered alike in all cameras.

    What is off by parts of a frame after that stays, as do lost frames, which show nothing.
    """
    simulation = simulate(plan)
    scene, views = simulation.trials[-1].scene, simulation.trials[-1].views
    (rate_hz,) = set(simulation.rates_hz.values())
    names, frames = simulation.keypoints, 1 + max(view.number[-1] for view in views.values())
    time_s = scene.time_s[0] + np.arange(frames) / rate_hz
    seen = [_whole(views[camera.name], frames) for camera in simulation.calibrated]
    return Recording(
        tuple(names),
        tuple(simulation.calibrated),
        np.stack([pixels for pixels, _ in seen]),
        np.stack([confidence for _, confidence in seen]),
        1 / rate_hz,
        stacked(interpolated(scene.keypoints, scene.time_s, time_s), names),
    )


def _whole(view: View, frames: int):
    """Pixels and confidences of all frames of a view, the lost ones among them."""
    pixels = np.full((frames, *view.position.shape[1:]), np.nan)
    confidence = np.zeros(pixels.shape[:2])
    pixels[view.number], confidence[view.number] = view.position, view.confidence
    return pixels, confidence


def with_swaps(recording: Recording, seed: int) -> tuple[Recording, Bool[np.ndarray, "time"]]:
    """Exchange the legs' keypoints (halpe-26) of one camera in bursts; and the frames in which."""
    random = random_for(seed, "forced swaps")
    camera = random.integers(len(recording.cameras))
    rate_hz, frames = 1 / recording.interval_s, recording.pixels.shape[1]
    swapped, _ = bursts((frames,), rate_hz, SWAPS_PER_S, SWAP_S, random)
    pixels, confidence = recording.pixels.copy(), recording.confidence.copy()
    here, partner = np.ix_([camera], swapped.nonzero()[0], SWAPPED), np.array(MIRRORED)[SWAPPED]
    there = (*here[:2], partner[None, None])
    pixels[here], confidence[here] = recording.pixels[there], recording.confidence[there]
    return replace(recording, pixels=pixels, confidence=confidence), swapped


def of_trial(trial: Trial) -> Recording:
    """The synchronised keypoints of a trial that the pipeline has run."""
    keypoints = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    order = ("camera", "time", "keypoint")
    sizes = image_sizes(load_dataset(trial.folder("frames") / "timeline.nc"))
    names = [str(each) for each in keypoints.camera.values]
    cameras, _ = read_cameras(trial.calibration, names, sizes, trial.world_up)
    return Recording(
        tuple(str(each) for each in keypoints.keypoint.values),
        tuple(cameras),
        keypoints.position.transpose(*order, "axis").values,
        keypoints.confidence.transpose(*order).values,
        float(np.median(np.diff(keypoints.time.values))),
    )
