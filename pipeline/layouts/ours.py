"""Our own layout: `videos/TRIAL/CAMERA.mp4`, `pose/TRIAL/CAMERA_json/*.json`, `calibration/FILE`."""

from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.layouts.contents import (
    Contents,
    Found,
    children,
    poses_by_camera,
    visible_videos,
)
from pipeline.session_table import FILE_NAME

NAME = "this pipeline's own"
EXPECTED = (
    "videos/TRIAL/CAMERA.mp4, or 2D keypoints as pose/TRIAL/CAMERA_json/*.json or CAMERA.json"
)

CALIBRATION_PATTERNS = ("*.qca.txt", "*.toml", "*.pickle")


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / FILE_NAME).exists() or bool(_trials(folder))


def read(folder: Path, calibration: Path | None) -> Contents:
    """Find the trials; `calibration` is the one that `session.toml` names.

    Raises PipelineError for two videos of one camera.
    """
    problem = ""
    if calibration is None:
        calibration, problem = _calibration(folder / "calibration")
    trials = [
        Found(
            name,
            videos_by_camera(folder / "videos" / name),
            poses_by_camera(folder / "pose" / name),
            calibration,
        )
        for name in _trials(folder)
    ]
    return Contents(trials, no_calibration=problem)


def _trials(folder: Path) -> list[str]:
    filmed = [each.name for each in children(folder / "videos") if visible_videos(each)]
    marked = [each.name for each in children(folder / "pose") if poses_by_camera(each)]
    return sorted({*filmed, *marked})


def videos_by_camera(folder: Path) -> dict[str, Path]:
    """The videos of a trial by camera. Raises PipelineError for two of one camera."""
    files = visible_videos(folder)
    videos = {path.stem: path for path in files}
    if len(videos) < len(files):
        names = ", ".join(path.name for path in files)
        raise PipelineError(f"several videos of one camera in {folder}: {names}. Keep one of each.")
    return videos


def _calibration(folder: Path) -> tuple[Path | None, str]:
    """The calibration file or folder of pickles, or why there is none to take."""
    found = [path for pattern in CALIBRATION_PATTERNS for path in sorted(folder.glob(pattern))]
    if len(found) == 1:
        return found[0], ""
    if any(folder.glob("*/*.pickle")):
        return folder, ""
    problem = "no calibration file" if not found else f"{len(found)} calibration files"
    return None, (
        f"{problem} in {folder}: expected one of Qualisys .qca.txt, Pose2Sim .toml or OpenCap "
        '.pickle. With several, name one in session.toml: calibration = "calibration/FILE"'
    )
