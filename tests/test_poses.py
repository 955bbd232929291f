import json
import time

import numpy as np
import pytest
from conftest import ring
from hypothesis import given, settings
from hypothesis import strategies as st
from test_frames import regular, write_video

from calibration.aniposelib_toml import write_toml
from calibration.camera import Camera
from models.augmenter import VIDEO_KEYPOINTS
from models.vocabulary import vocabularies, vocabulary, vocabulary_of_size
from pipeline.config import configure
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from pipeline.runner import run_trial
from pipeline.session import open_session
from stages.augment import video_keypoints
from stages.keypoints import vocabulary_of
from stages.poses import boxes_around, clocks, frame_files, read_people, read_source
from stages.trial import Trial, no_progress

RATE_HZ, FRAMES, FIRST = 60.0, 30, 1
HALPE = vocabulary("halpe-26").keypoints
CENTRE_LINE = {"Nose", "Head", "Neck", "midHip"}
MIDDLE = {"Nose": (0.1, 1.6), "Head": (0, 1.75), "Neck": (0, 1.45), "midHip": (0, 0.95)}
RIGHT = {
    "Eye": (0.09, 1.63, 0.03), "Ear": (0, 1.63, 0.08), "Shoulder": (0, 1.42, 0.18),
    "Elbow": (0, 1.12, 0.25), "Wrist": (0.1, 0.9, 0.28), "Hip": (0, 0.95, 0.1),
    "Knee": (0.03, 0.5, 0.11), "Ankle": (0, 0.09, 0.12), "BigToe": (0.17, 0.02, 0.11),
    "SmallToe": (0.14, 0.02, 0.17), "Heel": (-0.05, 0.02, 0.12),
}  # fmt: skip


def person(frames=FRAMES):
    """HALPE_26 keypoints (time, keypoint, 3), m, of a person who faces +X and sways."""
    at = {name: (x, y, 0.0) for name, (x, y) in MIDDLE.items()}
    at |= {f"R{part}": place for part, place in RIGHT.items()}
    at |= {f"L{part}": (x, y, -z) for part, (x, y, z) in RIGHT.items()}
    still = np.array([at[name] for name in HALPE])
    sway = 0.1 * np.sin(2 * np.pi * np.arange(frames) / RATE_HZ)
    return still + sway[:, None, None] * np.array([1.0, 0.2, 0.5]) * still[:, 1:2]


def rig(count=4):
    """Cameras of a ring, with images that are not square."""
    matrix = np.array([[900.0, 0, 540], [0, 900, 960], [0, 0, 1]])
    poses = [np.vstack([pose, [0, 0, 0, 1]]) for pose in ring(count)]
    return [
        Camera(f"cam{index}", (1080, 1920), matrix, np.zeros(5), pose)
        for index, pose in enumerate(poses, start=1)
    ]


def write_frame(folder, number, people):
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "version": 1.3,
        "people": [
            {"person_id": [-1], "pose_keypoints_2d": np.ravel(each).tolist()} for each in people
        ],
    }
    path = folder / f"{folder.name.removesuffix('_json')}_{number:012d}_keypoints.json"
    path.write_text(json.dumps(content), encoding="utf-8")


def write_person(folder, frames=3, keypoints=5, first=0):
    for number in range(first, first + frames):
        write_frame(folder, number, [np.full((keypoints, 3), 0.5) + np.arange(3)])
    return folder


def trial_of(tmp_path, cameras=("cam1", "cam2"), **known):
    poses = {name: tmp_path / f"{name}_json" for name in cameras}
    return Trial("t", "t", {}, tmp_path / "c.toml", tmp_path / "r", poses=poses, **known)


def read(folder):
    return read_people(list(frame_files(folder).values()))


@pytest.mark.parametrize(
    "name, number",
    [
        ("cam1_000012.json", 12),
        ("cam1_000000000012_keypoints.json", 12),
        ("7.json", 7),
        ("cam01.000003.json", 3),
    ],
)
def test_the_last_digits_of_a_name_are_the_frames_number(tmp_path, name, number):
    (tmp_path / name).touch()
    assert list(frame_files(tmp_path)) == [number]


