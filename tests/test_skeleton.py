"""Forward kinematics in torch, judged by OpenSim's own."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import opensim
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from opensim import Vec3

from models.opensim_model import add_markers, generic_model, load_model
from models.skeleton import Skeleton, read_skeleton
from models.spatial_functions import PiecewisePolynomials, read_function
from pipeline.errors import PipelineError

OPENCAP = Path(__file__).parents[2] / "shared" / "data" / "opencap"
TOLERANCE = 1e-9
"""m, or of a rotation matrix."""


def vector(values) -> Vec3:
    return Vec3(*map(float, values))


def human(name: str) -> opensim.Model:
    """A packaged model or OpenCap's, with the augmenter's markers and without forces."""
    if name == "lai-uhlrich-2022":
        if not OPENCAP.is_dir():
            pytest.skip("OpenCap's model (../shared/data/opencap) is not beside this checkout")
        path, markers = "LaiUhlrich2022.osim", "LaiUhlrich2022_markers_augmenter.xml"
        path, markers = OPENCAP / path, OPENCAP / markers
    else:
        files = generic_model(name)
        path, markers = files.folder / files.model, files.folder / files.markers
    model = load_model(path)
    model.updForceSet().clearAndDestroy()
    model.finalizeConnections()
    add_markers(model, markers)
    return model


def oblique(frame, name: str, numbers) -> opensim.PhysicalOffsetFrame:
    """A frame somewhere on another."""
    offset = opensim.PhysicalOffsetFrame()
    offset.setName(name)
    offset.setParentFrame(frame)
    offset.set_translation(vector(numbers[:3]))
    offset.set_orientation(vector(numbers[3:]))
    frame.addComponent(offset)
    return offset


def moved_by(coordinate: str, function, axis) -> opensim.TransformAxis:
    names = opensim.ArrayStr()
    if coordinate:
        names.append(coordinate)
    moved = opensim.TransformAxis(names, vector(axis))
    moved.set_function(function)
    return moved


def points(kind, *pairs):
    function = kind()
    for pair in pairs:
        function.addPoint(*map(float, pair))
    return function


def times(factor: float, function) -> opensim.MultiplierFunction:
    function.thisown = False  # the product takes it
    return opensim.MultiplierFunction(function, factor)


def curved_joint() -> opensim.SpatialTransform:
    transform = opensim.SpatialTransform()
    spline = points(opensim.SimmSpline, (-0.7, 0.1), (-0.2, 0.3), (0, 0), (0.4, 0.2), (0.8, -0.3))
    broken = points(opensim.PiecewiseLinearFunction, (-0.5, 0.1), (0.1, -0.1), (0.6, 0.2))
    polynomial = opensim.PolynomialFunction(opensim.Vector(4, 0.3))
    transform.set_rotation1(moved_by("first", opensim.LinearFunction(-1.5, 0.2), (1, 2, 2)))
    transform.set_rotation2(moved_by("second", spline, (0, 1, 0.1)))
    transform.set_rotation3(moved_by("", opensim.Constant(0.3), (0.2, 0, 1)))
    transform.set_translation1(moved_by("first", times(0.7, polynomial), (0, -1, 0)))
    transform.set_translation2(moved_by("second", broken, (1, 0, 0)))
    transform.set_translation3(moved_by("third", opensim.LinearFunction(1, 0), (0, 0, 1)))
    return transform


def straight_joint() -> opensim.SpatialTransform:
    transform = opensim.SpatialTransform()
    transform.set_rotation1(moved_by("fourth", opensim.LinearFunction(1, 0), (0, 0, 1)))
    transform.set_rotation2(moved_by("", opensim.Constant(0), (0, 1, 0)))
    transform.set_rotation3(moved_by("", opensim.Constant(0), (1, 0, 0)))
    transform.set_translation1(moved_by("fourth", opensim.LinearFunction(0.5, 0.1), (1, 0, 0)))
    transform.set_translation2(moved_by("", opensim.Constant(0.2), (0, 1, 0)))
    transform.set_translation3(moved_by("", times(0.5, opensim.Constant(0.2)), (0, 0, 1)))
    return transform


def tree(joints: dict[str, tuple[str, tuple]]) -> opensim.Model:
    """A model of bodies on joints: kind of joint (and how often used) -> its parent, arguments.

    All joint frames and markers are on oblique frames on oblique frames.
    """
    model, random = opensim.Model(), np.random.default_rng(5)
    frames = {"ground": model.getGround()}
    for name, (parent, arguments) in joints.items():
        body = opensim.Body(name, 1, Vec3(0), opensim.Inertia(1, 1, 1))
        model.addBody(body)
        frames[name] = body
        ends = []
        for frame in (frames[parent], body):
            for level in range(2):
                numbers = random.uniform(-0.5, 0.5, 6)
                frame = oblique(frame, f"{frame.getName()}_{name}_{level}", numbers)
            ends.append(frame)
        kind = getattr(opensim, name.split("_")[0])
        model.addJoint(kind(f"at_{name}", *ends, *arguments))
        model.addMarker(opensim.Marker(f"on_{name}", ends[1], vector(random.normal(size=3))))
    model.addMarker(opensim.Marker("on_ground", model.getGround(), Vec3(0.1, 0.2, 0.3)))
    model.finalizeConnections()
    model.initSystem()
    for index in range(model.getCoordinateSet().getSize()):
        coordinate = model.updCoordinateSet().get(index)
        coordinate.setRangeMin(-1 - 0.01 * index)
        coordinate.setRangeMax(1 + 0.02 * index)
    return model


def couple(model, dependent: str, independent: str, function, factor: float = 1.0) -> None:
    coupler = opensim.CoordinateCouplerConstraint()
    coupler.setName(f"{dependent}_follows")
    coupler.setDependentCoordinateName(dependent)
    names = opensim.ArrayStr()
    names.append(independent)
    coupler.setIndependentCoordinateNames(names)
    coupler.setFunction(function)
    scale = coupler.updPropertyByName("scale_factor")
    opensim.PropertyHelper.setValueDouble(factor, scale)
    model.addConstraint(coupler)
    model.finalizeConnections()


def zoo() -> opensim.Model:
    """Every kind of joint and function."""
    model = tree({
        "FreeJoint": ("ground", ()),
        "CustomJoint": ("FreeJoint", (curved_joint(),)),
        "BallJoint": ("CustomJoint", ()),
        "CustomJoint_straight": ("BallJoint", (straight_joint(),)),
        "GimbalJoint": ("FreeJoint", ()),
        "UniversalJoint": ("GimbalJoint", ()),
        "PinJoint": ("UniversalJoint", ()),
        "SliderJoint": ("PinJoint", ()),
        "PlanarJoint": ("GimbalJoint", ()),
        "WeldJoint": ("PlanarJoint", ()),
    })  # fmt: skip
    spline = points(opensim.SimmSpline, (-1, 0.2), (-0.3, 0.4), (0.3, -0.3), (0.9, 0.5))
    couple(model, "at_PinJoint_coord_0", "second", spline, 0.8)
    return model


@cache
def load(name: str) -> tuple[opensim.Model, Skeleton]:
    model = zoo() if name == "zoo" else human(name)
    model.set_assembly_accuracy(1e-12)  # else OpenSim's coupled coordinates are a micrometre off
    return model, read_skeleton(model)


def scaled(model: opensim.Model, factors: dict[str, np.ndarray]) -> opensim.Model:
    scales = opensim.ScaleSet()
    for body, each in factors.items():
        scale = opensim.Scale()
        scale.setSegmentName(body)
        scale.setScaleFactors(vector(each))
        scale.setApply(True)
        scales.cloneAndAppend(scale)
    copy = model.clone()
    copy.scale(copy.initSystem(), scales, True, 70.0)
    return copy


def random_poses(skeleton: Skeleton, count: int) -> torch.Tensor:
    """Poses inside the ranges; coupled coordinates hold numbers that must not matter."""
    share = torch.rand(count, len(skeleton.coordinates), generator=torch.manual_seed(7))
    poses = torch.lerp(skeleton.lower, skeleton.upper, share.double())
    poses[:, skeleton.locked] = skeleton.default[skeleton.locked]
    return poses


def opensim_state(model: opensim.Model, skeleton: Skeleton):
    """A function that poses OpenSim's model and returns the state."""
    state = model.initSystem()
    coordinates = [model.getCoordinateSet().get(name) for name in skeleton.coordinates]

    def pose(values, told) -> opensim.State:
        for coordinate, value, is_told in zip(coordinates, values.tolist(), told, strict=True):
            if is_told:
                coordinate.setValue(state, value, False)
        model.realizePosition(state)
        return state

    return pose


