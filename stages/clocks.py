"""Clocks: which clock each camera gets, and why; or that there is no telling."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.clock_search import Search
from models.clocks import (
    LOOSE_S,
    Answer,
    Clocks,
    estimate_clocks,
    estimate_near,
    estimate_short,
    movement_m,
)
from models.synchronization import Track
from pipeline.errors import PipelineError

STILL_M = 0.25
"""Who moves less than this, m, stands still: no wrong offset would be seen, nor matter much. Detectors'
noise alone looks like 0.15 m."""
MISS_M = 0.08
"""Rays that miss each other by more than this at every offset are not of one person."""
AS_GOOD = 0.8
"""The cameras' own clocks are as good as others if they explain so much of what those do."""
OWN_LOOSE = 3.0
"""They are believed with a standard error so many times larger than others may have."""
SEES_LITTLE = 0.5
"""A camera that sees the subject in a smaller share of its frames is named where all fails."""
ERRORS = 2.5
"""So many standard errors are the uncertainty that users are told; in half a frame it is small."""


@dataclass(frozen=True)
class Decision:
    """The clocks that are used, and what the user should know about them."""

    clocks: Clocks
    source: list[str]
    """By camera: given (by the session), reference, estimated, unverified (an estimate from too short a
    recording), or own (as it is, not verified either)."""
    notices: list[str]


def without_search(names: Sequence[str], given_s: dict[str, float]) -> Decision:
    """The cameras' own clocks and the session's corrections, unseen."""
    offset = [given_s.get(name, 0.0) for name in names]
    source = ["given" if name in given_s else "own" for name in names]
    errors = [0.0 if name in given_s else np.nan for name in names]
    return Decision(Clocks.plain(offset, errors), source, _given_notices(given_s))


def decide(
    names: Sequence[str], tracks: Sequence[Track], search: Search, given_s: dict[str, float]
) -> Decision:
    """Estimate the clocks of the cameras that the session gives none for.

    The session's clock is that of the cameras that it gives offsets for, if it says 0 for one of them;
    else the first other camera's.

    Raises PipelineError where there is movement, but no offset that can be relied on.
    """
    fixed = {names.index(name): offset for name, offset in given_s.items()}
    if 0.0 not in fixed.values():
        fixed[next(camera for camera in range(len(names)) if camera not in fixed)] = 0.0
    answer = estimate_clocks(tracks, search, fixed)
    doubt = _doubt(answer, names)
    kept = without_search(names, given_s)
    if doubt is None:
        return _estimated(names, tracks, answer.clocks, fixed, given_s)
    if np.median([movement_m(track) for track in tracks]) < STILL_M:
        return _own(kept, "nobody moves enough to tell whether the cameras are synchronised")
    closer = estimate_near(tracks, kept.clocks.offset_s, list(fixed))
    if not _own_fit(search, tracks, kept.clocks, answer, closer):
        free = [camera for camera in range(len(names)) if camera not in fixed]
        short = answer and estimate_short(tracks, search, answer, free)
        if short:
            return _estimated(names, tracks, short, fixed, given_s, sure=False)
        raise PipelineError(_refusal(names, tracks, doubt, given_s))
    if _doubt(closer, names) is None:
        return _estimated(names, tracks, closer.clocks, fixed, given_s)
    return _own(kept, f"synchronisation could not be verified ({doubt})")


def _refusal(
    names: Sequence[str], tracks: Sequence[Track], doubt: str, given_s: dict[str, float]
) -> str:
    """Why there are no clocks, which cameras may be to blame, and what to do."""
    seen = [float(np.isfinite(track.image).all(-1).any(-1).mean()) for track in tracks]
    blind = [
        f"camera {name} saw the subject in {share:.0%} of its frames only: leave it out with "
        "cameras = [...] in session.toml. "
        for name, share in zip(names, seen, strict=True)
        if share < SEES_LITTLE
    ]
    given = "that clock_offsets_s in session.toml is right, " if given_s else ""
    offsets = ", ".join(f'"{name}" = {given_s.get(name, 0.0):g}' for name in names)
    return (
        f"synchronisation failed: {doubt}. {''.join(blind)}Check {given}that these videos are of one "
        "trial, none of them mirrored, and that the calibration is theirs (names, moved cameras); or "
        f"say in session.toml how the clocks differ: clock_offsets_s = {{ {offsets} }} below "
        '[trials.TRIAL] (seconds to add to each camera\'s own clock), or method = "clocks" below '
        "[settings.synchronize] if the cameras were started together."
    )


