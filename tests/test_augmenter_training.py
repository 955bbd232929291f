"""Training of the marker augmenter: sequences, their errors, frames of segments, shipped weights."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from models.assets import asset_folder
from models.augmenter import MARKERS, RATE_HZ, VIDEO_KEYPOINTS, load_augmenter
from models.segment_augmenter import Architecture, RetrainedAugmenter, segment_of
from models.segment_frames import SEGMENTS, SegmentFrames
from models.simulation import performances
from models.simulation.draws import Draws
from models.simulation.scene import interpolated, make_scene
from models.simulation.sequences import Sequences, draw_sequence, marked_skeleton
from models.simulation.smoothed_errors import draw_errors, group_of, table
from models.training.augmenter import AugmenterLessons, AugmenterRecipe, losses
from models.training.checkpoint import Record
from models.training.learning_curve import CURVE
from models.training.run import BEST, CHECKPOINT, train
from models.training.steps import start_training
from models.weights import load_weights, read_tensors, shipped_weights
from pipeline.cli import app
from pipeline.errors import PipelineError
from pipeline.simulate import Plan, performed, person_of
from stages import augment as stage
from stages.augment import Settings, augment, load_networks
from stages.trial import Subject

TINY = AugmenterRecipe[Architecture](
    method="augmenter",
    architecture=Architecture(units=8, layers=1, arm_units=8, arm_layers=1),
    population=Sequences(performances=1, kept_performances=1),
    windows=4,
    frames=12,
    steps=6,
    learning_rate=0.01,
    warm_up_steps=2,
    averaging=0.5,
    validation_every=2,
    validation_windows=4,
    patience=3,
)
CPU = torch.device("cpu")
HELD_OUT_SEED = 950
needs_weights = pytest.mark.skipif(
    shipped_weights("augmenter") is None, reason="no weights are shipped"
)


@pytest.fixture(scope="module")
def skeleton():
    return marked_skeleton("pose2sim")


@pytest.fixture(scope="module")
def clean(skeleton):
    """Windows without any errors, of people with no peculiar keypoints."""
    exact = Sequences(
        most_noise=0, performances=1, kept_performances=1, derived_share=0, estimated_height_share=0
    )
    return draw_sequence(exact, skeleton, 16, 20, torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def held_out():
    """Movements of somebody whom no training knows: height, mass, times, keypoints, markers."""
    plan = Plan(model="pose2sim", seed=HELD_OUT_SEED)
    person, model = person_of(plan)
    found = {}
    for motion in ("squats", "dropjump"):
        scene = make_scene(person, model, performed(motion, model, plan.seed, motion), {})
        time_s = np.arange(0, scene.time_s[-1], 1 / RATE_HZ)
        points = interpolated(scene.keypoints, scene.time_s, time_s)
        markers = interpolated(scene.markers, scene.time_s, time_s)
        true = np.stack([markers[name] for name in MARKERS], 1)
        found[motion] = time_s, {name: points[name] for name in VIDEO_KEYPOINTS}, true
    return person, found


@pytest.fixture(scope="module")
def retrained():
    return load_networks(Settings(network="retrained"))


# Frames of segments


def test_frames_of_segments_are_right_handed_axes_that_turn_with_the_body(clean):
    keypoints = clean.keypoints.double()
    frames = SegmentFrames(list(SEGMENTS), VIDEO_KEYPOINTS).double()
    origin, axes = frames(keypoints)
    identity = torch.eye(3, dtype=torch.double).expand_as(axes)
    torch.testing.assert_close(axes.mT @ axes, identity)
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones_like(axes[..., 0, 0]))
    turn = torch.from_numpy(Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix())
    there = keypoints @ turn.T + torch.tensor([1.0, 2.0, 3.0], dtype=torch.double)
    moved_origin, moved_axes = frames(there)
    torch.testing.assert_close(moved_origin, origin @ turn.T + torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(moved_axes, turn @ axes)


def test_every_marker_is_carried_by_the_segment_that_it_is_on():
    carried = {name: segment_of(name) for name in MARKERS}
    assert carried["r.ASIS_study"] == carried["LHJC_study"] == "pelvis"
    assert carried["C7_study"] == carried["r_shoulder_study"] == "torso"
    assert carried["r_mknee_study"] == carried["r_thigh2_study"] == "thigh_r"
    assert carried["L_sh3_study"] == carried["L_mankle_study"] == "shank_l"
    assert carried["L_5meta_study"] == carried["L_calc_study"] == "foot_l"
    assert carried["r_lelbow_study"] == "upper_arm_r" and carried["L_mwrist_study"] == "forearm_l"


# Sequences


def test_people_in_sequences_are_rigid_and_of_their_height(clean):
    at = {name: index for index, name in enumerate(VIDEO_KEYPOINTS)}
    shank = (clean.keypoints[:, :, at["RKnee"]] - clean.keypoints[:, :, at["RAnkle"]]).norm(dim=-1)
    assert shank.std(1).max() < 1e-5  # both are on the tibia
    ratio = shank[:, 0] / clean.height_m
    assert 0.2 < ratio.min() and ratio.max() < 0.28  # Winter: 0.246
    one, other = (MARKERS.index(name) for name in ("r_toe_study", "r_calc_study"))
    foot = (clean.markers[:, :, one] - clean.markers[:, :, other]).norm(dim=-1)
    assert foot.std(1).max() < 1e-5
    mass_index = clean.mass_kg / clean.height_m**2
    assert 14 < mass_index.min() and mass_index.max() < 35


def test_sequences_go_on_smoothly_from_sample_to_sample(clean):
    speed = (clean.keypoints.diff(dim=1) * RATE_HZ).norm(dim=-1)
    assert 0.05 < speed.mean() < 3.0 and speed.max() < 20.0
    change = clean.keypoints.diff(n=2, dim=1).norm(dim=-1)
    assert change.mean() < 0.2 * clean.keypoints.diff(dim=1).norm(dim=-1).mean()


def test_the_same_generator_gives_the_same_sequences(skeleton):
    one, other, third = (
        draw_sequence(TINY.population, skeleton, 2, 5, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.keypoints, other.keypoints) and torch.equal(one.markers, other.markers)
    assert not torch.equal(one.keypoints, third.keypoints)


def test_drop_jumps_and_seeds_of_tests_are_never_trained_on(skeleton, monkeypatch):
    asked, usual = [], performances.random_for

    def noted(seed, what):
        asked.append((seed, what))
        return usual(seed, what)

    monkeypatch.setattr(performances, "random_for", noted)
    population = Sequences(performances=2, kept_performances=1)
    for kept in (False, True):
        draw_sequence(population, skeleton, 2, 3, torch.Generator().manual_seed(1), kept)
    assert {what for _, what in asked} == {"squats", "gait", "sit-to-stand", "static"}
    assert min(seed for seed, _ in asked) >= 100_000


def test_errors_have_the_measured_sizes_and_are_none_where_there_is_no_noise():
    draws = Draws(torch.Generator().manual_seed(3), torch.float32)
    noise = torch.cat([torch.ones(3000), torch.zeros(10)])
    errors = draw_errors(noise, 60, draws)
    assert errors[3000:].abs().max() == 0
    for name in ("RKnee", "LHeel", "midHip"):
        sizes = [rig[group_of(name)] for rig in table()["cameras"].values()]
        expected = np.sqrt(np.mean([np.square(each["shift_m"]).sum() for each in sizes]))
        expected_wander = np.sqrt(np.mean([np.square(each["wander_m"]).sum() for each in sizes]))
        here = errors[:3000, :, VIDEO_KEYPOINTS.index(name)]
        whole = float((here**2).sum(-1).mean().sqrt())
        assert whole == pytest.approx(np.hypot(expected, expected_wander), rel=0.08)
        step = float((here.diff(dim=1) ** 2).sum(-1).mean().sqrt())
        assert step < 0.45 * expected_wander  # it wanders, and does not jump


# Training


class Watch:
    def __init__(self):
        self.steps, self.losses = [], []

    def stepped(self, step, metrics):
        self.steps.append(step)
        self.losses.append(metrics["loss"])

    def validated(self, step, mean_mm, is_best):
        pass


def run(folder, until=None, recipe=TINY) -> Record:
    watch = Watch()
    return train(recipe, folder, CPU, False, lambda: until in watch.steps, watch, AugmenterLessons)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    assert run(tmp_path / "never").step == TINY.steps
    assert run(tmp_path / "once", until=3).step == 3
    assert run(tmp_path / "once").step == TINY.steps
    never, once = (read_tensors(tmp_path / name / CHECKPOINT)[0] for name in ("never", "once"))
    assert never.keys() == once.keys()
    for name, value in never.items():
        assert torch.equal(value, once[name]), name
    with open(tmp_path / "once" / CURVE, newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    assert {"training/mpjpe_mm", "training/shape_mm", "validation_mm/noise 0.5"} <= last.keys()
    network = load_weights(tmp_path / "once" / BEST, "augmenter")
    assert isinstance(network, RetrainedAugmenter)


def test_training_makes_markers_better():
    recipe = TINY.model_copy(update={"steps": 40, "windows": 16, "warm_up_steps": 5})
    lessons, training = AugmenterLessons(recipe, CPU), start_training(recipe, "cpu")
    lessons.step(training, 0)  # takes the scale, so that the start is not too easy to beat
    before = np.mean(list(lessons.validate(training.network).values()))
    for step in range(1, recipe.steps):
        lessons.step(training, step)
    assert np.mean(list(lessons.validate(training.network).values())) < 0.85 * before


def test_a_segment_that_only_moves_costs_less_than_one_that_turns(clean):
    foot = [index for index, name in enumerate(MARKERS) if segment_of(name) == "foot_r"]
    moved, turned = clean.markers.clone(), clean.markers.clone()
    moved[:, :, foot] += torch.tensor([0.01, 0, 0])
    middle = clean.markers[:, :, foot].mean(2, keepdim=True)
    turn = torch.tensor(Rotation.from_rotvec([0, 0.2, 0]).as_matrix(), dtype=torch.float32)
    turned[:, :, foot] = (clean.markers[:, :, foot] - middle) @ turn.T + middle
    for_moved, for_turned = losses(moved, clean.markers), losses(turned, clean.markers)
    assert for_moved["mpjpe_mm"] == pytest.approx(10 * len(foot) / len(MARKERS), abs=0.05)
    assert for_moved["shape_mm"] < 0.05
    assert for_turned["shape_mm"] == pytest.approx(float(for_turned["mpjpe_mm"]), abs=0.05)


def test_a_recipe_of_a_few_steps_trains_and_exports_from_the_command_line(tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'method = "augmenter"\nwindows = 2\nframes = 6\nsteps = 2\nlearning_rate = 0.01\n'
        "validation_every = 2\nvalidation_windows = 2\npatience = 3\n"
        "population = { performances = 1, kept_performances = 1 }\n"
        "architecture = { units = 4, layers = 1, arm_units = 4, arm_layers = 1 }\n"
    )
    command = ["train", "augmenter", "--recipe", str(recipe), "--out", str(tmp_path / "run")]
    planned = CliRunner().invoke(app, [*command, "--dry-run"])
    assert planned.exit_code == 0 and "parameters; 2 steps of 2 windows" in planned.output
    assert not (tmp_path / "run").exists()
    done = CliRunner().invoke(app, [*command, "--export", str(tmp_path / "weights")])
    assert done.exit_code == 0, done.output
    card = (tmp_path / "weights" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "of step 2 of 2 planned" in card and "Nothing here was validated on real data" in card
    load_weights(tmp_path / "weights" / "model.safetensors", "augmenter")


# The weights that are shipped


def distance_mm(markers, true):
    return 1000 * np.linalg.norm(markers - true, axis=-1).mean()


@needs_weights
@pytest.mark.parametrize("motion", ["squats", "dropjump"])
def test_shipped_weights_put_markers_nearer_than_the_published_ones(retrained, held_out, motion):
    """Of somebody in neither training, without noise; drop jumps are in no training of ours."""
    person, found = held_out
    time_s, keypoints, true = found[motion]
    folder = asset_folder(stage.ASSET)
    published = load_augmenter(folder / "lower"), load_augmenter(folder / "upper")
    size = person.height_m, person.mass_kg
    ours, theirs = (
        distance_mm(augment(keypoints, time_s, networks, *size), true)
        for networks in (retrained, published)
    )
    assert ours < 4 and ours < 0.2 * theirs


@needs_weights
@pytest.mark.parametrize("angle_deg", [37, 90, 180, 251])
def test_the_heading_does_not_matter(retrained, held_out, angle_deg):
    """Not even by the little that it does to the published network: within float32's digits."""
    person, found = held_out
    time_s, keypoints, _ = found["dropjump"]
    turn = Rotation.from_euler("y", angle_deg, degrees=True).as_matrix()
    there = {name: value @ turn.T + [1.0, 0.0, -2.0] for name, value in keypoints.items()}
    size = person.height_m, person.mass_kg
    here = augment(keypoints, time_s, retrained, *size) @ turn.T + [1.0, 0.0, -2.0]
    np.testing.assert_allclose(augment(there, time_s, retrained, *size), here, atol=1e-4)


