"""Configurations of OpenMMLab's networks, which are programs.

Reading a configuration runs the Python that is in it, and imports what it asks for. Use those that
come with mmdet and mmpose, and else only those of people whose programs you would run.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import PipelineError


def package_folder(package: str) -> Path | None:
    """Where an installed package is, without importing it; None if it is not installed."""
    spec = find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec else None


@cache
def published_configurations() -> dict[str, Path]:
    """The configurations that come with mmdet and mmpose, by name (of the file, without .py)."""
    found: dict[str, Path] = {}
    for package, folders in {"mmpose": ("configs", "demo"), "mmdet": ("configs",)}.items():
        for folder in folders:
            files = (package_folder(package) / ".mim" / folder).rglob("*.py")
            found |= {path.stem: path for path in sorted(files) if "_base_" not in path.parts}
    return found


def find_configuration(name: str) -> Path:
    """Return the configuration of a name, or at a path (ending in .py).

    Raises PipelineError if there is none, with similar names.
    """
    if Path(name).suffix == ".py":
        if Path(name).is_file():
            return Path(name)
        raise PipelineError(f"there is no configuration {Path(name).absolute()}")
    known = published_configurations()
    if name not in known:
        raise PipelineError(
            f"neither mmdet nor mmpose has a configuration '{name}'. Give the path of a file ending "
            f"in .py, or one of their names, such as {', '.join(_similar(name, known))}."
        )
    return known[name]


def _similar(name: str, known: Iterable[str]) -> list[str]:
    """Names to suggest: those that hold the wrong one, however it is hyphenated, or look like it."""
    holding = [each for each in known if name.replace("-", "_") in each.replace("-", "_")]
    return holding[:3] or get_close_matches(name, known, n=3, cutoff=0)


def read_configuration(path: Path) -> Any:
    """Run a configuration; return what it says, an `mmengine.Config`.

    Raises PipelineError if it fails, or does not describe a network and how to test it.
    """
    from mmengine.config import Config

    try:
        config = Config.fromfile(path)
    except Exception as error:  # a program may raise anything
        raise PipelineError(
            f"{path} is no configuration that OpenMMLab can read: {first_sentence(error)}"
        ) from error
    if lacking := [
        key for key in ("model", "test_dataloader") if not isinstance(config.get(key), dict)
    ]:
        raise PipelineError(
            f"{path} says nothing about {' and '.join(lacking)}, so it is no complete configuration "
            "of a network for mmdet 3 or mmpose 1. Give the one that the network was trained with."
        )
    return config


def published_weights(configuration: Path) -> str:
    """Address of the checkpoint published with a configuration; empty if its folder names none."""
    for metafile in configuration.parent.glob("*.yml"):
        for model in yaml.safe_load(metafile.read_text(encoding="utf-8")).get("Models", ()):
            if Path(model.get("Config", "")).name == configuration.name:
                return model.get("Weights", "")
    return ""


def check_kind(name: str, config: Any, models: Any, kind: type) -> None:
    """Raise PipelineError if a configuration is not that of a kind of network."""
    asked = config.model.get("type")
    found = models.get(asked) if isinstance(asked, str) else asked
    if not (isinstance(found, type) and issubclass(found, kind)):
        wanted = {"mmdet": "detector of mmdet", "mmpose": "top-down pose model of mmpose"}
        raise PipelineError(
            f"{name} is the configuration of a {getattr(asked, '__name__', asked)}, but a "
            f"{wanted[models.scope]} is needed."
        )


def image_pipeline(config: Any, scope: str, loader: str) -> Any:
    """The configuration's test pipeline, for images that are in memory: `loader` instead of its own.

    Raises PipelineError if there is none, or one that cannot be built.
    """
    from mmdet.utils import get_test_pipeline_cfg
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope

    try:
        steps = get_test_pipeline_cfg(config)
        steps[0] = {"type": loader}
        with DefaultScope.overwrite_default_scope(scope):
            return Compose(steps)
    except Exception as error:  # steps are what the configuration makes them
        raise PipelineError(
            f"the test pipeline of {config.filename} cannot be built: {first_sentence(error)}"
        ) from error


def classes_of(config: Any, datasets: Any) -> tuple[str, ...]:
    """What a detector finds, by the data that its configuration tests it on."""
    dataset = config.test_dataloader.dataset
    while inner := dataset.get("datasets") or dataset.get("dataset"):
        dataset = inner[0] if isinstance(inner, list) else inner
    known = getattr(datasets.get(dataset.type), "METAINFO", {}) | dataset.get("metainfo", {})
    classes = known.get("classes", ())
    return (classes,) if isinstance(classes, str) else tuple(classes)


def about_keypoints(config: Any) -> dict[str, Any]:
    """What mmpose wants to know about keypoints, such as pairs: of the training data's."""
    from mmpose.datasets.datasets.utils import parse_pose_metainfo
    from mmpose.registry import DATASETS

    dataset = config.get("train_dataloader", config.test_dataloader).dataset
    return parse_pose_metainfo(dataset.get("metainfo") or DATASETS.get(dataset.type).METAINFO)


def keypoints_of(config: Any) -> int:
    """How many keypoints a pose model gives a person.

    Raises PipelineError if that is not said, as by what is no top-down pose model.
    """
    chosen = config.model.get("test_cfg", {}).get("output_keypoint_indices")
    head = config.model.get("head", {})
    head = head.get("pose_cfg", head)
    count = len(chosen) if chosen else head.get("out_channels", head.get("num_joints"))
    if not count:
        raise PipelineError(
            f"{config.filename} does not say how many keypoints its network has, so it is no "
            "top-down pose model of mmpose."
        )
    return count


def first_sentence(error: Exception) -> str:
    """What an error of another package says, short enough for a message of ours."""
    text = str(error).strip().partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
