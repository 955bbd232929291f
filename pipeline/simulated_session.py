"""Write a simulated session: in our layout or another program's, with the truth beside it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from calibration import Camera
from calibration.aniposelib_toml import write_toml
from calibration.opencap_pickle import write_opencap
from calibration.qualisys import write_qualisys
from models.augmenter import MARKERS
from models.simulation import landmarks
from pipeline.errors import PipelineError
from pipeline.files import replacing_folder
from pipeline.simulate import STATIC, Simulation, Trial
from pipeline.simulated_parts import (
    angles_in_degrees,
    write_keypoints,
    write_truth,
    write_videos,
)
from stages.export import write_trc
from stages.motion_files import write_mot
from stages.trial import Progress

MOCAP_ORIGIN_M = (0.4, 0.0, -0.3)
"""OpenCap's layout: the laboratory's motion capture has its origin there in the cameras' world."""
OPENCAP_NAMES = {"sit-to-stand": "STS", "gait": "walking", "dropjump": "DJ"}
"""What OpenCap calls our movements."""
WALKING_VISIT = "Session1"
POSE2SIM_MODELS = {
    "halpe-26": "HALPE_26",
    "coco-wholebody-133": "COCO_133",
    "body-25": "BODY_25",
    "coco-17": "COCO_17",
    "blazepose-33": "BLAZEPOSE",
}
"""Pose2Sim's `pose_model` by our name of its keypoints."""


def write_session(
    simulation: Simulation, folder: Path, layout: str, render: bool, progress: Progress
) -> None:
    """Write a whole session folder at once; the folder must be new.

    The same simulation has the same keypoints, calibration and subject in every layout. `render` draws
    videos too; OpenCap's layouts always have them.

    Raises PipelineError if there is something already, or the layout cannot hold the session.
    """
    if simulation.plan.persons > 1 and (render or layout.startswith("opencap")):
        raise PipelineError(
            "videos are drawn of one person only: leave out --render, or --persons 2. OpenCap's layouts "
            "always have videos."
        )
    if folder.exists() and any(folder.iterdir()):
        raise PipelineError(f"{folder} is not empty. Choose another folder, or remove it first.")
    with replacing_folder(folder) as new:
        LAYOUTS[layout](simulation, new, render, progress)


def _write_ours(simulation: Simulation, folder: Path, render: bool, progress: Progress) -> None:
    calibration = folder / "calibration"
    calibration.mkdir()
    z_up = [camera.in_world("+z") for camera in simulation.calibrated]
    write_toml(z_up, calibration / "Calib.toml")
    write_qualisys(z_up, calibration / "Calib.qca.txt")
    write_opencap([camera.in_world("-y") for camera in simulation.calibrated], calibration)
    write_keypoints(
        simulation, lambda trial, camera: folder / "pose" / trial / f"{camera}_json", render
    )
    if render:
        write_videos(
            simulation, lambda trial, camera: folder / "videos" / trial / f"{camera}.mp4", progress
        )
    (folder / "session.toml").write_text(_session_toml(simulation, render), encoding="utf-8")
    write_truth(simulation, folder / "truth")


