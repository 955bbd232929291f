"""What a run may be told: the settings of every stage, their sources and their precedence."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import import_module, resources
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from pipeline.errors import PipelineError
from stages import ORDER

STAGES = {name: import_module(f"stages.{name}") for name in ORDER}
"""The stages' modules, in the order in which they run."""

SHOWN = 3
"""Problems that one message names."""

Configuration = create_model(
    "Configuration",
    __config__=ConfigDict(frozen=True, extra="forbid"),
    __doc__="The settings of all stages, by stage.",
    **{name: (module.Settings, module.Settings()) for name, module in STAGES.items()},
)


def activity_defaults(activity: str) -> dict[str, Any]:
    """Return the settings that the packaged `activities.toml` has for an activity, or none."""
    text = resources.files("pipeline").joinpath("activities.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    for entry in table.values():
        if activity.lower() in entry["names"]:
            return entry["settings"]
    return {}


def configure(
    activity: str, session_settings: Mapping[str, Any], overrides: Sequence[str] = ()
) -> Configuration:
    """Combine defaults, activity, `session.toml` and `--set stage.key=value`; the later wins.

    Raises PipelineError for an unknown stage or key, or a value out of range.
    """
    merged: dict[str, dict[str, Any]] = {}
    for source in (activity_defaults(activity), session_settings, parse_overrides(overrides)):
        for stage, values in source.items():
            if not isinstance(values, Mapping):
                raise PipelineError(f"settings of a stage must be a table: [settings.{stage}]")
            merged[stage] = merged.get(stage, {}) | dict(values)
    try:
        return Configuration.model_validate(merged)
    except ValidationError as error:
        raise PipelineError(explain(error, "settings", Configuration)) from error


def parse_overrides(overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse `stage.key=value` strings; values are TOML, and bare words are strings."""
    settings: dict[str, dict[str, Any]] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        stage, dot, key = name.strip().partition(".")
        if not (equals and dot and stage and key):
            raise PipelineError(
                f"--set {override}: expected stage.key=value, such as --set smooth.cutoff_hz=6"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        settings.setdefault(stage, {})[key] = value
    return settings


def explain(error: ValidationError, what: str, model: type[BaseModel]) -> str:
    """Turn pydantic's report on a model into one line for the user."""
    problems = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            problems.append(f"{where} is unknown{_alternatives(problem['loc'], model)}")
        else:
            problems.append(f"{where}: {problem['msg'].lower()}, got {problem['input']!r}")
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return f"{what}: {'; '.join([*problems[:SHOWN], *more])}"


def _alternatives(location: tuple, model: type[BaseModel]) -> str:
    """What there is in the place of something unknown."""
    for name in location[:-1]:
        field = model.model_fields.get(name)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return ""
        model = field.annotation
    return f" (there are: {', '.join(model.model_fields) or 'none'})"
