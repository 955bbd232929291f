"""The whole pipeline on real video, through the command line, and what it does with bad input."""

import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from conftest import pipeline

from pipeline.demo import build_demo
from pipeline.files import load_dataset
from stages import ORDER
from stages.export import read_trc
from stages.frames import read_frames
from stages.motion_files import read_mot

FRAMES = 40
CAMERAS = ("cam01", "cam02", "cam03", "cam04")
pytestmark = pytest.mark.slow


def shorten(video, target):
    """Keep the first frames of a real video."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target), "w") as container:
        stream = None
        for index, _, image in read_frames(video):
            if index == FRAMES:
                break
            if stream is None:
                stream = container.add_stream("libx264", rate=60)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "18", "preset": "ultrafast"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """The demo's session, cut to its first 40 frames. Copy it, never change it."""
    whole = build_demo(tmp_path_factory.mktemp("whole") / "demo")
    short = tmp_path_factory.mktemp("short") / "demo"
    shutil.copytree(whole, short, ignore=shutil.ignore_patterns("*.mp4"))
    for name in CAMERAS:
        shorten(whole / "videos/balancing" / f"{name}.mp4", short / f"videos/balancing/{name}.mp4")
    return short


@pytest.fixture(scope="module")
def finished(footage, tmp_path_factory):
    """A session that ran from start to end, by a process of its own."""
    session = tmp_path_factory.mktemp("finished") / "demo"
    shutil.copytree(footage, session)
    done = run_process(session)
    assert done.returncode == 0, done.stderr
    return session


