"""Run Pose2Sim, in an environment of its own, on 2D keypoints and a calibration of ours."""

import json
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
    began = time.perf_counter()
    getattr(Pose2Sim, stage)(config)
    seconds[stage] = time.perf_counter() - began
Path("seconds.json").write_text(json.dumps(seconds))
"""


class PeerFailed(Exception):
    """Pose2Sim gave no angles; the message is the last line that it printed."""


@dataclass(frozen=True)
class PeerResult:
    """What Pose2Sim wrote."""

    seconds: dict[str, float]
    mot: Path
    model: Path
    trc: Path
    """With the augmenter's markers."""


def run_pose2sim(
    python: str, project: Path, calibration: Path, poses: Path, settings: Mapping[str, str]
) -> PeerResult:
    """Run it in the new folder `project`, with changes to its settings as TOML text.

    `poses` is a folder of `CAMERA_json` folders; `calibration` a file of its own format (.toml), or
    one of Qualisys, which it converts.
    """
    find = "import Pose2Sim; print(list(Pose2Sim.__path__)[0])"
    found = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True)
    demo = Path(found.stdout.strip()) / "Demo_SinglePerson"
    (project / "calibration").mkdir(parents=True)
    shutil.copy(calibration, project / "calibration")
    stages = STAGES if calibration.suffix == ".toml" else ("calibration", *STAGES)
    shutil.copytree(poses, project / "pose")
    changes = SETTINGS | settings
    lines = (demo / "Config.toml").read_text(encoding="utf-8").splitlines()
    for index, line in enumerate(lines):
        key = line.partition("=")[0].strip()
        lines[index] = f"{key} = {changes[key]}" if key in changes else line
    (project / "Config.toml").write_text("\n".join(lines), encoding="utf-8")
    command = [python, "-c", PROGRAM, str(project), *stages]
    done = subprocess.run(command, capture_output=True, text=True)
    mots = list((project / "kinematics").glob("*.mot"))
    if done.returncode or not mots:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise PeerFailed(lines[-1])
    (trc,) = (project / "pose-3d").glob("*_LSTM.trc")
    seconds = json.loads((project / "seconds.json").read_text())
    return PeerResult(seconds, mots[0], mots[0].with_suffix(".osim"), trc)
