"""`session.toml`: what a session's owner says about it, in any layout. Everything is optional."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from pipeline.config import explain
from pipeline.errors import PipelineError

FILE_NAME = "session.toml"

Rate = Annotated[float, Field(gt=0, le=2000, strict=True)]


class SubjectTable(BaseModel):
    """The person filmed."""

    model_config = ConfigDict(extra="forbid")

    height_m: float | None = Field(None, gt=0.3, lt=2.6)
    mass_kg: float | None = Field(None, gt=2, lt=400)

    @field_validator("height_m", "mass_kg", mode="before")
    @classmethod
    def _no_truth_value(cls, value: object) -> object:
        if isinstance(value, bool):  # which Python takes as 1
            raise ValueError("should be a number")
        return value


class TrialTable(BaseModel):
    """What may be said of one trial."""

    model_config = ConfigDict(extra="forbid")

    activity: str | None = None
    clock_offsets_s: dict[str, FiniteFloat] = {}
    cameras: list[str] | None = None
    rate_hz: Rate | dict[str, Rate] | None = None
    """Frames per second, of all cameras or by camera, for keypoints without videos."""
    keypoints: str | None = None
    """Vocabulary of the keypoints in pose/."""

    def rates(self, cameras: Iterable[str]) -> dict[str, float]:
        """`rate_hz` by camera; empty if it is not given."""
        if isinstance(self.rate_hz, float):
            return dict.fromkeys(cameras, self.rate_hz)
        return self.rate_hz or {}


class SessionTable(BaseModel):
    """What `session.toml` may say."""

    model_config = ConfigDict(extra="forbid")

    subject: SubjectTable = SubjectTable()
    calibration: str | None = None
    """Calibration file or folder, relative to the session."""
    world_up: Literal["+x", "-x", "+y", "-y", "+z", "-z"] | None = None
    """The axis of the calibration's world that points up, where the file has it wrong."""
    model: str | None = None
    """OpenSim model already scaled to the subject, relative to the session."""
    keypoints: str | None = None
    """Vocabulary of the keypoints in pose/, for all trials that do not name theirs."""
    trials: dict[str, TrialTable] = {}
    settings: dict[str, dict[str, Any]] = {}
    """Settings of stages, as `[settings.smooth]`."""


def read_table(folder: Path) -> SessionTable:
    """Read a session folder's `session.toml`; an empty table if there is none.

    Raises PipelineError for what it may not say.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return SessionTable()
    try:
        return SessionTable.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PipelineError(f"cannot read {path}: {error}") from error
    except ValidationError as error:
        raise PipelineError(explain(error, str(path), SessionTable)) from error
