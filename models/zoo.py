"""The models that a backend can be given by name: what each is, and where its weights come from."""

import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import PipelineError

Job = Literal["detector", "pose"]
Names = dict[Job, str]
"""A detector and a pose model."""
JOBS = {"detector": "a person detector", "pose": "a pose model"}
QUALITIES = ("fast", "balanced", "best")
RUNTIMES = {"blazepose": "LiteRT", "rtm": "ONNX Runtime", "mm": "OpenMMLab"}
"""What runs the models of each backend."""
BACKEND_OF = {".onnx": "rtm", ".py": "mm"}
"""Which backend takes such a file in the place of a name: a network, or a configuration."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measured(_Entry):
    """A published figure: nothing of it was measured here."""

    value: float
    of: str
    """On which data, or of which network where this one was not measured."""
    source: str


class Weights(_Entry):
    """Where a backend's file of a model comes from."""

    address: str
    """https."""
    member: str = ""
    """The file's name inside the archive at the address; empty where the address is the file."""
    sha256: str = ""
    """Of the file: as many of its first digits as are published, none if none."""
    size_bytes: int | None = None
    """Of the file; None if it is not published."""
    config: str = ""
    """OpenMMLab only: the name of the model's configuration in its packages."""


class Model(_Entry):
    """One network, whichever backend runs it."""

    name: str
    job: Job
    description: str
    finds: str
    licence: str
    citation: str
    accuracy_ap: Measured | None = None
    """Average precision, %."""
    speed_ms: Measured | None = None
    """A person, by ONNX Runtime on a Core i7-11700."""
    parameters_m: float | None = None
    """Millions of parameters, as published. Four bytes each make up its file."""
    side_px: int = 640
    """Of a detector: the square images that it was trained with, for files that leave it open."""
    vocabulary: str = ""
    """Of a pose model: what its keypoints are called."""
    weights: dict[str, Weights] = Field(default_factory=dict)
    """By backend: `rtm` and `mm`."""
    asset: str = ""
    """Name of its files in the asset registry, for BlazePose."""

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that can run it, the lightest first."""
        return ("blazepose",) if self.asset else tuple(b for b in RUNTIMES if b in self.weights)

    def asset_of(self, backend: str) -> str:
        """Name of the asset that holds a backend's weights."""
        return self.asset or (self.name if backend == "rtm" else f"{self.name}-{backend}")


@cache
def _zoo() -> tuple[dict[str, Model], dict[str, Names]]:
    text = resources.files("models").joinpath("zoo.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    models = {name: Model(name=name, **entry) for name, entry in table["models"].items()}
    return models, {name: table["quality"][name] for name in reversed(QUALITIES)}


def list_models() -> list[Model]:
    """All models that can be had by name."""
    return list(_zoo()[0].values())


def pairs() -> dict[str, Names]:
    """Return the detector and the pose model of every `--quality`, the best first."""
    return _zoo()[1]


def pair(quality: str) -> Names:
    """Return the pair of a quality. Raises PipelineError, with those there are, if unknown."""
    if quality not in pairs():
        raise PipelineError(f"there is no quality '{quality}'. There are: {', '.join(QUALITIES)}")
    return pairs()[quality]


def knows(name: str) -> bool:
    """Whether there is a model of this name."""
    return name in _zoo()[0]


def model(name: str, job: Job | None = None) -> Model:
    """Return a model by name. Raises PipelineError if it is unknown, or does another job."""
    models = _zoo()[0]
    if name not in models:
        fitting = ", ".join(each.name for each in models.values() if job in (None, each.job))
        raise PipelineError(
            f"there is no model '{name}'. There are: {fitting}; or give the path of a file: .onnx "
            "for ONNX Runtime, .py (a configuration) for OpenMMLab."
        )
    if job and models[name].job != job:
        raise PipelineError(f"{name} is {JOBS[models[name].job]}, but {JOBS[job]} is needed.")
    return models[name]
