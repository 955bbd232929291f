"""OpenCap's published validation data: `VideoData/Session0/Cam0/TRIAL/TRIAL.avi`, with mocap."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.layouts import opencap
from pipeline.layouts.contents import Contents, Found, children, descend
from stages.recordings import read_space
from stages.trial import Reference

NAME = "OpenCap's validation data"
EXPECTED = "VideoData/Session0/Cam0/TRIAL/TRIAL.avi"

TRANSFORM = "mocapToVideoTransform.yaml"


def recognises(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return any(opencap.camera_folders(visit) for visit in _visits(folder))


def read(folder: Path, calibration: Path | None) -> Contents:
    """Find the trials of all visits; `calibration` is the one that `session.toml` names."""
    metadata, notes = opencap.read_metadata(folder)
    subject, doubts = opencap.subject_in(metadata)
    notes += doubts
    placement = opencap.board_placement(metadata)
    trials: list[Found] = []
    for visit in _visits(folder):
        cameras = opencap.camera_folders(visit)
        found, told = opencap.find_trials(cameras, visit.name, placement, calibration)
        trials += found
        notes += [f"{visit.name}: {note}" for note in told]
    counts = Counter(trial.name for trial in trials)
    if trials:
        notes += _about_spaces(folder, trials)
    trials = [_with_mocap(folder, trial, counts[trial.name] > 1) for trial in trials]
    if twice := sorted(name for name, count in counts.items() if count > 1):
        notes.append(
            f"{', '.join(twice)} were recorded in several visits: their names here end with the "
            "visit's, and they have a motion capture only if its folder is named as the visit is"
        )
    trials = [
        replace(each, name=f"{each.name}_{each.group}") if each.name in twice else each
        for each in trials
    ]
    return Contents(trials, subject, notes, opencap.no_calibration(folder / "VideoData"))


def _visits(folder: Path) -> list[Path]:
    """Folders of capture sessions, `Session0`, …; the subject came once or several times."""
    data = descend(folder, "VideoData")
    return [each for each in children(data) if each.name.casefold().startswith("session")]


def _with_mocap(folder: Path, trial: Found, named_twice: bool) -> Found:
    """Add the trial's motion capture, if there is one and it is clear whose it is."""
    where = {
        "markers": opencap.file_of_trial(
            descend(folder, "MarkerData", "Mocap"), trial.name, ".trc", trial.group
        ),
        "angles": opencap.file_of_trial(
            descend(folder, "OpenSimData", "Mocap", "IK"), trial.name, ".mot", trial.group
        ),
    }
    if named_twice:
        where = {what: path for what, path in where.items() if path and trial.group in path.parts}
    if not any(where.values()):
        return trial
    reference = Reference(
        "motion capture (Mocap)",
        **where,
        space=_space(folder, trial.group)[0],
        model=opencap.model_name(descend(folder, "OpenSimData", "Mocap", "Model")),
    )
    return replace(trial, reference=reference)


def _about_spaces(folder: Path, trials: list[Found]) -> list[str]:
    """What is wrong with the transforms between the worlds, each said once."""
    notes = [_space(folder, group)[1] for group in sorted({trial.group for trial in trials})]
    return list(dict.fromkeys(note for note in notes if note))


def _space(folder: Path, visit: str) -> tuple[Path | None, str]:
    """The transform from mocap to video of a visit, or why it is not to be used.

    Some published ones are singular.
    """
    path = descend(folder, "VideoData", visit, TRANSFORM) or descend(folder, TRANSFORM)
    if path is None:
        return None, ""
    try:
        read_space(path)
    except PipelineError as error:
        return None, f"the motion capture's world is not known in the video's: {error}"
    return path, ""
