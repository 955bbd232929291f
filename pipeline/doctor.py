"""Checks of the installation: what is missing, and how to get it."""

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from models import openmmlab
from models.assets import is_present, list_assets
from models.choice import choose, missing_packages, summary
from models.onnx_runtime import available_devices
from stages.detect import Settings

FETCH = "pipeline models fetch --quality balanced"


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    subject: str
    verdict: str
    """`ok`, `missing` (the pipeline cannot run) or `optional`."""
    detail: str


def examine() -> list[Finding]:
    """Look at Python, the packages that fail most often, video codecs, models and GPU."""
    return [
        _python(),
        _attempt("OpenSim", _opensim, "pip install opensim (needs Python 3.11 or 3.12, 64 bit)"),
        _attempt("BlazePose", _litert, "pip install ai-edge-litert"),
        _onnx_runtime(),
        *_openmmlab(),
        _models(),
        _attempt("video decoding", _decoders, "pip install --force-reinstall av"),
        _attempt("overlay videos", _encoder, "pip install --force-reinstall av"),
        _attempt("OpenCV", _opencv, "pip install opencv-python (on Linux: apt install libgl1)"),
        _gpu(),
        _attempt("pip", _pip, "python -m ensurepip (pip fetches the model files)"),
        *(_asset(each.name) for each in list_assets() if not each.model or is_present(each.name)),
    ]


def _python() -> Finding:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 12)
    detail = f"{platform.python_version()} on {platform.platform()}"
    return Finding(
        "Python",
        "ok" if supported else "missing",
        detail if supported else f"{detail}. Install Python 3.11 or 3.12.",
    )


def _attempt(subject: str, check: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(subject, "ok", check())
    except Exception as error:  # whatever a broken installation raises is the finding
        return Finding(subject, "missing", f"{type(error).__name__}: {error}. Try: {remedy}")


def _opensim() -> str:
    import opensim

    return opensim.GetVersion()


def _litert() -> str:
    from ai_edge_litert import interpreter

    return f"LiteRT with {interpreter.Interpreter.__name__}"


def _onnx_runtime() -> Finding:
    subject = "ONNX Runtime"
    if lacking := missing_packages("rtm"):
        return Finding(subject, "optional", f"{lacking}. Then: {FETCH}")
    try:
        import onnxruntime

        devices = available_devices()
    except Exception as error:  # whatever a broken installation raises is the finding
        again = "pip install --force-reinstall onnxruntime"
        return Finding(subject, "optional", f"{type(error).__name__}: {error}. Try: {again}")
    return Finding(subject, "ok", f"{onnxruntime.__version__} on {', '.join(devices)}")


def _openmmlab() -> list[Finding]:
    """One finding if all of OpenMMLab's packages are there, or none; else one for each missing."""
    lacking = openmmlab.missing_packages()
    if {"mmengine", "mmcv", "mmdet", "mmpose"} <= {each.name for each in lacking}:
        return [Finding("OpenMMLab", "optional", "not installed: docs/keypoints.md says how")]
    if not lacking:
        versions = (f"{name} {version(name)}" for name in ("mmdet", "mmpose", "mmengine"))
        return [Finding("OpenMMLab", "ok", ", ".join(versions))]
    return [
        Finding(
            f"OpenMMLab: {each.name}", "optional", f"not installed ({each.why}): {each.command}"
        )
        for each in lacking
    ]


def _models() -> Finding:
    """The detector and the pose model that a run takes if nobody asks for others."""
    choice = choose(Settings())
    better = f". Better ones: {FETCH}" if choice.backend == "blazepose" else ""
    return Finding("2D keypoints", "ok", f"{summary(choice)}{better}")


def _opencv() -> str:
    import cv2

    return cv2.__version__


def _decoders() -> str:
    import av

    wanted = ("h264", "hevc", "vp9", "mjpeg", "mpeg4")
    if lacking := [name for name in wanted if name not in av.codecs_available]:
        raise RuntimeError(f"PyAV lacks the decoders {', '.join(lacking)}")
    return f"PyAV {av.__version__} reads {', '.join(wanted)}"


def _encoder() -> str:
    import av

    av.Codec("libx264", "w")
    return "H.264 through libx264"


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", "ok", torch.cuda.get_device_name())
    return Finding("GPU", "optional", "none that torch can use: everything runs on the CPU")


def _pip() -> str:
    import pip

    return pip.__version__


def _asset(name: str) -> Finding:
    if is_present(name):
        return Finding(name, "ok", "cached")
    detail = f"not cached: fetched when needed, or now by: pipeline models fetch {name}"
    return Finding(name, "optional", detail)
