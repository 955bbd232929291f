"""Write a simulated session: in our layout or in OpenCap's, with the truth beside it."""

import json
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import yaml

from calibration.aniposelib_toml import write_toml
from calibration.opencap_pickle import write_opencap
from calibration.qualisys import write_qualisys
from models.augmenter import MARKERS, VIDEO_KEYPOINTS
from models.opensim_model import rotational_coordinates
from models.simulation import landmarks
from models.simulation.rendering import draw_frames
from models.simulation.scene import Scene, interpolated
from pipeline.errors import PipelineError
from pipeline.files import replacing_folder
from pipeline.simulate import Simulation, Trial
from stages.export import write_trc
from stages.motion_files import in_file_units, write_mot
from stages.poses import write_poses
from stages.trial import Progress

MOCAP_ORIGIN_M = (0.4, 0.0, -0.3)
"""OpenCap's layout: the laboratory's motion capture has its origin there in the cameras' world."""


def write_session(
    simulation: Simulation, folder: Path, layout: str, render: bool, progress: Progress
) -> None:
    """Write a whole session folder at once; the folder must be new.

    Raises PipelineError if there is something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise PipelineError(f"{folder} is not empty. Choose another folder, or remove it first.")
    write = {"pipeline": _write_ours, "opencap": _write_opencap}[layout]
    with replacing_folder(folder) as new:
        write(simulation, new, render, progress)


def _write_ours(simulation: Simulation, folder: Path, render: bool, progress: Progress) -> None:
    calibration = folder / "calibration"
    calibration.mkdir()
    z_up = [camera.in_world("+z") for camera in simulation.calibrated]
    write_toml(z_up, calibration / "Calib.toml")
    write_qualisys(z_up, calibration / "Calib.qca.txt")
    write_opencap([camera.in_world("-y") for camera in simulation.calibrated], calibration)
    for trial in simulation.trials:
        for name, view in trial.views.items():
            # With a video, frames are counted as they are in it.
            numbers = np.arange(len(view.number)) if render else view.number
            target = folder / "pose" / trial.name / f"{name}_json"
            write_poses(target, numbers, view.position, view.confidence)
    if render:
        _render(
            simulation, lambda trial, camera: folder / "videos" / trial / f"{camera}.mp4", progress
        )
    (folder / "session.toml").write_text(_session_toml(simulation, render), encoding="utf-8")
    _write_truth(simulation, folder / "truth")


def _session_toml(simulation: Simulation, render: bool) -> str:
    plan, person = simulation.plan, simulation.person
    rates = ", ".join(f"{name} = {rate}" for name, rate in simulation.rates_hz.items())
    lines = [
        f"# Simulated: {plan.motion} on {plan.model}, seed {plan.seed}. The truth is in truth/.",
        "",
        'calibration = "calibration/Calib.toml"',
        f'keypoints = "{plan.vocabulary}"',
        "",
        "[subject]",
        f"height_m = {person.height_m:.3f}",
        f"mass_kg = {person.mass_kg:.1f}",
    ]
    for trial in simulation.trials if not render else ():
        lines += [
            "",
            f"[trials.{json.dumps(trial.name, ensure_ascii=False)}]",
            f"rate_hz = {{ {rates} }}",
        ]
    return "\n".join(lines) + "\n"


def _write_truth(simulation: Simulation, folder: Path) -> None:
    for trial in simulation.trials:
        target = folder / trial.name
        target.mkdir(parents=True)
        scene = trial.scene
        scene.model.printToXML(str(target / "model.osim"))
        write_mot(target / "angles.mot", _degrees(scene))
        for name, positions in _points(simulation, scene).items():
            stacked = landmarks.stacked(positions, list(positions))
            write_trc(target / f"{name}.trc", scene.time_s, list(positions), stacked)
        write_toml(simulation.cameras, target / "cameras.toml")
        about = {
            "plan": simulation.plan.model_dump(mode="json"),
            "person": asdict(simulation.person),
            "first_frame_s": {name: float(view.time_s[0]) for name, view in trial.views.items()},
            "clock_offsets_s": _clock_offsets(simulation, trial),
        }
        text = json.dumps(about, indent=2)
        (target / "simulation.json").write_text(text, encoding="utf-8")


def _clock_offsets(simulation: Simulation, trial: Trial) -> dict[str, float]:
    """Seconds to add to a camera's own clock to get the truth's."""
    return {
        name: float(view.time_s[0] - view.number[0] / simulation.rates_hz[name])
        for name, view in trial.views.items()
    }


def _degrees(scene: Scene) -> pd.DataFrame:
    return in_file_units(scene.angles, rotational_coordinates(scene.model))


def _points(simulation: Simulation, scene: Scene) -> dict[str, dict]:
    wanted = dict.fromkeys([*VIDEO_KEYPOINTS, *simulation.keypoints])
    return {
        "markers": {name: scene.markers[name] for name in MARKERS},
        "keypoints": {name: scene.keypoints[name] for name in wanted},
        "joint_centers": scene.joint_centers,
    }


def _write_opencap(simulation: Simulation, folder: Path, render: bool, progress: Progress) -> None:
    """The layout of OpenCap's LabValidation data: videos, cameras, mocap markers and angles."""
    shift = np.array(MOCAP_ORIGIN_M)
    videos = folder / "VideoData" / "Session0"
    cameras = [camera.in_world("-y") for camera in simulation.calibrated]
    write_opencap(cameras, videos)
    _render(simulation, lambda trial, camera: videos / camera / trial / f"{trial}.avi", progress)
    for part in ("MarkerData/Mocap", "OpenSimData/Mocap/IK", "OpenSimData/Mocap/Model"):
        (folder / part).mkdir(parents=True)
    for trial in simulation.trials:
        scene, name = trial.scene, trial.name
        markers = landmarks.stacked(scene.markers, MARKERS) - shift
        write_trc(folder / "MarkerData/Mocap" / f"{name}.trc", scene.time_s, MARKERS, markers)
        angles = _degrees(scene)
        angles[["pelvis_tx", "pelvis_ty", "pelvis_tz"]] -= shift
        write_mot(folder / "OpenSimData/Mocap/IK" / f"{name}.mot", angles)
    name = Path(simulation.plan.model).stem
    model = folder / "OpenSimData/Mocap/Model" / f"{name}_scaled.osim"
    simulation.trials[-1].scene.model.printToXML(str(model))
    metadata = {
        "subjectID": f"simulated{simulation.plan.seed}",
        "mass_kg": round(simulation.person.mass_kg, 1),
        "height_m": round(simulation.person.height_m, 3),
        "sex": simulation.person.sex[0],
        "checkerBoard": {"placement": "backWall"},
        "openSimModel": name,
    }
    _write_yaml(folder / "sessionMetadata.yaml", metadata)
    transform = {
        "R_fromMocap_toVideo": np.eye(3).tolist(),
        "position_fromMocapOrigin_toVideoOrigin": (-shift).tolist(),
    }
    _write_yaml(folder / "mocapToVideoTransform.yaml", transform)
    _write_truth(simulation, folder / "truth")


def _write_yaml(path: Path, content: dict) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _render(
    simulation: Simulation, path_of: Callable[[str, str], Path], progress: Progress
) -> None:
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
