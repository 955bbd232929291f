import pickle
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import look_at, ring
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration import Camera, arrangement, check_geometry, read_cameras
from calibration.aniposelib_toml import read_toml, write_toml
from calibration.camera import Y_UP_FROM
from calibration.opencap_pickle import load_arrays, read_opencap, write_opencap
from calibration.qualisys import read_qualisys, write_qualisys
from calibration.readers import _key, read_file
from calibration.stated_quality import stated_quality
from models.assets import asset_folder
from pipeline.errors import PipelineError

POINTS = np.random.default_rng(0).uniform([-0.6, 0, -0.6], [0.6, 1.9, 0.6], (7, 5, 3))


def rig(world_up="+y", coefficients=5):
    """Three cameras with all lens coefficients, not square, around a person."""
    generator = np.random.default_rng(1)
    cameras = []
    for index, name in enumerate(("cam1", "cam2", "cam3")):
        center = np.array([4 * np.cos(index), 1.2 + 0.3 * index, 4 * np.sin(index)])
        extrinsics = np.vstack([look_at(center, np.array([0, 0.9, 0])), [0, 0, 0, 1]])
        extrinsics[:3, :3] = extrinsics[:3, :3] @ Y_UP_FROM[world_up]
        matrix = np.array([[1500.0 + index, 0, 530], [0, 1490, 960 + index], [0, 0, 1]])
        lens = (
            generator.normal(0, 1, coefficients)
            * [0.05, 0.02, 1e-3, 1e-3, 0.01, 1e-3, 1e-3, 1e-3][:coefficients]
        )
        cameras.append(Camera(name, (1080, 1920), matrix, lens, extrinsics, world_up))
    return cameras


def by_opencv(camera, points):
    rotation = cv2.Rodrigues(camera.camera_from_world[:3, :3])[0]
    pixels = cv2.projectPoints(
        points.reshape(-1, 1, 3),
        rotation,
        camera.camera_from_world[:3, 3],
        camera.intrinsics,
        camera.distortion,
    )[0]
    return pixels.reshape(*points.shape[:-1], 2)


@pytest.mark.parametrize("coefficients", [4, 5, 8])
def test_projection_is_opencvs_and_undistortion_its_inverse(coefficients):
    for camera in rig(coefficients=coefficients):
        pixels = camera.project(POINTS)
        np.testing.assert_allclose(pixels, by_opencv(camera, POINTS), atol=1e-9)
        in_camera = POINTS @ camera.camera_from_world[:3, :3].T + camera.camera_from_world[:3, 3]
        np.testing.assert_allclose(
            camera.undistort(pixels), in_camera[..., :2] / in_camera[..., 2:], atol=1e-7
        )


def test_missing_points_and_points_behind_the_camera_are_missing_in_the_image():
    camera = rig()[0]
    points = POINTS.copy()
    points[2, 3] = np.nan
    points[4, 1] = camera.center * 2  # behind
    missing = np.isnan(camera.project(points)).all(-1)
    assert missing[2, 3] and missing[4, 1] and missing.sum() == 2
    assert np.isnan(camera.undistort(np.full((3, 2), np.nan))).all()


@pytest.mark.parametrize("up", Y_UP_FROM)
def test_every_world_turns_into_a_right_handed_one_with_y_up(up):
    turn = Y_UP_FROM[up]
    assert np.linalg.det(turn) == pytest.approx(1)
    axis = np.zeros(3)
    axis["xyz".index(up[1])] = 1 if up[0] == "+" else -1
    np.testing.assert_array_equal(turn @ axis, [0, 1, 0])
    file, upright = rig(up)[1], rig(up)[1].in_y_up_world()
    np.testing.assert_allclose(upright.project(POINTS @ turn.T), file.project(POINTS), atol=1e-9)


WRITERS = {
    "toml": (write_toml, read_toml, "cameras.toml", "+z"),
    "qualisys": (write_qualisys, read_qualisys, "cameras.qca.txt", "+z"),
    "opencap": (write_opencap, read_opencap, "Videos", "-y"),
}


