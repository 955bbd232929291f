"""Imports point down: pipeline → stages → models → calibration."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

from stages import ORDER

ROOT = Path(__file__).parents[1]
LEAVES = {"pipeline.errors", "pipeline.files"}
ALLOWED = {
    "calibration": {"calibration"},
    "models": {"models", "calibration"},
    "stages": {"stages", "models", "calibration"},
    "pipeline": {"pipeline", "stages", "models", "calibration"},
}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_down(package):
    wrong = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.split(".")[0]
                if top in ALLOWED and top not in ALLOWED[package] and name not in LEAVES:
                    wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert not wrong


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_nothing_of_ours_but_leaves(leaf):
    source = ROOT.joinpath(*leaf.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    imported = {n.module for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ImportFrom)}
    assert {name for name in imported if name.split(".")[0] in ALLOWED} <= LEAVES


@pytest.mark.parametrize("position, stage", list(enumerate(ORDER)))
def test_a_stage_needs_only_what_comes_before_it(position, stage):
    module = import_module(f"stages.{stage}")
    assert set(module.NEEDS) <= set(ORDER[:position])
    assert module.Settings.model_config["extra"] == "forbid"
    assert callable(module.run) and callable(module.inputs)
