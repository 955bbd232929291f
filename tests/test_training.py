"""Training runs, weights on disk, recipes and costs."""

import csv
import json
import os
import shutil
import signal
import tomllib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from typer.testing import CliRunner

from models.algebraic import Algebraic, Architecture
from models.multiview import Estimate
from models.networks import NETWORKS
from models.simulation.population import Population, draw
from models.training.checkpoint import Record
from models.training.cost import H200, Processor, cost_of
from models.training.learning_curve import has_tensorboard
from models.training.model_card import CARD, export
from models.training.recipe import Recipe
from models.training.run import BEST, CHECKPOINT, CURVE, RECIPE, to_toml, train, training_skeleton
from models.training.steps import (
    TRAINED_ON,
    VALIDATED_ON,
    learning_rate,
    random_numbers,
    start_training,
    train_step,
    views_of_step,
)
from models.training.validation import SUITE, draw_suite, validate
from models.weights import (
    FILE,
    load_weights,
    read_facts,
    read_tensors,
    save_weights,
    shipped_weights,
    write_tensors,
)
from pipeline.cli import app
from pipeline.errors import PipelineError
from pipeline.recipes import packaged_recipes, read_recipe
from pipeline.train_watch import Stop

TINY = Recipe[Architecture](
    method="algebraic",
    architecture=Architecture(channels=8, layers=1),
    population=Population(performances=1),
    windows=3,
    frames=2,
    views={2: 2, 3: 1, 4: 1},
    steps=6,
    learning_rate=0.01,
    warm_up_steps=2,
    averaging=0.5,
    validation_every=2,
    validation_windows=1,
    patience=3,
)
CPU = torch.device("cpu")


class Watch:
    """Remembers what it was told; does something after each step."""

    def __init__(self, after_step: Callable[[int], None] = lambda step: None):
        self.steps, self.losses, self.validated_at = [], [], []
        self.after_step = after_step

    def stepped(self, step, metrics):
        self.steps.append(step)
        self.losses.append(metrics["loss"])
        self.after_step(step)

    def validated(self, step, mean_mm, is_best):
        self.validated_at.append(step)


def run(folder, until=None, recipe=TINY, fresh=False) -> Record:
    watch = Watch()
    return train(recipe, folder, CPU, fresh, lambda: until in watch.steps, watch)


def rows(folder):
    with open(folder / CURVE, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def skeleton():
    return training_skeleton()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder)
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copied")


# Runs


@pytest.mark.parametrize("stop", [2, 3])
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(trained, tmp_path, stop):
    assert run(tmp_path, until=stop).step == stop
    assert run(tmp_path).step == TINY.steps
    never, once = (read_tensors(folder / CHECKPOINT)[0] for folder in (trained, tmp_path))
    assert never.keys() == once.keys()
    parts = {name.partition("/")[0] for name in once}
    assert parts == {"network", "average", "optimiser"}
    for name, value in never.items():
        assert torch.equal(value, once[name]), name
    assert read_tensors(tmp_path / BEST)[0].keys() == read_tensors(trained / BEST)[0].keys()


