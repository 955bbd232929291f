"""What a stage knows about the recording that it works on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stages import ORDER

Progress = Callable[[int, int], None]
"""`progress(done, total)`: called as a stage's work advances."""


def no_progress(done: int, total: int) -> None:
    """Report nothing: for callers without a progress bar."""


@dataclass(frozen=True)
class Subject:
    """The person filmed. Missing values are None, never guessed here."""

    height_m: float | None = None
    mass_kg: float | None = None


@dataclass(frozen=True)
class Reference:
    """What another system measured in the same trial; motion capture, or published results."""

    source: str
    """What it is, for people: such as "motion capture (OpenSimData/Mocap)"."""
    angles: Path | None = None
    """An OpenSim motion file."""
    markers: Path | None = None
    """A TRC file."""
    space: Path | None = None
    """mocapToVideoTransform.yaml, if there is one."""
    model: str = ""
    """The OpenSim model that the angles are of, if known."""
    aligned: bool = False
    """Whether it is on the result's clock and in its world, as simulated truth is: then a lag or a
    shift is an error, and none is taken out."""
    clock_offsets_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds to add to a camera's own clock to get the clock of an aligned one; 0 where absent."""


@dataclass(frozen=True)
class Trial:
    """One recording by several cameras, and the folder that its results go to."""

    name: str
    activity: str
    videos: dict[str, Path]
    """Video file by camera name; none if the trial is brought as keypoints only."""
    calibration: Path | Mapping[str, Path]
    """Calibration file of all cameras, or a file by camera."""
    results: Path
    subject: Subject = field(default_factory=Subject)
    clock_offsets_s: dict[str, float] = field(default_factory=dict)
    """Seconds to add to a camera's own clock to get the session's; 0 where absent."""
    world_up: str | None = None
    """The axis of the calibration's world that points up, if the session knows better than the file."""
    scaling_trial: "Trial | None" = None
    """The static trial that scales the model, if the session has one."""
    session_trials: tuple["Trial", ...] = ()
    """The session's other trials of the same person, filmed by the same cameras. They have none here."""
    left_out: tuple[str, ...] = ()
    """Names of such trials that failed, and so tell nothing of the person."""
    model: Path | None = None
    """An OpenSim model already scaled to the subject, brought by the session."""
    poses: dict[str, Path] = field(default_factory=dict)
    """2D keypoints by camera name, used instead of a pose model: a folder with a JSON file a frame, or
    one file (`stages/poses.py`). Of the same cameras as the videos, if there are both."""
    rate_hz: dict[str, float] = field(default_factory=dict)
    """Frames per second by camera name, for keypoints without videos."""
    keypoints: str | None = None
    """Vocabulary of the keypoints brought, if the session names it."""
    reference: Reference | None = None
    """What another system measured, to compare with."""
    person: str | int | None = None
    """Who is followed, if not the one that the settings name (`stages/persons.py`)."""
    everyone: Path | None = None
    """Where the results of the stages are that look at all people in view, if others share them."""

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras."""
        return list(self.videos or self.poses)

    def folder(self, stage: str) -> Path:
        """Folder with the artefacts of one stage."""
        shared = self.everyone and ORDER.index(stage) < ORDER.index("synchronize")
        results = self.everyone if shared else self.results
        return results / f"{ORDER.index(stage) + 1:02d}_{stage}"