@pytest.mark.parametrize("format", WRITERS)
def test_a_written_calibration_sees_the_same_points_when_read_back(format, tmp_path):
    write, read, name, up = WRITERS[format]
    cameras = rig(up)
    write(cameras, tmp_path / name)
    back = read(tmp_path / name)
    assert [camera.name for camera in back] == ["cam1", "cam2", "cam3"]
    for camera, copy in zip(cameras, back, strict=True):
        assert copy.image_size == (1080, 1920) and copy.world_up == up
        np.testing.assert_allclose(copy.distortion, camera.distortion, rtol=1e-6)
        np.testing.assert_allclose(copy.project(POINTS), by_opencv(camera, POINTS), atol=1e-6)


def test_the_same_calibration_gives_the_same_numbers_whichever_file_it_is_in(tmp_path):
    """To the last bit, since inverse kinematics makes much of little; readers differ in units and axes."""
    found = {}
    for name, (write, _, file, up) in WRITERS.items():
        write([camera.in_world(up) for camera in rig()], tmp_path / file)
        found[name], _ = read_cameras(tmp_path / file, ["cam1", "cam2", "cam3"])
    for cameras in found.values():
        for camera, same, true in zip(cameras, found["toml"], rig(), strict=True):
            for part in ("intrinsics", "distortion", "camera_from_world"):
                assert np.array_equal(getattr(camera, part), getattr(same, part)), part
            np.testing.assert_allclose(camera.camera_from_world, true.camera_from_world, atol=1e-9)


def test_a_calibration_may_be_a_file_by_camera(tmp_path):
    write_opencap(rig("-y"), tmp_path / "Session0")
    write_toml(rig("+z"), tmp_path / "calib.toml")
    files = {
        f"Cam{i}": tmp_path / "Session0" / f"cam{i}" / "cameraIntrinsicsExtrinsics.pickle"
        for i in (1, 3)
    }
    cameras, notices = read_cameras(files, ["Cam3", "Cam1"])
    assert [camera.name for camera in cameras] == ["Cam3", "Cam1"] and not notices
    assert [camera.intrinsics[0, 0] for camera in cameras] == [1502, 1500]
    # Of a file with several cameras, the one of the name.
    mixed, _ = read_cameras(files | {"cam2": tmp_path / "calib.toml"}, ["Cam1", "cam2"])
    assert mixed[1].intrinsics[0, 0] == 1501
    with pytest.raises(PipelineError, match="no camera Cam2. It has Cam1, Cam3"):
        read_cameras(files, ["Cam1", "Cam2"])
    with pytest.raises(PipelineError, match="no camera of this trial has a calibration file"):
        read_cameras({}, ["Cam1", "Cam2"])


# How cameras stand to each other


def test_angles_and_distances_between_cameras_are_those_they_were_placed_at():
    cameras = ring_of(4)
    assert arrangement.looked_at(cameras) == pytest.approx([0, 0.9, 0], abs=1e-9)
    found = {(pair.first, pair.second): pair for pair in arrangement.pairs(cameras)}
    assert len(found) == 6
    across, beside = found["cam0", "cam2"], found["cam0", "cam1"]
    assert across.distance_m == pytest.approx(8) and beside.distance_m == pytest.approx(4 * 2**0.5)
    # From 0.6 m above what they look at, 4 m away.
    assert across.angle_deg == pytest.approx(180 - 2 * np.degrees(np.arctan(0.6 / 4)))
    assert arrangement.doubts(cameras) == []


def ring_of(count, height_m=1.5):
    extrinsics = [np.vstack([each, [0, 0, 0, 1]]) for each in ring(count, height_m=height_m)]
    first = rig()[0]
    return [
        replace(first, name=f"cam{i}", camera_from_world=each) for i, each in enumerate(extrinsics)
    ]


