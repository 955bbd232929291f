"""Checkpoints and ONNX files of OpenMMLab's networks, made without any published checkpoint."""

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.openmmlab_files import find_configuration, package_folder, read_configuration

SPREAD = 0.7
"""Standard deviation of the angles' tangents: how far from the middle of the crop keypoints get."""


def build(configuration: str, scope: str) -> tuple[nn.Module, object]:
    """A network as its package builds it, with the same random weights each time; its configuration."""
    from importlib import import_module

    from mmengine.model.utils import revert_sync_batchnorm
    from mmengine.registry import DefaultScope

    config = read_configuration(find_configuration(configuration))
    models = import_module(f"{scope}.registry").MODELS
    with DefaultScope.overwrite_default_scope(scope), torch.random.fork_rng():
        torch.manual_seed(0)
        network = revert_sync_batchnorm(models.build(config.model))
    return network.eval(), config


def random_checkpoint(path: Path, configuration: str, scope: str) -> Path:
    """Weights as the package draws them."""
    torch.save({"state_dict": build(configuration, scope)[0].state_dict()}, path)
    return path


def looking_once(path: Path, configuration: str) -> Path:
    """A pose model's published configuration, but that it does not look at mirrored persons."""
    base = find_configuration(configuration).relative_to(package_folder("mmpose") / ".mim/configs")
    path.write_text(
        f"_base_ = 'mmpose::{base.as_posix()}'\nmodel = dict(test_cfg=dict(flip_test=False))\n"
    )
    return path


def pointing_checkpoint(path: Path, configuration: Path, crops: torch.Tensor) -> Path:
    """Random weights of a SimCC model that sees something, and whose answers have one maximum.

    The means of its layers are those on the crops. Where a keypoint is along an axis is an angle,
    whose cosine is about 1 and whose sine is a principal component of what the features say about
    the crops: half a wave over the crop, with one highest bin.
    """
    network, _ = build(str(configuration), "mmpose")
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = None  # the mean over all that it sees
            layer.reset_running_stats()
            layer.train()
    features = []
    handle = network.head.cls_x.register_forward_hook(
        lambda _, given, __: features.append(given[0])
    )
    with torch.no_grad():
        network.head(network.extract_feat(crops))
        network.eval()
        network.head(network.extract_feat(crops))
        handle.remove()
        seen = features[-1].flatten(0, 1)
        cosine = _answering_one(seen)
        _, spreads, directions = torch.linalg.svd(seen - seen.mean(0), full_matrices=False)
        for layer, spread, sine in zip(
            (network.head.cls_x, network.head.cls_y), spreads, directions, strict=False
        ):
            sine = sine - (seen @ sine).mean() * cosine
            sine *= SPREAD * len(seen) ** 0.5 / spread
            angles = torch.linspace(-torch.pi / 2, torch.pi / 2, len(layer.weight))[:, None]
            waves = torch.cos(angles) * cosine + torch.sin(angles) * sine
            layer.weight.copy_(waves / (2 * (seen @ waves.T).abs().max()))
    torch.save({"state_dict": network.state_dict()}, path)
    return path


def _answering_one(seen: torch.Tensor) -> torch.Tensor:
    """Weights (feature) that give about 1 for all features (sample, feature) (ridge regression)."""
    moments = seen.T @ seen
    ridge = 1e-2 * moments.diagonal().mean() * torch.eye(len(moments))
    return torch.linalg.solve(moments + ridge, seen.sum(0))


class _Simcc(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network.head(self.network.extract_feat(images))


def export_pose_model(path: Path, configuration: Path, checkpoint: Path) -> Path:
    """The same network as an ONNX file, by torch."""
    network, config = build(str(configuration), "mmpose")
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    width, height = config.codec["input_size"]
    names = ["input", "simcc_x", "simcc_y"]
    torch.onnx.export(
        _Simcc(network), (torch.zeros(1, 3, height, width),), path, dynamo=False,
        input_names=names[:1], output_names=names[1:],
        dynamic_axes={name: {0: "batch"} for name in names},
    )  # fmt: skip
    return path


def checkpoint_of_onnx(path: Path, configuration: str, exported: Path) -> Path:
    """A detector's trained weights, out of an ONNX file in which each convolution holds its norm."""
    network, _ = build(configuration, "mmdet")
    order, layers = [], dict(network.named_modules())
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda *_, name=name: order.append(name))
    with torch.no_grad():
        network.bbox_head(network.extract_feat(torch.zeros(1, 3, 320, 320)))
    graph = onnx.load(exported).graph
    constants = {
        each.name: torch.tensor(onnx.numpy_helper.to_array(each)) for each in graph.initializer
    }
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    weights = network.state_dict()
    for name, node in zip(order, nodes, strict=True):
        weight, bias = (constants[each] for each in node.input[1:])
        weights[f"{name}.weight"] = weight
        if layers[name].bias is not None:
            weights[f"{name}.bias"] = bias
            continue
        norm = f"{name.rpartition('.')[0]}.bn"
        weights[f"{norm}.bias"] = bias
        weights[f"{norm}.running_mean"] = torch.zeros_like(bias)
        weights[f"{norm}.running_var"] = torch.ones_like(bias)
        weights[f"{norm}.weight"] = torch.full_like(bias, np.sqrt(1 + layers[norm].eps))
    torch.save({"state_dict": weights}, path)
    return path
