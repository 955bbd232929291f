"""Inspect: what a session holds, what can be run, and what is missing or doubtful."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from calibration import read_cameras
from calibration.arrangement import doubts, pairs
from calibration.readers import Calibration, read_file
from calibration.stated_quality import stated_quality
from models.vocabulary import vocabulary
from pipeline.errors import PipelineError
from pipeline.layouts.contents import is_static
from pipeline.runner import read_record
from pipeline.session import Session, open_session
from pipeline.video_facts import VideoFacts, video_facts
from stages import ORDER
from stages.poses import frame_numbers
from stages.trial import Trial

SAME_RATE = 0.01
APART_S = 1.0
"""Recordings of one trial whose lengths differ by more were not started and stopped together."""


class CameraRow(BaseModel):
    """One calibrated camera."""

    name: str
    width_px: int
    height_px: int
    focal_length_px: float
    height_m: float
    """Above the world's origin, which need not be on the floor."""


class PairRow(BaseModel):
    """How two cameras stand to each other."""

    first: str
    second: str
    angle_deg: float
    distance_m: float


class CalibrationRow(BaseModel):
    """One calibration, and the cameras in it."""

    where: str
    world_up: str
    quality: str
    cameras: list[CameraRow]
    pairs: list[PairRow]
    doubts: list[str]


class RecordingRow(BaseModel):
    """One camera's recording of a trial."""

    camera: str
    rate_hz: float
    frames: int
    duration_s: float


class TrialRow(BaseModel):
    """One trial."""

    name: str
    activity: str
    height_m: float | None
    mass_kg: float | None
    """The subject's."""
    cameras: list[str]
    recordings: list[RecordingRow]
    """Of all cameras, or none if one of them cannot be read."""
    brings: str
    """Videos, keypoints, or both."""
    keypoints: str | None
    reference: str | None
    scaling_trial: str | None
    results: str
    """What the report says of them, or how far the stages have come; empty if there are none."""
    problem: str
    """Why the trial cannot be run; empty if it can."""
    doubts: list[str]


class Inspection(BaseModel):
    """A whole session."""

    folder: str
    layout: str
    calibrations: list[CalibrationRow]
    trials: list[TrialRow]
    doubts: list[str]
    """What is missing or doubtful about the session, with the remedy."""
    problem: str
    """Why nothing can be run; empty if something can."""

    @property
    def runnable(self) -> bool:
        """Whether any trial can be run."""
        return any(not trial.problem for trial in self.trials)


def inspect(folder: Path) -> Inspection:
    """Look at a session without running anything; videos' headers are read, not their frames.

    Raises PipelineError if there is no such folder, or its `session.toml` is wrong.
    """
    session = open_session(folder)
    try:
        trials = session.with_or_without_calibration()
    except PipelineError as error:
        return Inspection(
            folder=str(folder), layout=session.layout, calibrations=[], trials=[], doubts=[],
            problem=str(error),
        )  # fmt: skip
    calibrations, problems = _calibrations(trials)
    rows = [_trial_row(trial, session.contents.no_calibration) for trial in trials]
    told = {row.problem for row in rows}
    return Inspection(
        folder=str(folder),
        layout=session.layout,
        calibrations=calibrations,
        trials=rows,
        doubts=_doubts(session, trials) + [each for each in problems if each not in told],
        problem="" if "" in told else "no trial can be run",
    )


def _doubts(session: Session, trials: Sequence[Trial]) -> list[str]:
    found = list(session.notes)
    for what, key, instead in (
        ("height", "height_m", "it will be estimated from the legs"),
        ("mass", "mass_kg", "an average one will be assumed"),
    ):
        lacking = [trial.name for trial in trials if getattr(trial.subject, key) is None]
        if lacking:
            of = "" if len(lacking) == len(trials) else f" in {', '.join(lacking)}"
            found.append(
                f"the subject's {what} is missing{of}: {instead}. Give it: [subject] {key} in "
                "session.toml, or pipeline init"
            )
    moving = [each for each in trials if not is_static(each.name)]
    if unscaled := [each.name for each in moving if not (each.scaling_trial or each.model)]:
        of = "" if len(unscaled) == len(moving) else f" of {', '.join(unscaled)}"
        found.append(
            f"there is no static trial that scales the model{of}: it will be scaled in the movement. Film "
            "the subject standing still for a few seconds, as a trial named static1"
        )
    return found


