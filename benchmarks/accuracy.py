"""How many degrees off: simulated sessions with known joint angles, through our pipeline and others.

    python -m benchmarks.accuracy [--pose2sim PYTHON] [--write]     the suite, and what each error costs
    python -m benchmarks.accuracy --smoke [--write]                 three sessions against the baseline

`--pose2sim` is the Python of an environment that has Pose2Sim: it runs on the same 2D keypoint files
and the same calibration. `--write` puts the tables into docs/accuracy.md, or stores a new baseline.
Everything is seeded.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.progress import track

from benchmarks.chains import FLEXIONS, OURS, PEER, Outcome, run_case
from benchmarks.whose_error import STEPS, split_error
from models.simulation.detector import Errors
from models.simulation.movements import MOVEMENTS
from pipeline.files import replacing
from pipeline.simulate import Plan

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "accuracy.md"
BASELINE = HERE / "accuracy_baseline.json"
GROWTH = 1.20
"""The smoke test fails when an error grows by more than a fifth."""
ACTIVE = [name for name in MOVEMENTS if name != "static"]
MODEL = "pose2sim"
"""The OpenSim model that is everywhere, and Pose2Sim's own."""
SECONDS = 4.5
"""Of each movement; a session runs in seconds then."""
SEEDS = 2
"""Of each movement, for each source of errors and for the split by stage."""
HEADINGS = {
    "hip_flexion": "hip flexion (°)", "knee_angle": "knee flexion (°)",
    "ankle_angle": "ankle flexion (°)", "lower limb": "lower limb, MAE (°)",
    "keypoints": "keypoints (mm)", "markers": "markers (mm)", "known": "known (%)",
}  # fmt: skip


def plan(motion: str, cameras: int, errors: Errors, seed: int, static: bool = False) -> Plan:
    """One session."""
    return Plan(
        motion=motion, model=MODEL, cameras=cameras, seed=seed, errors=errors, static=static,
        duration_s=SECONDS,
    )  # fmt: skip


def suite() -> list[Plan]:
    """32 sessions: every movement with 2, 3, 4 and 8 cameras, and at three sizes of noise.

    A movement has the same person in all of them, so that rows of a table differ by what they say.
    """
    kinds = [(cameras, 0.5) for cameras in (2, 3, 4, 8)]
    kinds += [(cameras, noise) for noise in (0.25, 1.0) for cameras in (2, 4)]
    return [
        plan(motion, cameras, Errors().scaled(noise), seed)
        for seed, motion in enumerate(ACTIVE, start=100)
        for cameras, noise in kinds
    ]


SMOKE = [
    plan("squats", 2, Errors().scaled(0.25), 1),
    plan("gait", 4, Errors().scaled(0.5), 2),
    plan("dropjump", 3, Errors().scaled(0.25), 3),
]


def noise_of(case: Plan) -> float:
    """The size of all errors of a session."""
    return case.errors.jitter


