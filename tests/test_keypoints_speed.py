"""What the benchmark of the keypoints' speed makes of its measurements."""

from benchmarks.keypoints import compared, overlap_rows, ratio, step_row, verdicts


def run(slower, stage_s):
    """Four frames, two of which the detector looked at; a model that takes 0.1 s a frame."""
    steps = {"decode": 0.04, "prepare": 0.02, "infer": 0.4, "read": 0.0}
    turn = {name: slower * seconds for name, seconds in steps.items()}
    one = {"in turn": {"wall_s": turn, "cpu_s": steps}, "stage": {"wall_s": {"stage": stage_s}}}
    single = {
        "in turn": {"wall_s": turn | {"infer": slower * 0.6}}, "stage": {"wall_s": {"stage": 1.0}}
    }  # fmt: skip
    cpu = {"detector: prepare": 0.01, "detector: infer": 0.1, "detector: read": 0.0}
    return {
        "frames": 4, "looks": 2, "detection": {"cpu_s": cpu}, "batches": {"1": single, "16": one}
    }  # fmt: skip


def test_ratios_are_of_measurements_of_one_turn():
    assert ratio([2, 30, 9], [1, 10, 1]) == 3  # the second turn met a busy computer


def test_steps_are_per_frame_and_the_detectors_per_look():
    row = step_row("a", [run(1, 0.5), run(3, 0.5)])
    assert (row["infer"], row["decode"], row["detector: infer"]) == (100, 10, 50)


def test_the_stage_is_judged_by_the_model_alone_with_the_same_batches():
    single, batched = overlap_rows("a", [run(1, 0.44)])
    assert abs(single["model"] - 1.5) < 1e-9 and batched["model"] == 1
    assert abs(batched["stage"] - 1.1) < 1e-9 and abs(batched["in turn"] - 1.15) < 1e-9
    (good,) = verdicts({1: [single, batched]}, {})
    assert "1.10" in good and good.endswith("reached")
    (bad,) = verdicts({1: overlap_rows("a", [run(1, 0.48)])}, {})
    assert "1.20" in bad and bad.endswith("missed")


def test_a_peer_that_takes_twice_as_long_is_half_as_fast():
    ours = {"frames": 4, "crops": 4, "wall_s": {"detect": 1, "keypoints": 1},
            "cpu_s": {"detect": 2, "keypoints": 2}}  # fmt: skip
    peer = {"frames": 4, "crops": 6, "wall_s": 4, "cpu_s": 4, "version": "0"}
    row = compared(4, [ours], [peer])
    assert (row["wall_s"], row["cpu_s"], row["crops"], row["rtmlib's crops"]) == (2, 1, 1, 1.5)
    (line,) = verdicts({}, {"a": [row]})
    assert "every 4th frame" in line and line.endswith("reached")
    assert verdicts({}, {"a": [row | {"wall_s": 1.4}]})[0].endswith("missed")
