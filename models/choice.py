"""Which detector and pose model a run gets: what the user asks for, or the best installed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from models import blazepose
from models.assets import is_present
from models.vocabulary import vocabularies, vocabulary, vocabulary_of_size
from models.zoo import BACKEND_OF, RUNTIMES, Job, Names, knows, model, pair, pairs
from pipeline.errors import PipelineError

PAIRED = ("rtm", "mm")
"""The backends that run the models of the zoo, the lighter one first."""


class Asked(Protocol):
    """What a user asks for: fields of the detect stage's settings, which explain them."""

    backend: str
    quality: str | None
    detector: str
    detector_weights: str
    pose_model: str
    pose_weights: str
    vocabulary: str
    device: str


@dataclass(frozen=True)
class Choice:
    """The models of a run, with nothing left to decide."""

    backend: str
    """blazepose, rtm or mm."""
    detector: str
    """Name in the zoo or path of a file; for OpenMMLab also a name in its own zoo."""
    pose_model: str
    detector_weights: str
    """OpenMMLab only: path of a checkpoint; empty for the zoo's."""
    pose_weights: str
    vocabulary: str
    """What the pose model's keypoints are called."""
    device: str
    """auto, cpu, cuda or tensorrt."""


def choice_of(attributes: Mapping[str, object]) -> Choice:
    """Return the choice that `dataclasses.asdict` put among a dataset's attributes."""
    return Choice(**{field.name: str(attributes[field.name]) for field in fields(Choice)})


def choose(asked: Asked) -> Choice:
    """Settle which models run: what is asked for, and else the best that is installed.

    Without anything fetched that is BlazePose. Raises PipelineError for what is unknown, is not
    installed or does not go together, with what to install or fetch.
    """
    backend = _backend_for(asked)
    names = _names_for(asked, backend)
    _check(asked, backend, names)
    detector, pose_model, detector_weights, pose_weights = (
        _absolute(name)
        for name in (names["detector"], names["pose"], asked.detector_weights, asked.pose_weights)
    )
    return Choice(
        backend, detector, pose_model, detector_weights, pose_weights,
        _vocabulary_of(asked, backend, pose_model), asked.device,
    )  # fmt: skip


def summary(choice: Choice) -> str:
    """For the user, in a few words: which models find the keypoints."""
    names = [Path(name).name for name in (choice.detector, choice.pose_model)]
    return f"{' and '.join(names)}, by {RUNTIMES[choice.backend]}"


def missing(backend: str, names: Names, weights: Names | None = None) -> str:
    """What has to be installed or fetched before a backend can run models; empty if nothing.

    `weights` are the paths of checkpoints that take the place of the zoo's.
    """
    if lacking := missing_packages(backend):
        return lacking
    absent = _not_fetched(backend, names, weights or {})
    return f"not fetched yet: pipeline models fetch {' '.join(absent)}" if absent else ""


def missing_packages(backend: str) -> str:
    """What has to be installed before a backend can run at all, and how; empty if nothing."""
    if backend == "rtm" and find_spec("onnxruntime") is None:
        return (
            "ONNX Runtime is not installed: pip install onnxruntime (or, for an NVIDIA GPU, "
            "onnxruntime-gpu)"
        )
    if backend == "mm":
        from models.openmmlab import missing_packages as of_openmmlab

        if lacking := of_openmmlab():
            names, commands = zip(*((each.name, each.command) for each in lacking), strict=True)
            return f"{', '.join(names)} not installed: {' && '.join(commands)} (docs/keypoints.md)"
    return ""


def _not_fetched(backend: str, names: Names, weights: Names) -> list[str]:
    """Assets that have to be fetched first; BlazePose's come by themselves."""
    of_zoo = [name for job, name in names.items() if knows(name) and not weights.get(job)]
    assets = [model(name).asset_of(backend) for name in of_zoo if backend in PAIRED]
    return [each for each in assets if not is_present(each)]


def _is_ready(backend: str, names: Names) -> bool:
    """Whether a backend can run models now. Looks for the files first: that is quick."""
    return not _not_fetched(backend, names, {}) and not missing(backend, names)


