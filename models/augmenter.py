"""OpenCap's LSTM marker augmenter: video keypoints to anatomical markers.

Uhlrich et al., OpenCap: Human movement dynamics from smartphone videos, PLoS Comput Biol 19(10),
2023; version 0.3: Falisse et al., Marker data enhancement for markerless motion capture, 2024.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.errors import PipelineError

RATE_HZ = 60.0
"""The networks were trained on windows of 60 frames at 60 Hz."""

_SHOULDERS = ("Neck", "RShoulder", "LShoulder")
_RIGHT, _LEFT = ("r_", "L_")

LOWER_FEATURES = (
    *_SHOULDERS, "RHip", "LHip", "RKnee", "LKnee", "RAnkle", "LAnkle", "RHeel", "LHeel",
    "RSmallToe", "LSmallToe", "RBigToe", "LBigToe",
)  # fmt: skip
LOWER_RESPONSES = tuple(f"{name}_study" for name in (
    "r.ASIS", "L.ASIS", "r.PSIS", "L.PSIS",
    "r_knee", "r_mknee", "r_ankle", "r_mankle", "r_toe", "r_5meta", "r_calc",
    "L_knee", "L_mknee", "L_ankle", "L_mankle", "L_toe", "L_calc", "L_5meta",
    "r_shoulder", "L_shoulder", "C7",
    "r_thigh1", "r_thigh2", "r_thigh3", "L_thigh1", "L_thigh2", "L_thigh3",
    "r_sh1", "r_sh2", "r_sh3", "L_sh1", "L_sh2", "L_sh3", "RHJC", "LHJC",
))  # fmt: skip
UPPER_FEATURES = (*_SHOULDERS, "RElbow", "LElbow", "RWrist", "LWrist")
UPPER_RESPONSES = tuple(f"{name}_study" for name in (
    "r_lelbow", "r_melbow", "r_lwrist", "r_mwrist",
    "L_lelbow", "L_melbow", "L_lwrist", "L_mwrist",
))  # fmt: skip
REFERENCE = "midHip"
VIDEO_KEYPOINTS = tuple(dict.fromkeys((*LOWER_FEATURES, *UPPER_FEATURES, REFERENCE)))
"""The 20 keypoints that the augmenter reads."""
MARKERS = LOWER_RESPONSES + UPPER_RESPONSES
"""The 43 anatomical markers that it returns."""

SMALL_TOE = (0.876, 0.086, 0.255)
"""The small toe from the heel, in heel-to-big-toe lengths: forwards, upwards, outwards. The ratios
of the keypoints that OpenCap places on LaiUhlrich2022's foot."""


def small_toe(
    heel: Float[Tensor, "*batch 3"],
    big_toe: Float[Tensor, "*batch 3"],
    ankle: Float[Tensor, "*batch 3"],
    side: str,
) -> Float[Tensor, "*batch 3"]:
    """Place the small toe in the plane of the sole, outwards of the big toe, by `SMALL_TOE`."""
    length = torch.linalg.vector_norm(big_toe - heel, dim=-1, keepdim=True)
    forwards = (big_toe - heel) / length
    upwards = ankle - heel
    upwards = upwards - (upwards * forwards).sum(-1, keepdim=True) * forwards
    upwards = upwards / torch.linalg.vector_norm(upwards, dim=-1, keepdim=True)
    outwards = torch.linalg.cross(forwards, upwards) * (1 if side == "R" else -1)
    along, up, out = SMALL_TOE
    return heel + length * (along * forwards + up * upwards + out * outwards)


class Augmenter(nn.Module):
    """Stacked LSTMs over time and a linear read-out: one network, for the body or for the arms."""

    def __init__(self, features: int, responses: int, layers: int, units: int = 128):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.lstm = nn.LSTM(features, units, layers, batch_first=True)
        self.read_out = nn.Linear(units, responses)

    def forward(
        self,
        keypoints: Float[Tensor, "batch time keypoint 3"],
        reference: Float[Tensor, "batch time 3"],
        height_m: float,
        mass_kg: float,
    ) -> Float[Tensor, "batch time marker 3"]:
        """Return markers, m, from keypoints, m; Y up, heading along +X, sampled at 60 Hz.

        Positions are relative to the mid-hip and divided by body height; height and mass are the
        last two features.
        """
        batch, time = keypoints.shape[:2]
        relative = (keypoints - reference[:, :, None]) / height_m
        body = torch.tensor([height_m, mass_kg], dtype=relative.dtype, device=relative.device)
        features = torch.cat([relative.flatten(2), body.expand(batch, time, 2)], dim=-1)
        hidden, _ = self.lstm((features - self.mean) / self.std)  # (batch, time, units)
        markers = self.read_out(hidden).reshape(batch, time, -1, 3)
        return markers * height_m + reference[:, :, None]


def load_augmenter(folder: Path) -> Augmenter:
    """Load one published network: `model.onnx`, `mean.npy`, `std.npy`.

    The ONNX file is read for its numbers only, nothing in it is run: for each LSTM layer an input
    kernel (in, 4 units), a recurrent kernel and a bias, gates in Keras's order (input, forget,
    cell, output), which is torch's too; and a dense kernel and bias.
    """
    import onnx  # slow to import, and only needed here

    try:
        graph = onnx.load(str(folder / "model.onnx")).graph
        mean = np.load(folder / "mean.npy", allow_pickle=False)
        std = np.load(folder / "std.npy", allow_pickle=False)
    except Exception as error:  # onnx and numpy raise many kinds for a bad file
        raise PipelineError(
            f"cannot read the augmenter weights in {folder}: {error}. "
            "Fetch them again: pipeline models fetch augmenter-v0.3"
        ) from error
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    prefix = "Func/StatefulPartitionedCall/input/_"
    layers = [
        weights[f"{prefix}{n}:0"] for n in range(1, 1 + sum(k.startswith(prefix) for k in weights))
    ]
    kernel, bias = _read_out(weights, layers[1].shape[0])
    network = Augmenter(len(mean), len(bias), len(layers) // 3)
    state = {"mean": mean, "std": std, "read_out.weight": kernel.T, "read_out.bias": bias}
    for index in range(len(layers) // 3):
        state[f"lstm.weight_ih_l{index}"] = layers[3 * index].T
        state[f"lstm.weight_hh_l{index}"] = layers[3 * index + 1].T
        state[f"lstm.bias_ih_l{index}"] = layers[3 * index + 2]
        state[f"lstm.bias_hh_l{index}"] = np.zeros_like(layers[3 * index + 2])
    try:
        network.load_state_dict(
            {name: torch.from_numpy(np.array(value, np.float32)) for name, value in state.items()}
        )
    except RuntimeError as error:
        raise PipelineError(
            f"{folder} does not hold an OpenCap marker augmenter: {error}"
        ) from error
    return network.eval()


def _read_out(weights, units):
    """Find the dense layer by its shape: (units, responses) and (responses,)."""
    dense = {name: value for name, value in weights.items() if "ReadVariableOp" in name}
    kernels = [value for value in dense.values() if value.ndim == 2 and value.shape[0] == units]
    biases = [value for value in dense.values() if value.ndim == 1]
    if len(kernels) != 1 or len(biases) != 1:
        raise PipelineError("the augmenter's ONNX file has no single read-out layer")
    return kernels[0], biases[0]
