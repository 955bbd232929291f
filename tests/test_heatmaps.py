"""Heatmaps: cameras against OpenCV, maps against closed forms, and their file and times."""

import json

import cv2
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from test_volumetric import SMALL, awake, cameras, equations_of, frames_of, trusted
from test_volumetric import person as anyone

from calibration import Camera
from calibration.aniposelib_toml import write_toml
from models.assets import asset_folder
from models.blazepose import BlazePoseDetector, BlazePoseEstimator
from models.context import SEGMENTS
from models.evidence import grid, local, log_evidence, moments
from models.geometric import Tolerances, triangulate
from models.heatmaps import Heatmaps, Projection, density, project, projection_of
from models.learned import triangulate_learned
from models.multiview import JOINTS, Views
from models.overlap import detect as find_persons
from models.overlap import estimate
from models.people import Detections, PoseMaps
from models.view_encoder import Trust, exchange
from models.vocabulary import vocabulary
from models.volumetric import Volumetric
from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from stages import detect, frames, keypoints
from stages import triangulate as triangulate_stage
from stages.frames import read_frames
from stages.heatmap_file import FILE, HeatmapWriter, opened
from stages.heatmaps import nearest_frames, on_timeline
from stages.trial import Trial, no_progress

ROWS, COLUMNS = 60, 44
SIDE_M = (2.8, 2.2)
"""Of a map at the person, along columns and rows: cells are not square."""
TURN = np.radians(25)
WIDTH_M = 0.08
"""Standard deviation of the Gaussians that are drawn; two cells at least."""
LIKE = torch.zeros(1, dtype=torch.float64)


def lens(distortion, image_size=(1080, 1920)):
    """A camera four metres in front of the origin, turned a little about every axis."""
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array([0.1, -0.2, 0.05]))[0]
    pose[:3, 3] = [0.1, -0.2, 4.0]
    matrix = np.array([[1400.0, 0, 530], [0, 1350, 980], [0, 0, 1]])
    return Camera("c", image_size, matrix, np.array(distortion, float), pose)


def map_from_image(camera, origin):
    """A turned rectangle of the image around a place of the world: px to (column, row)."""
    depth = (camera.camera_from_world[:3] @ [*origin, 1])[2]
    turn = np.array([[np.cos(TURN), np.sin(TURN)], [-np.sin(TURN), np.cos(TURN)]])
    cells_per_px = np.array([COLUMNS, ROWS]) / SIDE_M * depth / camera.intrinsics[[0, 1], [0, 1]]
    matrix = cells_per_px[:, None] * turn
    middle = np.array([COLUMNS - 1, ROWS - 1]) / 2
    return np.column_stack([matrix, middle - matrix @ camera.project(np.array(origin))])


def drawn(camera, pixels, origin):
    """Maps of Gaussians around keypoints (px), as wide as `WIDTH_M` at the depth of the origin."""
    affine = map_from_image(camera, origin)
    row, column = np.mgrid[:ROWS, :COLUMNS]
    cells = np.stack([column, row], -1) - affine[:, 2]
    image = camera.undistort(cells @ np.linalg.inv(affine[:, :2]).T)
    depth = (camera.camera_from_world[:3] @ [*origin, 1])[2]
    apart = image - camera.undistort(pixels)[:, None, None]
    return np.exp(-0.5 * np.square(apart * depth / WIDTH_M).sum(-1)), affine


def heatmaps_of(rig, joints):
    """What a rig's pose model would see of joints in one window, without errors."""
    origins = frames_of(joints).origin[0].numpy()
    maps, affines = [], []
    for at, origin in zip(joints[0].numpy(), origins, strict=True):
        views = [drawn(camera, camera.project(at), origin) for camera in rig]
        maps.append([view[0] for view in views])
        affines.append([view[1] for view in views])
    projection = projection_of(rig, LIKE)
    repeated = (each.expand(1, len(origins), *each.shape) for each in vars(projection).values())
    return Heatmaps(
        torch.from_numpy(np.array(maps))[None],
        torch.from_numpy(np.array(affines))[None],
        Projection(*repeated),
    )