def _backend_for(asked: Asked) -> str:
    """The backend that is asked for, or runs what is asked for, or is the best installed."""
    if asked.backend != "auto":
        return asked.backend
    wanted = {job: name for job, name in _asked_names(asked).items() if name}
    if not wanted and not asked.quality:
        ready = (b for names in pairs().values() for b in PAIRED if _is_ready(b, names))
        return next(ready, "blazepose")
    wanted = wanted or pair(asked.quality)
    able = [
        b for b in RUNTIMES if all(b in _able(name, job, "auto") for job, name in wanted.items())
    ]
    if not able:
        raise PipelineError(f"{' and '.join(wanted.values())} have no backend in common.")
    return next((backend for backend in able if _is_ready(backend, wanted)), able[0])


def _names_for(asked: Asked, backend: str) -> Names:
    """Fill in what is not asked for: as the quality says, or the best that is installed."""
    names = _asked_names(asked)
    if backend == "blazepose":
        offered = [{"detector": blazepose.DETECTOR_ASSET, "pose": blazepose.LANDMARK_ASSET}]
    elif asked.quality:
        offered = [pair(asked.quality)]
    else:
        offered = [*pairs().values()]
    left = [{job: name for job, name in each.items() if not names[job]} for each in offered]
    ready = (each for each in left if _is_ready(backend, each))
    return names | next(ready, left[len(left) // 2])


def _check(asked: Asked, backend: str, names: Names) -> None:
    """Raise PipelineError for what a backend cannot run, or not yet."""
    weights = _asked_weights(asked)
    for job, name in names.items():
        if backend not in _able(name, job, asked.backend):
            raise PipelineError(f"{name} does not run by {RUNTIMES[backend]} (backend {backend}).")
    if backend == "blazepose" and asked.quality:
        raise PipelineError("quality chooses among the models of other backends, not BlazePose's.")
    if backend == "blazepose" and asked.device in ("cuda", "tensorrt"):
        raise PipelineError(
            f"device {asked.device} is asked for, but the models at hand, BlazePose, run on the CPU "
            "only. Fetch others, such as: pipeline models fetch --quality balanced"
        )
    if backend != "mm" and any(weights.values()):
        raise PipelineError("detector_weights and pose_weights are for backend mm only.")
    for each in (*names.values(), *weights.values()):
        if Path(each).suffix in (*BACKEND_OF, ".pth") and not Path(each).is_file():
            raise PipelineError(f"there is no file {Path(each).absolute()}")
    if lacking := missing(backend, names, weights):
        raise PipelineError(f"cannot run {' and '.join(names.values())}: {lacking}")


def _able(name: str, job: Job, asked_backend: str) -> tuple[str, ...]:
    """The backends that can run a model: of the zoo, of a file, or of OpenMMLab's own zoo."""
    if backend := BACKEND_OF.get(Path(name).suffix):
        return (backend,)
    if asked_backend == "mm" and not knows(name):
        return ("mm",)
    return model(name, job).backends


def _vocabulary_of(asked: Asked, backend: str, pose_model: str) -> str:
    if knows(pose_model):
        known = model(pose_model).vocabulary
        if asked.vocabulary not in ("", known):
            raise PipelineError(f"{pose_model} has the keypoints {known}, not {asked.vocabulary}.")
        return known
    if asked.vocabulary:
        return vocabulary(asked.vocabulary).name
    count = _count_keypoints(backend, pose_model)
    try:
        return vocabulary_of_size(count).name
    except PipelineError as error:
        raise PipelineError(
            f"{pose_model} has {count} keypoints, and their number alone does not say what they are. "
            f"Say it, if it is one of {', '.join(vocabularies())}: --set detect.vocabulary=NAME"
        ) from error


def _count_keypoints(backend: str, pose_model: str) -> int:
    """How many keypoints a person has by a pose model that is not in the zoo."""
    if backend == "mm":
        from models.openmmlab import count_keypoints

        return count_keypoints(pose_model)
    path = Path(pose_model)
    return _count_in_file(path, path.stat().st_mtime_ns)


@cache
def _count_in_file(path: Path, changed: int) -> int:
    from models.rtm import RtmPoseEstimator

    return RtmPoseEstimator(path, "cpu").keypoints


def _asked_names(asked: Asked) -> Names:
    return {"detector": asked.detector, "pose": asked.pose_model}


def _asked_weights(asked: Asked) -> Names:
    return {"detector": asked.detector_weights, "pose": asked.pose_weights}


def _absolute(name: str) -> str:
    return str(Path(name).absolute()) if Path(name).is_file() else name