def _calibrations(trials: Sequence[Trial]) -> tuple[list[CalibrationRow], list[str]]:
    """Each calibration of these trials once, and what is wrong with those that cannot be read."""
    known: dict[tuple[Path, str | None], Calibration] = {}
    for trial in trials:
        files = trial.calibration
        if isinstance(files, Path):
            known[files, trial.world_up] = files
        elif files:
            where = Path(os.path.commonpath([path.parent for path in files.values()]))
            before = known.get((where, trial.world_up), {})
            known[where, trial.world_up] = (
                {**before, **files} if isinstance(before, Mapping) else files
            )
    rows, problems = [], []
    for (where, world_up), calibration in known.items():
        try:
            rows.append(_calibration_row(where, world_up, calibration))
        except PipelineError as error:
            problems.append(str(error))
    return rows, problems


def _calibration_row(where: Path, world_up: str | None, calibration: Calibration) -> CalibrationRow:
    held = read_file(calibration)
    stated = world_up or held[0].world_up
    names = [camera.name for camera in held]
    cameras, _ = read_cameras(calibration, names, world_up=world_up)
    return CalibrationRow(
        where=str(where),
        world_up=stated,
        quality=stated_quality(calibration),
        cameras=[
            CameraRow(
                name=camera.name,
                width_px=camera.image_size[0],
                height_px=camera.image_size[1],
                focal_length_px=round(float(camera.intrinsics[0, 0]), 1),
                height_m=round(float(camera.center[1]), 3),
            )
            for camera in cameras
        ],
        pairs=[
            PairRow(
                first=pair.first,
                second=pair.second,
                angle_deg=round(pair.angle_deg, 1),
                distance_m=round(pair.distance_m, 3),
            )
            for pair in pairs(cameras)
        ],
        doubts=doubts(cameras),
    )


def _trial_row(trial: Trial, no_calibration: str) -> TrialRow:
    recordings: list[RecordingRow] = []
    notices: list[str] = []
    problem = ""
    try:
        if trial.keypoints:
            vocabulary(trial.keypoints)
        recordings, sizes = _recordings(trial)
        if not trial.calibration:
            raise PipelineError(no_calibration)
        _, notices = read_cameras(trial.calibration, trial.cameras, sizes, trial.world_up)
    except PipelineError as error:
        problem = str(error)
    return TrialRow(
        name=trial.name,
        activity=trial.activity,
        height_m=trial.subject.height_m,
        mass_kg=trial.subject.mass_kg,
        cameras=trial.cameras,
        recordings=recordings,
        brings=" and ".join(
            what for what, there in (("videos", trial.videos), ("keypoints", trial.poses)) if there
        ),
        keypoints=trial.keypoints,
        reference=trial.reference.source if trial.reference else None,
        scaling_trial=trial.scaling_trial.name if trial.scaling_trial else None,
        results=_results(trial),
        problem=problem,
        doubts=notices + _about_recordings(recordings),
    )


def _recordings(
    trial: Trial,
) -> tuple[list[RecordingRow], dict[str, tuple[int, int]] | None]:
    """What each camera recorded, and the videos' sizes (px) by camera, if there are videos."""
    if trial.videos:
        facts = {camera: video_facts(path) for camera, path in trial.videos.items()}
        sizes = {camera: (each.width, each.height) for camera, each in facts.items()}
    else:
        facts = {camera: _keypoint_facts(trial, camera) for camera in trial.poses}
        sizes = None
    rows = [
        RecordingRow(
            camera=camera,
            rate_hz=round(each.rate_hz, 3),
            frames=each.frames,
            duration_s=round(each.duration_s, 3),
        )
        for camera, each in facts.items()
    ]
    return rows, sizes


def _keypoint_facts(trial: Trial, camera: str) -> VideoFacts:
    numbers = frame_numbers(trial.poses[camera])
    rate_hz = trial.rate_hz.get(camera)
    if rate_hz is None:
        raise PipelineError(
            f"trial {trial.name} has keypoints without videos, and no rate of camera {camera}: "
            f"[trials.{trial.name}] rate_hz = 60 in session.toml"
        )
    return VideoFacts(0, 0, rate_hz, len(numbers), (numbers[-1] - numbers[0] + 1) / rate_hz)


def _about_recordings(recordings: Sequence[RecordingRow]) -> list[str]:
    rates = [row.rate_hz for row in recordings if row.rate_hz]
    lengths = [row.duration_s for row in recordings if row.duration_s]
    found = []
    if rates and max(rates) > (1 + SAME_RATE) * min(rates):
        found.append(f"frame rates differ: {min(rates):g} to {max(rates):g} Hz")
    if lengths and max(lengths) > min(lengths) + APART_S:
        found.append(
            f"recordings are {min(lengths):.1f} to {max(lengths):.1f} s long: the cameras were not "
            "started and stopped together"
        )
    return found


def _results(trial: Trial) -> str:
    report = read_record(trial.folder("report"))
    if report:
        return str(report["notices"][0])
    done = [stage for stage in ORDER if read_record(trial.folder(stage))]
    return f"run as far as {done[-1]}" if done else ""
