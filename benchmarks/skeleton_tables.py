"""What is read off the sessions on which ways to fit the skeleton are compared: tables and bars."""

from collections.abc import Sequence

import pandas as pd

from benchmarks.accuracy import complete
from benchmarks.skeleton_suite import COORDINATES, DEFAULT, FEWEST, HEADINGS
from benchmarks.skeleton_variants import CLASSICAL, root_mean_square

TIME = "time a frame, of the classical chain's (%)"
CELL = ("cameras", "noise")
LOWER = 1 / 3
"""By how much errors of the trunk must be below the classical chain's."""
HIGHEST = {"0": 1.5, f"{DEFAULT:g}": 2.5}
"""Degrees that knee and ankle flexion may be off with the fewest cameras, by noise."""


def means(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Means over the sessions that all ways solved, with their number."""
    grouped = complete(rows).groupby(list(by), sort=False)
    table = grouped[list(HEADINGS)].mean()
    return table.assign(**{"sessions": grouped.size()}).reset_index()


def side_by_side(rows: pd.DataFrame) -> pd.DataFrame:
    """The one table: every way in every cell of cameras and noise, with its time."""
    table = means(rows, (*CELL, "chain")).sort_values(list(CELL), kind="stable")
    return table.assign(**{TIME: table.chain.map(time_shares(rows))}).drop(columns="sessions")


def seconds_a_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds that a way's stages take for a frame; a column a stage, NaN for stages it has not."""
    solved = complete(rows)
    stages = [name for name in solved if name.startswith("seconds ")]
    mean = solved.groupby("chain", sort=False)[[*stages, "frames"]].sum(min_count=1)
    shown = mean[stages].div(mean.frames, axis=0)
    return shown.rename(columns=lambda name: name.removeprefix("seconds "))


def time_shares(rows: pd.DataFrame) -> pd.Series:
    """Time of a frame from 2D keypoints to angles, percent of the classical chain's, by way."""
    whole = seconds_a_frame(rows).sum(axis=1)
    return 100 * whole / whole[CLASSICAL]


def stage_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Time of each stage, percent of the classical chain's whole time."""
    seconds = seconds_a_frame(rows)
    shares = 100 * seconds / seconds.loc[CLASSICAL].sum()
    shares = shares.assign(**{"**in all**": shares.sum(axis=1)})
    return shares.T.rename_axis("stage").reset_index()


def bars(rows: pd.DataFrame, ways: Sequence[str]) -> pd.DataFrame:
    """What each way reaches of what the fit was to reach; bold where it does not."""
    few = means(rows[rows.cameras == FEWEST], ("noise", "chain")).set_index(["noise", "chain"])
    found = []
    for noise, limit in HIGHEST.items():
        for joint in ("knee_angle", "ankle_angle"):
            values = {way: few.loc[(noise, way), joint] for way in ways}
            what = f"{_plain(joint)}, noise {noise}, {FEWEST} cameras"
            found.append(_bar(what, f"at most {limit:g}°", values, limit, "{:.1f}°"))
    overall = means(rows, ("chain",)).set_index("chain")
    for joint in ("hip_flexion", "pelvis_tilt", "L5_S1_Flex_Ext"):
        less = 100 * (1 - overall[joint] / overall.loc[CLASSICAL, joint])
        values = {way: -less[way] for way in ways}
        found.append(
            _bar(f"{_plain(joint)}, all sessions, against the classical chain",
                 f"at least {100 * LOWER:.0f} % lower", values, -100 * LOWER, "{:+.0f} %")
        )  # fmt: skip
    return pd.DataFrame(found)


def _bar(what: str, wanted: str, values: dict[str, float], highest: float, form: str) -> dict:
    shown = {way: form.format(value) for way, value in values.items()}
    missed = {way: f"**{shown[way]}**" for way, value in values.items() if not value <= highest}
    return {"bar": what, "wanted": wanted} | shown | missed


def reached(table: pd.DataFrame, way: str) -> tuple[int, int]:
    """How many bars a way reaches, and of how many."""
    return int((~table[way].str.startswith("**")).sum()), len(table)


def _plain(joint: str) -> str:
    return COORDINATES[joint].removesuffix(" (°)")


def budget(single: pd.DataFrame, suite: pd.DataFrame) -> pd.DataFrame:
    """Errors by one source of errors alone, by none, and by all, with the fewest cameras."""
    few = suite[(suite.cameras == FEWEST) & suite.chain.isin(single.chain.unique())]
    few = few[few.seed.isin(single.seed.unique())]
    named = [
        few[few.noise == noise].assign(kind=kind)
        for noise, kind in (("0", "none"), (f"{DEFAULT:g}", "all"))
    ]
    rows = pd.concat([named[0], single, named[1]])
    table = means(rows, ("kind", "chain")).drop(columns=["known", "sessions"])
    return table.rename(columns={"kind": "errors"})


def own_estimate(rows: pd.DataFrame, ways: Sequence[str]) -> pd.DataFrame:
    """Of each way that states its uncertainty: RMS of errors over the stated standard deviation.

    A session has one error and one standard deviation of a coordinate, its means over time (root mean
    squares) and sides.
    """
    stating = rows[rows.chain.isin(ways) & (rows.refused == "") & ~rows.instead]
    found = []
    for key, each in stating.groupby([*CELL, "chain"], sort=False):
        figures = dict(zip((*CELL, "chain"), key, strict=True))
        for joint in COORDINATES:
            error, stated = each[f"own {joint}"], each[f"stated {joint}"]
            figures[f"{_plain(joint)}: stated (°)"] = root_mean_square(stated)
            figures[f"{_plain(joint)}: error / stated"] = root_mean_square(error / stated)
        found.append(figures)
    return pd.DataFrame(found).sort_values(list(CELL), kind="stable")


def refusals(rows: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Of each way: sessions that were refused, and ones whose joint fit gave way to the classical chain."""
    return [
        (str(name), int((each.refused != "").sum()), int(each.instead.sum()))
        for name, each in rows.groupby("chain", sort=False)
    ]


def unusual(rows: pd.DataFrame) -> pd.DataFrame:
    """Errors by what is unusual, noise and way, and how many fits gave way to the classical chain."""
    by = ["kind", "noise", "chain"]
    instead = rows.groupby(by, sort=False)["instead"].sum().rename("classical instead")
    table = means(rows, by).drop(columns=["known"]).join(instead, on=by)
    return table.rename(columns={"kind": "sessions with", "sessions": "number"})


def reasons(rows: pd.DataFrame) -> list[str]:
    """Why joint fits gave way to the classical chain, each reason once."""
    return sorted(set(rows.loc[rows.instead, "why"]))
