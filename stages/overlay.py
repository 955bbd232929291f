"""Overlay videos: 2D keypoints and the reprojected 3D skeleton, drawn over the footage."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from stages.frames import read_frames

SURE, UNSURE, SKELETON = (80, 220, 80), (60, 60, 230), (255, 200, 0)
"""BGR: keypoints from green (confidence 1) to red (0), the 3D skeleton light blue."""

SAME_BYTES = "threads=1:mbtree=0"
"""The same frames make the same file: more threads, as machines with more cores take, cut frames
differently, and x264's macroblock tree gave other bytes in some runs."""


@dataclass(frozen=True)
class Drawing:
    """What is drawn over one camera's frames."""

    keypoints: Float[np.ndarray, "frame keypoint 2"]
    """px of the upright image."""
    confidence: Float[np.ndarray, "frame keypoint"]
    skeleton: Float[np.ndarray, "frame keypoint 2"]
    """px: the smoothed 3D points, projected into this camera."""
    bones: Int[np.ndarray, "bone 2"]


def write_overlay(
    video: Path, drawing: Drawing, path: Path, rate_hz: float, height_px: int
) -> None:
    """Write an H.264 video with the drawing on it, scaled down to at most `height_px`."""
    with av.open(str(path), "w") as container:
        stream = None
        for index, _, image in read_frames(video):
            if index >= len(drawing.keypoints):
                break
            canvas, scale = _shrunk(image, height_px)
            _draw(canvas, drawing, index, scale)
            if stream is None:
                stream = container.add_stream(
                    "libx264", rate=Fraction(rate_hz).limit_denominator(1001)
                )
                stream.height, stream.width = canvas.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "28", "preset": "veryfast", "x264-params": SAME_BYTES}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(canvas, format="bgr24")))
        if stream is not None:
            container.mux(stream.encode())


def _shrunk(image, height_px):
    """The image at most `height_px` high, with even sides as H.264 needs, and its scale."""
    scale = min(1.0, height_px / image.shape[0])
    width, height = (int(side * scale) // 2 * 2 for side in image.shape[1::-1])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), scale


def _draw(canvas: UInt8[np.ndarray, "h w 3"], drawing: Drawing, index: int, scale: float) -> None:
    thick = max(1, round(canvas.shape[0] / 400))
    skeleton = drawing.skeleton[index] * scale
    for start, end in drawing.bones:
        if np.isfinite(skeleton[[start, end]]).all():
            cv2.line(
                canvas, _pixel(skeleton[start]), _pixel(skeleton[end]), SKELETON, thick, cv2.LINE_AA
            )
    pairs = zip(drawing.keypoints[index] * scale, drawing.confidence[index], strict=True)
    for point, confidence in pairs:
        if np.isfinite(point).all():
            colour = tuple(
                int(confidence * s + (1 - confidence) * u)
                for s, u in zip(SURE, UNSURE, strict=True)
            )
            cv2.circle(canvas, _pixel(point), thick + 1, colour, -1, cv2.LINE_AA)


def _pixel(point) -> tuple[int, int]:
    return tuple(np.clip(np.round(point), -10_000, 10_000).astype(int).tolist())


def bone_indices(
    bones: Sequence[tuple[str, str]], names: Sequence[str]
) -> Int[np.ndarray, "bone 2"]:
    """Bones as pairs of indices into the keypoints' names."""
    position = {name: index for index, name in enumerate(names)}
    return np.array([[position[start], position[end]] for start, end in bones]).reshape(-1, 2)