def _doubt(answer: Answer | None, names) -> str | None:
    """What speaks against an answer, for people."""
    if answer is None:
        return "at no offset do the cameras see one movement"
    if answer.loose_s > LOOSE_S:
        return "no offset fits the whole recording: its parts do not agree about one"
    if answer.fit.miss_m > MISS_M:
        return (
            f"at the best offset the cameras' rays still miss each other by "
            f"{100 * answer.fit.miss_m:.0f} cm"
        )
    if answer.rival:
        group = " and ".join(names[camera] for camera in answer.rival.group)
        return (
            f"{group} would fit about as well {abs(answer.rival.shift_s):.2f} s "
            f"{'later' if answer.rival.shift_s > 0 else 'earlier'}: the movement repeats itself"
        )
    return None


def _own_fit(search: Search, tracks, own: Clocks, answer: Answer | None, closer: Answer) -> bool:
    """Whether the cameras' own clocks are as good as any that were found, to within a frame.

    That would be an unlikely coincidence, if the cameras had not been started together.
    """
    if answer is None or search.agreement(closer.steps) < AS_GOOD * search.agreement(answer.steps):
        return False
    frame_s = max(np.median(np.diff(track.time_s)) for track in tracks)
    moved_s = np.abs(closer.clocks.offset_s - own.offset_s).max()
    fits = closer.loose_s <= OWN_LOOSE * LOOSE_S and moved_s <= frame_s
    return fits or np.abs(closer.steps - answer.steps).max() <= 1


def _own(kept: Decision, why: str) -> Decision:
    notice = f"{why}: the cameras' own clocks are used, as they are."
    return Decision(kept.clocks, kept.source, [*kept.notices, notice])


def _estimated(names, tracks, clocks: Clocks, fixed, given_s, sure: bool = True) -> Decision:
    """Take these clocks, and tell what they change and how sure they are."""
    notices, source = _given_notices(given_s), []
    frame_s = [float(np.median(np.diff(track.time_s))) for track in tracks]
    slowest = max(frame_s[camera] for camera in fixed)
    for camera, name in enumerate(names):
        if camera in fixed:
            source.append("given" if name in given_s else "reference")
            continue
        source.append("estimated" if sure else "unverified")
        offset, around = clocks.offset_s[camera], ERRORS * clocks.error_s[camera]
        if offset:
            way = "after" if offset > 0 else "before"
            notices.append(
                f"camera {name}: its clock starts {abs(offset):.3f} s {way} the session's "
                f"(± {1000 * around:.0f} ms), as the movement shows; it was shifted."
            )
        if not sure:
            notices.append(
                f"camera {name}: low confidence: the recording is too short to verify its clock. Film "
                "a few seconds longer, with brisk movements."
            )
        elif around > max(frame_s[camera], slowest) / 2:
            notices.append(
                f"camera {name}: low confidence: its clock is known to ± {1000 * around:.0f} ms only, "
                "more than half a frame. Fast movements would show it."
            )
        if ppm := 1e6 * (clocks.rate[camera] - 1):
            notices.append(f"camera {name}: its clock runs {ppm:+.0f} ppm off; it was corrected.")
    return Decision(clocks, source, notices)


def _given_notices(given_s: dict[str, float]) -> list[str]:
    return [
        f"camera {name}: its clock was shifted by {offset:+.4f} s, as the session says."
        for name, offset in given_s.items()
        if offset
    ]