def _session_toml(simulation: Simulation, render: bool) -> str:
    plan, person = simulation.plan, simulation.person
    rates = ", ".join(f"{name} = {rate}" for name, rate in simulation.rates_hz.items())
    lines = [
        f"# Simulated: {', '.join(plan.motions)} on {plan.model}, seed {plan.seed}. The truth is in truth/.",
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


def _write_dataset(simulation: Simulation, folder: Path, render: bool, progress: Progress) -> None:
    """OpenCap's validation data: videos, motion capture's markers and angles, and where it stood.

    The keypoints go to `pose/`, where OpenCap has none: no pose model is at its best on drawn people.
    """
    simulation = _as_opencap_names(simulation, OPENCAP_NAMES)
    visits = {
        trial.name: WALKING_VISIT if trial.name.startswith("walking") else "Session0"
        for trial in simulation.trials
    }
    videos = folder / "VideoData"
    for visit in sorted(set(visits.values())):
        write_opencap(_on_board(simulation), videos / visit)
    write_videos(
        simulation,
        lambda trial, camera: videos / visits[trial] / camera / trial / f"{trial}.avi",
        progress,
    )
    shift = np.array(MOCAP_ORIGIN_M)
    for trial in simulation.trials:
        _write_reference(trial, folder / "MarkerData/Mocap", folder / "OpenSimData/Mocap/IK", shift)
    _write_opencap_rest(simulation, folder, folder / "OpenSimData/Mocap/Model")
    transform = {
        "R_fromMocap_toVideo": np.eye(3).tolist(),
        "position_fromMocapOrigin_toVideoOrigin": (-shift).tolist(),
    }
    _write_yaml(folder / "mocapToVideoTransform.yaml", transform)


def _write_download(simulation: Simulation, folder: Path, render: bool, progress: Progress) -> None:
    """A session as OpenCap's web application delivers it; the truth stands where its results are."""
    simulation = _as_opencap_names(simulation, OPENCAP_NAMES | {STATIC: "neutral"})
    videos = folder / "Videos"
    write_opencap(_on_board(simulation), videos)
    write_videos(
        simulation,
        lambda trial, camera: videos / camera / "InputMedia" / trial / f"{trial}.mov",
        progress,
    )
    for trial in simulation.trials:
        _write_reference(
            trial, folder / "MarkerData", folder / "OpenSimData/Kinematics", np.zeros(3)
        )
    _write_opencap_rest(simulation, folder, folder / "OpenSimData/Model")


def _as_opencap_names(simulation: Simulation, trials: Mapping[str, str]) -> Simulation:
    """The same session with OpenCap's names of cameras (`Cam0`, …) and movements."""
    cameras = {camera.name: f"Cam{index}" for index, camera in enumerate(simulation.cameras)}

    def named(each: Camera) -> Camera:
        return replace(each, name=cameras[each.name])

    def of_trial(name: str) -> str:
        movement = name.rstrip("0123456789")
        return trials.get(name) or trials.get(movement, movement) + name[len(movement) :]

    return replace(
        simulation,
        cameras=[named(each) for each in simulation.cameras],
        calibrated=[named(each) for each in simulation.calibrated],
        rates_hz={cameras[name]: rate for name, rate in simulation.rates_hz.items()},
        trials=[
            Trial(
                of_trial(trial.name),
                trial.scene,
                {cameras[name]: view for name, view in trial.views.items()},
            )
            for trial in simulation.trials
        ],
    )


def _on_board(simulation: Simulation) -> list[Camera]:
    """The cameras in the world of a checkerboard on the wall, whose y points down."""
    return [camera.in_world("-y") for camera in simulation.calibrated]


def _write_reference(trial: Trial, markers: Path, angles: Path, shift: np.ndarray) -> None:
    """Write the truth where another system's results are expected, its origin shifted (m)."""
    for folder in (markers, angles):
        folder.mkdir(parents=True, exist_ok=True)
    positions = landmarks.stacked(trial.scene.markers, MARKERS) - shift
    write_trc(markers / f"{trial.name}.trc", trial.scene.time_s, MARKERS, positions)
    table = angles_in_degrees(trial.scene)
    table[["pelvis_tx", "pelvis_ty", "pelvis_tz"]] -= shift
    write_mot(angles / f"{trial.name}.mot", table)


def _write_opencap_rest(simulation: Simulation, folder: Path, models: Path) -> None:
    """The scaled model, the metadata, the keypoints, and the truth."""
    name = Path(simulation.plan.model).stem
    models.mkdir(parents=True)
    simulation.trials[-1].scene.model.printToXML(str(models / f"{name}_scaled.osim"))
    metadata = {
        "subjectID": f"simulated{simulation.plan.seed}",
        "mass_kg": round(simulation.person.mass_kg, 1),
        "height_m": round(simulation.person.height_m, 3),
        "sex": simulation.person.sex[0],
        "checkerBoard": {"placement": "backWall"},
        "openSimModel": name,
    }
    _write_yaml(folder / "sessionMetadata.yaml", metadata)
    write_keypoints(
        simulation, lambda trial, camera: folder / "pose" / trial / f"{camera}_json", True
    )
    write_truth(simulation, folder / "truth")


def _write_yaml(path: Path, content: dict) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _write_pose2sim(simulation: Simulation, folder: Path, render: bool, progress: Progress) -> None:
    """A Pose2Sim project of several trials."""
    rates_hz = sorted(set(simulation.rates_hz.values()))
    if len(rates_hz) > 1 and not render:
        raise PipelineError(
            "a Pose2Sim project without videos has one frame rate for all cameras. Add --render, or "
            "simulate one --rate."
        )
    (folder / "calibration").mkdir()
    z_up = [camera.in_world("+z") for camera in simulation.calibrated]
    write_toml(z_up, folder / "calibration" / "Calib.toml")
    write_keypoints(
        simulation, lambda trial, camera: folder / trial / "pose" / f"{camera}_json", render
    )
    if render:
        write_videos(
            simulation, lambda trial, camera: folder / trial / "videos" / f"{camera}.mp4", progress
        )
    person = simulation.person
    lines = [
        "[project]",
        f"participant_height = {person.height_m:.3f}  # m",
        f"participant_mass = {person.mass_kg:.1f}  # kg",
        f"frame_rate = {rates_hz[0] if len(rates_hz) == 1 else repr('auto')}",
        "",
        "[pose]",
        f"pose_model = '{POSE2SIM_MODELS[simulation.plan.vocabulary]}'",
        "",
        "[calibration]",
        "calibration_type = 'calculate'",
    ]
    (folder / "Config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for trial in simulation.trials:
        text = f"# {trial.name}: as the project's Config.toml says\n"
        (folder / trial.name / "Config.toml").write_text(text, encoding="utf-8")
    write_truth(simulation, folder / "truth")


LAYOUTS = {
    "pipeline": _write_ours,
    "opencap": _write_dataset,
    "opencap-app": _write_download,
    "pose2sim": _write_pose2sim,
}
"""Writers by the name of the layout."""
