"""What a video's container and first frame say, without decoding the rest."""

from dataclasses import dataclass
from pathlib import Path

import av

from pipeline.errors import PipelineError
from stages.frames import read_frames


@dataclass(frozen=True)
class VideoFacts:
    """Of one video, as its header states them: quick, and not always exact."""

    width: int
    height: int
    """px, upright."""
    rate_hz: float
    """Mean frames per second."""
    frames: int
    """0 if the header does not say."""
    duration_s: float
    """0 if the header does not say."""


def video_facts(video: Path) -> VideoFacts:
    """Read a video's header and first frame.

    Raises PipelineError if it is missing, damaged, or no video.
    """
    first = next(read_frames(video), None)
    if first is None:
        raise PipelineError(f"{video} has no frame that can be read. Export or copy it again.")
    height, width = first[2].shape[:2]
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        rate_hz = float(stream.average_rate or 0)
        if stream.duration is not None:
            duration_s = float(stream.duration * stream.time_base)
        else:
            duration_s = (container.duration or 0) / av.time_base
        frames = stream.frames or round(duration_s * rate_hz)
    return VideoFacts(width, height, rate_hz, frames, duration_s)