def opensim_kinematics(model: opensim.Model, skeleton: Skeleton, poses: torch.Tensor):
    """Markers (pose, marker, 3), rotations (pose, body, 3, 3), positions (pose, body, 3)."""
    pose = opensim_state(model, skeleton)
    markers = [model.getMarkerSet().get(name) for name in skeleton.markers]
    bodies = [model.getBodySet().get(name) for name in skeleton.bodies]
    axes = [(row, column) for row in range(3) for column in range(3)]
    found, rotations, positions = [], [], []
    for values in poses:
        state = pose(values, ~skeleton.locked)
        found.append([each.getLocationInGround(state).to_numpy() for each in markers])
        transforms = [each.getTransformInGround(state) for each in bodies]
        positions.append([each.p().to_numpy() for each in transforms])
        matrices = [each.R().asMat33() for each in transforms]
        rotations.append([[each.get(*axis) for axis in axes] for each in matrices])
    return np.array(found), np.reshape(rotations, (*np.shape(positions), 3)), np.array(positions)


@pytest.mark.parametrize("scaling", ["unscaled", "scaled"])
@pytest.mark.parametrize("name", ["pose2sim", "lai-uhlrich-2022", "pose2sim-muscles", "zoo"])
def test_markers_and_bodies_are_where_opensim_has_them(name, scaling):
    model, skeleton = load(name)
    poses = random_poses(skeleton, 1000)
    scale = None
    if scaling == "scaled":
        factors = np.random.default_rng(3).uniform(0.7, 1.3, (len(skeleton.bodies), 3))
        model = scaled(model, dict(zip(skeleton.bodies, factors, strict=True)))
        scale = torch.from_numpy(factors)
    markers, rotations, positions = opensim_kinematics(model, skeleton, skeleton.settled(poses))
    found = skeleton.marker_positions(poses, scale).numpy()
    rotation, position = (each.numpy() for each in skeleton(poses, scale))
    assert abs(found - markers).max() < TOLERANCE
    assert abs(position - positions).max() < TOLERANCE
    assert abs(rotation - rotations).max() < TOLERANCE


