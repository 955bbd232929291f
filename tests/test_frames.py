from fractions import Fraction

import av
import numpy as np
import pytest

from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from stages.frames import (
    Settings,
    VideoInfo,
    common_rate_hz,
    dump_frames,
    notices_about,
    probe,
    read_frames,
    run,
)
from stages.trial import Trial, no_progress


def write_video(path, times, size=(96, 64), codec="libx264", shade=None, rate=60):
    """A video whose frame i has its own shade of grey, shown at times[i] seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p" if codec != "mjpeg" else "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        for index, time in enumerate(times):
            level = shade[index] if shade is not None else (index * 5) % 250
            image = np.full((size[1], size[0], 3), level, np.uint8)
            image[: size[1] // 4, : size[0] // 4] = [0, 0, 255]  # red corner at the upper left
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.time_base, frame.pts = Fraction(1, 90_000), round(time * 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def regular(count, rate=60.0):
    return np.arange(count) / rate


@pytest.mark.parametrize(
    "suffix, codec", [(".mp4", "libx264"), (".avi", "mjpeg"), (".mkv", "libx264")]
)
def test_frames_come_in_order_with_their_times(tmp_path, suffix, codec):
    video = write_video(tmp_path / f"cam{suffix}", regular(13), codec=codec)
    indices, times, images = zip(*read_frames(video), strict=True)
    assert indices == tuple(range(13))
    np.testing.assert_allclose(times, regular(13), atol=1e-3)
    levels = [image[40, 60].mean() for image in images]
    np.testing.assert_allclose(levels, np.arange(13) * 5, atol=4)


def test_variable_frame_rate_is_respected(tmp_path):
    times = np.r_[regular(20), 20 / 60 + 0.2 + regular(20)] + np.tile([0, 0.004], 20)
    video = write_video(tmp_path / "cam.mp4", times)
    info = probe(video, no_progress)
    np.testing.assert_allclose(info.frame_time, times - times[0], atol=1e-3)
    notices = notices_about({"cam": info}, 60)
    assert any("1 gaps of dropped frames" in notice for notice in notices)


@pytest.mark.parametrize("rate", [29.97, 60.0, 120.0, 240.0])
def test_the_rate_is_true_though_matroska_rounds_times_to_a_millisecond(tmp_path, rate):
    video = write_video(tmp_path / "cam.mkv", regular(120, rate), rate=round(rate))
    assert probe(video, no_progress).rate_hz == pytest.approx(rate, rel=5e-3)


def test_dropped_frames_do_not_slow_the_rate():
    times = np.delete(regular(100), [20, 21, 60])
    assert VideoInfo(10, 10, 0, 97, times).rate_hz == pytest.approx(60)


def test_frames_that_a_camera_lost_are_no_damage_though_the_header_counts_them():
    lost = VideoInfo(10, 10, 0, 100, np.delete(regular(100), [20, 21, 60]))
    (notice,) = notices_about({"cam1": lost}, 60.0)
    assert "2 gaps of dropped frames" in notice
    (notice,) = notices_about({"cam1": VideoInfo(10, 10, 0, 100, regular(97))}, 60.0)
    assert "97 of 100 frames can be read" in notice


@pytest.mark.parametrize(
    "rates, common", [([60, 30], 60), ([59.94, 60.0, 60.02], 60), ([120, 60, 60], 120), ([25], 25)]
)
def test_the_timeline_is_as_fast_as_the_fastest_camera(rates, common):
    assert common_rate_hz(rates) == common


def with_display_matrix(source, target, a, b, c, d, x=0, y=0):
    """Copy an MP4 with rows a b u, c d v, x y w as its track's display matrix."""
    data = bytearray(source.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    values = [a << 16, b << 16, 0, c << 16, d << 16, 0, x << 16, y << 16, 1 << 30]
    numbers = (value & 0xFFFFFFFF for value in values)
    data[start : start + 36] = b"".join(value.to_bytes(4, "big") for value in numbers)
    target.write_bytes(bytes(data))
    return target


def test_a_video_to_be_shown_mirrored_is_refused(tmp_path):
    source = write_video(tmp_path / "plain.mp4", regular(5))
    mirrored = with_display_matrix(source, tmp_path / "mirrored.mp4", -1, 0, 0, 1, x=96)
    with pytest.raises(PipelineError, match="left and right would be swapped"):
        probe(mirrored, no_progress)


def test_a_phones_rotation_is_undone(tmp_path):
    """The red corner of an image filmed with the phone turned comes back to the upper right."""
    source = write_video(tmp_path / "plain.mp4", regular(5))
    turned = with_display_matrix(source, tmp_path / "turned.mp4", 0, 1, -1, 0, x=64)
    info = probe(turned, no_progress)
    assert (info.width, info.height) == (64, 96) and info.rotation_deg == 90
    image = next(iter(read_frames(turned)))[2]
    assert image.shape == (96, 64, 3)
    red = image[:, :, 2].astype(int) - image[:, :, 0]
    assert red[10, 55] > 100 and red[10, 5] < 50 and red[90, 5] < 50


def test_memory_does_not_grow_with_length(tmp_path):
    import tracemalloc

    video = write_video(tmp_path / "cam.mp4", regular(400), size=(320, 240))
    tracemalloc.start()
    for _ in read_frames(video):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 320 * 240 * 3


def trial(tmp_path, videos):
    return Trial("t", "t", videos, tmp_path / "c.toml", tmp_path / "r")


def test_a_trial_of_unequal_cameras(tmp_path):
    videos = {
        "cam1": write_video(tmp_path / "cam1.mp4", regular(30)),
        "cam2": write_video(tmp_path / "cam2.mp4", regular(20, 30.0), size=(64, 128), rate=30),
        "cam3": write_video(tmp_path / "cam3.mp4", regular(40)),
    }
    notices = run(trial(tmp_path, videos), Settings(), tmp_path, no_progress)
    timeline = load_dataset(tmp_path / "timeline.nc")
    assert timeline.attrs["rate_hz"] == pytest.approx(60, rel=1e-4)
    assert timeline.sizes["frame"] == 40
    assert int(np.isfinite(timeline.frame_time.sel(camera="cam2")).sum()) == 20
    assert int(timeline.height.sel(camera="cam2")) == 128
    assert any("cam2 films at 30.00 Hz" in notice for notice in notices)
    folder = dump_frames(trial(tmp_path, videos), no_progress)
    assert len(list((folder / "cam2").glob("*.jpg"))) == 20


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(PipelineError, match="no video .*nowhere.mp4"):
        probe(tmp_path / "nowhere.mp4", no_progress)
    for name, content in {"text.mp4": b"not a video at all", "empty.mp4": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PipelineError, match=name):
            probe(tmp_path / name, no_progress)
    whole = write_video(tmp_path / "whole.mp4", regular(60)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match="cut short"):
        probe(tmp_path / "cut.mp4", no_progress)
    with pytest.raises(PipelineError, match="two cameras"):
        run(trial(tmp_path, {"cam1": tmp_path / "whole.mp4"}), Settings(), tmp_path, no_progress)


def test_a_video_cut_in_the_middle_is_used_with_a_notice_or_refused():
    info = VideoInfo(10, 10, 0, 100, regular(90))
    assert "90 of 100 frames" in notices_about({"cam": info}, 60)[0]
    with pytest.raises(PipelineError, match="only 30 of 100"):
        notices_about({"cam": VideoInfo(10, 10, 0, 100, regular(30))}, 60)