@needs_weights
@pytest.mark.parametrize("rate_hz", [30, 50, 120, 240])
def test_the_frame_rate_does_not_matter(retrained, held_out, rate_hz):
    """By more than half a millimetre, RMS over all markers and samples, against 60 Hz."""
    person, found = held_out
    size = person.height_m, person.mass_kg
    for time_s, keypoints, _ in found.values():
        other_s = np.arange(0, time_s[-1], 1 / rate_hz)
        there = interpolated(keypoints, time_s, other_s)
        markers = augment(there, other_s, retrained, *size)
        markers_60 = augment(keypoints, time_s, retrained, *size)
        usual = dict(zip(MARKERS, np.moveaxis(markers_60, 1, 0), strict=True))
        usual = np.stack(list(interpolated(usual, time_s, other_s).values()), 1)
        off = 1000 * np.linalg.norm(markers - usual, axis=-1)
        assert np.sqrt((off**2).mean()) < 0.5


@needs_weights
def test_a_whole_trial_is_as_good_as_a_window_of_the_training(retrained, held_out):
    person, found = held_out
    time_s, keypoints, true = found["squats"]
    markers = augment(keypoints, time_s, retrained, person.height_m, person.mass_kg)
    ends = np.r_[0:20, len(time_s) - 20 : len(time_s)]
    assert distance_mm(markers[ends], true[ends]) < 1.5 * distance_mm(markers, true) + 1