def test_numbers_are_sorted_as_numbers_and_hidden_files_passed_over(tmp_path):
    for name in ("cam_10.json", "cam_9.json", "._cam_9.json", "cam_2.json"):
        (tmp_path / name).touch()
    assert list(frame_files(tmp_path)) == [2, 9, 10]


def test_what_was_not_found_is_nan_with_confidence_zero(tmp_path):
    one = np.array([[1, 2, 0.9], [0, 0, 0], [5, 6, 0], [7, 8, 1.2], [np.nan, 1, 0.5]])
    for number, people in enumerate(([one], [], [one + 1, one])):
        write_frame(tmp_path, number, people)
    poses = read(tmp_path)
    assert poses.shape == (3, 2, 5, 3)
    nothing = [np.nan, np.nan, 0]
    np.testing.assert_array_equal(poses[0, 0], [[1, 2, 0.9], nothing, nothing, [7, 8, 1], nothing])
    np.testing.assert_array_equal(poses[2, 1], poses[0, 0])
    for nobody in (poses[0, 1], poses[1, 0], poses[1, 1]):
        np.testing.assert_array_equal(nobody, [nothing] * 5)


def test_a_box_is_around_confident_keypoints_and_a_few_make_nobody():
    poses = np.full((1, 3, 5, 3), (np.nan, np.nan, 0.0))
    poses[0, 1] = [[1, 2, 0.9], [30, 4, 0.9], [5, 60, 0.9], [700, 8, 0.1], [np.nan, np.nan, 0]]
    poses[0, 2, :2] = [[1, 2, 0.9], [3, 4, 0.9]]
    found = boxes_around(poses)
    np.testing.assert_array_equal(found["box"][0, 1], [1, 2, 30, 60])
    assert np.isnan(found["box"][0, [0, 2]]).all()
    np.testing.assert_array_equal(found["place"], [[-1, 1, -1]])
    np.testing.assert_array_equal(found["score"][0] > 0, [False, True, False])


def test_time_is_the_number_by_the_rate_and_all_cameras_share_the_numbering(tmp_path):
    for number in (1, 2, 5, 6):
        write_frame(tmp_path / "cam1_json", number, [])
    write_person(tmp_path / "cam2_json", first=3)
    found = clocks(trial_of(tmp_path, rate_hz={"cam1": 60.0, "cam2": 30.0}))
    np.testing.assert_allclose(found["cam1"], np.array([0, 1, 4, 5]) / 60)
    np.testing.assert_allclose(found["cam2"], np.array([2, 3, 4]) / 30)


def test_without_a_rate_the_user_is_told_what_to_write(tmp_path):
    with pytest.raises(PipelineError, match=r"camera cam2.*\[trials.t\] rate_hz = 60.*cam2 = 60"):
        clocks(trial_of(tmp_path, rate_hz={"cam1": 60.0}))


def test_one_frame_is_no_recording(tmp_path):
    for name in ("cam1_json", "cam2_json"):
        write_person(tmp_path / name, frames=1)
    with pytest.raises(PipelineError, match="cam1_json holds keypoints of one frame"):
        clocks(trial_of(tmp_path, rate_hz={"cam1": 60.0, "cam2": 60.0}))


@pytest.mark.parametrize(
    "text",
    [
        '{"people": [{"pose_keypoints_2d": [1, 2',
        "[]",
        '{"version": 1.3}',
        '{"people": null}',
        '{"people": [{"pose_keypoints_2d": [1, 2, 3, 4]}]}',
        '{"people": [{"pose_keypoints_2d": ["left", 2, 3]}]}',
        '{"people": [{"hand_left_keypoints_2d": [1, 2, 3]}]}',
        "\x00",
    ],
)
def test_a_broken_file_is_named(tmp_path, text):
    write_person(tmp_path)
    (tmp_path / "cam_000009.json").write_text(text)
    with pytest.raises(PipelineError, match="cam_000009.json is no OpenPose JSON"):
        read(tmp_path)


