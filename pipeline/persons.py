"""Persons: whose results a run gives, where several people are in view."""

from collections.abc import Iterator
from dataclasses import replace

from pipeline.errors import PipelineError
from pipeline.files import load_dataset
from stages.persons import Choice
from stages.trial import Subject, Trial

ALL = "all"
FIRST = ("largest", 1)
"""Two names of the same person."""


def parse_person(text: str) -> Choice:
    """Return whom `--person` names: largest, central, a number from 1 on, or `ALL`.

    Raises PipelineError for anything else.
    """
    if text in ("largest", "central", ALL):
        return text
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise PipelineError(
        f"--person {text}: expected largest, central, a number (1 is the largest in view), or all."
    )


def with_person(trial: Trial, person: Choice, usual: Choice) -> Trial:
    """The same trial with another person followed than the `usual` one, whom the session is about.

    Results go to a folder of their own, `results/TRIAL_person2`; what looks at everybody in view is
    shared. The session's height, mass, static trial, scaled model and reference are of the usual person,
    and left out.
    """
    if person == usual or (person in FIRST and usual in FIRST):
        return trial
    number = 1 if person in FIRST else person
    name = f"{trial.results.name}_{person if person == 'central' else f'person{number}'}"
    return replace(
        trial, person=person, results=trial.results.with_name(name), everyone=trial.results,
        subject=Subject(), scaling_trial=None, session_trials=(), model=None, reference=None,
    )  # fmt: skip


def trials_of(trial: Trial, person: Choice | None, usual: Choice) -> Iterator[Trial]:
    """The trial with each person that is asked for. Of all, the usual one must run before the next."""
    if person is None or person != ALL:
        yield trial if person is None else with_person(trial, person, usual)
        return
    yield trial
    found = trial.folder("synchronize") / "keypoints.nc"
    if found.is_file():
        about = load_dataset(found).attrs
        followed = int(about.get("person", 1))
        for number in range(1, int(about.get("people", 1)) + 1):
            if number != followed:
                yield with_person(trial, number, followed)