def person(windows, frames):
    """Joints that a map and the cube hold whole."""
    joints = anyone(windows, frames)
    middle = joints.mean((1, 2), keepdim=True)
    return middle + 0.5 * (joints - middle)


def keypoints_of(rig, joints):
    image = np.stack([camera.undistort(camera.project(joints[0].numpy())) for camera in rig], 1)
    extrinsics = torch.from_numpy(np.stack([c.camera_from_world[:3] for c in rig]))[None]
    image = torch.from_numpy(image)[None]
    return Views(image, torch.full(image.shape[:-1], 0.9, dtype=image.dtype), extrinsics)


coefficient = st.floats(-0.2, 0.2)


class TestProjection:
    @given(
        st.sampled_from([4, 5, 8, 12, 14]).flatmap(
            lambda n: st.lists(coefficient, min_size=n, max_size=n)
        ),
        st.integers(0, 2**32 - 1),
    )
    @settings(max_examples=60, deadline=None)
    def test_every_lens_projects_as_opencv_does(self, distortion, seed):
        camera = lens(distortion)
        points = np.random.default_rng(seed).uniform(-1.3, 1.3, (7, 3))
        rotation = cv2.Rodrigues(camera.camera_from_world[:3, :3])[0]
        expected, _ = cv2.projectPoints(
            points, rotation, camera.camera_from_world[:3, 3], camera.intrinsics, camera.distortion
        )
        found = project(torch.from_numpy(points), projection_of([camera], LIKE))[0]
        np.testing.assert_allclose(found.numpy(), expected[:, 0], rtol=1e-9, atol=1e-6)

    def test_what_is_behind_the_camera_is_nowhere(self):
        points = torch.tensor([[0.0, 0, -9], [0, 0, 0]], dtype=torch.float64)
        found = project(points, projection_of([lens(np.zeros(5))], LIKE))[0]
        assert found[0].isnan().all() and found[1].isfinite().all()

    def test_it_passes_the_gradient_check(self):
        given = projection_of([lens(np.linspace(-0.05, 0.08, 14))], LIKE)
        points = torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, (3, 3)))
        leaves = [each.clone().requires_grad_() for each in (points, *vars(given).values())]
        assert torch.autograd.gradcheck(lambda p, *c: project(p, Projection(*c)), leaves)


