"""Scaling, inverse kinematics and their joint fit: how wrong, how sure, how slow each is.

    python -m benchmarks.skeleton_fit [--pose2sim PYTHON] [--write]     everything
    python -m benchmarks.skeleton_fit --smoke                           one session, no document

Part of the accuracy suite: simulated sessions with known joint angles, one table of all ways, what each
source of errors costs the fit, people and detectors that its priors do not expect, time, memory, and the
demo's footage. `--pose2sim` is the Python of an environment that has Pose2Sim. `--write` puts the
tables into docs/kinematics.md. Everything but times is seeded.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.accuracy import MODEL, SECONDS, table, version_of
from benchmarks.skeleton_demo import demo_tables
from benchmarks.skeleton_scaling import scaling_table
from benchmarks.skeleton_suite import (
    APPEARANCE,
    CAMERAS,
    DEFAULT,
    FEWEST,
    HEADINGS,
    NOISES,
    SPREADS,
    Case,
    more_evidence,
    other_model,
    run_cases,
    single_errors,
    suite,
    told_plans,
    unusual_keypoints,
    unusual_persons,
)
from benchmarks.skeleton_tables import (
    HIGHEST,
    bars,
    budget,
    means,
    own_estimate,
    reached,
    reasons,
    refusals,
    side_by_side,
    stage_table,
    unusual,
)
from benchmarks.skeleton_truth import truth_tables
from benchmarks.skeleton_variants import BATCHED, CLASSICAL, VARIANTS
from models.fitting.priors import priors
from pipeline.files import replacing

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "kinematics.md"
NEW = [name for name in VARIANTS if name not in (CLASSICAL, BATCHED)]
FITS = [name for name in VARIANTS if name.startswith("fit to")]


@dataclass(frozen=True)
class Results:
    """Everything that the document says."""

    rows: pd.DataFrame
    single: pd.DataFrame
    told: pd.DataFrame
    evidence: pd.DataFrame
    outside: pd.DataFrame
    scaling: pd.DataFrame
    demo: tuple[pd.DataFrame, pd.DataFrame] | None
    minutes: float


def run_everything(peer: str | None) -> Results:
    """Run everything."""
    began = time.perf_counter()
    rows = run_cases(suite(), peer, "suite")
    single = run_cases(single_errors(), None, "one error at a time")
    told = truth_tables(told_plans())
    evidence = run_cases(more_evidence(), None, "more evidence")
    with tempfile.TemporaryDirectory() as scratch:
        cases = [*unusual_persons(Path(scratch)), *unusual_keypoints(), *other_model()]
        outside = run_cases(cases, None, "outside the prior")
    scaling, demo = scaling_table(), demo_tables()
    minutes = (time.perf_counter() - began) / 60
    return Results(rows, single, told, evidence, outside, scaling, demo, minutes)


def document(results: Results, peer: str | None) -> str:
    """Render docs/kinematics.md."""
    rows = results.rows
    bar_table = bars(rows, NEW)
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined)
    return environment.get_template("kinematics.md.j2").render(
        minutes=f"{results.minutes:.0f}",
        processors=os.cpu_count(),
        peer_version=version_of(peer) if peer else "",
        priors=priors(),
        model=MODEL,
        sessions=rows.session.nunique(),
        seconds=f"{SECONDS:g}",
        cameras=CAMERAS,
        noises=[f"{each:g}" for each in NOISES],
        default=f"{DEFAULT:g}",
        fewest=FEWEST,
        spreads=f"{SPREADS:g}",
        appearance=f"{APPEARANCE:g}",
        overall=shown(means(rows, ("chain",))),
        side_by_side=shown(side_by_side(rows)),
        bars=table(bar_table),
        reached={way: reached(bar_table, way) for way in NEW},
        refused=refusals(rows),
        reasons=reasons(pd.concat([rows, results.outside])),
        stages=table(stage_table(rows)),
        budget=shown(budget(results.single, rows)),
        told=shown(results.told),
        least=least(results.told),
        own=table(own_estimate(rows, FITS)),
        own_outside=table(own_estimate(results.outside, FITS)),
        evidence=shown(more(results)),
        outside=shown(unusual(results.outside)),
        other_model=bool(other_model()),
        scaling=table(results.scaling.drop(columns="seconds"), 2),
        demo=[table(each) for each in results.demo] if results.demo else [],
    )


def shown(frame: pd.DataFrame) -> str:
    """A Markdown table with readable headings."""
    return table(frame.rename(columns=HEADINGS))


def least(told: pd.DataFrame) -> dict[str, float]:
    """Knee and ankle flexion's errors (degrees) of a fit that is told all that stays."""
    last = told.iloc[-1]
    return {
        "knee": last["knee_angle"],
        "ankle": last["ankle_angle"],
        "bar": HIGHEST[f"{DEFAULT:g}"],
    }


def more(results: Results) -> pd.DataFrame:
    """With more evidence of the person, next to the same sessions without."""
    rows = results.rows
    same = (rows.cameras == FEWEST) & (rows.noise == f"{DEFAULT:g}")
    same &= rows.seed.isin(results.evidence.seed) & rows.chain.isin(results.evidence.chain)
    there = rows[same].assign(kind="this trial alone")
    table_ = means(pd.concat([there, results.evidence]), ("kind", "chain"))
    return table_.drop(columns=["known", "sessions"]).rename(columns={"kind": "sessions"})


def smoke() -> pd.DataFrame:
    """One short session, all ways."""
    case = next(each for each in suite() if each.plan.cameras == FEWEST)
    short = case.plan.model_copy(update={"duration_s": 2.0, "seed": 500})
    return run_cases([Case("smoke", short, VARIANTS)], None, "smoke")


def main() -> None:
    """Run the benchmark, or its smoke version."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pose2sim", metavar="PYTHON", help="Python that has Pose2Sim")
    parser.add_argument("--smoke", action="store_true", help="one session, no document")
    parser.add_argument("--write", action="store_true", help="write docs/kinematics.md")
    arguments = parser.parse_args()
    if arguments.smoke and (arguments.pose2sim or arguments.write):
        parser.error("--smoke stands alone")
    if arguments.smoke:
        print(shown(means(smoke(), ("chain",))))
        return
    text = document(run_everything(arguments.pose2sim), arguments.pose2sim)
    print(text)
    if arguments.write:
        with replacing(DOCUMENT) as path:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
