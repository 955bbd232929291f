"""Checkpoints of OpenMMLab's networks, loaded as data.

A checkpoint is a pickle, which can be a program. It is read by torch's restricted unpickler, which
makes tensors, plain values and what `_harmless` lists, and refuses the rest.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.openmmlab_files import first_sentence
from pipeline.errors import PipelineError

NUMPY_TYPES = "?bhilqBHILQefdU"
"""numpy's codes of the types of arrays that checkpoints hold: yes or no, numbers, text."""


def load_weights(network: nn.Module, path: Path) -> dict[str, Any]:
    """Give a network the weights of a checkpoint; return what else the checkpoint says (its meta).

    Raises PipelineError if the file is missing, cut short, no checkpoint or another network's.
    """
    content = _read_checkpoint(path)
    weights = content.get("state_dict", content)
    if not weights or not all(isinstance(each, torch.Tensor) for each in weights.values()):
        raise PipelineError(f"{path} holds no weights of a network: is it a checkpoint (.pth)?")
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    own = network.state_dict()
    misfits = [
        name
        for name in sorted(own.keys() | weights.keys())
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    ]
    if misfits:
        raise PipelineError(
            f"{path} is the checkpoint of another network: {len(misfits)} weights are missing, too "
            f"many or of another shape, such as {misfits[0]} ({len(own)} are needed). Give the "
            "checkpoint that was published with the configuration."
        )
    network.load_state_dict(weights)
    return content.get("meta") or {}


def _read_checkpoint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PipelineError(f"there is no checkpoint {path.absolute()}")
    try:
        with torch.serialization.safe_globals(_harmless()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        if foreign := re.search(r"unsupported (?:global: )?GLOBAL (\S+)", str(error), re.I):
            raise PipelineError(
                f"{path} holds more than weights ({foreign[1]}), which could run programs, so it is "
                "not loaded. If you trust it, save its weights alone from it: "
                "torch.save({'state_dict': ...}, path)"
            ) from error
        raise PipelineError(
            f"{path} is cut short, or no checkpoint ({first_sentence(error)}). Download it again."
        ) from error
    if not isinstance(content, dict):
        raise PipelineError(f"{path} is no checkpoint: it holds a {type(content).__name__}.")
    return content


class _Log:
    """Takes the place of mmengine's HistoryBuffer, the curves of a training: nobody looks at them.

    The original names functions, which its file then fetches with `getattr`, and registers them.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Forget what was logged."""


def _nothing(*_: object) -> None:
    """Takes the place of the `getattr` that belongs to `_Log`."""


def _harmless() -> list[Any]:
    """What else checkpoints of mmengine may hold, by name: numpy arrays, and logs made of them."""
    dtypes = [type(np.dtype(code)) for code in NUMPY_TYPES]
    makers = {"_reconstruct": np.zeros(1).__reduce__()[0], "scalar": np.float64().__reduce__()[0]}
    # numpy 2 calls by another name what numpy 1 wrote into files
    homes = ("numpy.core.multiarray", "numpy._core.multiarray")
    named = [(maker, f"{home}.{name}") for name, maker in makers.items() for home in homes]
    log = "mmengine.logging.history_buffer.HistoryBuffer"
    return [np.ndarray, np.dtype, *dtypes, *named, (_Log, log), (_nothing, "builtins.getattr")]
