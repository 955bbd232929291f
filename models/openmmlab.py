"""OpenMMLab's models through its own packages: any detector of mmdet, any top-down model of mmpose.

Chen et al., MMDetection, arXiv 1906.07155, 2019 (3.3.0); MMPose (1.3.2), MMEngine (0.10.7) and MMCV
(2.1.0), Apache-2.0, github.com/open-mmlab. A model is a configuration, which is a program and runs
when it is read (see `models.openmmlab_files`), and a checkpoint, which is loaded as data only.

Images go through the configuration's own test pipeline and the network's own `test_step`, so that
its settings hold: most of mmpose's look at each person a second time, mirrored (`flip_test`), which
ONNX exports of the same networks do not. The packages are imported when a model is made: this
module can be imported without them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from models.learned import torch_device
from models.openmmlab_checkpoint import load_weights
from models.openmmlab_files import (
    about_keypoints,
    check_kind,
    classes_of,
    find_configuration,
    first_sentence,
    image_pipeline,
    keypoints_of,
    package_folder,
    published_weights,
    read_configuration,
)
from models.people import LEAST_SCORE, NOBODY, Boxed, Detections, Image, Poses
from models.simcc import confidence
from pipeline.errors import PipelineError

PERSON = "person"


class Package(NamedTuple):
    """One of the packages that the backend needs."""

    name: str
    why: str
    command: str
    """That installs it."""
    module: str
    """Or the part of it, that must be there."""


PACKAGES = (
    Package(
        "setuptools<81", "mmengine imports its pkg_resources",
        'pip install "setuptools<81" wheel ninja Cython', "pkg_resources",
    ),
    Package(
        "mmengine", "reads configurations, builds networks",
        "pip install mmengine==0.10.7", "mmengine",
    ),
    Package(
        "mmcv", "operations of the networks, compiled: mmcv-lite has none",
        'pip install "torch>=2.6,<2.14" && pip install --no-build-isolation mmcv==2.1.0', "mmcv._ext",
    ),
    Package("mmdet", "detectors", "pip install mmdet==3.3.0", "mmdet"),
    Package("mmpose", "pose models", "pip install --no-deps mmpose==1.3.2", "mmpose"),
    Package("munkres", "mmpose imports it", "pip install munkres", "munkres"),
    Package(
        "xtcocotools", "mmpose imports it, built for numpy 2",
        "pip install --no-build-isolation --no-binary xtcocotools xtcocotools", "xtcocotools",
    ),
)  # fmt: skip
"""In the order in which they have to be installed."""

WARNINGS = (
    ("", r"mm(cv|det|engine|pose)\b"),
    ("pkg_resources is deprecated", ""),
    ("torch.meshgrid", ""),
)
"""Of these packages about their own code (message, module): nothing that a user could change."""


def missing_packages() -> list[Package]:
    """Return the packages that the backend needs and that are not installed."""
    return [each for each in PACKAGES if not _is_installed(each.module)]


def _is_installed(module: str) -> bool:
    package, _, part = module.partition(".")
    if not part:
        return find_spec(package) is not None
    folder = package_folder(package)
    return folder is not None and any(folder.glob(f"{part}.*"))


def _require_packages() -> None:
    """Raise PipelineError, with what to install, unless all packages are there and importable."""
    if lacking := missing_packages():
        raise PipelineError(
            f"backend mm lacks {', '.join(f'{each.name} ({each.why})' for each in lacking)}. "
            f"Install: {' && '.join(each.command for each in lacking)} (docs/keypoints.md)"
        )
    for message, module in WARNINGS:
        warnings.filterwarnings("ignore", message, module=module)
    try:
        for module in ("mmdet.models", "mmpose.datasets", "mmpose.models"):
            import_module(module)
    except Exception as error:  # versions that do not go together raise whatever they meet
        raise PipelineError(
            f"OpenMMLab's packages cannot be imported: {first_sentence(error)}. Install the versions "
            "that docs/keypoints.md names."
        ) from error


def _require_operations(device: torch.device) -> None:
    """Raise PipelineError if mmcv was compiled for the CPU only and detections are on a GPU."""
    from mmcv.ops import get_compiling_cuda_version

    if device.type == "cuda" and get_compiling_cuda_version() == "not available":
        raise PipelineError(
            "mmcv was compiled without CUDA, which detectors need on a GPU. Compile it again where "
            "nvcc is (docs/keypoints.md), or run on the CPU: --set detect.device=cpu"
        )


class MmDetector:
    """Finds persons; gives a box around each."""

    def __init__(self, config: str, checkpoint: str = "", device: str = "auto"):
        """Load a detector.

        config: a name in mmdet's zoo (or mmpose's, of its person detectors), or the path of a file.
        It is a program. checkpoint: the path of its weights. device: auto, cpu or cuda, where half
        precision is used. Raises PipelineError if a package, a file or the device does not do.
        """
        _require_packages()
        from mmdet.models.detectors import BaseDetector
        from mmdet.registry import DATASETS, MODELS

        made = _make(config, checkpoint, device, MODELS, BaseDetector)
        _require_operations(made.network.data_preprocessor.device)
        self._network = made.network
        self._pipeline = image_pipeline(made.config, "mmdet", "mmdet.LoadImageFromNDArray")
        classes = made.meta.get("classes") or classes_of(made.config, DATASETS)
        if PERSON not in classes:
            raise PipelineError(
                f"{config} finds {', '.join(classes[:5]) or 'nothing that it names'}, not persons. "
                "Give a detector that was trained on COCO, or on persons."
            )
        self._person = classes.index(PERSON)

    def prepare(self, images: Sequence[Image]) -> dict[str, list]:
        """Bring images to the size that the network wants."""
        return _batch([self._pipeline({"img": image, "img_id": 0}) for image in images])

    def infer(self, prepared: dict[str, list]) -> list[Any]:
        """Run the network, and its suppression of overlapping boxes."""
        return _test_step(self._network, prepared)

    def read(self, prepared: dict[str, list], outputs: list[Any]) -> list[Detections]:
        """Return each image's persons with scores of at least 0.1, best first; boxes in its px."""
        return [self._read_one(output.pred_instances.cpu()) for output in outputs]

    def _read_one(self, found) -> Detections:
        scores = found.scores.double().numpy()
        persons = np.flatnonzero((found.labels.numpy() == self._person) & (scores >= LEAST_SCORE))
        order = persons[np.argsort(-scores[persons], kind="stable")]
        if not len(order):
            return NOBODY
        return Detections(
            found.bboxes.double().numpy()[order], np.zeros(len(order)), np.clip(scores[order], 0, 1)
        )


