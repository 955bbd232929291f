"""Frames: when each camera took its frames, on its own clock, by its video's true timestamps."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import xarray as xr
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, Field

from calibration import read_cameras
from pipeline.errors import PipelineError
from pipeline.files import replacing_folder, save_dataset
from stages.poses import clocks, frame_numbers
from stages.trial import Progress, Trial

NEEDS = ()

Image = UInt8[np.ndarray, "height width 3"]

TURNS = {
    90: cv2.ROTATE_90_CLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
"""By degrees clockwise."""


class Settings(BaseModel):
    """Options of reading frames."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_hz: float | None = Field(None, gt=0, le=2000)
    """Samples per second of the common timeline; the fastest cameras' rate if not given."""


@dataclass(frozen=True)
class VideoInfo:
    """What a camera filmed, found by decoding its video, or from keypoints brought without one."""

    width: int
    height: int
    """px, upright: after the rotation that the file asks for."""
    rotation_deg: int
    """How far players turn this video clockwise to show it upright."""
    promised_frames: int
    """As the file's header says; 0 if it does not."""
    frame_time: Float[np.ndarray, "frame"]
    """s on the camera's own clock, of every frame that could be decoded. A video's first is at 0."""
    stated_rate_hz: float | None = None
    """As the session says; None for a video, whose timestamps tell."""

    @property
    def rate_hz(self) -> float:
        """Frames per second: the inverse of the mean interval, dropped frames left out.

        Not of the median one: some containers round each time to a millisecond.
        """
        if self.stated_rate_hz:
            return self.stated_rate_hz
        intervals = np.diff(self.frame_time)
        return float(1 / intervals[intervals < 1.5 * np.median(intervals)].mean())


def read_frames(
    video: Path, only: Collection[int] | None = None
) -> Iterator[tuple[int, float, Image]]:
    """Yield index, seconds after the first frame, and the upright BGR image of every frame.

    Or of those only whose indices are asked for. Streams: memory does not grow with the video's
    length. Ends where the video is damaged.

    Raises PipelineError if the file is missing or no video at all.
    """
    for index, seconds, frame in _decode(video):
        if only is not None and index not in only:
            continue
        image = frame.to_ndarray(format="bgr24")
        if turn := _rotation_deg(frame):
            image = cv2.rotate(image, TURNS[turn])
        yield index, seconds, image


def probe(video: Path, progress: Progress) -> VideoInfo:
    """Decode a whole video for its timestamps and size.

    Raises PipelineError if it holds fewer than two frames.
    """
    times, first, promised = [], None, 0
    with _opened(video) as container:
        promised = container.streams.video[0].frames
    for index, seconds, frame in _decode(video):
        first = first or frame
        times.append(seconds)
        progress(index + 1, max(promised, index + 1))
    if len(times) < 2:
        raise PipelineError(f"{video} holds {len(times)} readable frames. Export or copy it again.")
    rotation = _rotation_deg(first)
    size = (first.width, first.height) if rotation % 180 == 0 else (first.height, first.width)
    return VideoInfo(*size, rotation, promised, np.array(times))


def _opened(video: Path):
    if not video.is_file():
        raise PipelineError(f"there is no video {video}")
    try:
        container = av.open(str(video))
    except (av.FFmpegError, OSError) as error:
        raise PipelineError(
            f"cannot read {video}: {error.strerror or error}. It is damaged or cut short, or no "
            "video: copy it from the camera again, or convert it to MP4 (H.264)."
        ) from error
    if not container.streams.video:
        container.close()
        raise PipelineError(f"{video} has no picture in it")
    return container


def _decode(video: Path):
    with _opened(video) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        start = None
        frames = container.decode(stream)
        index = 0
        while True:
            try:
                frame = next(frames)
            except (StopIteration, av.FFmpegError):  # damaged from here: `notices` tell how much
                return
            if frame.pts is None:
                continue
            if start is None:
                _check_not_mirrored(frame, video)
            seconds = float(frame.pts * frame.time_base)
            start = seconds if start is None else start
            yield index, seconds - start, frame
            index += 1


def _check_not_mirrored(frame: av.VideoFrame, video: Path) -> None:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return
    turn = np.frombuffer(bytes(matrix), "<i4").reshape(3, 3)[:2, :2]
    if np.linalg.det(turn) < 0:
        raise PipelineError(
            f"{video} is to be shown mirrored, as some front cameras ask: left and right would be "
            "swapped. Export it without mirroring, or film with the back camera."
        )


def _rotation_deg(frame: av.VideoFrame) -> int:
    """Clockwise turn to show a frame upright: 0, 90, 180 or 270."""
    return round(-frame.rotation / 90) * 90 % 360


def probe_videos(trial: Trial, progress: Progress) -> dict[str, VideoInfo]:
    """Decode the video of each camera.

    Raises PipelineError if keypoints are brought of frames that a video does not have.
    """
    infos = {}
    for index, name in enumerate(trial.cameras):
        infos[name] = probe(
            trial.videos[name],
            lambda done, total, index=index: progress(
                index * total + done, len(trial.videos) * total
            ),
        )
    for name, folder in trial.poses.items():
        last, frames = max(frame_numbers(folder)), len(infos[name].frame_time)
        if last >= frames:
            raise PipelineError(
                f"camera {name}: {folder} has keypoints of frame {last}, but {trial.videos[name]} has "
                f"frames 0 to {frames - 1}. Number the JSON files as the video's frames, from 0, or "
                "remove the videos and give rate_hz in session.toml."
            )
    return infos