def test_what_was_written_of_steps_after_the_checkpoint_is_done_again(trained, tmp_path):
    run(tmp_path, until=2)
    early = (tmp_path / CHECKPOINT).read_bytes()
    run(tmp_path, until=4)
    (tmp_path / CHECKPOINT).write_bytes(early)  # as if killed before the second checkpoint
    run(tmp_path)
    once, again = rows(trained), rows(tmp_path)
    assert [row["step"] for row in again] == ["2", "4", "6"]
    for one, other in zip(once, again, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_the_curve_has_every_part_of_the_validation_and_of_the_loss(trained):
    last = rows(trained)[-1]
    scores = [float(last[f"validation_mm/{entry}"]) for entry in SUITE]
    assert float(last["validation_mm/mean"]) == pytest.approx(np.mean(scores))
    assert {"training/loss", "training/mpjpe_mm", "training/exchange"} <= last.keys()
    if has_tensorboard():
        assert list((trained / "logs").iterdir())


def test_the_curve_has_means_of_the_steps_and_ends_with_the_last_one(tmp_path):
    watch = Watch()
    recipe = TINY.model_copy(update={"validation_every": 4})
    train(recipe, tmp_path, CPU, False, lambda: False, watch)
    assert watch.validated_at == [4, 6]
    expected = [np.mean(watch.losses[:4]), np.mean(watch.losses[4:])]
    assert [float(row["training/loss"]) for row in rows(tmp_path)] == pytest.approx(expected)


def test_training_makes_estimates_better(skeleton):
    recipe = TINY.model_copy(update={"steps": 30, "windows": 8, "frames": 4})
    training = start_training(recipe, "cpu")
    suite = draw_suite(recipe.population, skeleton, windows=1)
    before = np.mean(list(validate(training.network, suite).values()))
    for step in range(recipe.steps):
        train_step(training, recipe, skeleton, step)
    assert np.mean(list(validate(training.network, suite).values())) < 0.95 * before


def test_the_best_weights_score_as_the_record_says(trained, skeleton):
    best = read_facts(trained / BEST)["record"]["best"]
    suite = draw_suite(TINY.population, skeleton, TINY.validation_windows)
    scores = validate(load_weights(trained / BEST, "algebraic").eval(), suite)
    for name, value in best["scores_mm"].items():
        assert scores[name] == pytest.approx(value, abs=0.2), name  # stored in half precision
    assert best["mean_mm"] == min(float(row["validation_mm/mean"]) for row in rows(trained))


def test_the_best_weights_are_the_average_of_its_step(tmp_path):
    run(tmp_path, until=2)
    checkpoint, best = (read_tensors(tmp_path / name)[0] for name in (CHECKPOINT, BEST))
    for name, value in best.items():
        assert torch.equal(value, checkpoint[f"average/module.{name}"].half()), name


def test_a_loss_that_is_not_a_number_ends_training_and_leaves_the_checkpoint(copied):
    path = copied / CHECKPOINT
    tensors, about = read_tensors(path)
    tensors["network/encoder.judge.1.bias"][0] = torch.nan
    about["record"] = Record(step=2).model_dump_json()
    write_tensors(path, tensors, about)
    before = path.read_bytes()
    with pytest.raises(PipelineError, match="not a number in step 3.*learning_rate"):
        run(copied)
    assert path.read_bytes() == before


def test_long_ways_between_validations_have_checkpoints_too(tmp_path, monkeypatch):
    monkeypatch.setattr("models.training.run.SAVE_EVERY_S", 0)
    watch = Watch(lambda step: (tmp_path / CHECKPOINT).exists() and found.append(step))
    found = []
    recipe = TINY.model_copy(update={"validation_every": 6})
    train(recipe, tmp_path, CPU, False, lambda: len(watch.steps) == 3, watch)
    assert found == [2, 3]


def test_a_finished_run_is_left_alone(copied):
    before = (copied / CHECKPOINT).read_bytes()
    assert run(copied).ended(TINY) == "all 6 steps are done"
    assert (copied / CHECKPOINT).read_bytes() == before


def test_fresh_starts_anew_and_leaves_other_files(copied):
    other = copied / "notes.txt"
    other.write_text("mine")
    assert run(copied, until=1, fresh=True).step == 1
    assert not (copied / BEST).exists() and not (copied / CURVE).exists()
    assert other.read_text() == "mine"


def test_another_recipe_does_not_go_on_with_a_run(copied):
    changed = TINY.model_copy(update={"learning_rate": 0.02, "seed": 1})
    with pytest.raises(PipelineError, match="seed, learning_rate differ.*--fresh"):
        run(copied, recipe=changed)


def test_a_checkpoint_of_another_network_is_refused(copied):
    path = copied / CHECKPOINT
    tensors, about = read_tensors(path)
    del tensors["network/encoder.joint"]
    write_tensors(path, tensors, about)
    with pytest.raises(PipelineError, match="does not fit the algebraic network.*encoder.joint"):
        run(copied)


def test_two_trainings_do_not_share_a_folder(tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(PipelineError, match="another process trains"):
        run(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_after_the_step_with_a_checkpoint(tmp_path, number):
    usual = signal.getsignal(number)
    watch = Watch(lambda step: os.kill(os.getpid(), number) if step == 3 else None)
    with Stop(minutes=None) as stop:
        record = train(TINY, tmp_path, CPU, False, stop, watch)
    assert stop.signal == number and signal.getsignal(number) == usual
    assert record.step == 3
    assert json.loads(read_tensors(tmp_path / CHECKPOINT)[1]["record"])["step"] == 3


def test_time_that_has_run_out_ends_a_run():
    usual = signal.getsignal(signal.SIGTERM)
    with Stop(minutes=0) as stop:
        assert stop() and stop.signal is None
    assert signal.getsignal(signal.SIGTERM) == usual
    assert not Stop(minutes=1)() and not Stop(minutes=None)()


def test_early_stopping_counts_validations_without_a_better_one():
    record = Record()
    better = []
    for step, mean in enumerate([30.0, 20.0, 25.0, 20.0, 21.0], start=1):
        assert record.ended(TINY) is None
        record.step = step
        better.append(record.judge({"a": mean - 1, "b": mean + 1}))
    assert better == [True, True, False, False, False]
    assert (record.best.step, record.best.mean_mm) == (2, 20.0)
    assert record.ended(TINY) == "no validation was better in the last 3"


# Steps


def test_the_learning_rate_falls_as_torchs_cosine_after_the_warm_up():
    recipe = TINY.model_copy(update={"steps": 50, "warm_up_steps": 5})
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=recipe.learning_rate)
    scheduler = CosineAnnealingLR(optimiser, recipe.steps)
    for step in range(recipe.steps):
        share = min(1, (step + 1) / 5)
        assert learning_rate(recipe, step) == pytest.approx(share * scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()


def test_batches_have_as_many_views_as_the_recipe_says_and_as_often():
    drawn = [views_of_step(TINY, step) for step in range(2000)]
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    np.testing.assert_allclose(shares, [0, 0, 0.5, 0.25, 0.25], atol=0.04)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31))
def test_no_training_step_draws_what_validation_draws(seed, step):
    validation = {
        random_numbers("cpu", VALIDATED_ON, use, entry.seed).initial_seed()
        for use in range(2)
        for entry in SUITE
    }
    assert len(validation) == 2 * len(SUITE)
    assert random_numbers("cpu", TRAINED_ON, seed, step).initial_seed() not in validation


def test_networks_start_from_the_seed_and_leave_torchs_own_random_numbers_alone():
    before = torch.get_rng_state()
    one, same, other = (
        start_training(TINY.model_copy(update={"seed": seed}), "cpu").network.state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one["encoder.joint"], same["encoder.joint"])
    assert not torch.equal(one["encoder.joint"], other["encoder.joint"])


def test_the_average_follows_the_weights_step_by_step(skeleton):
    training = start_training(TINY, "cpu")
    expected = None
    for step in range(3):
        train_step(training, TINY, skeleton, step)
        latest = training.network.encoder.joint.detach().clone()
        share = min(TINY.averaging, (1 + step) / (10 + step))
        expected = latest if step == 0 else share * expected + (1 - share) * latest
    torch.testing.assert_close(training.average.module.encoder.joint.detach(), expected)


def test_the_suite_is_always_the_same_and_harder_with_more_noise_or_fewer_views(skeleton):
    first, again = (draw_suite(TINY.population, skeleton, 12) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.views.image, other.views.image)
    scores = validate(start_training(TINY, "cpu").network, first)
    table = np.reshape(list(scores.values()), (4, 3))
    assert (np.diff(table, axis=1) > 0).all()
    assert (table[0] > table[3]).all()


# Weights


@pytest.fixture(scope="module")
def network():
    return start_training(TINY, "cpu").network


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / FILE
    save_weights(path, "algebraic", network, {"step": 3, "scores": {"a": 1.5}})
    return path


def test_weights_come_back_in_half_precision_with_their_architecture_and_facts(network, saved):
    before = torch.get_rng_state()
    loaded = load_weights(saved, "algebraic")
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.architecture == network.architecture
    for name, value in network.state_dict().items():
        assert loaded.state_dict()[name].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    assert read_facts(saved) == {"step": 3, "scores": {"a": 1.5}}
    assert saved.stat().st_size < 3 * sum(each.numel() for each in network.parameters()) + 4000


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_noticed_or_does_not_matter(saved, tmp_path_factory, data):
    content = bytearray(saved.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("damaged") / FILE
    path.write_bytes(content)
    try:
        tensors, about = read_tensors(path)
    except PipelineError as error:
        assert str(path) in str(error) and "pipeline train" in str(error)
        return
    original, about_original = read_tensors(saved)
    assert about == about_original
    assert all(torch.equal(tensors[name], original[name]) for name in original)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_file_that_was_cut_short_is_refused(saved, tmp_path_factory, data):
    content = saved.read_bytes()
    path = tmp_path_factory.mktemp("short") / FILE
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(PipelineError, match="cut short"):
        load_weights(path, "algebraic")


def test_missing_weights_and_those_of_another_method_are_told(saved, tmp_path):
    with pytest.raises(PipelineError, match="no such file.*pipeline train"):
        load_weights(tmp_path / FILE, "algebraic")
    with pytest.raises(PipelineError, match="weights of algebraic, not of volumetric"):
        load_weights(saved, "volumetric")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, a: t.pop("encoder.joint"), "encoder.joint is missing"),
        (lambda t, a: t.update(more=torch.zeros(1).half()), "more is unknown"),
        (
            lambda t, a: t.update({"encoder.joint": t["encoder.joint"].T}),
            r"encoder.joint is \[8, 26\].*expected \[26, 8\]",
        ),
        (
            lambda t, a: t.update({"encoder.joint": t["encoder.joint"].float()}),
            "float32, expected .*float16",
        ),
        (lambda t, a: a.update(architecture='{"channels": 8, "depth": 1}'), "architecture.*depth"),
        (lambda t, a: a.update(architecture='{"channels": 16, "layers": 1}'), "expected"),
    ],
)
def test_weights_that_do_not_fit_are_refused(saved, tmp_path, change, message):
    tensors, about = read_tensors(saved)
    change(tensors, about)
    write_tensors(tmp_path / FILE, tensors, about)
    with pytest.raises(PipelineError, match=f"(?s)does not fit.*{message}"):
        load_weights(tmp_path / FILE, "algebraic")