class TestDensity:
    def test_a_gaussian_is_itself_in_the_plane_at_the_person_whatever_the_cells(self):
        rig, joints, blur = cameras(3), person(1, 2), 0.06
        bodies, maps = frames_of(joints), heatmaps_of(rig, joints).in_body(frames_of(joints))
        axis = torch.linspace(-0.7, 0.7, 41, dtype=torch.float64)
        for frame, view in ((0, 0), (0, 2), (1, 1)):
            turned = maps.projection.extrinsics[0, frame, view, :, :3]
            plane = torch.cartesian_prod(axis, axis)
            points = torch.cat([plane, torch.zeros(len(plane), 1).double()], 1) @ turned
            found = density(maps, points, blur)[0, frame, view]
            here = bodies.origin[0, frame].numpy()
            middle = rig[view].undistort(rig[view].project(here))
            depth = maps.projection.extrinsics[0, frame, view, 2, 3]
            joint = JOINTS.index("RKnee")
            at = rig[view].undistort(rig[view].project(joints[0, frame, joint].numpy()))
            expected = multivariate_normal.pdf(
                plane.numpy(), (at - middle) * depth.numpy(), WIDTH_M**2 + blur**2
            )
            error = np.abs(found[joint].numpy() - expected) / expected.max()
            assert error.max() < 0.04  # bilinear sampling blurs unevenly
            assert float(found[joint].sum()) * (1.4 / 40) ** 2 == pytest.approx(1, abs=0.02)

    def test_maps_of_keypoints_fill_the_cube_as_the_keypoints_do(self):
        rig, joints, count = cameras(3), person(1, 2), 24
        bodies, views = frames_of(joints), keypoints_of(rig, joints)
        unit, cube = grid(count, joints), joints.new_full((1, 1, 1, 3), 2.5)
        rays = local(equations_of(views, bodies), torch.zeros_like(cube), cube)
        trust = trusted(views, WIDTH_M)
        maps = density(heatmaps_of(rig, joints).in_body(bodies), 2.5 * unit, 2.5 / (2 * count))
        plain, filled = (log_evidence(rays, trust, unit, count, drawn=m) for m in (None, maps))
        assert (filled.amax(-1) - plain.amax(-1)).abs().max() < 0.3  # of three views' logarithms
        assert torch.allclose(filled.amin(-1), plain.amin(-1), atol=1e-3)
        expected, found = moments(plain, unit), moments(filled, unit)
        apart = 2.5 * (found.position - expected.position).norm(dim=-1)
        assert apart.max() < 0.015  # a seventh of a voxel; the maps are wider farther away
        ratio = found.standard_deviation / expected.standard_deviation
        assert ratio.min() > 0.85 and ratio.max() < 1.15

    def test_a_map_of_the_other_side_is_evidence_for_this_one(self):
        rig, joints, count = cameras(2), person(1, 1), 24
        bodies, views = frames_of(joints), keypoints_of(rig, joints)
        maps = heatmaps_of(rig, joints)
        maps = Heatmaps(exchange(maps.probability, 3), maps.map_from_image, maps.projection)
        sure = trusted(views, WIDTH_M)
        told = Trust(sure.precision, torch.ones_like(sure.outlier), sure.outlier, sure.token)
        unit, cube = grid(count, joints), joints.new_full((1, 1, 1, 3), 2.5)
        rays = local(equations_of(views, bodies), torch.zeros_like(cube), cube)
        filled = density(maps.in_body(bodies), 2.5 * unit, 2.5 / (2 * count))
        found = 2.5 * moments(log_evidence(rays, told, unit, count, drawn=filled), unit).position
        assert (found - bodies.from_world(joints)).norm(dim=-1).max() < 0.03

    @pytest.mark.parametrize(
        "distortion", [np.zeros(5), [-0.3, 0.12, 0.01, -0.02, 0.0], np.linspace(0.02, 0.06, 14)]
    )
    def test_a_peak_is_found_where_opencv_projects_the_joint(self, distortion):
        camera, point = lens(distortion), np.array([0.45, -0.5, 0.2])
        cells = map_from_image(camera, np.zeros(3))
        column, row = np.rint(cells[:, :2] @ camera.project(point) + cells[:, 2]).astype(int)
        maps = torch.zeros(1, 1, 1, 1, ROWS, COLUMNS, dtype=torch.float64)
        maps[..., row, column] = 0.9
        projection = projection_of([camera], LIKE)
        inside = Projection(*(each[None, None] for each in vars(projection).values()))
        looked = Heatmaps(maps, torch.from_numpy(cells)[None, None, None], inside)
        around = torch.cartesian_prod(*[torch.linspace(-0.2, 0.2, 21).double()] * 2)
        turned = torch.from_numpy(camera.camera_from_world[:2, :3])
        points = torch.from_numpy(point) + around @ turned
        found = density(looked, points, 0.04)[0, 0, 0, 0]
        best = around[found.argmax()]
        assert best.abs().max() < 0.045  # the cell's centre is up to half a cell beside the point

    def test_outside_of_its_map_a_joint_is_not(self):
        rig, joints = cameras(2), person(1, 1)
        maps = heatmaps_of(rig, joints).in_body(frames_of(joints))
        far = torch.tensor([[0.0, 2.5, 0.0], [0.0, -2.5, 0.0]], dtype=torch.float64)
        assert not density(maps, far, 0.05).any()

    def test_a_fish_eyed_lens_does_not_fold_what_is_beside_it_into_the_image(self):
        camera = lens([-0.4, 0.0, 0.0, 0.0, 0.0])
        here = np.array([0.0, 0.0, 0.0])
        cells = map_from_image(camera, here)
        maps = torch.ones(1, 1, 1, 1, ROWS, COLUMNS, dtype=torch.float64)
        projection = Projection(
            *(each[None, None] for each in vars(projection_of([camera], LIKE)).values())
        )
        looked = Heatmaps(maps, torch.from_numpy(cells)[None, None, None], projection)
        # 57° off the axis, where r (1 - 0.4 r²) is nearly 0 again: in the middle of the map.
        beside = np.array([1.55, 0.0, 1.0]) - camera.camera_from_world[:3, 3]
        beside = camera.camera_from_world[:3, :3].T @ beside
        pixel = cells[:, :2] @ camera.project(beside) + cells[:, 2]
        assert (pixel > 0).all() and (pixel < [COLUMNS, ROWS]).all()
        found = density(looked, torch.from_numpy(np.stack([here, beside])), 0.04)[0, 0, 0, 0]
        assert found[0] > 0 and found[1] == 0

    def test_a_map_that_is_sure_of_nothing_leaves_the_word_to_the_keypoint(self):
        rig, joints = cameras(3), person(1, 2)
        bodies, views, unit = frames_of(joints), keypoints_of(rig, joints), grid(8, joints)
        maps = heatmaps_of(rig, joints).in_body(bodies)
        maps = Heatmaps(0.4 * maps.probability, maps.map_from_image, maps.projection)
        filled = density(maps, 2.5 * unit, 2.5 / 16)
        assert filled.isnan().all()
        cube = joints.new_full((1, 1, 1, 3), 2.5)
        rays = local(equations_of(views, bodies), torch.zeros_like(cube), cube)
        plain = log_evidence(rays, trusted(views), unit, 8)
        assert torch.equal(log_evidence(rays, trusted(views), unit, 8, drawn=filled), plain)