@pytest.mark.parametrize(("name", "count"), [("pose2sim-muscles", 20), ("zoo", 1)])
def test_coupled_coordinates_follow_as_in_opensim(name, count):
    model, skeleton = load(name)
    assert skeleton.coupled.sum() == count
    poses = random_poses(skeleton, 3)
    pose = opensim_state(model, skeleton)
    for settled in skeleton.settled(poses):
        state = pose(settled, ~(skeleton.locked | skeleton.coupled))
        model.assemble(state)
        assembled = [model.getCoordinateSet().get(each) for each in skeleton.coordinates]
        expected = [each.getValue(state) for each in assembled]
        np.testing.assert_allclose(settled, expected, atol=1e-8)


def test_each_person_of_a_batch_has_their_own_size():
    _, skeleton = load("pose2sim")
    poses = random_poses(skeleton, 6)
    poses = poses.reshape(2, 3, -1)
    scale = torch.rand(2, 1, len(skeleton.bodies), 3, dtype=torch.float64) + 0.5
    together = skeleton.marker_positions(poses, scale)
    for person in range(2):
        alone = skeleton.marker_positions(poses[person], scale[person, 0])
        torch.testing.assert_close(together[person], alone)


def test_an_offset_moves_a_marker_along_its_bodys_axes():
    _, skeleton = load("pose2sim")
    poses = random_poses(skeleton, 4)
    marker = skeleton.markers.index("r_knee_study")
    offsets = torch.zeros(len(skeleton.markers), 3, dtype=torch.float64)
    offsets[marker, 1] = 0.02
    scale = torch.full((len(skeleton.bodies), 3), 1.5, dtype=torch.float64)
    moved = skeleton.marker_positions(poses, scale, offsets)
    moved -= skeleton.marker_positions(poses, scale)
    rotation, _ = skeleton(poses)
    up = rotation[:, skeleton.bodies.index("femur_r"), :, 1]
    torch.testing.assert_close(moved[:, marker], 0.02 * up)
    assert moved.abs().sum() == moved[:, marker].abs().sum()


def test_ranges_defaults_and_locks_are_the_models():
    model, skeleton = load("pose2sim-muscles")
    knee = skeleton.coordinates.index("knee_angle_r")
    coordinate = model.getCoordinateSet().get("knee_angle_r")
    assert skeleton.lower[knee] == coordinate.getRangeMin()
    assert skeleton.upper[knee] == coordinate.getRangeMax()
    assert skeleton.clamped[knee]
    standing = skeleton.coordinates.index("pelvis_ty")
    assert skeleton.default[standing] == model.getCoordinateSet().get("pelvis_ty").getDefaultValue()
    locked = np.array(skeleton.coordinates)[skeleton.locked]
    assert list(locked) == ["Abs_t1", "Abs_t2"]


