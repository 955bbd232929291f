"""Run Pose2Sim, in an environment of its own, on 2D keypoints and a calibration of ours."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SETTINGS = {
    "pose_model": "'Body_with_feet'",
    "frame_range": "'all'",
    "display_figures": "false",
    "save_filt_plots": "false",
    "show_interp_indices": "false",
}
"""Changes to the Config.toml of its own demo: the skeleton HALPE_26, all frames, no windows."""

SYNCHRONIZE = {
    "synchronization_gui": "false",
    "display_sync_plots": "false",
    "save_sync_plots": "false",
}
"""The same for its synchronisation: of the whole recording and all keypoints, as its demo has it."""

AS_SEEN = {"interpolation": "'none'", "fill_large_gaps_with": "'nan'"}
"""Changes with which its triangulation leaves gaps where it has no points."""

STAGES = ("triangulation", "filtering", "markerAugmentation", "kinematics")
PROGRAM = """
import json, os, sys, time, tomllib
from pathlib import Path
import matplotlib; matplotlib.use("Agg")
from Pose2Sim import Pose2Sim
os.chdir(sys.argv[1])
config = tomllib.loads(Path("Config.toml").read_text(encoding="utf-8"))
config["project"]["project_dir"] = "."
seconds = {}
for stage in sys.argv[2:]:
    began = time.perf_counter(), time.process_time()
    getattr(Pose2Sim, stage)(config)
    seconds[stage] = time.perf_counter() - began[0], time.process_time() - began[1]
Path("seconds.json").write_text(json.dumps(seconds))
"""


class PeerFailed(Exception):
    """Pose2Sim gave no result; the message is the last line that it printed."""


@dataclass(frozen=True)
class PeerResult:
    """What Pose2Sim wrote."""

    seconds: dict[str, float]
    """By stage."""
    cpu_seconds: dict[str, float]
    """Of the processor."""
    mot: Path
    model: Path
    trc: Path
    """With the augmenter's markers."""


@dataclass(frozen=True)
class Lag:
    """What Pose2Sim says of a camera's clock."""

    frames: int
    """What a moment's frame number in this camera is above that in the reference camera."""
    correlation: float
    """Of the speeds at this lag; 1 for the reference camera."""


def run_pose2sim(
    python: str, project: Path, calibration: Path, poses: Path, settings: Mapping[str, str]
) -> PeerResult:
    """Run it in the new folder `project`, with changes to its settings as TOML text.

    `poses` is a folder of `CAMERA_json` folders; `calibration` a file of its own format (.toml), or
    one of Qualisys, which it converts.
    """
    (project / "calibration").mkdir(parents=True)
    shutil.copy(calibration, project / "calibration")
    stages = STAGES if calibration.suffix == ".toml" else ("calibration", *STAGES)
    shutil.copytree(poses, project / "pose")
    printed = _run(python, project, SETTINGS | settings, stages)
    mots = list((project / "kinematics").glob("*.mot"))
    if not mots:
        raise PeerFailed(_last_line(printed))
    (trc,) = (project / "pose-3d").glob("*_LSTM.trc")
    both = json.loads((project / "seconds.json").read_text())
    seconds, cpu = ({stage: each[index] for stage, each in both.items()} for index in (0, 1))
    return PeerResult(seconds, cpu, mots[0], mots[0].with_suffix(".osim"), trc)


def triangulated(
    python: str, project: Path, calibration: Path, poses: Path, settings: Mapping[str, str]
) -> Path:
    """Let it triangulate alone, without filling gaps: its TRC file. Arguments as `run_pose2sim`."""
    (project / "calibration").mkdir(parents=True)
    shutil.copy(calibration, project / "calibration")
    shutil.copytree(poses, project / "pose")
    printed = _run(python, project, SETTINGS | AS_SEEN | settings, ("triangulation",))
    trcs = list((project / "pose-3d").glob("*.trc"))
    if not trcs:
        raise PeerFailed(_last_line(printed))
    return trcs[0]


def synchronized(python: str, project: Path, rate_hz: float) -> dict[str, Lag]:
    """Let it synchronise the keypoints in `project/pose/CAMERA_json/`: what it says of each camera.

    Raises PeerFailed if it stops, or does not say something of each.
    """
    changes = SETTINGS | SYNCHRONIZE | {"frame_rate": f"{rate_hz:g}"}
    lags = lags_in(_run(python, project, changes, ("synchronization",)))
    cameras = {folder.name.removesuffix("_json") for folder in (project / "pose").iterdir()}
    if set(lags) != cameras:
        raise PeerFailed(f"it told the lags of {sorted(lags)} only")
    return lags


def lags_in(log: str) -> dict[str, Lag]:
    """Each camera's lag, and 0 of the reference camera, from the lines that its synchronisation prints."""
    said = r"Camera (\S+) and (\S+): (-?\d+) frames offset, correlation (-?[\d.]+|nan)\.\s*$"
    lags = {}
    for reference, camera, frames, correlation in re.findall(said, log, re.MULTILINE):
        lags |= {reference: Lag(0, 1.0), camera: Lag(int(frames), float(correlation))}
    return lags


def _run(python: str, project: Path, changes: Mapping[str, str], stages: tuple[str, ...]) -> str:
    """Configure and run its stages in a project; what it printed.

    Raises PeerFailed if it stops.
    """
    find = "import Pose2Sim; print(list(Pose2Sim.__path__)[0])"
    found = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True)
    config = Path(found.stdout.strip()) / "Demo_SinglePerson" / "Config.toml"
    lines = config.read_text(encoding="utf-8").splitlines()
    for index, line in enumerate(lines):
        key = line.partition("=")[0].strip()
        lines[index] = f"{key} = {changes[key]}" if key in changes else line
    (project / "Config.toml").write_text("\n".join(lines), encoding="utf-8")
    command = [python, "-c", PROGRAM, str(project), *stages]
    done = subprocess.run(command, capture_output=True, text=True)
    printed = done.stdout + done.stderr
    if done.returncode:
        raise PeerFailed(_last_line(printed))
    return printed


def _last_line(printed: str) -> str:
    return (printed.strip().splitlines() or ["no message"])[-1]