def network_of_chance():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return awake(Volumetric(SMALL))


class TestNetwork:
    def run(self, views, bodies, *choices):
        network = network_of_chance()
        length = torch.full((1, len(SEGMENTS)), 0.3, dtype=views.image.dtype)
        with torch.no_grad():
            return [network(views, bodies, length, None, maps) for maps in choices]

    def test_maps_fill_the_cube_alone(self):
        rig, joints = cameras(3), person(1, 2)
        bodies, views, maps = frames_of(joints), keypoints_of(rig, joints), heatmaps_of(rig, joints)
        plain, filled = self.run(views, bodies, None, maps)
        assert torch.equal(filled.algebraic.position, plain.algebraic.position)
        moved = (filled.volume.position - plain.volume.position).norm(dim=-1)
        assert 1e-4 < moved.max() < 0.1

    def test_a_frame_without_maps_is_as_if_there_were_none(self):
        rig, joints = cameras(3), person(1, 3)
        bodies, views, maps = frames_of(joints), keypoints_of(rig, joints), heatmaps_of(rig, joints)
        maps.probability[0, 1], maps.map_from_image[0, 1] = 0, torch.nan
        plain, filled = self.run(views, bodies, None, maps)
        assert torch.equal(filled.result.position[0, 1], plain.result.position[0, 1])
        assert not torch.equal(filled.volume.position[0, 2], plain.volume.position[0, 2])
        assert filled.result.position.isfinite().all()


