"""What a detector and a pose model must do, and how those that a run has chosen are made."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from models import blazepose
from models.assets import asset_file
from models.assets import fingerprint as asset_fingerprint
from models.choice import Choice
from models.people import Detections, Image, Poses
from models.vocabulary import vocabulary
from models.zoo import RUNTIMES, knows, model
from pipeline.errors import PipelineError
from pipeline.files import sha256_of_input


class Detector(Protocol):
    """Finds persons in images, in three steps that `models.overlap` runs side by side."""

    def prepare(self, images: Sequence[Image]) -> Any:
        """Make what the network takes of BGR images. Runs in a thread beside `infer`."""

    def infer(self, prepared: Any) -> Any:
        """Run the network, on all images at once where it can."""

    def read(self, prepared: Any, outputs: Any) -> list[Detections]:
        """Return the persons of each image, best first. Runs in a thread beside `infer`."""


class PoseEstimator(Protocol):
    """Finds the keypoints of persons whose boxes are known, in the three steps of a detector."""

    def prepare(
        self, images: Sequence[Image], persons: Sequence[Detections], with_maps: bool = False
    ) -> Any:
        """Make what the network takes of the persons in BGR images.

        `with_maps` asks for heatmaps too, of models that have any.
        """

    def infer(self, prepared: Any) -> Any:
        """Run the network, on all persons at once where it can."""

    def read(self, prepared: Any, outputs: Any) -> list[Poses]:
        """Return the keypoints of each image's persons, in the persons' order.

        NaN with confidence 0 where a box is NaN.
        """


def make_detector(choice: Choice) -> Detector:
    """Load the detector. Raises PipelineError if its files or the device do not do."""
    if choice.backend == "blazepose":
        return blazepose.BlazePoseDetector()
    if choice.backend == "rtm":
        from models.rtm import RtmDetector

        path, known = _network_file(choice.detector), knows(choice.detector)
        size = {"side_px": model(choice.detector).side_px} if known else {}
        return RtmDetector(path, choice.device, **size)
    from models.openmmlab import MmDetector

    config, checkpoint = _config_and_checkpoint(choice.detector, choice.detector_weights)
    return MmDetector(config, checkpoint, choice.device)


def make_pose_estimator(choice: Choice) -> PoseEstimator:
    """Load the pose model.

    Raises PipelineError if its files or the device do not do, or if it has another number of
    keypoints than its vocabulary.
    """
    if choice.backend == "blazepose":
        return blazepose.BlazePoseEstimator()
    if choice.backend == "rtm":
        from models.rtm import RtmPoseEstimator

        estimator = RtmPoseEstimator(_network_file(choice.pose_model), choice.device)
    else:
        from models.openmmlab import MmPoseEstimator

        config, checkpoint = _config_and_checkpoint(choice.pose_model, choice.pose_weights)
        estimator = MmPoseEstimator(config, checkpoint, choice.device)
    expected = len(vocabulary(choice.vocabulary).keypoints)
    if estimator.keypoints != expected:
        raise PipelineError(
            f"{choice.pose_model} has {estimator.keypoints} keypoints, but {choice.vocabulary} has "
            f"{expected}. Say what they are: --set detect.vocabulary=NAME"
        )
    return estimator


def fingerprints(choice: Choice) -> dict[str, str]:
    """What a choice's results depend on: names, the hash of every file, OpenMMLab's versions.

    The device is left out: on another one, results differ little.
    """
    named = {name: value for name, value in asdict(choice).items() if value and name != "device"}
    packages = ("mmdet", "mmpose", "mmengine") if choice.backend == "mm" else ()
    hashes = {}
    for name, value in named.items():
        if knows(value):
            hashes[f"{name} sha256"] = asset_fingerprint(model(value).asset_of(choice.backend))
        elif Path(value).is_file():
            hashes[f"{name} sha256"] = _hash_of(Path(value))
    return named | hashes | {package: version(package) for package in packages}


def citation(choice: Choice) -> str:
    """What to cite for a choice's keypoints, with the licence of each model."""
    if choice.backend == "blazepose":
        return blazepose.CITATION
    detector = _cited(choice.detector, choice.detector_weights)
    pose_model = _cited(choice.pose_model, choice.pose_weights)
    return f"{detector} and {pose_model}, by {RUNTIMES[choice.backend]}"


def _cited(name: str, weights: str) -> str:
    if not knows(name):
        return f"{Path(name).name} (not in the list of models: cite its authors)"
    entry = model(name)
    own = f", with weights {Path(weights).name}" if weights else ""
    return f"{entry.description}{own} ({entry.citation}; {entry.licence})"


def _hash_of(path: Path) -> str:
    """Hash of a file and of what belongs to it.

    A network's weights may be in files beside it, and a configuration may build on others.
    """
    if path.suffix == ".onnx":
        hashes = map(sha256_of_input, _with_weights_beside(path))
        return hashlib.sha256("".join(hashes).encode()).hexdigest()
    if path.suffix != ".py":
        return sha256_of_input(path)
    from models.openmmlab_files import read_configuration

    said = read_configuration(path).to_dict()
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _with_weights_beside(path: Path) -> list[Path]:
    """An ONNX file, and those beside it that hold its weights. What is no such file is alone."""
    import onnx  # slow to import, and only needed here
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError:
        return [path]
    beside = {
        ExternalDataInfo(each).location for each in graph.initializer if uses_external_data(each)
    }
    files = (path.parent / name for name in sorted(beside))
    return [path, *(each for each in files if each.is_file())]


def _network_file(name: str) -> Path:
    return asset_file(name) if knows(name) else Path(name)


def _config_and_checkpoint(name: str, weights: str) -> tuple[str, str]:
    if not knows(name):
        return name, weights
    known = model(name)
    return known.weights["mm"].config, weights or str(asset_file(known.asset_of("mm")))