@pytest.mark.parametrize("value", [1e5, torch.nan])
def test_weights_that_half_precision_cannot_hold_are_not_written(tmp_path, value):
    network = Algebraic(Architecture(channels=8, layers=1))
    network.encoder.joint.data[0, 0] = value
    with pytest.raises(PipelineError, match="cannot hold encoder.joint"):
        save_weights(tmp_path / FILE, "algebraic", network, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", NETWORKS)
def test_shipped_weights_fit_and_have_a_card(method):
    path = shipped_weights(method)
    if path is None:
        pytest.skip(f"no {method} weights are shipped")
    load_weights(path, method)
    assert path.stat().st_size < 10e6
    assert "apache-2.0" in (path.parent / CARD).read_text(encoding="utf-8")


# Recipes and costs


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_make_networks_and_survive_being_written(name, tmp_path):
    method = name.partition("_")[0]
    recipe = read_recipe(method, name, None)
    assert isinstance(start_training(recipe, "cpu").network, NETWORKS[method][0])
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(recipe.model_dump(mode="json")), encoding="utf-8")
    assert read_recipe(method, str(path), None) == recipe
    assert read_recipe(method, str(path), 7).steps == 7


@pytest.mark.parametrize(
    "change, message",
    [
        ({"learning_rte": 1}, "learning_rte is unknown.*there are: method, architecture"),
        ({"architecture": {"voxels": 64}}, "voxels is unknown .there are: channels, layers"),
        ({"views": {"1": 1.0}}, "views.1.*greater than or equal to 2"),
        ({"steps": 0}, "steps.*greater than 0"),
        ({"method": "volumetric"}, 'expected method = "algebraic", got .volumetric'),
    ],
)
def test_mistakes_in_recipes_are_named(tmp_path, change, message):
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(TINY.model_dump(mode="json") | change), encoding="utf-8")
    with pytest.raises(PipelineError, match=message):
        read_recipe("algebraic", str(path), None)


