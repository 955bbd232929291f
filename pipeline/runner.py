"""Runs the stages in order, each atomically, and skips what is up to date. Holds no science."""

import ast
import hashlib
import json
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.config import STAGES, Configuration
from pipeline.errors import PipelineError
from pipeline.files import replacing_folder, reporting_disk_errors, sha256_of, sha256_of_input
from stages import ORDER
from stages.trial import Progress, Trial

PROJECT_PACKAGES = ("stages", "models", "calibration")
READ_BY_OTHERS = ORDER[: ORDER.index("augment") + 1]
"""What a trial must have run before another trial's stage may read it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one stage."""

    stage: str
    skipped: bool
    seconds: float
    """How long it took, now or, if it was skipped, when it ran."""
    notices: list[str]


Watch = Callable[[Trial, str], Progress]
"""`watch(trial, stage)`: called when a stage starts; returns where it reports progress."""

Configure = Callable[[Trial], Configuration]
"""`configure(trial)`: the settings of any trial, one that only helps to fit another's model included."""


def run_trial(
    trial: Trial,
    configure: Configure,
    watch: Watch,
    first: str | None = None,
    last: str | None = None,
    force: bool = False,
) -> Iterator[Outcome]:
    """Run the stages of one trial, yielding each outcome.

    Stages before `last`, and it, run where their settings, inputs or code have changed; from
    `first` on, or all with `force`, they run in any case. Other trials that the kinematics reads, such
    as a static one, are augmented before, with their own settings: `configure` gives those of any trial.

    Raises PipelineError for whatever the user can mend; finished stages are kept.
    """
    for name in filter(None, (first, last)):
        if name not in ORDER:
            raise PipelineError(f"there is no stage '{name}'. The stages: {', '.join(ORDER)}")
    end = ORDER.index(last) if last else len(ORDER) - 1
    start = ORDER.index(first) if first else len(ORDER)
    if start > end and first:
        raise PipelineError(f"--from {first} comes after --to {last}")
    if end >= ORDER.index("kinematics"):
        trial = yield from _run_others(trial, configure, watch)
    for index, stage in enumerate(ORDER[: end + 1]):
        yield run_stage(trial, stage, configure, watch, force or index >= start)


def _run_others(
    trial: Trial, configure: Configure, watch: Watch
) -> Generator[Outcome, None, Trial]:
    """Run the other trials that a trial's kinematics reads; return the trial without those that fail.

    Raises PipelineError if the static trial fails, which the trial cannot do without.
    """
    failed = []
    for other in other_trials(trial, "kinematics", configure(trial)):
        try:
            for outcome in run_trial(other, configure, watch, last=READ_BY_OTHERS[-1]):
                if other is trial.scaling_trial or not outcome.skipped:
                    yield outcome
        except PipelineError:
            if other is trial.scaling_trial:
                raise
            failed.append(other.name)
    return without(trial, failed)


def other_trials(trial: Trial, stage: str, configuration: Configuration) -> tuple[Trial, ...]:
    """Other trials whose results, up to `READ_BY_OTHERS`, a stage of this trial reads."""
    module = STAGES[stage]
    if not hasattr(module, "other_trials"):
        return ()
    return module.other_trials(trial, getattr(configuration, stage))


def without(trial: Trial, failed: Collection[str]) -> Trial:
    """The trial without those of its session that failed, by name: it says which it had to leave out."""
    kept = tuple(each for each in trial.session_trials if each.name not in failed)
    left_out = tuple(each.name for each in trial.session_trials if each.name in failed)
    return replace(trial, session_trials=kept, left_out=left_out)


def run_stage(
    trial: Trial, stage: str, configure: Configure, watch: Watch, force: bool = False
) -> Outcome:
    """Run one stage of a trial, whose earlier stages have run, unless it is up to date.

    One at a time works on the results of a trial: who comes second waits, and finds it up to date.

    Raises PipelineError for whatever the user can mend, among it earlier stages that somebody has
    run with other settings meanwhile.
    """
    position = ORDER.index(stage)
    with (
        reporting_disk_errors(trial.results),
        _locked(trial, stage, watch),
        _telling_what_is_stale(trial, ORDER[position:]),
    ):
        _check_settings(trial, ORDER[:position], configure(trial))
        for other in other_trials(trial, stage, configure(trial)):
            _check_settings(other, READ_BY_OTHERS, configure(other))
        return _run_locked(trial, stage, configure(trial), watch, force)


def is_up_to_date(trial: Trial, stage: str, configuration: Configuration) -> bool:
    """Whether a stage's result is there, of these settings, inputs, earlier results and code.

    Raises PipelineError for inputs that cannot be read.
    """
    folder = trial.folder(stage)
    return _is_result_of(folder, describe(trial, stage, getattr(configuration, stage)))


def _is_result_of(folder: Path, description: Mapping[str, Any]) -> bool:
    record = read_record(folder)
    return record.get("key") == _digest(description) and _intact(folder, record)


