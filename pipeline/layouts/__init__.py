"""Layouts of session folders: one module each, found by looking at the folder.

A layout is a module with `NAME` and `EXPECTED` (what such a folder holds, for people),
`recognises(folder) -> bool` and `read(folder, calibration) -> Contents`, where `calibration` is what
`session.toml` names instead of the layout's own.
"""

from pathlib import Path
from types import ModuleType

from pipeline.layouts import opencap_dataset, opencap_session, ours, pose2sim

LAYOUTS = (opencap_dataset, opencap_session, pose2sim, ours)


def layout_of(folder: Path) -> ModuleType | None:
    """The layout of a folder; None if it is of none that is known."""
    return next((each for each in LAYOUTS if each.recognises(folder)), None)


def expected(besides: ModuleType | None = None) -> str:
    """What the layouts look like, for a message."""
    others = [each for each in LAYOUTS if each is not besides]
    return "; ".join(f"{each.NAME}: {each.EXPECTED}" for each in others)