def test_recipes_that_are_not_there_or_not_toml_are_told(tmp_path):
    with pytest.raises(PipelineError, match="algebraic, augmenter, volumetric, volumetric_compact"):
        read_recipe("algebraic", "nowhere.toml", None)
    (tmp_path / "bad.toml").write_text("steps = ")
    with pytest.raises(PipelineError, match="not TOML"):
        read_recipe("algebraic", str(tmp_path / "bad.toml"), None)


class Products(nn.Module):
    """Two matrix products, and things that are not counted."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 5, bias=False), nn.Linear(5, 3)

    def estimate(self, views, frames, measured):
        position = self.second(torch.relu(self.first(frames.origin[:, :, None])))
        return Estimate(position, torch.diag_embed(position.square()))


def test_costs_are_those_of_matrix_products_counted_by_hand(skeleton):
    examples = draw(Population(performances=1), skeleton, 2, 4, 3, random_numbers("cpu", 9, 0, 0))
    cost = cost_of(Products(), examples, random_numbers("cpu", 9, 0, 1))
    assert cost.parameters == 3 * 5 + 5 * 3 + 3
    assert cost.flops == 2 * (3 * 5 + 5 * 3)
    assert cost.bytes == 2 * (33 + 2 * (5 + 3))
    assert cost.floor_s(Processor("slow", 60.0, 1e9)) == 1.0
    assert cost.floor_s(Processor("narrow", 1e9, 49.0)) == 2.0
    assert not cost.is_bound_by_arithmetic(H200)


# The command


def pipeline(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_the_command_trains_in_slices_and_exports_weights_with_their_card(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(to_toml(TINY.model_dump(mode="json")), encoding="utf-8")
    options = ("algebraic", "--recipe", path, "--out", tmp_path / "run", "--device", "cpu")
    first = pipeline(*options, "--minutes", "0.01")
    assert first.exit_code == 0
    result = pipeline(*options, "--export", tmp_path / "shipped")
    assert result.exit_code == 0, result.output
    assert "parameters" in result.output and "time floor" in result.output
    assert "all 6 steps are done" in result.output
    shipped = tmp_path / "shipped" / FILE
    load_weights(shipped, "algebraic")
    assert tomllib.loads((tmp_path / "run" / RECIPE).read_text())["learning_rate"] == 0.01
    card = (tmp_path / "shipped" / CARD).read_text(encoding="utf-8")
    best = read_facts(shipped)["record"]["best"]["scores_mm"]
    of_two = " | ".join(f"{best[str(entry)]:.1f}" for entry in SUITE if entry.views == 2)
    assert f"| 2 | {of_two} |\n" in card
    assert "Iskakov" in card and "context_channels" not in card


def test_nothing_is_exported_before_the_first_validation(tmp_path):
    run(tmp_path, until=1)
    with pytest.raises(PipelineError, match="no validation is done yet"):
        export(tmp_path / BEST, "algebraic", tmp_path / "shipped")
    assert not (tmp_path / "shipped").exists()


def test_a_dry_run_tells_the_cost_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = pipeline("algebraic", "--dry-run", "--device", "cpu")
    assert result.exit_code == 0 and "154,243 parameters" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_told():
    error = pipeline("algebraic", "--device", "cuda").exception
    assert isinstance(error, PipelineError) and "no CUDA device" in str(error)