def turned(camera, degrees, axis):
    """The camera turned about one of its own axes."""
    matrix = cv2.Rodrigues(np.radians(degrees) * np.eye(3)[axis])[0]
    extrinsics = camera.camera_from_world.copy()
    extrinsics[:3] = matrix @ extrinsics[:3]
    return replace(camera, camera_from_world=extrinsics)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda cameras: [turned(cameras[0], 90, 2), *cameras[1:]], "cam0 is turned by -?90°"),
        (lambda cameras: [turned(cameras[0], 180, 2), *cameras[1:]], "cam0 is turned by -?180°"),
        (lambda cameras: [turned(cameras[0], 75, 0), *cameras[1:]], "cam0 looks (up|down) steeply"),
        (lambda cameras: [turned(cameras[0], 180, 1), *cameras[1:]], "cam0 looks away"),
        (lambda cameras: [cameras[0], replace(cameras[0], name="twin"), cameras[1]], "same place"),
        (lambda _: ring_of(60)[:2], "all cameras look along nearly the same line"),
        (lambda _: ring_of(2, height_m=0.9), "all cameras look along nearly the same line"),
    ],
)
def test_doubtful_arrangements_are_told(change, message):
    cameras = change(ring_of(4))
    assert re.search(message, " ".join(arrangement.doubts(cameras)))


def test_a_files_own_word_about_its_quality_is_passed_on(tmp_path):
    real = asset_folder("demo-single-person") / "Calib.qca.txt"
    assert "cam01 0.40" in stated_quality(real)
    write_toml(rig("+z"), tmp_path / "calib.toml")
    assert stated_quality(tmp_path / "calib.toml") == "not stated"
    text = (tmp_path / "calib.toml").read_text().replace("[metadata]", "[metadata]\nerror = 0.412")
    (tmp_path / "calib.toml").write_text(text)
    assert "0.412" in stated_quality(tmp_path / "calib.toml")
    write_qualisys(rig("+z"), tmp_path / "calib.qca.txt")  # with residuals of 0: it does not know
    for calibration in (tmp_path / "calib.qca.txt", tmp_path, {"cam1": tmp_path / "calib.toml"}):
        assert stated_quality(calibration) == "not stated"


def test_the_real_qualisys_file_looks_at_the_capture_volume():
    path = asset_folder("demo-single-person") / "Calib.qca.txt"
    cameras, _ = read_cameras(path, ["cam01", "cam02", "cam03", "cam04"])
    for camera in cameras:
        assert 1 < camera.center[1] < 3  # on tripods
        pixel = camera.project(np.array([0.0, 1.0, -0.9]))  # where the person stands
        assert (pixel > 0).all() and (pixel < camera.image_size).all()
        assert camera.intrinsics[0, 0] == pytest.approx(1680, abs=20)
        # image upright: a higher point is higher in the image
        assert camera.project(np.array([0.0, 1.5, -0.9]))[1] < pixel[1]


def test_a_real_phones_intrinsics_load_and_lack_extrinsics(shared):
    path = shared / "opencap" / "intrinsics" / "iPhone13,3" / "cameraIntrinsics.pickle"
    content = load_arrays(path)
    assert content["intrinsicMat"].shape == (3, 3) and content["distortion"].size == 5
    with pytest.raises(PipelineError, match="lacks rotation, translation"):
        read_opencap(path)


class _Evil:
    def __reduce__(self):
        return (print, ("this pickle ran code",))