def test_files_that_do_not_belong_together_are_named(tmp_path):
    write_person(tmp_path / "a", keypoints=5)
    write_frame(tmp_path / "a", 9, [np.ones((4, 3))])
    with pytest.raises(PipelineError, match="5 in .*, 4 in a_000000000009_keypoints.json"):
        read(tmp_path / "a")
    write_frame(tmp_path / "b", 1, [])
    with pytest.raises(PipelineError, match="nobody is in any of the 1 frames"):
        read(tmp_path / "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(PipelineError, match="no JSON files in .*c: expected one a frame"):
        read(tmp_path / "c")
    (tmp_path / "c" / "frame.json").touch()
    with pytest.raises(PipelineError, match="no frame number in its name"):
        read(tmp_path / "c")
    for name in ("x_1.json", "y_01.json"):
        (tmp_path / "b" / name).touch()
    with pytest.raises(PipelineError, match="x_1.json are both of frame 1"):
        read(tmp_path / "b")


def test_reading_is_fast(tmp_path):
    write_person(tmp_path, frames=480, keypoints=26)
    began = time.perf_counter()
    read(tmp_path)
    assert time.perf_counter() - began < 1.0  # about 0.05 s on an idle machine


@pytest.mark.parametrize("each", vocabularies().values(), ids=lambda each: each.name)
def test_a_vocabulary_is_consistent(each):
    names = set(each.keypoints)
    assert len(names) == len(each.keypoints)
    other = {"L": "R", "R": "L"}
    sided = {name for name in names if name[0] in other and name[1].isupper()}
    assert {other[name[0]] + name[1:] for name in sided} == sided
    assert len(sided) + len(CENTRE_LINE & names) + sum(n.startswith("Face") for n in names) == len(
        names
    )
    assert each.bones and {end for bone in each.bones for end in bone} <= names


def test_vocabularies_have_as_many_keypoints_as_their_models():
    expected = {"halpe-26": 26, "body-25": 25, "coco-17": 17, "coco-wholebody-133": 133}
    for name, count in expected.items():
        assert len(vocabulary(name).keypoints) == count
        assert vocabulary_of_size(count).name == name


@pytest.mark.parametrize("name", ["halpe-26", "body-25", "coco-wholebody-133"])
def test_the_augmenter_takes_what_the_vocabulary_gives_as_measured(name):
    given = {each: np.ones((4, 3)) for each in vocabulary(name).keypoints}
    _, kind = video_keypoints(given)
    assert {kind[each] for each in VIDEO_KEYPOINTS if each in given} == {"measured"}


def test_the_vocabulary_is_what_the_session_says_or_what_fits(tmp_path):
    named = trial_of(tmp_path, keypoints="body-25")
    assert vocabulary_of(named, {"cam1": 25, "cam2": 25}).name == "body-25"
    assert vocabulary_of(trial_of(tmp_path), {"cam1": 26}).name == "halpe-26"
    with pytest.raises(PipelineError, match="26 keypoints a person, but body-25.*has 25"):
        vocabulary_of(named, {"cam1": 26})
    with pytest.raises(PipelineError, match="have 14 keypoints.*halpe-26 .26.*coco-17 .17"):
        vocabulary_of(trial_of(tmp_path), {"cam1": 14})
    with pytest.raises(PipelineError, match="cam1 26, cam2 25"):
        vocabulary_of(trial_of(tmp_path), {"cam1": 26, "cam2": 25})
    with pytest.raises(PipelineError, match="no keypoint vocabulary 'halp'.*halpe-26"):
        vocabulary_of(trial_of(tmp_path, keypoints="halp"), {"cam1": 26})


def session_folder(tmp_path, cameras=("cam1", "cam2"), text="[trials.sway1]\nrate_hz = 60\n"):
    (tmp_path / "calibration").mkdir(exist_ok=True)
    (tmp_path / "calibration" / "Calib.toml").touch()
    for name in cameras:
        (tmp_path / "pose" / "sway1" / f"{name}_json").mkdir(parents=True, exist_ok=True)
    (tmp_path / "session.toml").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_session_finds_trials_in_pose_and_in_videos(tmp_path):
    folder = session_folder(tmp_path, text="keypoints = 'body-25'\n[trials.sway1]\nrate_hz = 60")
    for name in ("static1/cam1.mp4", "static1/cam2.mp4"):
        (folder / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "videos" / name).touch()
    static, sway = open_session(folder).trials()
    assert sway.cameras == ["cam1", "cam2"] and sway.rate_hz == {"cam1": 60.0, "cam2": 60.0}
    assert sway.keypoints == "body-25" and not sway.videos
    assert sway.scaling_trial.name == "static1" and static.cameras == ["cam1", "cam2"]
    assert not static.poses and static.keypoints is None


def test_rates_and_names_may_be_given_by_trial_and_cameras_chosen(tmp_path):
    text = (
        "keypoints = 'body-25'\n[trials.sway1]\nrate_hz = {cam1 = 60.0, cam3 = 59.94}\n"
        "keypoints = 'halpe-26'\ncameras = ['cam3', 'cam1']"
    )
    (trial,) = open_session(session_folder(tmp_path, ("cam1", "cam2", "cam3"), text)).trials()
    assert trial.cameras == ["cam3", "cam1"] and trial.keypoints == "halpe-26"
    assert trial.rate_hz == {"cam1": 60.0, "cam3": 59.94}


@pytest.mark.parametrize(
    "text, message",
    [
        ("[trials.sway1]\nrate_hz = {cam9 = 60}", "names camera cam9.*keypoints of cam1, cam2"),
        ("[trials.sway1]\ncameras = ['cam9']", "names camera cam9.*keypoints of cam1, cam2"),
        ("[trials.sway1]\nrate_hz = -1", "trials.sway1.rate_hz.*greater than 0"),
        ("[trials.walk1]\nrate_hz = 60", "the session has sway1"),
    ],
)
def test_mistakes_about_pose_in_session_toml_are_named(tmp_path, text, message):
    with pytest.raises(PipelineError, match=message):
        open_session(session_folder(tmp_path, text=text)).trials()


def test_videos_and_keypoints_must_belong_together(tmp_path):
    folder = session_folder(tmp_path, text="[trials.sway1]\ncameras = ['cam1', 'cam2']")
    (folder / "videos" / "sway1").mkdir(parents=True)
    (folder / "videos" / "sway1" / "cam1.mp4").touch()
    with pytest.raises(
        PipelineError, match="sway1 has videos of cam1, but keypoints of cam1, cam2"
    ):
        open_session(folder).trials()
    (folder / "videos" / "sway1" / "cam2.mp4").touch()
    (folder / "videos" / "sway1" / "cam3.mp4").touch()
    (trial,) = open_session(folder).trials()
    assert list(trial.videos) == list(trial.poses) == trial.cameras == ["cam1", "cam2"]


def test_a_rate_for_a_trial_without_keypoints_is_a_mistake(tmp_path):
    folder = session_folder(tmp_path, (), "[trials.walk1]\nrate_hz = 60")
    (folder / "videos" / "walk1").mkdir(parents=True)
    (folder / "videos" / "walk1" / "cam1.mp4").touch()
    with pytest.raises(PipelineError, match="gives rate_hz.*walk1.*there are none"):
        open_session(folder).trials()


BYSTANDER_M, DROPPED, EMPTY = np.array([-1.0, 0.0, -2.0]), {5, 6}, 12


def brought_session(tmp_path):
    """Keypoints of a person and a smaller bystander, in changing order, without videos; two frames
    of cam1 dropped, nobody in one of cam2.
    """
    cameras, truth = rig(), person()
    folder = session_folder(tmp_path)
    write_toml(cameras, folder / "calibration" / "Calib.toml")
    for camera in cameras:
        both = [camera.project(truth), camera.project(0.3 * truth + BYSTANDER_M)]
        for index in range(FRAMES):
            if camera.name == "cam1" and index in DROPPED:
                continue
            people = [np.column_stack([each[index], np.full(26, 0.9)]) for each in both]
            people = people[:: (-1) ** index] if (camera.name, index) != ("cam2", EMPTY) else []
            write_frame(folder / "pose/sway1" / f"{camera.name}_json", FIRST + index, people)
    return folder, truth


def run_to(folder, last="triangulate"):
    (trial,) = open_session(folder).trials()
    settings = configure(trial.activity, {})
    return trial, list(run_trial(trial, lambda _: settings, lambda *_: no_progress, last=last))


def test_brought_keypoints_come_back_as_the_points_they_are_of(tmp_path):
    folder, truth = brought_session(tmp_path)
    trial, outcomes = run_to(folder)
    assert not any(outcome.skipped for outcome in outcomes)
    keypoints = load_dataset(trial.folder("keypoints") / "keypoints.nc")
    assert keypoints.attrs["vocabulary"] == "halpe-26" and keypoints.attrs["backend"] == "external"
    points = load_dataset(trial.folder("triangulate") / "points.nc")
    np.testing.assert_allclose(points.time, np.arange(FRAMES) / RATE_HZ, atol=1e-9)
    assert [str(name) for name in points.keypoint.values] == list(HALPE)
    position = points.position.transpose("time", "keypoint", "axis").values
    np.testing.assert_allclose(position, truth, atol=1e-4)
    seen = points.view_seen.transpose("camera", "time", "keypoint").values.all(-1)
    assert set(np.flatnonzero(~seen[0])) == DROPPED and set(np.flatnonzero(~seen[1])) == {EMPTY}
    assert seen[2:].all()


def test_a_second_run_skips_and_a_changed_file_is_noticed(tmp_path):
    folder, _ = brought_session(tmp_path)
    run_to(folder)
    assert all(outcome.skipped for outcome in run_to(folder)[1])
    file = next((folder / "pose/sway1/cam3_json").iterdir())
    file.write_text(file.read_text().replace("0.9", "0.8"))
    redone = {outcome.stage: not outcome.skipped for outcome in run_to(folder)[1]}
    assert redone["detect"] and redone["keypoints"] and redone["triangulate"]


def test_one_camera_and_a_crowd_without_confidence_are_refused(tmp_path):
    folder, _ = brought_session(tmp_path)
    text = "[trials.sway1]\nrate_hz = 60\ncameras = ['cam1']"
    (folder / "session.toml").write_text(text)
    with pytest.raises(PipelineError, match="one camera .cam1.: depth needs two cameras"):
        run_to(folder)
    (folder / "session.toml").write_text("[trials.sway1]\nrate_hz = 60")
    for path in (folder / "pose/sway1/cam2_json").iterdir():
        path.write_text(path.read_text().replace("0.9", "0.01"))
    with pytest.raises(PipelineError, match="camera cam2: nobody in .*cam2_json has enough"):
        run_to(folder)


def test_videos_beside_the_keypoints_give_the_time(tmp_path):
    """Frames that a camera took late are late, and the JSON's number is the video's frame."""
    folder, _ = brought_session(tmp_path)
    (folder / "session.toml").unlink()
    (folder / "videos/sway1").mkdir(parents=True)
    times = regular(FRAMES + FIRST)
    times[20:] += 0.1
    for name in ("cam1", "cam2", "cam3", "cam4"):
        write_video(folder / f"videos/sway1/{name}.mp4", times, size=(108, 192))
    trial, _ = run_to(folder, "keypoints")
    timeline = load_dataset(trial.folder("frames") / "timeline.nc")
    np.testing.assert_allclose(timeline.frame_time.sel(camera="cam2"), times, atol=1e-3)
    keypoints = load_dataset(trial.folder("keypoints") / "keypoints.nc")
    known = keypoints.confidence.isel(person=0).sel(camera="cam1").values.any(-1)
    assert set(np.flatnonzero(~known)) == {0, *(FIRST + index for index in DROPPED)}
    write_video(folder / "videos/sway1/cam3.mp4", regular(FRAMES), size=(108, 192))
    with pytest.raises(PipelineError, match="cam3.*keypoints of frame 30.*frames 0 to 29"):
        run_to(folder, "keypoints")


def test_keypoints_outside_the_image_are_told(tmp_path):
    folder, _ = brought_session(tmp_path)
    smaller = [
        Camera(each.name, (500, 900), each.intrinsics, each.distortion, each.camera_from_world)
        for each in rig()
    ]
    write_toml(smaller, folder / "calibration" / "Calib.toml")
    outcomes = run_to(folder)[1]
    notices = [notice for outcome in outcomes for notice in outcome.notices]
    assert any("lie outside its image of 500x900 px" in notice for notice in notices)


COCO, WHOLE = vocabulary("coco-17").keypoints, 136
OPEN_ORDER = [0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
"""Of COCO's keypoints and the neck after them, as AlphaPose's --format open and cmu put them."""


def with_neck(each):
    """AlphaPose's 18 keypoints of COCO's 17."""
    return np.vstack([each, (each[5] + each[6]) / 2])[OPEN_ORDER]


def mmpose(people):
    return [
        {
            "keypoints": each[:, :2].tolist(),
            "keypoint_scores": each[:, 2].tolist(),
            "bbox": [[0.0, 0.0, 9.0, 9.0]],
            "bbox_score": 0.9,
        }
        for each in people
    ]


def alphapose(frames, image="{}.jpg"):
    return [
        {"image_id": image.format(number), "category_id": 1, "keypoints": each.ravel().tolist(),
         "score": 2.5, "box": [0.0, 0.0, 9.0, 9.0], "idx": [0.0]}
        for number, people in frames.items() for each in people
    ]  # fmt: skip


def alphapose_open(frames, people_key, points_key):
    return {
        f"{number}.jpg": {
            "version": "AlphaPose v0.3",
            people_key: [{points_key: with_neck(each).ravel().tolist()} for each in people],
        }
        for number, people in frames.items()
        if people
    }


def mmpose_demo(frames, **meta):
    listed = [{"frame_id": n + 1, "instances": mmpose(each)} for n, each in frames.items()]
    return {"meta_info": meta, "instance_info": listed}


def mmpose_inferencer(frames):
    return [{"frame_id": n, "instances": mmpose(each)} for n, each in frames.items()]


def saved(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@st.composite
def filmed(draw):
    """Persons, of COCO's keypoints, by consecutive frames; somebody in the first and the last."""
    first, count = draw(st.integers(0, 40)), draw(st.integers(2, 7))
    inner = st.integers(0, 3)
    sizes = [
        draw(st.integers(1, 3)),
        *(draw(inner) for _ in range(count - 2)),
        draw(st.integers(1, 3)),
    ]
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low, high = [-50, -50, -0.2], [4000, 2000, 1.6]
    return {
        first + index: [random.uniform(low, high, (17, 3)) for _ in range(size)]
        for index, size in enumerate(sizes)
    }


@settings(max_examples=30, deadline=None)
@given(frames=filmed())
def test_the_same_keypoints_are_the_same_arrays_whatever_program_wrote_them(
    tmp_path_factory, frames
):
    folder = tmp_path_factory.mktemp("pose")
    for number, people in frames.items():
        write_frame(folder / "openpose_json", number, people)
        (folder / "images").mkdir(exist_ok=True)
        saved(folder / "images" / f"cam1_{number:06d}.json", mmpose(people))
    sources = [folder / "openpose_json", folder / "images"]
    written = {
        "alphapose": alphapose(frames),
        "alphapose_named": alphapose(frames, "cam2_{:06d}.png"),
        "alphapose_open": alphapose_open(frames, "people", "pose_keypoints_2d"),
        "alphapose_cmu": alphapose_open(frames, "bodies", "joints"),
        "mmpose_demo": mmpose_demo(frames, dataset_name="coco"),
        "mmpose_inferencer": mmpose_inferencer(frames),
    }
    sources += [saved(folder / f"{name}.json", content) for name, content in written.items()]
    expected_numbers, expected = read_source(sources[0])
    assert expected_numbers == list(frames) and expected.shape[2:] == (17, 3)
    for source in sources[1:]:
        numbers, poses = read_source(source)
        assert numbers == expected_numbers, source
        np.testing.assert_array_equal(poses, expected, err_msg=str(source))


def test_alphaposes_numbers_may_be_bare_and_its_whole_body_begins_with_halpe_26(tmp_path):
    whole = np.arange(WHOLE * 3.0).reshape(WHOLE, 3) + 0.5
    listed = [
        {"image_id": n, "category_id": 1, "keypoints": whole.ravel().tolist()} for n in (7, 8)
    ]
    numbers, poses = read_source(saved(tmp_path / "cam1.json", listed))
    assert numbers == [7, 8] and poses.shape == (2, 1, 26, 3)
    np.testing.assert_array_equal(poses[1, 0, :, :2], whole[:26, :2])
    assert (poses[..., 2] <= 1).all()


def test_frames_between_the_first_and_the_last_that_a_video_file_lists_were_filmed(tmp_path):
    one = np.full((17, 3), 0.5) + np.arange(3)
    path = saved(tmp_path / "cam1.json", alphapose({9: [one], 3: [one], 4: [one, one]}))
    numbers, poses = read_source(path)
    assert numbers == [3, 4, 5, 6, 7, 8, 9]
    np.testing.assert_array_equal((poses[..., 2] > 0).any(-1).sum(-1), [1, 2, 0, 0, 0, 0, 1])
    times = clocks(Trial("t", "t", {}, path, path, poses={"cam1": path}, rate_hz={"cam1": 30.0}))
    np.testing.assert_allclose(times["cam1"], np.arange(7) / 30)


@pytest.mark.parametrize(
    "content, message",
    [
        ([], "lists nobody, or has no known format"),
        ({}, "lists nobody, or has no known format"),
        ({"annotations": []}, "Known are AlphaPose JSON: .*MMPose JSON of its demo"),
        ({"people": []}, "of one frame: put such files into cam1_json/"),
        (mmpose([np.ones((17, 3))]), "of one frame: put such files into cam1_json/"),
        ({"instance_info": []}, "lists no frames"),
        (mmpose_inferencer({0: [], 1: []}), "nobody is in any of the 2 frames"),
        (mmpose_inferencer({0: [np.ones((17, 3))], 1: [np.ones((26, 3))]}),
         "17 in frame 0, 26 in frame 1"),
        (mmpose_inferencer({0: []}) * 2, "no MMPose JSON of its inferencer.*frame_id 0 is there twice"),
        (mmpose_demo({-1: []}), "must count from 1"),
        (mmpose_demo({0: [np.ones((17, 3))]}, dataset_name="h36m"), "keypoints are those of h36m"),
        ({"instance_info": mmpose([np.ones((17, 3))])}, "no MMPose JSON of its demo.*frame_id"),
        (mmpose_inferencer({0: [np.ones((17, 3))]})[:1] + [{"frame_id": 1}], "instances"),
        ([{"frame_id": 0, "instances": [{"keypoints": [[1, 2, 3]], "keypoint_scores": [1]}]}],
         "keypoints are not x, y"),
        (alphapose({1: [np.ones((17, 3))]}, "front.jpg"), "front.jpg has no frame number"),
        (alphapose({1: [np.ones((17, 3))]}) + alphapose({1: [np.ones((17, 3))]}, "b_{}.jpg"),
         "1.jpg and b_1.jpg are both of frame 1"),
        (alphapose({1: [np.ones((17, 3))], 391895: [np.ones((17, 3))]}), "no numbers of a video's"),
        ([{"image_id": "1.jpg", "keypoints": [1, 2]}], "no AlphaPose JSON, or damaged"),
        ([{"image_id": "1.jpg", "keypoints": [10**400] * 3}], "no AlphaPose JSON, or damaged"),
        (mmpose_inferencer({0: [], 10**400: []}), "lists 2 frames between number 0 and"),
        ([{"frame_id": float("inf"), "instances": []}], "no MMPose JSON of its inferencer"),
        ({"1.jpg": {"people": [{"pose_keypoints_2d": np.arange(54).tolist()}]}},
         "necks are not between the shoulders.*without --format"),
        ({"1.jpg": {"people": [{"pose_keypoints_2d": np.arange(75).tolist()}]}},
         "AlphaPose JSON .--format open or cmu."),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_should_be_is_told_in_one_line(tmp_path, content, message):
    path = saved(tmp_path / "cam1.json", content)
    with pytest.raises(PipelineError, match=message) as caught:
        read_source(path)
    assert "cam1.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['[{"image_id": "1.jpg", "keypoi', "[" * 100_000])
def test_a_video_file_cut_short_or_nested_without_end_is_named(tmp_path, text):
    (tmp_path / "cam1.json").write_text(text)
    with pytest.raises(PipelineError, match="cam1.json is no JSON, or damaged"):
        read_source(tmp_path / "cam1.json")


def test_an_empty_list_among_openpose_files_is_a_broken_file(tmp_path):
    write_person(tmp_path)
    saved(tmp_path / "cam_000009.json", [])
    with pytest.raises(PipelineError, match="cam_000009.json is no OpenPose JSON"):
        read(tmp_path)


def test_mmposes_images_with_nobody_are_empty_lists(tmp_path):
    one = np.full((17, 3), 0.5) + np.arange(3)
    for number, people in enumerate(([], [one], [])):
        saved(tmp_path / f"cam1_{number}.json", mmpose(people))
    numbers, poses = read_source(tmp_path)
    assert numbers == [0, 1, 2]
    np.testing.assert_array_equal((poses[..., 2] > 0).any((1, 2)), [False, True, False])


def test_a_camera_has_a_folder_or_a_file_and_not_both(tmp_path):
    folder = session_folder(tmp_path, ("cam1",))
    saved(folder / "pose" / "sway1" / "cam2.json", [])
    (folder / "pose" / "sway1" / "._cam2.json").touch()
    (trial,) = open_session(folder).trials()
    assert trial.cameras == ["cam1", "cam2"] and trial.poses["cam2"].name == "cam2.json"
    saved(folder / "pose" / "sway1" / "cam1.json", [])
    with pytest.raises(PipelineError, match="keypoints of cam1 twice"):
        open_session(folder).trials()


def test_a_file_of_each_program_goes_through_the_stages_as_folders_do(tmp_path):
    """The same session, but that cam1 has AlphaPose's file and cam2 MMPose's; nobody is dropped."""
    folder, truth = brought_session(tmp_path)
    pose = folder / "pose" / "sway1"
    for camera, write in (("cam1", alphapose), ("cam2", mmpose_demo)):
        files = frame_files(pose / f"{camera}_json")
        people = {
            number: [
                np.reshape(each["pose_keypoints_2d"], (-1, 3))
                for each in json.loads(path.read_text())["people"]
            ]
            for number, path in files.items()
        }
        saved(pose / f"{camera}.json", write(people))
        for path in files.values():
            path.unlink()
        (pose / f"{camera}_json").rmdir()
    trial, _ = run_to(folder)
    points = load_dataset(trial.folder("triangulate") / "points.nc")
    position = points.position.transpose("time", "keypoint", "axis").values
    np.testing.assert_allclose(position, truth, atol=1e-4)
    keypoints = load_dataset(trial.folder("keypoints") / "keypoints.nc")
    known = keypoints.confidence.isel(person=0).sel(camera="cam1").values.any(-1)
    assert set(np.flatnonzero(~known)) == DROPPED  # filmed, as far as the file tells, with nobody
    saved(pose / "cam1.json", json.loads((pose / "cam1.json").read_text())[:-1])
    assert not {outcome.stage: outcome.skipped for outcome in run_to(folder)[1]}["frames"]