@pytest.mark.parametrize("name", ["pose2sim-muscles", "zoo"])
def test_gradients_are_those_of_small_changes(name):
    _, skeleton = load(name)
    poses = random_poses(skeleton, 1)
    middle = (0.5 * poses[0] + 0.3 * skeleton.upper + 0.2 * skeleton.lower).requires_grad_()
    scale = torch.linspace(0.8, 1.2, 3 * len(skeleton.bodies), dtype=torch.float64)
    scale = scale.reshape(-1, 3).requires_grad_()
    offsets = torch.zeros(len(skeleton.markers), 3, dtype=torch.float64, requires_grad=True)
    some = [0, 3, len(skeleton.markers) // 2, -1]

    def positions(coordinates, scale, offsets):
        return skeleton.marker_positions(coordinates, scale, offsets)[some]

    assert torch.autograd.gradcheck(positions, (middle, scale, offsets), fast_mode=True)
    forward = torch.func.jacfwd(positions)(middle, scale, offsets)
    backward = torch.func.jacrev(positions)(middle, scale, offsets)
    torch.testing.assert_close(forward, backward)


def test_single_precision_is_a_micrometre_off_and_stays_single():
    _, skeleton = load("pose2sim")
    poses = random_poses(skeleton, 20)
    single = read_skeleton(load("pose2sim")[0]).float().marker_positions(poses.float())
    assert single.dtype == torch.float32
    assert (single - skeleton.marker_positions(poses)).abs().max() < 1e-5


knots = st.lists(st.tuples(st.floats(0.05, 1), st.floats(-1, 1)), min_size=2, max_size=8)


@given(knots, st.sampled_from([opensim.SimmSpline, opensim.PiecewiseLinearFunction]))
def test_curves_have_opensims_values_between_and_beyond_knots(steps, kind):
    x, y = np.cumsum([step for step, _ in steps]), [value for _, value in steps]
    function = points(kind, *zip(x, y, strict=True))
    at = np.concatenate([x, np.linspace(x[0] - 1, x[-1] + 1, 17)])
    expected = [function.calcValue(opensim.Vector(1, value)) for value in at]
    curve = PiecewisePolynomials([read_function(function, "the function")])
    found = curve(torch.from_numpy(at)[:, None])[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_an_unsupported_joint_is_refused_by_name():
    model = tree({"FreeJoint": ("ground", ()), "EllipsoidJoint": ("FreeJoint", (Vec3(1, 2, 3),))})
    with pytest.raises(PipelineError, match="'at_EllipsoidJoint' is a EllipsoidJoint"):
        read_skeleton(model)


def custom(axis, function) -> opensim.Model:
    """A body that moves along an axis of another by a function of a coordinate."""
    transform = straight_joint()
    transform.set_translation1(moved_by("fourth", function, axis))
    transform.set_translation2(moved_by("", opensim.Constant(0), (0, -1, 0)))
    return tree({"FreeJoint": ("ground", ()), "CustomJoint": ("FreeJoint", (transform,))})


def test_an_unsupported_function_is_told_by_its_joint():
    with pytest.raises(PipelineError, match="axis 4 of .* joint 'at_CustomJoint' is a Sine"):
        read_skeleton(custom((1, 0, 0), opensim.Sine(1, 1, 0)))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (opensim.Sine(1, 1, 0), "is a Sine"),
        (opensim.SimmSpline(), "needs two points or more"),
        (
            points(opensim.PiecewiseLinearFunction, (0, 1), (0.5, 2), (0.5, 3)),
            "needs two points or more, each further along x than the last",
        ),
        (opensim.LinearFunction(opensim.ArrayDouble(1.0, 3)), "depends on several coordinates"),
    ],
)
def test_an_unsupported_function_is_refused_by_name(function, reason):
    with pytest.raises(PipelineError, match=f"^the function {reason}"):
        read_function(function, "the function")


def test_a_coordinate_prescribed_over_time_is_refused_by_name():
    model = tree({"FreeJoint": ("ground", ())})
    coordinate = model.updCoordinateSet().get(3)
    coordinate.setPrescribedFunction(opensim.Constant(0.1))
    coordinate.setDefaultIsPrescribed(True)
    with pytest.raises(PipelineError, match=f"prescribes the coordinate '{coordinate.getName()}'"):
        read_skeleton(model)


def test_a_frame_spanned_by_stations_is_refused_by_name():
    model = tree({"FreeJoint": ("ground", ())})
    body = model.getBodySet().get(0)
    frame = opensim.StationDefinedFrame()
    frame.setName("spanned")
    places = {"point_a": (0, 0, 0), "point_b": (1, 0, 0), "point_c": (0, 1, 0)}
    for name, place in {**places, "origin_point": (0, 0, 0)}.items():
        corner = opensim.Station(body, vector(place))
        corner.setName(name)
        body.addComponent(corner)
        getattr(frame, f"connectSocket_{name}")(corner)
    body.addComponent(frame)
    model.addMarker(opensim.Marker("on_it", frame, Vec3(0)))
    model.finalizeConnections()
    with pytest.raises(PipelineError, match="frame 'spanned' is a StationDefinedFrame"):
        read_skeleton(model)


