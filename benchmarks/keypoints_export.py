"""Write networks of OpenMMLab's with random weights: for measuring speed alone.

    PYTHON keypoints_export.py FOLDER DETECTOR POSE_MODEL ...

By the names of their configurations: a checkpoint NAME.pth of each, and of the pose models also
NAME.onnx. Run by `benchmarks.keypoints` in a Python that has mmdet and mmpose; imports nothing of this
project. A network takes the same time whatever its weights.
"""

import sys
from pathlib import Path

import mmpose
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpose.registry import MODELS


class Distributions(torch.nn.Module):
    """What deployments of a SimCC model hold: images in, distributions over x and y out."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, images):
        """Return the distributions (image, keypoint, bin) over x and over y."""
        return self.head(self.backbone(images))


def built(name: str, scope: str) -> tuple[torch.nn.Module, Config]:
    """A network of those that come with mmpose, and its configuration."""
    paths = (Path(mmpose.__file__).parent / ".mim").rglob(f"{name}.py")
    config = Config.fromfile(next(paths))
    config.model.backbone.pop("init_cfg", None)  # published weights, which are not needed
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(config.model)
        model.init_weights()
    return model.eval(), config


def save(model: torch.nn.Module, path: Path) -> None:
    """Write a checkpoint."""
    torch.save({"state_dict": model.state_dict()}, path)


def export(model: torch.nn.Module, image_size: tuple[int, int], path: Path) -> None:
    """Write a pose network for any number of images (width, height) at once, as mmdeploy does."""
    width, height = image_size
    any_number = {0: "batch"}
    torch.onnx.export(
        Distributions(model), torch.zeros(1, 3, height, width), str(path), dynamo=False,
        opset_version=17, input_names=["input"], output_names=["simcc_x", "simcc_y"],
        dynamic_axes={each: any_number for each in ("input", "simcc_x", "simcc_y")},
    )  # fmt: skip


def main() -> None:
    """Write what the arguments name."""
    folder, detector, *pose_models = sys.argv[1:]
    save(built(detector, "mmdet")[0], Path(folder) / f"{detector}.pth")
    for name in pose_models:
        model, config = built(name, "mmpose")
        save(model, Path(folder) / f"{name}.pth")
        export(model, config.codec.input_size, Path(folder) / f"{name}.onnx")


if __name__ == "__main__":
    main()
