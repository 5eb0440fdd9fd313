"""The demo's notebooks as they are shipped: plain programs without outputs, on functions that there are."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted(Path("pipelines/demo/notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_there_is_one_for_each_audience() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["demo-analyst", "demo-engineer", "demo-partner"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_programs_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in cells(path, "code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        ast.parse("".join(cell["source"]))
    # Says what it is for, before anything runs.
    assert "".join(notebook["cells"][0]["source"]).startswith("# For ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_use_functions_that_there_are(path: Path) -> None:
    module = ast.parse(Path("configs/jupyter/millrace.py").read_text())
    known = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    program = ast.parse("\n".join("".join(cell["source"]) for cell in cells(path, "code")))
    used = {
        node.attr
        for node in ast.walk(program)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "millrace"
    }
    assert used
    assert used <= known