def run_process(session, *arguments, **options):
    command = [sys.executable, "-m", "pipeline", "run", str(session), *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


@pytest.fixture
def rerun(finished, tmp_path):
    """A copy of the session that ran, to run again."""
    shutil.copytree(finished, tmp_path / "demo")
    return tmp_path / "demo"


@pytest.fixture
def session(footage, tmp_path):
    shutil.copytree(footage, tmp_path / "session")
    return tmp_path / "session"


def results(session):
    return session / "results" / "balancing"


def test_every_stage_leaves_its_artefacts(finished):
    files = {
        path.relative_to(results(finished)).as_posix()
        for path in results(finished).rglob("*")
        if path.is_file() and path.name not in (".lock", "stage.json")
    }
    assert files == {
        "01_frames/timeline.nc",
        "02_detect/detections.nc",
        "03_keypoints/keypoints.nc",
        "04_synchronize/keypoints.nc",
        "04_synchronize/evidence.nc",
        "05_triangulate/points.nc",
        "06_smooth/points.nc",
        "07_augment/markers.nc",
        "08_export/markers.trc",
        "08_export/markers.c3d",
        *(f"09_kinematics/{name}" for name in ("scaled_model.osim", "angles.mot", "scaling.trc")),
        *(f"09_kinematics/{name}" for name in ("marker_errors.csv", "kinematics.json")),
        *(f"10_report/overlay_{name}.mp4" for name in CAMERAS),
        *(f"10_report/{name}.csv" for name in ("angles", "quality", "range_of_motion")),
        *(f"10_report/{name}" for name in ("report.html", "knee_ankle.png", "knee_ankle.pdf")),
    }


def test_the_angles_are_those_of_a_person(finished):
    angles = pd.read_csv(results(finished) / "10_report" / "angles.csv", index_col="time_s")
    assert len(angles) == FRAMES
    assert all(name.endswith(("_deg", "_m")) for name in angles)
    for side in "rl":
        knee = angles[f"knee_angle_{side}_deg"].dropna()
        assert len(knee) > 0.9 * FRAMES and knee.between(-5, 120).all()
        for joint in ("knee", "ankle"):
            assert angles[f"{joint}_angle_{side}_deg"].diff().abs().max() < 20
    # In its first third of a second he swings the right leg forwards with the knee bending: the
    # left one stands. Swapped legs would say the opposite.
    assert np.ptp(angles.knee_angle_r_deg[:0.4]) > np.ptp(angles.knee_angle_l_deg[:0.4])
    mot = read_mot(results(finished) / "09_kinematics" / "angles.mot")
    np.testing.assert_allclose(
        mot.knee_angle_r, angles.knee_angle_r_deg.reindex(mot.index, method="nearest"), atol=1e-4
    )


def test_the_person_is_as_tall_as_a_person_and_upright(finished):
    _, names, position = read_trc(results(finished) / "08_export" / "markers.trc")
    at = dict(zip(names, np.moveaxis(position, 1, 0), strict=True))
    assert len(names) == 63
    assert 1.1 < np.nanmedian(at["C7_study"][:, 1] - at["r_calc_study"][:, 1]) < 1.7
    right = np.nanmedian(at["RHJC_study"] - at["LHJC_study"], axis=0)
    forward = np.nanmedian(at["r_toe_study"] - at["r_calc_study"], axis=0)
    assert np.cross(forward, [0, 1, 0]) @ right > 0  # right-handed: not mirrored


def test_the_report_opens_offline_and_tells_how_good_it_is(finished):
    folder = results(finished) / "10_report"
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']https?:", html)
    for text in ("Knee and ankle", "BlazePose", "pose2sim", "RSmallToe", "1088x1920", "guidance"):
        assert text in html
    for name in CAMERAS:
        assert f"overlay_{name}.mp4" in html
        frames = [image for _, _, image in read_frames(folder / f"overlay_{name}.mp4")]
        video = next(read_frames(finished / "videos/balancing" / f"{name}.mp4"))[2]
        assert len(frames) == FRAMES
        assert frames[0].shape == (960, video.shape[1] // 2, 3)  # shrunk from 1920 px to 960
    with open(folder / "quality.csv", encoding="utf-8") as stream:
        quality = {row["name"]: row for row in csv.DictReader(stream)}
    assert 5 < float(quality["reprojection error, median"]["value"]) < 25
    assert float(quality["inverse kinematics, marker error RMS, mean"]["value"]) < 30


def test_a_second_run_does_nothing_and_a_changed_setting_only_what_it_must(
    rerun, monkeypatch, capsys
):
    code, out, _ = pipeline(monkeypatch, capsys, "run", rerun, "--activity", "balancing")
    assert code == 0 and out.count("up to date") == len(ORDER)
    code, out, _ = pipeline(
        monkeypatch, capsys, "run", rerun, "--set", "smooth.method=butterworth", "--to", "augment"
    )
    assert code == 0
    assert state_of(out) == dict.fromkeys(ORDER[:5], True) | {"smooth": False, "augment": False}
    code, out, _ = pipeline(monkeypatch, capsys, "run", rerun, "--from", "smooth", "--to", "smooth")
    assert code == 0 and state_of(out) == dict.fromkeys(ORDER[:5], True) | {"smooth": False}


def state_of(out):
    """Whether each stage was skipped."""
    return {
        stage: text == "up to date"
        for stage, text in re.findall(r"^  (\w+) +(up to date|[\d.]+ s)$", out, re.M)
    }


def test_a_run_that_is_killed_recovers(session):
    process = subprocess.Popen([sys.executable, "-m", "pipeline", "run", str(session)])
    started = time.monotonic()
    while not (results(session) / ".03_keypoints.new").exists():
        assert process.poll() is None and time.monotonic() - started < 120
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (results(session) / "03_keypoints").exists()
    done = run_process(session, "--to", "synchronize")
    assert done.returncode == 0, done.stderr
    assert state_of(done.stdout) == {
        "frames": True, "detect": True, "keypoints": False, "synchronize": False
    }  # fmt: skip
    assert not list(results(session).glob(".*.new"))


def test_of_two_runs_at_once_each_stage_runs_in_one_and_the_other_waits(session):
    command = [sys.executable, "-m", "pipeline", "run", str(session), "--to", "detect"]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not (results(session) / ".01_frames.new").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = run_process(session, "--to", "detect")
    out, _ = first.communicate()
    assert first.returncode == second.returncode == 0
    skipped = [state_of(out), state_of(second.stdout)]
    for stage in ("frames", "detect"):
        assert sorted(each[stage] for each in skipped) == [False, True]


def test_another_calibration_is_noticed_and_a_wrong_one_refused(rerun, monkeypatch, capsys):
    calibration = rerun / "calibration" / "Calib.qca.txt"
    text = calibration.read_text(encoding="utf-8")
    for one, other in (("cam01", "swap"), ("cam03", "cam01"), ("swap", "cam03")):
        text = text.replace(f'serial="{one}"', f'serial="{other}"')
    calibration.write_text(text, encoding="utf-8")
    code, out, err = pipeline(monkeypatch, capsys, "run", rerun)
    assert code == 1 and "synchronisation failed" in err and "calibration" in err and one_line(err)
    assert state_of(out)["keypoints"] and "10_report" in err.partition("Still of an earlier run")[2]


def test_one_camera_only(session, monkeypatch, capsys):
    for name in CAMERAS[1:]:
        (session / f"videos/balancing/{name}.mp4").unlink()
    code, _, err = pipeline(monkeypatch, capsys, "run", session)
    assert code == 1 and "needs two cameras at least" in err and one_line(err)


def test_a_video_without_calibration(session, monkeypatch, capsys):
    shutil.copy(session / "videos/balancing/cam01.mp4", session / "videos/balancing/phone.mp4")
    code, _, err = pipeline(monkeypatch, capsys, "run", session, "--set", "detect.batch_size=4")
    assert code == 1 and "no camera phone" in err and "cam01, cam02, cam03, cam04" in err


def test_a_camera_without_a_video_is_told_and_the_others_do(session, monkeypatch, capsys):
    (session / "videos/balancing/cam03.mp4").unlink()
    code, out, _ = pipeline(monkeypatch, capsys, "run", session, "--to", "smooth")
    assert code == 0 and "calibrated, but not in this trial: cam03" in out


def test_a_truncated_video(session, monkeypatch, capsys):
    video = session / "videos/balancing/cam02.mp4"
    video.write_bytes(video.read_bytes()[:20_000])
    code, _, err = pipeline(monkeypatch, capsys, "run", session)
    assert code == 1 and "cam02.mp4" in err and "cut short" in err and one_line(err)


def test_a_video_without_a_person(session, monkeypatch, capsys):
    video = session / "videos/balancing/cam04.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=60)
        stream.width, stream.height, stream.pix_fmt = 1080, 1920, "yuv420p"
        for _ in range(FRAMES):
            wall = np.full((1920, 1080, 3), 120, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(wall, format="bgr24")))
        container.mux(stream.encode())
    code, _, err = pipeline(monkeypatch, capsys, "run", session)
    assert code == 1 and "camera cam04: no person found" in err and one_line(err)


def test_unknown_activities_stages_and_models(session, monkeypatch, capsys):
    for arguments, message in (
        (["--activity", "squats"], "no activity 'squats'. Its trials: balancing"),
        (["--from", "cook"], "there is no stage 'cook'"),
        (["--from", "export", "--to", "smooth"], "--from export comes after --to smooth"),
        (["--set", "detect.backend=openpose"], "should be 'auto', 'blazepose', 'rtm' or 'mm'"),
        (["--set", "detect.pose_model=openpose"], "there is no model 'openpose'. There are: blaze"),
        (
            ["--quality", "good"],
            "quality: input should be 'fast', 'balanced' or 'best', got 'good'",
        ),
        (["--set", "kinematics.model=gait"], "no OpenSim model 'gait'"),
    ):
        code, _, err = pipeline(monkeypatch, capsys, "run", session, *arguments)
        assert code == 1 and message in err and one_line(err)


def one_line(err):
    return err.count("\n") == 1 and err.startswith("error: ") and "Traceback" not in err


def test_results_that_cannot_be_written(session, monkeypatch, capsys):
    (session / "results").write_text("a file where the folder should be")
    code, _, err = pipeline(monkeypatch, capsys, "run", session)
    assert code == 1 and str(session / "results") in err and one_line(err)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
def test_a_read_only_results_folder(session, monkeypatch, capsys):
    results(session).mkdir(parents=True)
    results(session).chmod(0o555)
    code, _, err = pipeline(monkeypatch, capsys, "run", session)
    assert code == 1 and "right to write" in err and one_line(err)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("stage, limit", [("synchronize", 20_000), ("report", 1_000_000)])
def test_a_disk_that_fills_up_loses_nothing(rerun, stage, limit):
    """A file may not grow beyond a limit: what a full disk does to whoever writes."""
    import resource

    before = folder_state(results(rerun))
    done = run_process(
        rerun, "--from", stage, "--to", stage,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert one_line(done.stderr.splitlines(keepends=True)[-1]), done.stderr
    assert folder_state(results(rerun)) == before


def folder_state(folder: Path):
    return {
        path.relative_to(folder): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_images_are_written_on_demand_and_change_nothing(rerun, monkeypatch, capsys):
    code, out, _ = pipeline(monkeypatch, capsys, "run", rerun, "--dump-frames")
    assert code == 0 and out.count("up to date") == len(ORDER)
    for name in CAMERAS:
        assert len(list((results(rerun) / "images" / name).glob("*.jpg"))) == FRAMES


def test_a_damaged_result_is_made_again(rerun, monkeypatch, capsys):
    damaged = results(rerun) / "06_smooth" / "points.nc"
    damaged.write_bytes(damaged.read_bytes()[:300])
    (results(rerun) / "08_export" / "stage.json").write_text("[]")
    code, out, _ = pipeline(monkeypatch, capsys, "run", rerun, "--to", "export")
    assert code == 0
    assert [stage for stage, skipped in state_of(out).items() if not skipped] == [
        "smooth",
        "export",
    ]


def test_one_bad_trial_does_not_keep_the_others_from_running(rerun, monkeypatch, capsys):
    (rerun / "videos/aaa").mkdir()
    shutil.copy(rerun / "videos/balancing/cam01.mp4", rerun / "videos/aaa")
    code, out, err = pipeline(monkeypatch, capsys, "run", rerun)
    assert code == 1 and "1 of 2 trials failed: aaa" in err and "two cameras" in err
    assert out.count("up to date") == len(ORDER)


def test_a_wrong_up_axis_is_refused(rerun, monkeypatch, capsys):
    toml = rerun / "session.toml"
    toml.write_text('world_up = "+x"\n' + toml.read_text(encoding="utf-8"), encoding="utf-8")
    code, _, err = pipeline(monkeypatch, capsys, "run", rerun)
    assert code == 1 and "up axis is wrong" in err and one_line(err)


def test_its_own_keypoints_brought_without_videos_give_the_same_markers(rerun, monkeypatch, capsys):
    with_videos = load_dataset(results(rerun) / "07_augment" / "markers.nc")
    keypoints = load_dataset(results(rerun) / "03_keypoints" / "keypoints.nc").isel(person=0)
    for name in CAMERAS:
        folder = rerun / "pose/balancing" / f"{name}_json"
        folder.mkdir(parents=True)
        view = keypoints.sel(camera=name).transpose("frame", "keypoint", "axis")
        frames = np.dstack([view.position.values, view.confidence.values])
        for index, frame in enumerate(np.nan_to_num(frames)):
            people = [{"person_id": [-1], "pose_keypoints_2d": frame.ravel().tolist()}]
            text = json.dumps({"version": 1.3, "people": people})
            (folder / f"{name}_{index + 1:06d}.json").write_text(text)
    shutil.rmtree(rerun / "videos")
    with (rerun / "session.toml").open("a", encoding="utf-8") as toml:
        toml.write("\n[trials.balancing]\nrate_hz = 60\n")
    code, _, err = pipeline(monkeypatch, capsys, "run", rerun)
    assert code == 0, err
    markers = load_dataset(results(rerun) / "07_augment" / "markers.nc")
    np.testing.assert_allclose(markers.time, with_videos.time, atol=1e-9)
    np.testing.assert_allclose(markers.position, with_videos.position, atol=1e-9)
    report = (results(rerun) / "10_report" / "report.html").read_text(encoding="utf-8")
    assert "no videos to draw them on" in report and "keypoints brought by the session" in report
    assert not list((results(rerun) / "10_report").glob("*.mp4"))
    code, _, err = pipeline(monkeypatch, capsys, "run", rerun, "--dump-frames")
    assert code == 1 and "no videos to write frames of" in err and one_line(err)


def test_a_static_trial_scales_the_model_of_the_others(footage, tmp_path, monkeypatch, capsys):
    session = tmp_path / "session"
    shutil.copytree(footage, session)
    shutil.copytree(session / "videos/balancing", session / "videos/static1")
    code, out, err = pipeline(monkeypatch, capsys, "run", session, "--activity", "balancing")
    assert code == 0, err
    kinematics = results(session) / "09_kinematics" / "kinematics.json"
    scaling = json.loads(kinematics.read_text(encoding="utf-8"))["scaling"]
    assert scaling["source"] == "static trial static1"
    assert (session / "results/static1/07_augment/markers.nc").exists()
    stages = itertools.takewhile(lambda line: "kinematics" not in line, out.splitlines())
    assert sum("augment" in line for line in stages) == 2
    code, out, _ = pipeline(
        monkeypatch, capsys, "run", session, "--set", "smooth.cutoff_hz=8", "--to", "kinematics"
    )
    assert code == 0
    code, out, _ = pipeline(
        monkeypatch, capsys, "run", session, "--set", "smooth.cutoff_hz=8", "--to", "kinematics"
    )
    assert code == 0 and not re.search(r"\d s$", out, re.M)


def test_doctor_and_models_say_what_is_there(monkeypatch, capsys):
    code, out, _ = pipeline(monkeypatch, capsys, "doctor")
    assert code == 0 and "OpenSim" in out and "missing" not in out
    code, out, _ = pipeline(monkeypatch, capsys, "models", "list")
    assert code == 0 and "augmenter-v0.3" in out and "BSD-3-Clause" in out
    code, out, _ = pipeline(monkeypatch, capsys, "models", "verify")
    assert code == 0 and out.count("ok") >= 5
    code, _, err = pipeline(monkeypatch, capsys, "models", "import", "blazepose-full", "nowhere")
    assert code == 1 and "nothing at nowhere" in err
