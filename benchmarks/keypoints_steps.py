"""Where the time of finding keypoints goes, in one process: steps in turn, overlapped, whole stages.

Run by `benchmarks.keypoints`, as a process of its own for every backend and every repeat:

    PYTHON -m benchmarks.keypoints_steps '{"task": "steps" or "stages", ...}'

It prints one line of JSON. Wall times hold what other programs took; CPU times, of all threads of the
process, do not.
"""

import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

from models.backends import Detector, PoseEstimator
from models.blazepose import BlazePoseDetector, BlazePoseEstimator
from models.people import Detections
from pipeline.demo import build_demo
from pipeline.files import load_dataset
from pipeline.session import open_session
from stages import detect, frames, keypoints
from stages.detect import batches
from stages.frames import read_frames
from stages.trial import Trial, no_progress

EVERY = 4
"""Frames from one that the detector looks at to the next: the pipeline's default."""
WARM_UP = 4
"""Frames that are looked at before the clock starts: first runs allocate."""


class Clock:
    """Seconds, wall and CPU, by step."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = defaultdict(float)
        self.cpu_s: dict[str, float] = defaultdict(float)

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        """Add what is done inside to a step."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s[step] += time.perf_counter() - wall
        self.cpu_s[step] += time.process_time() - cpu


def made(task: dict) -> tuple[Detector, PoseEstimator]:
    """The models of a backend, with so many threads of the CPU: torch's are set from outside."""
    detector, pose, device, threads = (
        task[each] for each in ("detector", "pose_model", "device", "threads")
    )
    if task["backend"] == "blazepose":
        return BlazePoseDetector(threads), BlazePoseEstimator(threads)
    if task["backend"] == "rtm":
        from models.rtm import RtmDetector, RtmPoseEstimator

        return (
            RtmDetector(Path(detector), device, threads),
            RtmPoseEstimator(Path(pose), device, threads),
        )
    from models.openmmlab import MmDetector, MmPoseEstimator

    weights = task["detector_weights"], task["pose_weights"]
    return MmDetector(detector, weights[0], device), MmPoseEstimator(pose, weights[1], device)


def detected(video: Path, detector: Detector, batch_size: int, clock: Clock) -> list[Detections]:
    """Detect step after step, in every 4th frame; return the best person of each frame.

    Those between have the box of the frame before; without a person it is the middle of the image.
    A network with random weights may find nobody, and a pose network takes as long anywhere.
    """
    persons = []
    for images in decoded(video, batch_size, clock, EVERY):
        with clock.of("detector: prepare"):
            prepared = detector.prepare(images)
        with clock.of("detector: infer"):
            outputs = detector.infer(prepared)
        with clock.of("detector: read"):
            found = detector.read(prepared, outputs)
        for image, each in zip(images, found, strict=True):
            height, width = image.shape[:2]
            middle = Detections(
                np.array([[0.25 * width, 0.1 * height, 0.75 * width, 0.9 * height]]),
                np.zeros(1), np.ones(1),
            )  # fmt: skip
            best = Detections(each.boxes[:1], each.rotations[:1], each.scores[:1])
            persons += [best if len(each.scores) else middle] * EVERY
    return persons


def decoded(
    video: Path, batch_size: int, clock: Clock, every: int = 1
) -> Iterator[list[np.ndarray]]:
    """The images of every n-th frame of a video, in batches."""
    reading = batches(read_frames(video, range(0, sys.maxsize, every)), batch_size)
    while True:
        with clock.of("decode"):
            batch = next(reading, None)
        if batch is None:
            return
        yield [image for _, _, image in batch]


def posed(
    video: Path, persons: list[Detections], pose: PoseEstimator, batch_size: int, clock: Clock
) -> int:
    """What the keypoints stage does, one step after the other; return the number of frames."""
    done = 0
    for images in decoded(video, batch_size, clock):
        regions = persons[done : done + len(images)]
        done += len(images)
        with clock.of("prepare"):
            prepared = pose.prepare(images, regions)
        with clock.of("infer"):
            outputs = pose.infer(prepared)
        with clock.of("read"):
            pose.read(prepared, outputs)
    return done


def labelled(persons: list[Detections], camera: str) -> xr.Dataset:
    """One camera's persons as the detect stage writes them."""
    dims = ("frame", "person")
    return xr.Dataset(
        {
            "box": ((*dims, "corner"), np.stack([each.boxes for each in persons])),
            "rotation": (dims, np.stack([each.rotations for each in persons])),
            "score": (dims, np.stack([each.scores for each in persons])),
        },
        coords={"camera": camera},
    )


def steps(trial: Trial, task: dict) -> dict:
    """Times of the demo's frames: steps in turn, and the stage, by batch size."""
    detector, pose = made(task)
    videos = list(trial.videos.values())
    images = [each for (_, _, each), _ in zip(read_frames(videos[0]), range(WARM_UP), strict=False)]
    boxes = detector.read(prepared := detector.prepare(images), detector.infer(prepared))
    pose.infer(pose.prepare(images, boxes))
    detection = Clock()
    persons = [detected(each, detector, max(task["batch_sizes"]), detection) for each in videos]
    found = {"detection": vars(detection), "batches": {}}
    for size in task["batch_sizes"]:
        turn, stage, done = Clock(), Clock(), 0
        for video, of_video in zip(videos, persons, strict=True):
            count = posed(video, of_video, pose, size, turn)
            boxes = labelled(of_video[:count], video.stem)
            with stage.of("stage"):
                keypoints.find_keypoints(
                    video, boxes, pose, keypoints.Settings(batch_size=size), no_progress
                )
            done += count
        found |= {"frames": done, "looks": math.ceil(done / EVERY)}
        found["batches"][size] = {"in turn": vars(turn), "stage": vars(stage)}
    return found


def stages(trial: Trial, task: dict) -> dict:
    """Times of the detect and keypoints stages, their loading of models and writing of files too."""
    frames.run(trial, frames.Settings(), made_folder(trial, "frames"), no_progress)
    settings = detect.Settings(**task["settings"])
    clock = Clock()
    with clock.of("detect"):
        detect.run(trial, settings, made_folder(trial, "detect"), no_progress)
    with clock.of("keypoints"):
        out = made_folder(trial, "keypoints")
        keypoints.run(trial, keypoints.Settings(), out, no_progress)
    boxes = load_dataset(trial.folder("detect") / "detections.nc").box
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    number = int(timeline.frame_time.notnull().sum())
    crops = int(boxes.notnull().all("corner").sum())
    return {"frames": number, "crops": crops, **vars(clock)}


def made_folder(trial: Trial, stage: str) -> Path:
    """The folder of a stage's results."""
    folder = trial.folder(stage)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    """Do what the argument asks for, with the demo in a temporary folder."""
    task = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        (trial,) = open_session(build_demo(Path(scratch))).trials()
        found = {"steps": steps, "stages": stages}[task["task"]](trial, task)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