class TestBlazePose:
    @pytest.mark.parametrize("turned", [False, True])
    def test_sure_keypoints_are_at_the_centre_of_their_maps(self, turned):
        video = asset_folder("demo-single-person") / "cam01.mp4"
        image = next(image for index, _, image in read_frames(video) if index == 30)
        image = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE) if turned else image
        found = find_persons(BlazePoseDetector(), [image])[0]
        poses = estimate(BlazePoseEstimator(), [image], [found], with_maps=True)[0]
        probability = poses.maps.probability[0] / 255
        row, column = np.mgrid[:64, :64]
        mass = probability.sum((1, 2))
        cells = np.stack([(probability * each).sum((1, 2)) for each in (column, row)], -1)
        cells /= mass[:, None]
        spread = [(probability * (each - c[:, None, None]) ** 2).sum((1, 2)) / mass
                  for each, c in zip((column, row), cells.T, strict=True)]  # fmt: skip
        sure = (probability.max((1, 2)) > 0.7) & (np.sum(spread, 0) < 4)  # nothing far away
        affine = poses.maps.map_from_image[0]
        expected = (cells - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T
        assert sure.sum() > 3
        apart = np.linalg.norm(expected - poses.keypoints[0], axis=-1)[sure]
        assert apart.max() < 0.3 / np.sqrt(np.linalg.det(affine[:, :2]))  # of a cell

    def test_where_there_is_nobody_there_are_no_maps(self):
        grey = np.full((480, 300, 3), 128, np.uint8)
        nobody = Detections(np.array([[0.0, 0, 300, 300], [np.nan] * 4]), np.zeros(2), np.ones(2))
        maps = estimate(BlazePoseEstimator(), [grey], [nobody], with_maps=True)[0].maps
        assert not maps.probability.any() and np.isnan(maps.map_from_image).all()


@given(
    st.lists(st.floats(0.001, 0.5), min_size=1, max_size=20),
    st.lists(st.floats(-1, 12), min_size=1, max_size=20),
    st.floats(0.001, 0.3),
)
def test_a_sample_takes_the_nearest_frame_or_none(intervals, times, farthest):
    frame_time = np.concatenate([[0.0], np.cumsum(intervals), [np.nan]])
    found = nearest_frames(frame_time, np.array(times), farthest)
    for time, index in zip(times, found, strict=True):
        apart = np.abs(frame_time[:-1] - time)
        assert apart.min() > farthest if index < 0 else apart[index] == apart.min() <= farthest


NAMES = ("LIndex", "RKnee", "Nose")


def a_file(folder, frames_by_camera):
    """Maps whose values and affines say which frame of which camera they are of."""
    longest = max(frames_by_camera.values())
    writer = HeatmapWriter(list(frames_by_camera), longest, NAMES)
    for index, (name, count) in enumerate(frames_by_camera.items()):
        for frame in range(count):
            values = np.array([1, 10 * index + frame, 50 + frame], np.uint8)
            maps = np.broadcast_to(values[:, None, None], (3, 4, 6)).copy()
            maps[:, 0, 5] = 200
            there = np.nan if frame == 2 else frame
            writer.keep(name, frame, PoseMaps(maps[None], np.full((1, 2, 3), there)))
    assert writer.write(folder / FILE)
    return folder / FILE


def test_samples_get_the_maps_of_their_cameras_frames_by_name_and_time(tmp_path):
    path = a_file(tmp_path, {"b": 5, "a": 9})
    rig = [Camera(name, (64, 48), np.diag([50.0, 50, 1]), np.zeros(5), np.eye(4)) for name in "ab"]
    frame_time = np.full((2, 9), np.nan)
    frame_time[0], frame_time[1, :5] = np.arange(9) / 60, np.arange(5) / 30
    timeline = xr.Dataset(
        {"frame_time": (("camera", "frame"), frame_time), "rate_hz": ("camera", [60.0, 30.0])},
        {"camera": ["a", "b"]},
    )
    synchronised = xr.Dataset(
        {
            "clock_offset": ("camera", [0.0, 0.052]),
            "clock_rate": ("camera", [1.0, 1.0]),
            "subject": (("camera", "frame"), [[0, 0, 0, 0, 0, 0, 1, -1, 0], [0] * 9]),
        },
        {"camera": ["a", "b"], "time": np.arange(1, 9) / 60},
    )
    with opened(path) as stored:
        maps_of = on_timeline(stored, synchronised, timeline, rig)
        chunks = [maps_of(slice(0, 4)), maps_of(slice(4, 8))]
    found = torch.cat([each.probability for each in chunks], 1)[0]
    affine = torch.cat([each.map_from_image for each in chunks], 1)[0]
    assert found.shape == (8, 2, len(JOINTS), 4, 6)
    knee = found[:, :, JOINTS.index("RKnee"), 1, 1] * 255
    # Camera b is second in the file's order, first in its name; its frame k is at 0.052 s + k / 30.
    assert knee[:, 0].round().tolist() == [11, 0, 13, 14, 15, 0, 0, 18]
    assert knee[:, 1].round().tolist() == [
        0,
        0,
        0,
        0,
        1,
        1,
        0,
        0,
    ]  # before its first, and in frame 2
    np.testing.assert_array_equal(affine[:, 1, 0, 0], [np.nan, np.nan, 0, 0, 1, 1, np.nan, np.nan])
    assert not found[:, :, JOINTS.index("LKnee")].any()
    assert chunks[1].projection.intrinsics.shape == (1, 4, 2, 3, 3)


def test_a_damaged_file_says_how_to_make_it_again(tmp_path):
    path = a_file(tmp_path, {"a": 3})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PipelineError, match="--from keypoints"), opened(path):
        pass


