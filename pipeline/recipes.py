"""Reading recipes of training: the packaged ones by name, or a user's own file."""

import tomllib
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from models.networks import NETWORKS
from models.training.courses import COURSES
from models.training.recipe import Schedule
from pipeline.config import explain
from pipeline.errors import PipelineError

PACKAGED = resources.files("models.training") / "recipes"


def packaged_recipes() -> list[str]:
    """Names of the packaged recipes."""
    names = (each.name for each in PACKAGED.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def read_recipe(method: str, source: str, steps: int | None) -> Schedule:
    """Read a recipe by its name or path; `steps`, if given, replace its own.

    Raises PipelineError if there is none, it is of another method, or it has mistakes.
    """
    packaged = source in packaged_recipes()
    path = PACKAGED / f"{source}.toml" if packaged else Path(source)
    if not path.is_file():
        raise PipelineError(
            f"there is no recipe {source}: give a file, or one of {', '.join(packaged_recipes())}"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not TOML: {error}") from error
    if table.get("method") != method:
        raise PipelineError(
            f'{path}: expected method = "{method}", got {table.get("method", "none")!r}. Give '
            f"another --recipe, or train the other method"
        )
    kind = COURSES[method].recipe[NETWORKS[method][1]]
    try:
        return kind.model_validate(table if steps is None else table | {"steps": steps})
    except ValidationError as error:
        raise PipelineError(explain(error, str(path), kind)) from error
