"""The public names: sorted, lazy, and there for type checkers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import diffgen

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "diffgen" / "__init__.py"


def test_names_are_sorted_and_complete() -> None:
    assert diffgen.__all__ == sorted(diffgen.__all__)
    assert {"DiffgenError", "Engine", "GenerateRequest", "GeneratedImage"} < set(diffgen.__all__)
    assert set(diffgen.__all__) == {*diffgen._HOMES, "__version__"}


@pytest.mark.parametrize("name", diffgen.__all__)
def test_each_name_is_there(name: str) -> None:
    value = getattr(diffgen, name)
    if name != "__version__":
        assert (value.__name__, value.__module__) == (name, diffgen._HOMES[name])


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'diffgen' has no attribute 'Engin'"):
        _ = diffgen.Engin


def test_nothing_is_loaded_before_it_is_used() -> None:
    code = "import sys, diffgen; print([m for m in sys.modules if m.startswith('diffgen.')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_type_checkers_see_every_name() -> None:
    """They do not run `__getattr__`: each name is imported where only they look."""
    (guarded,) = (
        node
        for node in ast.parse(SOURCE.read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == diffgen._HOMES
    assert (ROOT / "diffgen" / "py.typed").is_file()