@pytest.mark.parametrize("content", [_Evil(), {"intrinsicMat": _Evil()}, [1, 2]])
def test_a_pickle_that_is_more_than_arrays_is_refused(content, tmp_path, capsys):
    path = tmp_path / "cam1" / "cameraIntrinsicsExtrinsics.pickle"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(PipelineError):
        read_opencap(path)
    assert capsys.readouterr().out == ""


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_refused_in_every_format(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("garbage")
    for suffix in (".qca.txt", ".toml", ".pickle"):
        path = folder / f"calib{suffix}"
        path.write_bytes(content)
        with pytest.raises(PipelineError):
            read_file(path)


def test_cameras_are_matched_by_name_whatever_the_order(tmp_path):
    write_toml(rig("+z"), tmp_path / "calib.toml")
    cameras, notices = read_cameras(tmp_path / "calib.toml", ["Cam_03", "cam01"])
    assert [camera.name for camera in cameras] == ["Cam_03", "cam01"]
    assert cameras[0].intrinsics[0, 0] == 1502
    assert "not in this trial: cam2" in notices[0]
    assert _key("cam1") != _key("cam10") and _key("cam01") == _key("Cam 1")


def renamed(cameras, names):
    return [replace(camera, name=name) for camera, name in zip(cameras, names, strict=True)]


@pytest.mark.parametrize(
    "calibrated, videos",
    [
        (["左", "右", "süd"], ["右", "süd", "左"]),
        (["cam1_1", "cam11", "cam1"], ["cam1", "cam11", "cam1_1"]),
        (["Cam 01", "cam_2", "CAM-03"], ["cam3", "cam01", "Cam2"]),
    ],
)
def test_names_are_matched_exactly_or_nearly_but_never_confused(calibrated, videos, tmp_path):
    write_toml(renamed(rig("+z"), calibrated), tmp_path / "calib.toml")
    cameras, _ = read_cameras(tmp_path / "calib.toml", videos)
    found = [round(camera.intrinsics[0, 0]) - 1500 for camera in cameras]
    assert found == [[_key(name) for name in calibrated].index(_key(video)) for video in videos]


def test_one_camera_twice_is_refused_in_file_and_videos(tmp_path):
    path = tmp_path / "calib.toml"
    write_toml(rig("+z"), path)
    with pytest.raises(PipelineError, match="two of the videos cam1, cam01"):
        read_cameras(path, ["cam1", "cam01"])
    path.write_text(path.read_text().replace('name = "cam2"', 'name = "cam1"'))
    with pytest.raises(PipelineError, match="several cameras named cam1"):
        read_cameras(path, ["cam1", "cam3"])


@pytest.mark.parametrize(
    "key, value",
    [
        ("rotation", "[0.1, 0.2]"),
        ("rotation", "[]"),
        ("matrix", "[[1.0, 0.0], [0.0, 1.0]]"),
        ("matrix", "[1500.0]"),
        ("size", "[inf, 1080]"),
        ("size", "[0, 0]"),
        ("translation", "[1.0]"),
        ("distortions", "['a', 'b', 'c', 'd']"),
    ],
)
def test_pieces_of_the_wrong_shape_are_refused(key, value, tmp_path):
    path = tmp_path / "calib.toml"
    write_toml(rig("+z")[:2], path)
    lines = path.read_text().splitlines()
    lines[next(i for i, line in enumerate(lines) if line.startswith(f"{key} ="))] = (
        f"{key} = {value}"
    )
    path.write_text("\n".join(lines))
    with pytest.raises(PipelineError, match="cam1"):
        read_file(path)


@pytest.mark.parametrize(
    "key, value",
    [("imageSize", None), ("imageSize", np.array([1.0])), ("rotation", np.eye(2)),
     ("translation", None), ("distortion", "none"), ("intrinsicMat", np.zeros(3))],
)  # fmt: skip
def test_a_pickle_with_pieces_of_the_wrong_shape_is_refused(key, value, tmp_path):
    write_opencap(rig("-y")[:1], tmp_path)
    path = next(tmp_path.glob("*/*.pickle"))
    path.write_bytes(pickle.dumps(load_arrays(path) | {key: value}))
    with pytest.raises(PipelineError):
        read_file(tmp_path)


def test_the_session_may_correct_the_up_axis(tmp_path):
    write_opencap(rig("-y"), tmp_path)
    cameras, _ = read_cameras(tmp_path, ["cam1", "cam2"], world_up="-z")
    expected = replace(rig("-y")[0], world_up="-z").in_y_up_world()
    np.testing.assert_allclose(cameras[0].project(POINTS), expected.project(POINTS), atol=1e-6)


def test_a_calibration_of_other_cameras_names_both_lists(tmp_path):
    write_toml(rig("+z"), tmp_path / "calib.toml")
    with pytest.raises(
        PipelineError, match="no camera left.*has cam1, cam2, cam3.*trial has cam1, left"
    ):
        read_cameras(tmp_path / "calib.toml", ["cam1", "left"])
    with pytest.raises(PipelineError, match="only one camera"):
        read_cameras(tmp_path / "calib.toml", ["cam1"])
    with pytest.raises(PipelineError, match="unknown calibration format"):
        (tmp_path / "calib.doc").touch()
        read_cameras(tmp_path / "calib.doc", ["cam1", "cam2"])
    with pytest.raises(PipelineError, match="no calibration at"):
        read_cameras(tmp_path / "nowhere.toml", ["cam1", "cam2"])


def test_image_sizes_are_compared_with_the_videos(tmp_path):
    path = tmp_path / "calib.toml"
    write_toml(rig("+z"), path)

    def read(width, height):
        return read_cameras(
            path, ["cam1", "cam2"], dict.fromkeys(["cam1", "cam2"], (width, height))
        )

    half, notices = read(540, 960)
    full = read(1080, 1920)[0]
    assert "scaled" in notices[1]
    inside = full[0].project(POINTS)
    np.testing.assert_allclose(half[0].project(POINTS), (inside + 0.5) / 2 - 0.5, atol=1e-9)
    kept, notices = read(1088, 1920)
    np.testing.assert_array_equal(kept[0].intrinsics, full[0].intrinsics)
    assert "cropped or padded" in notices[1]
    with pytest.raises(PipelineError, match="Turn the videos"):
        read(1920, 1080)
    with pytest.raises(PipelineError, match="another shape"):
        read(640, 480)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"intrinsics": np.diag([-1.0, 1, 1])}, "focal length"),
        ({"distortion": np.zeros(3)}, "3 distortion coefficients"),
        ({"camera_from_world": np.diag([1.0, 1, -1, 1])}, "reflection"),
        ({"camera_from_world": np.diag([2.0, 1, 1, 1])}, "orthonormal"),
        ({"camera_from_world": np.full((4, 4), np.nan)}, "not finite"),
        ({"world_up": "up"}, "up axis"),
    ],
)
def test_impossible_cameras_are_refused(change, message):
    with pytest.raises(PipelineError, match=message):
        replace(rig()[0], **change)


