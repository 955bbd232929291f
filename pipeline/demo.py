"""The demo session: four synchronised phone videos of a person who balances, as Pose2Sim ships it."""

import shutil
from pathlib import Path

from models.assets import asset_folder
from pipeline.files import replacing

ASSET = "demo-single-person"
TRIAL = "balancing"

SESSION_TOML = """\
# The single-person demo of Pose2Sim 0.10.49 (BSD-3-Clause, David Pagnon): four cameras at 60 Hz,
# calibrated with Qualisys. The subject's height and mass are not published: the pipeline estimates
# them, and says so. For your own session, measure them:
#
# [subject]
# height_m = 1.75
# mass_kg = 70.0

calibration = "calibration/Calib.qca.txt"
"""


def build_demo(folder: Path) -> Path:
    """Write the demo session into a folder; what is already there stays. Return the folder."""
    source = asset_folder(ASSET)
    for video in sorted(source.glob("*.mp4")):
        _copy(video, folder / "videos" / TRIAL / video.name)
    _copy(source / "Calib.qca.txt", folder / "calibration" / "Calib.qca.txt")
    if not (folder / "session.toml").exists():
        with replacing(folder / "session.toml") as path:
            path.write_text(SESSION_TOML, encoding="utf-8")
    return folder


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        with replacing(target) as path:
            shutil.copyfile(source, path)