def test_a_translation_that_opensim_scales_wrongly_is_refused():
    model = custom((0.6, 0.8, 0), opensim.LinearFunction(0.5, 0))
    with pytest.raises(PipelineError, match=r"axis 4 of .* 'at_CustomJoint'.*\[0.6, 0.8, 0.0\]"):
        read_skeleton(model)
    assert read_skeleton(custom((0.6, 0.8, 0), opensim.LinearFunction(1, 0)))


def test_an_unsupported_constraint_is_refused_by_name_unless_it_is_off():
    model = tree({"FreeJoint": ("ground", ()), "PinJoint": ("FreeJoint", ())})
    bodies = model.getBodySet()
    constraint = opensim.PointConstraint(bodies.get(0), Vec3(0), bodies.get(1), Vec3(0))
    constraint.setName("held")
    model.addConstraint(constraint)
    model.finalizeConnections()
    with pytest.raises(PipelineError, match="constraint 'held' is a PointConstraint"):
        read_skeleton(model)
    constraint.set_isEnforced(False)
    assert read_skeleton(model).bodies == ("FreeJoint", "PinJoint")


def test_couplings_that_are_not_supported_are_refused_by_name():
    free = [f"at_FreeJoint_coord_{index}" for index in range(6)]
    line = opensim.LinearFunction(0.5, 0.1)
    model = tree({"FreeJoint": ("ground", ())})
    couple(model, free[4], free[0], line)
    with pytest.raises(PipelineError, match=f"'{free[4]}_follows' couples the translation"):
        read_skeleton(model)
    model = tree({"FreeJoint": ("ground", ())})
    couple(model, free[1], free[0], line)
    couple(model, free[2], free[1], line)
    with pytest.raises(PipelineError, match=f"to '{free[1]}', which itself follows"):
        read_skeleton(model)


def test_a_closed_chain_is_refused_by_its_body():
    model = tree({"FreeJoint": ("ground", ()), "PinJoint": ("FreeJoint", ())})
    bodies = model.getBodySet()
    model.addJoint(opensim.WeldJoint("again", model.getGround(), bodies.get(1)))
    model.finalizeConnections()
    with pytest.raises(PipelineError, match="'PinJoint' hangs on several joints"):
        read_skeleton(model)


def test_a_joint_from_child_to_parent_is_refused_by_its_body():
    model = tree({"FreeJoint": ("ground", ())})
    body = opensim.Body("backwards", 1, Vec3(0), opensim.Inertia(1, 1, 1))
    model.addBody(body)
    model.addJoint(opensim.PinJoint("reversed", body, model.getGround()))
    model.finalizeConnections()
    with pytest.raises(PipelineError, match="from ground to the model's body 'backwards'"):
        read_skeleton(model)


def test_the_wrong_number_of_coordinates_or_bodies_is_an_error():
    _, skeleton = load("pose2sim")
    with pytest.raises(ValueError, match="39 coordinates given; the skeleton has 40"):
        skeleton(torch.zeros(39, dtype=torch.float64))
    with pytest.raises(ValueError, match="3 bodies' scale factors given; the skeleton has 22"):
        skeleton(torch.zeros(40, dtype=torch.float64), torch.ones(3, 3, dtype=torch.float64))


@pytest.mark.parametrize("first", ["skeleton", "c3d"])
def test_a_skeleton_and_a_c3d_file_may_follow_each_other_in_one_process(first, tmp_path):
    """Both packages come from SWIG, and share its table of C++ types."""
    jobs = {
        "skeleton": "from models.skeleton import read_skeleton\n"
        "from models.opensim_model import generic_model, load_model\n"
        "known = generic_model('pose2sim')\n"
        "read_skeleton(load_model(known.folder / known.model))\n",
        "c3d": "import numpy as np\n"
        "from pathlib import Path\n"
        "from stages.export import write_c3d\n"
        f"write_c3d(Path({str(tmp_path / 'markers.c3d')!r}), np.arange(3) / 60, ['a', 'b'], np.ones((3, 2, 3)))\n",
    }
    order = sorted(jobs, key=lambda name: name != first)
    command = [sys.executable, "-c", "".join(jobs[name] for name in order)]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