@dataclass(frozen=True)
class _Crops:
    """Persons as a pose model takes them."""

    batch: dict[str, list] | None
    """Those who have a box; None if nobody has."""
    persons: Boxed


class MmPoseEstimator:
    """Finds the keypoints of persons in upright boxes (rotations are not used).

    Gives no heatmaps: `test_step` returns those of SimCC models at full size only, some 0.1 GB for
    a whole body.
    """

    keypoints: int
    """How many a person has."""

    def __init__(self, config: str, checkpoint: str = "", device: str = "auto"):
        """Load a top-down pose model.

        config: a name in mmpose's zoo, or the path of a file. It is a program. checkpoint: the path
        of its weights. device: auto, cpu or cuda, where half precision is used. Raises
        PipelineError if a package, a file or the device does not do.
        """
        _require_packages()
        from mmpose.models.pose_estimators import TopdownPoseEstimator
        from mmpose.registry import MODELS

        made = _make(config, checkpoint, device, MODELS, TopdownPoseEstimator)
        self._network = made.network
        self._pipeline = image_pipeline(made.config, "mmpose", "LoadImage")
        self._about = made.meta if "flip_indices" in made.meta else about_keypoints(made.config)
        self._sure = _score_of_a_sure(made.network.head)
        self.keypoints = keypoints_of(made.config)

    def prepare(
        self, images: Sequence[Image], persons: Sequence[Detections], with_maps: bool = False
    ) -> _Crops:
        """Cut every person out of the image."""
        boxed = Boxed.of(persons)
        pairs = zip(boxed.owners, boxed.boxes, strict=True)
        crops = [self._crop(images[owner], box) for owner, box in pairs]
        return _Crops(_batch(crops) if crops else None, boxed)

    def _crop(self, image: Image, box: Float[np.ndarray, "4"]) -> dict[str, Any]:
        region = {"bbox": np.float32(box[None]), "bbox_score": np.ones(1, np.float32)}
        return self._pipeline({**self._about, **region, "img": image})

    def infer(self, prepared: _Crops) -> list[Any]:
        """Run the network."""
        return _test_step(self._network, prepared.batch) if prepared.batch else []

    def read(self, prepared: _Crops, outputs: list[Any]) -> list[Poses]:
        """Return the keypoints of each image's persons, in px of the image.

        NaN and 0 where there is no box, and where the network sees nothing (scores up to 0).
        """
        keypoints = np.full((len(outputs), self.keypoints, 2), np.nan)
        confidences = np.zeros((len(outputs), self.keypoints))
        for index, output in enumerate(outputs):
            found = output.pred_instances
            confidences[index] = confidence(found.keypoint_scores[0].astype(float), self._sure)
            shown = confidences[index][:, None] > 0
            keypoints[index] = np.where(shown, found.keypoints[0, :, :2], np.nan)
        persons = prepared.persons
        per_image = (persons.per_image(keypoints, np.nan), persons.per_image(confidences, 0))
        return [Poses(*each) for each in zip(*per_image, strict=True)]