@needs_weights
def test_weights_that_were_damaged_are_one_clear_message(tmp_path, monkeypatch):
    content = bytearray(shipped_weights("augmenter").read_bytes())
    content[-100] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    monkeypatch.setattr(stage, "shipped_weights", lambda method: tmp_path / "model.safetensors")
    with pytest.raises(PipelineError, match="checksum"):
        load_networks(Settings(network="retrained"))
    (tmp_path / "model.safetensors").write_bytes(content[:5000])
    with pytest.raises(PipelineError, match="cut short"):
        load_networks(Settings(network="retrained"))


def test_weights_that_are_not_there_are_told(monkeypatch):
    monkeypatch.setattr(stage, "shipped_weights", lambda method: None)
    trial = SimpleNamespace(subject=Subject(1.8, 70.0))
    with pytest.raises(PipelineError, match="augment.network=published"):
        stage.inputs(trial, Settings(network="retrained"))


@needs_weights
def test_a_result_depends_on_the_weights_that_made_it():
    trial = SimpleNamespace(subject=Subject(1.8, 70.0))
    published, ours = (
        stage.inputs(trial, Settings(network=name)) for name in ("published", "retrained")
    )
    assert "asset" in published and "weights" not in published
    assert ours["weights"] == shipped_weights("augmenter") and "asset" not in ours
