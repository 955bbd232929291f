"""Tests of the keypoint vocabularies: consistent in themselves, and with what was published."""

import importlib.util
import runpy
from pathlib import Path

import numpy as np
import pytest

from models.augmenter import VIDEO_KEYPOINTS
from models.multiview import JOINTS, MIRRORED
from models.vocabulary import chains, derivations, mirrored, vocabularies, vocabulary

SIZES = {
    "coco-17": 17,
    "halpe-26": 26,
    "coco-wholebody-133": 133,
    "body-25": 25,
    "blazepose-33": 33,
}
CONFIGURATIONS = {
    "coco-17": "coco",
    "halpe-26": "halpe26",
    "coco-wholebody-133": "coco_wholebody",
}
"""Files of mmpose's configs/_base_/datasets."""
every = pytest.mark.parametrize("each", vocabularies().values(), ids=lambda each: each.name)


def test_the_vocabularies_have_the_sizes_of_their_models():
    assert {each.name: len(each.keypoints) for each in vocabularies().values()} == SIZES


@every
def test_names_are_unique_and_every_keypoint_has_a_sigma(each):
    assert len(set(each.keypoints)) == len(each.keypoints) == len(each.sigmas)
    assert all(0 < sigma < 0.2 for sigma in each.sigmas)


@every
def test_pairs_are_one_name_on_two_sides_and_no_keypoint_is_in_two(each):
    paired = [name for pair in each.pairs for name in pair]
    assert len(set(paired)) == len(paired) and set(paired) <= set(each.keypoints)
    for right, left in each.pairs:
        assert (right[0], left[0]) == ("R", "L") and right[1:] == left[1:] or "Face" in right
    middle = {name for name in each.keypoints if name not in paired and "Face" not in name}
    assert middle <= {"Nose", "Head", "Neck", "midHip"}


@every
def test_both_sides_are_marked_equally_well(each):
    """But for feet and face of COCO-WholeBody, where the published sigmas differ."""
    sigma = dict(zip(each.keypoints, each.sigmas, strict=True))
    differ = {right for right, left in each.pairs if sigma[right] != sigma[left]}
    published = {"RBigToe", "RSmallToe", "RHeel"} if each.name == "coco-wholebody-133" else set()
    assert {name for name in differ if "Face" not in name} == published


@every
def test_drawn_bones_join_keypoints_that_exist_and_are_as_many_on_both_sides(each):
    ends = {end for bone in each.bones for end in bone}
    assert each.bones and ends <= set(each.keypoints)
    partner = {a: b for pair in each.pairs for a, b in (pair, pair[::-1])}
    bones = {frozenset(bone) for bone in each.bones}
    assert {frozenset(partner.get(end, end) for end in bone) for bone in bones} == bones


@every
def test_a_vocabulary_gives_the_augmenters_twenty_keypoints_or_lacks_feet(each):
    found = derivations(each.keypoints, VIDEO_KEYPOINTS)
    lacking = set(VIDEO_KEYPOINTS) - set(found)
    feet = {f"{side}{part}" for side in "LR" for part in ("BigToe", "SmallToe", "Heel")}
    assert lacking == (feet if each.name == "coco-17" else set())
    assert all(set(source.of) <= set(each.keypoints) for source in found.values())


def test_what_is_derived_in_each_vocabulary_is_known():
    def not_measured(name):
        found = derivations(vocabulary(name).keypoints, VIDEO_KEYPOINTS)
        return {
            keypoint: source.rule for keypoint, source in found.items() if source.rule != "measured"
        }

    middles = {"Neck": "middle", "midHip": "middle"}
    toes = {"RSmallToe": "small toe", "LSmallToe": "small toe"}
    assert not_measured("halpe-26") == not_measured("body-25") == {}
    assert not_measured("coco-wholebody-133") == not_measured("coco-17") == middles
    assert not_measured("blazepose-33") == middles | toes


@every
def test_chains_hold_the_sides_of_legs_and_arms_alone(each):
    found = chains(each.keypoints)
    names = np.array(each.keypoints)
    legs, arms = (names[found[chain]] for chain in ("legs", "arms"))
    for right, left in (*legs, *arms):
        assert (str(right), str(left)) in each.pairs
    assert (legs[0, 0], arms[0, 0]) == ("RHip", "RShoulder")  # by which swaps know who faces where
    assert {"RHip", "RKnee", "RAnkle"} <= set(legs[:, 0])
    assert {"RShoulder", "RElbow", "RWrist"} <= set(arms[:, 0])
    left_out = {right for right, _ in each.pairs} - set(legs[:, 0]) - set(arms[:, 0])
    assert all(any(word in name for word in ("Eye", "Ear", "Mouth", "Face")) for name in left_out)


def test_mirroring_twice_changes_nothing_and_leaves_the_middle():
    names = np.array(vocabulary("coco-wholebody-133").keypoints)
    index = np.array(mirrored(names.tolist()))
    np.testing.assert_array_equal(names[index][index], names)
    assert names[index][list(names).index("Nose")] == "Nose"
    assert MIRRORED == mirrored(JOINTS)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_names_sides_and_sigmas_are_those_of_mmpose(name):
    """Where mmpose is installed."""
    found = importlib.util.find_spec("mmpose")
    if found is None:
        pytest.skip("mmpose is not installed here")
    folder = Path(found.submodule_search_locations[0]) / ".mim/configs/_base_/datasets"
    theirs = runpy.run_path(str(folder / f"{CONFIGURATIONS[name]}.py"))["dataset_info"]
    keypoints = [theirs["keypoint_info"][index] for index in range(len(theirs["keypoint_info"]))]
    each = vocabulary(name)
    ours = dict(zip((known["name"] for known in keypoints), each.keypoints, strict=True))
    partner = {a: b for pair in each.pairs for a, b in (pair, pair[::-1])}
    assert list(each.sigmas) == theirs["sigmas"]
    for known in keypoints:
        assert partner.get(ours[known["name"]]) == (known["swap"] and ours[known["swap"]] or None)
        assert simplified(ours[known["name"]]) in simplified(known["name"])


def simplified(name):
    """The words that our names share with mmpose's."""
    if "Face" in name:
        return f"face{int(name[4:]) - 1}"
    if "Hand" in name:
        return {"L": "left", "R": "right"}[name[0]]
    if name[1:2].isupper():
        name = {"L": "left", "R": "right"}[name[0]] + name[1:]
    return name.lower().replace("midhip", "hip").replace("_", "").replace("-", "")