def _run_locked(
    trial: Trial, stage: str, configuration: Configuration, watch: Watch, force: bool
) -> Outcome:
    settings = getattr(configuration, stage)
    description = describe(trial, stage, settings)
    folder = trial.folder(stage)
    if not force and _is_result_of(folder, description):
        record = read_record(folder)
        return Outcome(stage, True, record["seconds"], record["notices"])
    began = time.perf_counter()
    with replacing_folder(folder) as temporary:
        notices = STAGES[stage].run(trial, settings, temporary, watch(trial, stage))
        if describe(trial, stage, settings) != description:
            raise PipelineError(
                f"{stage}: what it reads changed while it ran, by another run or by hand. Run again."
            )
        seconds = round(time.perf_counter() - began, 3)
        record = {
            "stage": stage,
            "key": _digest(description),
            "seconds": seconds,
            "notices": notices,
            **description,
            "outputs": _hashes(temporary),
        }
        text = json.dumps(record, indent=2, default=str)
        (temporary / "stage.json").write_text(text, encoding="utf-8")
    return Outcome(stage, False, seconds, notices)


def _check_settings(trial: Trial, stages: Sequence[str], configuration: Configuration) -> None:
    for stage in stages:
        expected = getattr(configuration, stage).model_dump(mode="json")
        if read_record(trial.folder(stage)).get("settings") != expected:
            raise PipelineError(
                f"{trial.folder(stage)} is not of this run's settings: another run with others works "
                "on this folder, or it was removed. Let one finish, then run again."
            )


def describe(trial: Trial, stage: str, settings: Any) -> dict[str, Any]:
    """Everything that a stage's result depends on, files by their hash."""
    module = STAGES[stage]
    upstream = {need: read_record(trial.folder(need)).get("outputs", {}) for need in module.NEEDS}
    named = {"trial": trial.name, "activity": trial.activity} | module.inputs(trial, settings)
    return {
        "settings": settings.model_dump(mode="json"),
        "inputs": {name: _fingerprint(value) for name, value in named.items()},
        "upstream": {need: _digest(outputs) for need, outputs in upstream.items()},
        "code": code_version(module.__name__),
    }


def read_record(folder: Path) -> dict[str, Any]:
    """Return what a stage noted about itself in its folder; empty if it never finished."""
    try:
        record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


@cache
def code_version(module: str) -> str:
    """Hash of a module's source, of all modules of ours that it imports, however deep, and of the
    data files beside them that they name.
    """
    seen: dict[str, str] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        spec = find_spec(name) if name not in seen else None
        if spec is None or spec.origin is None:
            continue
        path = Path(spec.origin)
        source = path.read_text(encoding="utf-8")
        seen[name] = source
        for data in path.parent.iterdir():
            if data.suffix in (".toml", ".j2") and data.name in source:
                seen[data.name] = data.read_text(encoding="utf-8")
        queue += [each for each in _imports(source) if each.split(".")[0] in PROJECT_PACKAGES]
    return _digest(seen)


def version_of_all_stages() -> str:
    """Hash of the code of all stages."""
    return _digest({stage: code_version(module.__name__) for stage, module in STAGES.items()})


def _imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module in PROJECT_PACKAGES:
                yield from (
                    f"{node.module}.{alias.name}"
                    for alias in node.names
                    if find_spec(f"{node.module}.{alias.name}")
                )


def _fingerprint(value: Any) -> Any:
    if isinstance(value, Path):
        return _hashes(value, sha256_of_input) if value.is_dir() else sha256_of_input(value)
    if isinstance(value, Mapping):
        return {str(name): _fingerprint(each) for name, each in value.items()}
    return value


def _hashes(folder: Path, hash_of: Callable[[Path], str] = sha256_of) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hash_of(path) for path in files}


def _intact(folder: Path, record: Mapping[str, Any]) -> bool:
    present = {name: value for name, value in _hashes(folder).items() if name != "stage.json"}
    return present == record["outputs"]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _locked(trial: Trial, stage: str, watch: Watch) -> Iterator[None]:
    """Hold the results that a stage's folder is among; wait, and show it, while another run does."""
    results = trial.folder(stage).parent
    results.mkdir(parents=True, exist_ok=True)
    lock = FileLock(results / ".lock")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        watch(trial, "waiting")
        held = lock.acquire()
    with held:
        yield


@contextmanager
def _telling_what_is_stale(trial: Trial, stages: Sequence[str]) -> Iterator[None]:
    """Say that results which a failed run did not come to are those of a run before."""
    try:
        yield
    except PipelineError as error:
        old = [trial.folder(stage).name for stage in stages if trial.folder(stage).exists()]
        stale = f" (Still of an earlier run: {', '.join(old)}.)" if old else ""
        raise PipelineError(f"{error}{stale}") from error