def numbered_frames(trial: Trial) -> dict[str, VideoInfo]:
    """Frame times from the numbers of JSON files, and image sizes from the calibration."""
    cameras, _ = read_cameras(trial.calibration, trial.cameras)
    times = clocks(trial)
    return {
        camera.name: VideoInfo(
            *camera.image_size, 0, 0, times[camera.name], trial.rate_hz[camera.name]
        )
        for camera in cameras
    }


def common_rate_hz(rates_hz: Sequence[float]) -> float:
    """Rate of the fastest camera; the middle one of those within 1 % of it."""
    rates = np.array(rates_hz)
    return float(np.median(rates[rates > 0.99 * rates.max()]))


def notices_about(infos: dict[str, VideoInfo], rate_hz: float) -> list[str]:
    """What the user should know about these videos.

    Raises PipelineError for a video of which less than half could be read.
    """
    notices = []
    for name, info in infos.items():
        readable = len(info.frame_time)
        if readable < 0.5 * info.promised_frames:
            raise PipelineError(
                f"camera {name}: only {readable} of {info.promised_frames} frames can be read: its "
                "video is damaged or cut short. Copy it from the camera again."
            )
        intervals = np.diff(info.frame_time) * info.rate_hz
        filmed = readable + int(
            (intervals.round() - 1).clip(0).sum()
        )  # some headers count lost ones
        if filmed < info.promised_frames - 1:
            notices.append(
                f"camera {name}: {readable} of {info.promised_frames} frames can be read; its video "
                "is damaged or cut short."
            )
        if dropped := int((intervals > 1.5).sum()):
            notices.append(f"camera {name}: {dropped} gaps of dropped frames.")
        elif np.abs(intervals - 1).max() > 0.2:
            notices.append(f"camera {name}: frames at irregular times (variable frame rate).")
        if abs(info.rate_hz / rate_hz - 1) > 0.01:
            notices.append(
                f"camera {name} films at {info.rate_hz:.2f} Hz, the timeline has {rate_hz:.2f} Hz: "
                "its keypoints are interpolated."
            )
    return notices


def as_dataset(infos: dict[str, VideoInfo], rate_hz: float) -> xr.Dataset:
    """Label the frame times of all cameras; `rate_hz` is that of the timeline to be."""
    longest = max(len(info.frame_time) for info in infos.values())
    padded = [
        np.pad(info.frame_time, (0, longest - len(info.frame_time)), constant_values=np.nan)
        for info in infos.values()
    ]
    each = infos.values()
    return xr.Dataset(
        {
            "frame_time": (("camera", "frame"), np.stack(padded), {"units": "s"}),
            "width": ("camera", [info.width for info in each], {"units": "px"}),
            "height": ("camera", [info.height for info in each], {"units": "px"}),
            "rotation_deg": ("camera", [info.rotation_deg for info in each], {"units": "deg"}),
            "rate_hz": ("camera", [info.rate_hz for info in each], {"units": "Hz"}),
        },
        coords={"camera": list(infos)},
        attrs={"rate_hz": rate_hz},
    )


def image_sizes(timeline: xr.Dataset) -> dict[str, tuple[int, int]]:
    """Width and height (px, upright) by camera, from the dataset that this stage writes."""
    each = zip(timeline.camera.values, timeline.width.values, timeline.height.values, strict=True)
    return {str(name): (int(width), int(height)) for name, width, height in each}


def dump_frames(trial: Trial, progress: Progress) -> Path:
    """Write every frame as `images/CAMERA/000000.jpg`, counted from 0; return the folder.

    Raises PipelineError if the trial has no videos.
    """
    if not trial.videos:
        raise PipelineError(f"trial {trial.name} has keypoints only: no videos to write frames of.")
    folder = trial.results / "images"
    for done, (name, video) in enumerate(trial.videos.items(), start=1):
        with replacing_folder(folder / name) as images:
            for index, _, image in read_frames(video):
                _, encoded = cv2.imencode(".jpg", image)
                (images / f"{index:06d}.jpg").write_bytes(encoded)
        progress(done, len(trial.videos))
    return folder


def inputs(trial: Trial, settings: Settings) -> dict[str, object]:
    """Return what the result depends on besides other stages."""
    found = {"videos": trial.videos, "poses": trial.poses}
    if not trial.videos:
        found |= {"rate_hz": trial.rate_hz, "calibration": trial.calibration}
    return found


def run(trial: Trial, settings: Settings, out: Path, progress: Progress) -> list[str]:
    """Find the frame times of one trial and write `timeline.nc`."""
    if len(trial.cameras) < 2:
        raise PipelineError(
            f"trial {trial.name} has one camera ({', '.join(trial.cameras)}): depth needs two cameras "
            "at least. Expected videos/TRIAL/CAMERA.mp4 or pose/TRIAL/CAMERA_json of each."
        )
    infos = probe_videos(trial, progress) if trial.videos else numbered_frames(trial)
    rate_hz = settings.rate_hz or common_rate_hz([info.rate_hz for info in infos.values()])
    notices = notices_about(infos, rate_hz)
    save_dataset(as_dataset(infos, rate_hz), out / "timeline.nc")
    return notices
