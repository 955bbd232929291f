"""What every layout of a simulated session has: the truth, keypoints and videos."""

import json
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from calibration.aniposelib_toml import write_toml
from models.augmenter import MARKERS, VIDEO_KEYPOINTS
from models.opensim_model import rotational_coordinates
from models.simulation import landmarks
from models.simulation.rendering import draw_frames
from models.simulation.scene import Scene, interpolated, random_for
from pipeline.simulate import Simulation, Trial
from stages.export import write_trc
from stages.motion_files import in_file_units, write_mot
from stages.poses import write_poses
from stages.trial import Progress

PathOf = Callable[[str, str], Path]
"""Where something of a trial and a camera goes."""


def write_truth(simulation: Simulation, folder: Path) -> None:
    """Write everything that is known exactly, a folder a trial."""
    passers = [trial.passer for trial in simulation.trials if trial.passer]
    for trial in simulation.trials + passers:
        target = folder / trial.name
        target.mkdir(parents=True)
        scene = trial.scene
        scene.model.printToXML(str(target / "model.osim"))
        begins_s = session_starts_s(simulation, trial)
        angles = angles_in_degrees(scene)
        write_mot(target / "angles.mot", angles.set_axis(angles.index - begins_s))
        for name, positions in _points(simulation, scene).items():
            stacked = landmarks.stacked(positions, list(positions))
            write_trc(target / f"{name}.trc", scene.time_s - begins_s, list(positions), stacked)
        write_toml(simulation.cameras, target / "cameras.toml")
        about = {
            "plan": simulation.plan.model_dump(mode="json"),
            "person": asdict(scene.person),
            "first_frame_s": {
                name: float(view.time_s[0]) - begins_s for name, view in trial.views.items()
            },
            "clock_offsets_s": {
                name: offset - begins_s
                for name, offset in _clock_offsets(simulation, trial).items()
            },
        }
        text = json.dumps(about, indent=2)
        (target / "simulation.json").write_text(text, encoding="utf-8")


def session_starts_s(simulation: Simulation, trial: Trial) -> float:
    """When the clock of the session is 0, on the scene's: results of it are compared as they are.

    Where cameras start apart it is the first one's, as `stages/clocks.py` has it.
    """
    if not simulation.plan.start_spread_s:
        return 0.0
    return next(iter(_clock_offsets(simulation, trial).values()))


def _clock_offsets(simulation: Simulation, trial: Trial) -> dict[str, float]:
    """Seconds to add to a camera's own clock to get the scene's."""
    return {
        name: float(view.time_s[0] - view.number[0] / simulation.rates_hz[name])
        for name, view in trial.views.items()
    }


def angles_in_degrees(scene: Scene) -> pd.DataFrame:
    """The true coordinates, degrees and m."""
    return in_file_units(scene.angles, rotational_coordinates(scene.model))


def _points(simulation: Simulation, scene: Scene) -> dict[str, dict]:
    wanted = dict.fromkeys([*VIDEO_KEYPOINTS, *simulation.keypoints])
    return {
        "markers": {name: scene.markers[name] for name in MARKERS},
        "keypoints": {name: scene.keypoints[name] for name in wanted},
        "joint_centers": scene.joint_centers,
    }


def write_keypoints(simulation: Simulation, path_of: PathOf, with_videos: bool) -> None:
    """Write what the detector gives, a JSON file a frame; with videos, counted as in the video.

    Where there are two persons, their order is drawn for each frame anew.
    """
    for trial in simulation.trials:
        for name, view in trial.views.items():
            numbers = np.arange(len(view.number)) if with_videos else view.number
            position, confidence = view.position, view.confidence
            if trial.passer:
                other = trial.passer.views[name]
                random = random_for(simulation.plan.seed, f"order {trial.name} {name}")
                first = random.integers(2, size=len(numbers)).astype(bool)
                position = _in_any_order(position, other.position, first)
                confidence = _in_any_order(confidence, other.confidence, first)
            write_poses(path_of(trial.name, name), numbers, position, confidence)


def _in_any_order(
    one: Float[np.ndarray, "frame *any"],
    other: Float[np.ndarray, "frame *any"],
    other_first: Bool[np.ndarray, "frame"],
) -> Float[np.ndarray, "frame 2 *any"]:
    """Values of two persons, the other one's before the one's in some frames."""
    both = np.stack([one, other], 1)
    both[other_first] = both[other_first, ::-1]
    return both


def write_videos(simulation: Simulation, path_of: PathOf, progress: Progress) -> None:
    """Draw each camera's video of each trial; a lost frame is a gap in its timestamps."""
    jobs = [(trial, camera) for trial in simulation.trials for camera in simulation.cameras]
    for done, (trial, camera) in enumerate(jobs, start=1):
        view, scene = trial.views[camera.name], trial.scene
        at = interpolated(scene.keypoints, scene.time_s, view.time_s)
        images = draw_frames(camera, at, landmarks.segments(), simulation.person.height_m)
        path = path_of(trial.name, camera.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_video(path, images, view.number, simulation.rates_hz[camera.name], camera.image_size)
        progress(done, len(jobs))


def _write_video(path: Path, images, numbers, rate_hz: float, size: tuple[int, int]) -> None:
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    rate = Fraction(rate_hz).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = 1 / rate
        for number, image in zip(numbers, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = int(number), 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