def run_all(run, plans: Sequence[Plan], what: str) -> list:
    """Run many sessions, as many at once as there are processors."""
    with ProcessPoolExecutor(
        os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        return list(track(pool.map(run, plans), what, len(plans)))


def rows_of(plans: Sequence[Plan], outcomes: Iterable[dict[str, Outcome]]) -> pd.DataFrame:
    """One row for each chain of each session."""
    return pd.DataFrame(
        {
            "movement": case.motion, "cameras": case.cameras, "noise": f"{noise_of(case):g}",
            "seed": case.seed,
            "session": f"{case.seed}, {case.cameras} cameras, noise {noise_of(case):g}", "chain": chain,
            **{joint: outcome.flexion_deg(joint) for joint in FLEXIONS},
            "lower limb": outcome.mae_lower_limb_deg, "keypoints": outcome.keypoints_mm,
            "markers": outcome.markers_mm, "known": 100 * outcome.known,
            "refused": outcome.refused,
        }
        for case, chains in zip(plans, outcomes, strict=True)
        for chain, outcome in chains.items()
    )  # fmt: skip


def complete(rows: pd.DataFrame) -> pd.DataFrame:
    """Only sessions in which every chain gave angles: means over different ones do not compare."""
    return rows[rows.groupby("session")["refused"].transform(lambda each: (each == "").all())]


def means(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Means over sessions."""
    grouped = rows.groupby(list(by), sort=False)
    return grouped[list(HEADINGS)].mean().assign(sessions=grouped.size()).reset_index()


def by_coordinate(outcomes: Sequence[dict[str, Outcome]], chains: Sequence[str]) -> pd.DataFrame:
    """Mean RMSE of the rotations of legs, pelvis and lumbar spine, where all chains gave angles."""
    both = [each for each in outcomes if not any(each[chain].refused for chain in chains)]
    table = pd.DataFrame(
        {chain: pd.DataFrame([each[chain].rmse_deg for each in both]).mean() for chain in chains}
    )
    shown = table.index.str.match("(hip|knee|ankle|subtalar|pelvis|L5|lumbar)_(?!t[xyz])")
    return table[shown].rename_axis("RMSE (°)").reset_index()


def single_errors() -> tuple[list[str], list[Plan]]:
    """Sessions with one source of errors alone, at size 1, and with none; the sources' names."""
    sources = {"none": Errors.none()} | {name: Errors.only(name) for name in Errors.model_fields}
    cases = [
        (source, plan(motion, cameras, errors, 200 + 10 * index + seed))
        for source, errors in sources.items()
        for cameras in (2, 4)
        for index, motion in enumerate(ACTIVE)
        for seed in range(SEEDS)
    ]
    return [source for source, _ in cases], [case for _, case in cases]


def costs(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors by source and number of cameras, and sessions that were refused."""
    by = ["source", "cameras"]
    refused = rows.groupby(by, sort=False)["refused"].agg(lambda each: int((each != "").sum()))
    # Without the sessions that any source makes impossible: they would only miss in its own row.
    solved = rows.groupby(["seed", "cameras"])["refused"].transform(lambda each: (each == "").all())
    return means(rows[solved], by).drop(columns="sessions").assign(refused=refused.values)


def table(frame: pd.DataFrame, digits: int = 1) -> str:
    """A Markdown table."""

    def text(value):
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.{digits}f}"
        return str(value)

    frame = frame.rename(columns=HEADINGS).dropna(axis=1, how="all")
    lines = [list(frame.columns), ["---"] * frame.shape[1]]
    lines += [[text(value) for value in row] for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Results:
    """Everything that the document says."""

    rows: pd.DataFrame
    outcomes: list[dict[str, Outcome]]
    costs: pd.DataFrame
    static: pd.DataFrame
    steps: pd.DataFrame
    minutes: float


def run_suite(peer: str | None) -> Results:
    """Run everything."""
    began = time.perf_counter()
    plans = suite()
    outcomes = run_all(partial(run_case, peer=peer, baselines=True), plans, "suite")
    sources, single = single_errors()
    alone = rows_of(single, run_all(run_case, single, "one error at a time")).assign(source=sources)
    standing = [case.model_copy(update={"static": True}) for case in plans if noise_of(case) == 0.5]
    static = rows_of(standing, run_all(run_case, standing, "with a static trial"))
    perfect = [case for source, case in zip(sources, single, strict=True) if source == "none"]
    split = run_all(split_error, [case for case in perfect if case.cameras == 4], "whose error")
    steps = pd.concat([pd.DataFrame(each).T for each in split]).groupby(level=0, sort=False).mean()
    minutes = (time.perf_counter() - began) / 60
    return Results(rows_of(plans, outcomes), outcomes, costs(alone), static, steps, minutes)


def document(results: Results, peer: str | None) -> str:
    """Render docs/accuracy.md."""
    rows, shared = results.rows, complete(results.rows)
    chains = [OURS, PEER] if peer else [OURS]
    ours = rows[rows["chain"] == OURS]
    half, few = shared[shared.noise == "0.5"], shared[shared.cameras.isin((2, 4))]
    with_static = results.static.assign(chain="with a static trial")
    without = ours[ours.session.isin(with_static.session)].assign(chain="without")
    steps = results.steps.rename_axis("from").reset_index()
    steps.insert(1, "adds", steps["from"].map(STEPS))
    two = ours[(ours.noise == "1") & (ours.cameras == 2)]
    coordinates = by_coordinate(results.outcomes, chains)
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined)
    return environment.get_template("accuracy.md.j2").render(
        minutes=f"{results.minutes:.0f}",
        processors=os.cpu_count(),
        peer=bool(peer),
        peer_version=version_of(peer) if peer else "",
        model=MODEL,
        sessions=rows.session.nunique(),
        shared=shared.session.nunique(),
        overall=table(means(shared, ["chain"])),
        refused=[(name, sum(each != "")) for name, each in rows.groupby("chain")["refused"]],
        by_cameras=table(means(half, ["cameras", "chain"]).sort_values("cameras", kind="stable")),
        by_noise=table(means(few, ["noise", "chain"]).sort_values("noise", kind="stable")),
        coordinates=table(coordinates),
        worse=list(coordinates[coordinates[OURS] > coordinates[chains[-1]]]["RMSE (°)"]),
        comparison=compared(shared) if peer else [],
        times=table(stage_times(results.outcomes, chains)),
        two=table(two[["movement", *HEADINGS, "refused"]]),
        static=table(means(complete(pd.concat([without, with_static])), ["chain"])),
        steps=table(steps, 2),
        per_source=len(ACTIVE) * SEEDS,
        costs=table(results.costs),
        dearest=dearest(results.costs),
        floor=results.costs.loc[results.costs.source == "none", "knee_angle"].mean(),
    )


def compared(rows: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Each flexion, with our mean error and Pose2Sim's."""
    mean = means(rows, ["chain"]).set_index("chain")
    return [
        (HEADINGS[joint].removesuffix(" (°)"), mean.loc[OURS, joint], mean.loc[PEER, joint])
        for joint in (*FLEXIONS, "lower limb")
    ]


def stage_times(outcomes: Sequence[dict[str, Outcome]], chains: Sequence[str]) -> pd.DataFrame:
    """Time of each stage from 2D keypoints to angles, in percent of the last chain's whole time."""
    both = [each for each in outcomes if not any(each[chain].refused for chain in chains)]
    seconds = {
        chain: pd.DataFrame([each[chain].seconds for each in both]).sum() for chain in chains
    }
    whole = seconds[chains[-1]].sum()
    rows = [
        {"chain": chain, "stage": stage, "time (%)": 100 * value / whole}
        for chain, stages in seconds.items()
        for stage, value in (*stages.items(), ("**in all**", stages.sum()))
    ]
    return pd.DataFrame(rows)


def dearest(costs_table: pd.DataFrame) -> list[tuple[str, int, float]]:
    """The three sources that cost knee flexion most: name, cameras, degrees above none."""
    none = costs_table[costs_table.source == "none"].set_index("cameras")["knee_angle"]
    extra = costs_table["knee_angle"] - costs_table["cameras"].map(none)
    worst = costs_table.assign(extra=extra).sort_values("extra", ascending=False).head(3)
    return list(worst[["source", "cameras", "extra"]].itertuples(index=False, name=None))


def version_of(python: str) -> str:
    """Version of Pose2Sim in another environment."""
    program = "from importlib.metadata import version; print(version('pose2sim'))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def smoke() -> dict[str, dict[str, float]]:
    """Errors (degrees) of the three sessions, by session and joint."""
    found = {}
    for case, chains in zip(SMOKE, run_all(run_case, SMOKE, "smoke"), strict=True):
        ours, name = (
            chains[OURS],
            f"{case.motion}, {case.cameras} cameras, noise {noise_of(case):g}",
        )
        if ours.refused:
            sys.exit(f"{name} was refused: {ours.refused}")
        found[name] = {joint: round(ours.flexion_deg(joint), 3) for joint in FLEXIONS}
        found[name]["lower limb"] = round(ours.mae_lower_limb_deg, 3)
    return found


def grown(found: dict[str, dict[str, float]], stored: dict[str, dict[str, float]]) -> list[str]:
    """What is worse than the stored baseline by more than `GROWTH`, or unknown, as text."""
    return [
        f"{session}: {name} {value:.2f}°, was {stored[session][name]:.2f}°"
        for session, values in found.items()
        for name, value in values.items()
        if not value <= GROWTH * stored[session][name]
    ]


def main() -> None:
    """Run the suite, or its smoke version."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pose2sim", metavar="PYTHON", help="Python that has Pose2Sim")
    parser.add_argument("--smoke", action="store_true", help="three sessions against the baseline")
    parser.add_argument(
        "--write", action="store_true", help="write docs/accuracy.md or the baseline"
    )
    arguments = parser.parse_args()
    if arguments.smoke and arguments.pose2sim:
        parser.error("--smoke is of this pipeline alone: leave out --pose2sim")
    if arguments.smoke:
        found = smoke()
        print(json.dumps(found, indent=2))
        target, text = BASELINE, json.dumps(found, indent=2) + "\n"
        stored = json.loads(BASELINE.read_text(encoding="utf-8")) if not arguments.write else found
        if worse := grown(found, stored):
            sys.exit("worse than the baseline: " + "; ".join(worse))
    else:
        text, target = document(run_suite(arguments.pose2sim), arguments.pose2sim), DOCUMENT
        print(text)
    if arguments.write:
        with replacing(target) as path:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