def test_fisheye_is_refused_by_name(tmp_path):
    write_toml(rig("+z"), tmp_path / "calib.toml")
    text = (tmp_path / "calib.toml").read_text().replace("fisheye = false", "fisheye = true", 1)
    (tmp_path / "calib.toml").write_text(text)
    with pytest.raises(PipelineError, match="cam1 is calibrated as fisheye"):
        read_toml(tmp_path / "calib.toml")


NAMES = [
    "Nose",
    "RShoulder",
    "LShoulder",
    "RHip",
    "LHip",
    "RAnkle",
    "LAnkle",
    "RHeel",
    "LHeel",
    "RBigToe",
    "LBigToe",
]
STANDING = np.array(
    [[0.1, 1.6, 0], [0, 1.4, 0.2], [0, 1.4, -0.2], [0, 0.9, 0.1], [0, 0.9, -0.1], [0, 0.1, 0.1],
     [0, 0.1, -0.1], [-0.05, 0.02, 0.1], [-0.05, 0.02, -0.1], [0.2, 0.02, 0.1], [0.2, 0.02, -0.1]]
)  # fmt: skip


def test_a_sound_set_up_raises_no_alarm():
    assert check_geometry(rig(), np.tile(STANDING, (4, 1, 1)), NAMES) == ([], [])


@pytest.mark.parametrize(
    "points, message",
    [
        (STANDING * [1, -1, 1], "leans 180° from the vertical"),
        (STANDING[:, [1, 0, 2]], "leans 90° from the vertical"),
        (STANDING * [1, 1, -1], "mirrored"),
    ],
)
def test_an_impossible_body_is_a_problem(points, message):
    problems, _ = check_geometry(rig(), np.tile(points, (4, 1, 1)), NAMES)
    assert any(message in problem for problem in problems)


@pytest.mark.parametrize(
    "points, message",
    [
        (STANDING + [0, 4, 0], "under the person's feet"),
        (STANDING + [12, 0, 0], "behind camera"),
    ],
)
def test_doubtful_geometry_is_reported(points, message):
    problems, doubts = check_geometry(rig(), np.tile(points, (4, 1, 1)), NAMES)
    assert not problems and any(message in doubt for doubt in doubts)


def test_cameras_in_one_place_or_one_line_are_reported():
    twins = [rig()[0], replace(rig()[0], name="twin")]
    notices = " ".join(check_geometry(twins, np.tile(STANDING, (4, 1, 1)), NAMES)[1])
    assert "same place" in notices and "depth is poor" in notices
