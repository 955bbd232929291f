"""Weights as files: safetensors that are checked to the last bit, and say what network they are for.

https://github.com/huggingface/safetensors: tensors and text, nothing that could be run.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from models.networks import NETWORKS
from pipeline.errors import PipelineError
from pipeline.files import replacing

FILE = "model.safetensors"
STORED = torch.float16
"""What numbers of any float type are stored as; the networks calculate in float32."""
CHECKSUM = "sha256"
SHOWN = 3
"""Differences that one message names."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write tensors and what there is to say about them, with a checksum of both."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(plain, {**about, CHECKSUM: _checksum(plain, about)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and what is said about them.

    Raises PipelineError if the file is missing, is not one of `write_tensors`, or was damaged.
    """
    remedy = "Put a good copy in its place, or train anew: pipeline train METHOD --fresh"
    if not path.is_file():
        raise PipelineError(f"there are no weights in {path}: no such file. {remedy}")
    try:
        with safe_open(path, "pt") as opened:
            about = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise PipelineError(
            f"{path} is cut short, or not a safetensors file ({error}). {remedy}"
        ) from error
    if about.pop(CHECKSUM, None) != _checksum(tensors, about):
        raise PipelineError(
            f"{path} was changed after it was written: its checksum is another. {remedy}"
        )
    return tensors, about


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and values, and of the text."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_weights(path: Path, method: str, network: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write a network in half precision, with facts (plain values) about its training.

    Raises PipelineError if a weight is too large for half precision, or not a number.
    """
    tensors = {name: _stored(tensor) for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise PipelineError(
                f"{path} was not written: half precision cannot hold {name}. Train again from the "
                "start with a smaller learning_rate or larger weight_decay."
            )
    about = {
        "method": method,
        "architecture": network.architecture.model_dump_json(),
        "facts": json.dumps(facts),
    }
    write_tensors(path, tensors, about)


def _stored(tensor: Tensor) -> Tensor:
    return tensor.to(STORED) if tensor.is_floating_point() else tensor


def load_weights(path: Path, method: str) -> nn.Module:
    """Make the method's network, as the file says how large, on the CPU in float32.

    Raises PipelineError if the file is missing, damaged, of another method, or does not fit.
    """
    tensors, about = read_tensors(path)
    if about.get("method") != method:
        raise PipelineError(
            f"{path} holds weights of {about.get('method', 'no method')}, not of {method}. "
            f"Give a file that came of: pipeline train {method}"
        )
    network_class, architecture_class = NETWORKS[method]
    try:
        architecture = architecture_class.model_validate_json(about["architecture"])
    except (KeyError, ValidationError) as error:
        raise _unfit(path, method, f"its architecture is unknown: {error}") from error
    with torch.random.fork_rng(devices=[]):  # the first values are drawn, and of no use
        network = network_class(architecture)
    expected = network.state_dict()
    if differences := _differences(tensors, expected):
        raise _unfit(path, method, "; ".join(differences[:SHOWN]))
    network.load_state_dict({name: t.to(expected[name].dtype) for name, t in tensors.items()})
    return network


def _unfit(path: Path, method: str, why: str) -> PipelineError:
    return PipelineError(
        f"{path} does not fit the {method} network of this version: {why}. Train again: pipeline "
        f"train {method}"
    )


def _differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What keeps stored tensors from being a network's: names, shapes, types."""
    missing = [f"{name} is missing" for name in expected if name not in found]
    unknown = [f"{name} is unknown" for name in found if name not in expected]
    kinds = {name: (list(t.shape), _stored(t).dtype) for name, t in expected.items()}
    return [
        *missing,
        *unknown,
        *(
            f"{name} is {list(tensor.shape)} of {tensor.dtype}, expected {shape} of {dtype}"
            for name, tensor in found.items()
            if name in kinds
            for shape, dtype in [kinds[name]]
            if (list(tensor.shape), tensor.dtype) != (shape, dtype)
        ),
    ]


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts that `save_weights` was given. Raises PipelineError as `read_tensors`."""
    return json.loads(read_tensors(path)[1]["facts"])


def shipped_weights(method: str) -> Path | None:
    """Return where the weights are that come with the package, if they do."""
    path = Path(str(resources.files("models"))) / "trained" / method / FILE
    return path if path.is_file() else None
