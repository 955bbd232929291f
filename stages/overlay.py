"""Overlay videos: 2D keypoints, the smoothed skeleton and the fitted model, drawn over the footage."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from calibration import Camera
from models.vocabulary import vocabulary
from pipeline.files import load_dataset
from stages.frames import read_frames
from stages.model_lines import model_lines
from stages.persons import of_subject
from stages.trial import Progress, Trial

SURE, UNSURE, SKELETON, MODEL = (80, 220, 80), (60, 60, 230), (255, 200, 0), (230, 0, 230)
"""BGR: keypoints from green (confidence 1) to red (0), the 3D skeleton light blue, the model magenta."""

SAME_BYTES = "threads=1:mbtree=0"
"""The same frames make the same file: more threads, as machines with more cores take, cut frames
differently, and x264's macroblock tree gave other bytes in some runs."""


@dataclass(frozen=True)
class Lines:
    """A figure of lines, projected into a camera."""

    points: Float[np.ndarray, "frame point 2"]
    """px of the upright image; NaN where unknown."""
    pairs: Int[np.ndarray, "line 2"]
    """Which points a line joins."""
    colour: tuple[int, int, int]
    """BGR."""


@dataclass(frozen=True)
class Drawing:
    """What is drawn over one camera's frames."""

    keypoints: Float[np.ndarray, "frame keypoint 2"]
    """px of the upright image."""
    confidence: Float[np.ndarray, "frame keypoint"]
    figures: Sequence[Lines]
    """From the one below to the one on top."""


def write_overlays(
    trial: Trial, cameras: Sequence[Camera], height_px: int, out: Path, progress: Progress
) -> list[str]:
    """Draw keypoints, skeleton and model over each camera's video; return the files' names."""
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    keypoints = load_dataset(trial.folder("keypoints") / "keypoints.nc")
    synchronized = load_dataset(trial.folder("synchronize") / "keypoints.nc")
    seen = of_subject(keypoints, synchronized.subject.transpose("camera", "frame"))
    points = load_dataset(trial.folder("smooth") / "points.nc").position
    bones = vocabulary(keypoints.attrs["vocabulary"]).bones
    model, joined = model_lines(trial.folder("kinematics"), points.time.values)
    names = []
    for index, camera in enumerate(cameras):
        clock = timeline.frame_time.sel(camera=camera.name).dropna("frame").values
        shift = synchronized.sel(camera=camera.name)
        at = float(shift.clock_offset) + float(shift.clock_rate) * clock
        view = seen.sel(camera=camera.name).isel(frame=slice(len(clock)))
        figures = [
            Lines(
                camera.project(each.transpose("time", "keypoint", "axis").interp(time=at).values),
                bone_indices(pairs, [str(name) for name in each.keypoint.values]),
                colour,
            )
            for each, pairs, colour in ((points, bones, SKELETON), (model, joined, MODEL))
        ]
        drawing = Drawing(view.position.values, view.confidence.values, figures)
        rate = float(timeline["rate_hz"].sel(camera=camera.name))
        names.append(f"overlay_{camera.name}.mp4")
        write_overlay(trial.videos[camera.name], drawing, out / names[-1], rate, height_px)
        progress(index + 1, len(cameras))
    return names


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
    for figure in drawing.figures:
        for line in figure.points[index][figure.pairs] * scale:
            if np.isfinite(line).all():
                cv2.line(canvas, *map(_pixel, line), figure.colour, thick, cv2.LINE_AA)
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