def test_nothing_is_written_where_no_maps_were_kept(tmp_path):
    assert not HeatmapWriter(["a"], 3, NAMES).write(tmp_path / FILE)
    assert not any(tmp_path.iterdir())


def test_a_videos_maps_are_kept_for_the_frames_they_are_of(tmp_path):
    video = asset_folder("demo-single-person") / "cam01.mp4"
    images = [image for index, _, image in read_frames(video) if index in (30, 31, 32)]
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(
        str(tmp_path / "v.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30, (width, height)
    )
    for image in images:
        writer.write(image)
    writer.release()
    boxes = find_persons(BlazePoseDetector(), images[:1])[0]
    arrays = detect.stack([boxes] * 3)
    arrays["track"] = np.zeros_like(arrays["place"])
    arrays["box"][1, 0] = np.nan  # nobody in the frame between
    found = detect.as_dataset({"cam1": arrays}, 3).sel(camera="cam1")
    kept = HeatmapWriter(["cam1"], 3, vocabulary("blazepose-33").keypoints)
    estimator = BlazePoseEstimator()
    keypoints.find_keypoints(
        tmp_path / "v.mp4", found, estimator, keypoints.Settings(batch_size=2), no_progress, kept
    )
    kept.write(tmp_path / FILE)
    with opened(tmp_path / FILE) as stored:
        nose = stored.probability.sel(camera="cam1", keypoint="Nose").values
        affine = stored.map_from_image.sel(camera="cam1").values
    assert [each.max() > 128 for each in nose] == [True, False, True]
    assert np.isnan(affine).all((1, 2)).tolist() == [False, True, False]
    assert (tmp_path / FILE).stat().st_size < 40_000


def test_brought_keypoints_have_no_heatmaps_and_the_user_is_told(tmp_path):
    rig = [lens(np.zeros(5)), lens(np.zeros(5))]
    rig = [Camera(f"cam{i}", *list(vars(each).values())[1:]) for i, each in enumerate(rig)]
    write_toml(rig, tmp_path / "c.toml")
    poses = {camera.name: tmp_path / f"{camera.name}_json" for camera in rig}
    for folder in poses.values():
        folder.mkdir()
        for number in range(3):
            people = [{"pose_keypoints_2d": (np.random.default_rng(number).uniform(
                1, 900, (26, 3)) * [1, 1, 0] + [0, 0, 0.9]).ravel().tolist()}]  # fmt: skip
            (folder / f"f_{number:03d}.json").write_text(json.dumps({"people": people}))
    rates = dict.fromkeys(poses, 30.0)
    trial = Trial("t", "t", {}, tmp_path / "c.toml", tmp_path / "r", poses=poses, rate_hz=rates)
    for stage, its in ((frames, frames.Settings()), (detect, detect.Settings()),
                       (keypoints, keypoints.Settings(heatmaps=True))):  # fmt: skip
        out = trial.folder(stage.__name__.rpartition(".")[2])
        out.mkdir(parents=True)
        notices = stage.run(trial, its, out, no_progress)
    assert "no heatmaps were kept: the backend 'external' has none." in notices
    assert load_dataset(out / "keypoints.nc").sizes["camera"] == 2 and not (out / FILE).exists()


def test_each_chunk_of_a_trial_is_given_its_own_maps():
    rig, joints = cameras(3), person(1, 10)
    views, maps = keypoints_of(rig, joints), heatmaps_of(rig, joints)
    maps.map_from_image[..., 1, 2] += 6  # the maps see the joints lower than the keypoints are
    network = network_of_chance().float()
    image, confidence = (
        each[0].transpose(0, 1).numpy() for each in (views.image, views.confidence)
    )
    extrinsics = views.camera_from_world[0].numpy()
    geometric = triangulate(image, confidence, extrinsics, 1 / 60, Tolerances())

    def learned(maps_of):
        seen = image, confidence, extrinsics, JOINTS
        return triangulate_learned(network, *seen, geometric, Tolerances(), heatmaps=maps_of)

    def of(samples):
        chosen = torch.zeros(1, 10, dtype=torch.bool)
        chosen[:, samples] = True
        some = maps.at(chosen)
        projection = Projection(*(each.float() for each in vars(some.projection).values()))
        return Heatmaps(some.probability.float(), some.map_from_image.float(), projection)

    without, filled = learned(None).position, learned(of).position
    maps.probability[0, 8] = 0
    changed = learned(of).position
    moved = np.abs(filled - without).max((1, 2))
    assert np.isfinite(filled).all() and moved.min() > 3e-4
    np.testing.assert_array_equal(np.delete(changed, 8, 0), np.delete(filled, 8, 0))
    np.testing.assert_allclose(changed[8], without[8], atol=1e-5)


class TestTriangulateStage:
    def heatmaps(self, folder, method):
        rig = [Camera("a", (64, 48), np.diag([50.0, 50, 1]), np.zeros(5), np.eye(4))]
        trial = Trial("t", "t", {}, folder / "c.toml", folder)
        one = {"camera": ["a"], "time": np.arange(3) / 60}
        clock = {"clock_offset": ("camera", [0.0]), "clock_rate": ("camera", [1.0])}
        clock["subject"] = (("camera", "frame"), np.zeros((1, 3), int))
        filmed = {"frame_time": (("camera", "frame"), np.arange(3)[None] / 60)}
        filmed["rate_hz"] = ("camera", [60.0])
        its = triangulate_stage.Settings(method=method)
        seen = xr.Dataset(clock, one), xr.Dataset(filmed, {"camera": ["a"]})
        return triangulate_stage.heatmaps_of(trial, its, *seen, rig)

    def test_only_the_volumetric_method_looks_at_maps_and_only_if_they_were_kept(self, tmp_path):
        with self.heatmaps(tmp_path, "volumetric") as maps:
            assert maps is None
        (tmp_path / "03_keypoints").mkdir()
        a_file(tmp_path / "03_keypoints", {"a": 3})
        with self.heatmaps(tmp_path, "geometric") as maps:
            assert maps is None
        with self.heatmaps(tmp_path, "volumetric") as maps:
            assert maps(slice(0, 2)).probability.any()

    def test_maps_of_a_method_that_could_not_run_are_not_claimed(self, monkeypatch):
        monkeypatch.setattr(triangulate_stage, "shipped_weights", lambda method: None)
        rig, joints = cameras(3), person(1, 3)
        pixels = np.stack([camera.project(joints[0].numpy()) for camera in rig])
        seen = triangulate_stage.Seen.through_lenses(rig, pixels, np.ones(pixels.shape[:3]))
        _, _, how, notices = triangulate_stage.triangulate_keypoints(
            seen, 1 / 60, JOINTS,
            triangulate_stage.Settings(method="volumetric"), heatmaps=lambda samples: None,
        )  # fmt: skip
        assert (
            how == {"method": "geometric", "evidence": "keypoints"} and "no weights" in notices[0]
        )
