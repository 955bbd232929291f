"""Seconds per stage on the demo, and Pose2Sim's on the same 2D keypoints in the same run.

    python -m benchmarks.stages [--pose2sim PYTHON]

`--pose2sim` is the Python of an environment in which Pose2Sim is installed (it clashes with ours).
Both start from the same keypoints of the same demo; ours are written as OpenPose JSON for it.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from models.assets import asset_folder
from pipeline.config import configure
from pipeline.demo import build_demo
from pipeline.files import load_dataset
from pipeline.runner import run_trial
from pipeline.session import Session
from stages import ORDER
from stages.trial import no_progress

AFTER_KEYPOINTS = ORDER[ORDER.index("synchronize") : ORDER.index("report")]


def our_seconds(folder: Path) -> tuple[dict[str, float], "object"]:
    """Run the demo from nothing; return seconds by stage, and the trial."""
    session = Session(build_demo(folder))
    (trial,) = session.select()
    configuration = configure(trial.activity, session.table.settings)
    outcomes = run_trial(trial, configuration, lambda *_: no_progress, force=True)
    return {outcome.stage: outcome.seconds for outcome in outcomes}, trial


def write_openpose(keypoints, folder: Path) -> None:
    """Write the keypoints of each camera as OpenPose JSON, a file per frame."""
    values = np.concatenate(
        [keypoints.position.values, keypoints.confidence.values[..., None]], axis=-1
    )
    for camera, frames in zip(keypoints.camera.values, np.nan_to_num(values), strict=True):
        target = folder / f"{camera}_json"
        target.mkdir(parents=True)
        for index, frame in enumerate(frames):
            people = [{"person_id": [-1], "pose_keypoints_2d": frame.ravel().round(3).tolist()}]
            path = target / f"{camera}_{index:06d}.json"
            path.write_text(json.dumps({"version": 1.3, "people": people}))


PEER = """
import json, os, sys, time, tomllib
from pathlib import Path
import matplotlib; matplotlib.use("Agg")
from Pose2Sim import Pose2Sim
os.chdir(sys.argv[1])
config = tomllib.loads(Path("Config.toml").read_text(encoding="utf-8"))
config["project"]["project_dir"] = "."
seconds = {}
for stage in ("calibration", "triangulation", "filtering", "markerAugmentation", "kinematics"):
    began = time.perf_counter()
    getattr(Pose2Sim, stage)(config)
    seconds[stage] = time.perf_counter() - began
Path("seconds.json").write_text(json.dumps(seconds))
"""


def peer_seconds(python: str, trial, folder: Path) -> dict[str, float]:
    """Run Pose2Sim on the same keypoints in its own environment; return seconds by stage."""
    keypoints = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    source = subprocess.run(
        [python, "-c", "import Pose2Sim; print(list(Pose2Sim.__path__)[0])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    demo = Path(source) / "Demo_SinglePerson"
    project = folder / "pose2sim"
    (project / "calibration").mkdir(parents=True)
    shutil.copy(asset_folder("demo-single-person") / "Calib.qca.txt", project / "calibration")
    text = (demo / "Config.toml").read_text(encoding="utf-8")
    for key, value in {
        "pose_model": "'BLAZEPOSE'", "frame_rate": "60", "display_figures": "false",
        "save_filt_plots": "false", "reproj_error_threshold_triangulation": "60",
        "show_interp_indices": "false",
    }.items():  # fmt: skip
        text = "\n".join(
            f"{line.partition('=')[0]}= {value}"
            if line.strip().split("=")[0].strip() == key
            else line
            for line in text.splitlines()
        )
    (project / "Config.toml").write_text(text, encoding="utf-8")
    write_openpose(keypoints, project / "pose")
    done = subprocess.run([python, "-c", PEER, str(project)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"Pose2Sim failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads((project / "seconds.json").read_text())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pose2sim", metavar="PYTHON", help="Python that has Pose2Sim")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ours, trial = our_seconds(Path(scratch) / "demo")
        for stage, seconds in ours.items():
            print(f"{stage:14}{seconds:8.2f} s")
        total = sum(ours[stage] for stage in AFTER_KEYPOINTS)
        print(f"{'after keypoints, to angles':26}{total:8.2f} s")
        if arguments.pose2sim:
            peers = peer_seconds(arguments.pose2sim, trial, Path(scratch))
            for stage, seconds in peers.items():
                print(f"Pose2Sim {stage:20}{seconds:8.2f} s")
            theirs = sum(peers.values())
            print(f"Pose2Sim in all {theirs:.2f} s: ours takes {total / theirs:.2f} of that")


if __name__ == "__main__":
    main()
