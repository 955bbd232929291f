"""A session as OpenCap's web application delivers it: `Videos/Cam0/InputMedia/TRIAL/TRIAL.mov`."""

from dataclasses import replace
from pathlib import Path

from pipeline.layouts import opencap
from pipeline.layouts.contents import Contents, Found, descend
from stages.trial import Reference

NAME = "OpenCap download"
EXPECTED = "Videos/Cam0/InputMedia/TRIAL/TRIAL.mov"


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return any(descend(camera, "InputMedia") for camera in _cameras(folder))


def read(folder: Path, calibration: Path | None) -> Contents:
    """Find the trials; `calibration` is the one that `session.toml` names.

    What OpenCap made of the trials is their reference: another program's results, not the truth.
    """
    metadata, notes = opencap.read_metadata(folder)
    subject, doubts = opencap.subject_in(metadata)
    placement = opencap.board_placement(metadata)
    trials, told = opencap.find_trials(_cameras(folder), "", placement, calibration)
    trials = [_with_results(folder, trial) for trial in trials]
    return Contents(
        trials, subject, notes + doubts + told, opencap.no_calibration(folder / "Videos")
    )


def _cameras(folder: Path) -> list[Path]:
    videos = descend(folder, "Videos")
    return opencap.camera_folders(videos) if videos else []


def _with_results(folder: Path, trial: Found) -> Found:
    markers = opencap.file_of_trial(descend(folder, "MarkerData"), trial.name, ".trc", "")
    angles = opencap.file_of_trial(
        descend(folder, "OpenSimData", "Kinematics"), trial.name, ".mot", ""
    )
    if not (markers or angles):
        return trial
    reference = Reference(
        "OpenCap's results",
        angles,
        markers,
        model=opencap.model_name(descend(folder, "OpenSimData", "Model")),
    )
    return replace(trial, reference=reference)