def count_keypoints(config: str) -> int:
    """Return how many keypoints a pose model has, by its configuration (which is run).

    Raises PipelineError if it is not the configuration of a top-down pose model.
    """
    _require_packages()
    return keypoints_of(read_configuration(find_configuration(config)))


class _Made(NamedTuple):
    network: Any
    config: Any
    meta: dict[str, Any]
    """What the checkpoint says about the data that it was trained on."""


def _make(name: str, checkpoint: str, device: str, models: Any, kind: type) -> _Made:
    """Build a network of a kind, in evaluation mode on a device, with a checkpoint's weights."""
    from mmengine.model.utils import revert_sync_batchnorm
    from mmengine.registry import DefaultScope

    if device == "tensorrt":
        raise PipelineError("backend mm runs on device auto, cpu or cuda; tensorrt is for rtm.")
    target = torch_device(device, "device")
    path = find_configuration(name)
    config = read_configuration(path)
    check_kind(name, config, models, kind)
    if not checkpoint:
        address = published_weights(path)
        raise PipelineError(
            f"there is no checkpoint for {name}, and without its weights the network knows nothing. "
            f"Download {address or 'the one published with it'} and give its path."
        )
    try:
        with DefaultScope.overwrite_default_scope(models.scope):
            network = revert_sync_batchnorm(models.build(config.model))
    except Exception as error:  # a network is what its configuration makes it
        raise PipelineError(
            f"the network of {name} cannot be built: {first_sentence(error)}"
        ) from error
    meta = load_weights(network, Path(checkpoint))
    meta = meta.get("dataset_meta") or meta  # of mmengine; mmcv 1 wrote CLASSES beside the rest
    lower = {key.lower(): value for key, value in meta.items()}
    return _Made(network.to(target).eval(), config, lower)


def _batch(samples: list[dict[str, Any]]) -> dict[str, list]:
    from mmengine.dataset import pseudo_collate

    return pseudo_collate(samples)


def _test_step(network: Any, batch: dict[str, list]) -> list[Any]:
    device = network.data_preprocessor.device
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=device.type == "cuda"):
            return network.test_step(batch)
    except torch.OutOfMemoryError as error:
        raise PipelineError(
            "the GPU's memory is too small for these models. Lower detect.batch_size and "
            "keypoints.batch_size, take smaller models, or run on the CPU: --set detect.device=cpu"
        ) from error


def _score_of_a_sure(head: Any) -> float:
    """What a network that is sure answers; see `models.simcc.confidence`."""
    loss = getattr(head, "loss_module", None)
    return loss.label_beta / loss.beta if getattr(loss, "label_softmax", False) else 1.0
