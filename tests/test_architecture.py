"""The house rules that a linter cannot see: who may import whom, and what may be loaded when."""

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "diffgen"

# A module imports lower ranks and its own folder; folders of one rank never import each other.
RANKS = {
    "__init__": 0,
    "errors": 0,
    "signals": 0,
    "launch": 0,
    "limits": 0.2,
    "types": 0.4,
    "files": 0.5,
    "jsonfile": 0.5,
    "places": 0.5,
    "configuration": 0.8,
    "configured": 0.82,
    "configuration_writing": 0.84,
    "device": 0.5,
    "pictures": 0.8,
    "settings": 0.7,
    "kernels": 1,
    "diffusion": 1.5,
    "models": 2,
    "text": 3,
    "weights": 3,
    "engine": 4,
    "batch": 5,
    "train": 5,
    "bench": 5,
    "cli": 6,
    "__main__": 7,
}
HEAVY = ("transformers", "diffusers", "scipy", "matplotlib", "triton", "accelerate")
# These must stay importable without torch: they serve --help, tables and the checking of requests.
TORCH_FREE = (
    "diffgen",
    "diffgen.cli.commands",
    "diffgen.diffusion.sampling",
    "diffgen.batch.plan",
    "diffgen.batch.requests",
    "diffgen.engine.edits",
    "diffgen.engine.model",
    "diffgen.engine.plan",
    "diffgen.engine.request",
    "diffgen.settings.sweep",
    "diffgen.files",
    "diffgen.engine.output",
    "diffgen.models.config",
    "diffgen.text.tokenizer",
    "diffgen.train.quick",
    "diffgen.train.recipe.read",
    "diffgen.weights.checkpoint",
    "diffgen.weights.adapters.lora",
    "diffgen.weights.registry",
)


def test_no_two_tests_have_one_name() -> None:
    """pytest imports them by their names, and refuses the second of two."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, *, everywhere: bool) -> list[str]:
    """Absolute names imported at module level, or anywhere; type-checking blocks are left out."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"relative import in {path}"
                names = [f"{child.module}.{alias.name}" for alias in child.names]
                found.extend(n if n in MODULES else str(child.module) for n in names)
            elif everywhere or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(child)

    visit(tree_of(path))
    return found


def folder(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_folder_has_a_rank():
    assert {folder(module) for module in MODULES} <= RANKS.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    own = folder(module)
    for name in imports(MODULES[module], everywhere=True):
        if name.split(".")[0] != "diffgen" or own == "__init__":
            continue
        other = folder(name)
        assert other == own or RANKS[other] < RANKS[own], f"{module} imports {name}"


def test_no_module_level_cycles():
    graph = {
        module: [name for name in imports(path, everywhere=False) if name in MODULES]
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for name in graph[module]:
                # A package's __init__ that lists its own modules is how a registry is built.
                if name != module:
                    walk(name, (*trail, module))
            done.add(module)

    for module in graph:
        walk(module, ())


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_are_imported_late(module):
    if module.startswith("diffgen.kernels.triton."):
        return  # loaded by kernels.ops when a kernel runs, see below
    names = imports(MODULES[module], everywhere=False)
    assert not [name for name in names if name.split(".")[0] in HEAVY]


def test_only_the_console_prints():
    for module, path in MODULES.items():
        calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        prints = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert not prints or module == "diffgen.cli.console", module


def test_pictures_are_opened_by_named_formats():
    """Else Pillow hands a file that begins like PostScript to Ghostscript, whatever its name."""
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open"):
                assert "formats" in {keyword.arg for keyword in node.keywords}, path


FAMILIES = ("diffgen.models.", "diffgen.weights.")


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(FAMILIES)])
def test_only_models_and_weights_know_families(module):
    """Others ask a ModelConfig what they want to know, so that a network of another kind has room.

    A table that has a row for each family may be looked up: it says of itself what it lacks.
    """
    for node in ast.walk(tree_of(MODULES[module])):
        if isinstance(node, ast.Attribute) and node.attr == "unet":
            assert not ast.unparse(node.value).endswith("config"), f"{module}:{node.lineno}"
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            assert not ast.unparse(node.left).endswith("family"), f"{module}:{node.lineno}"


PROBE = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
    print(module, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.fixture(scope="module")
def loaded():
    """The packages in memory after each module, imported one after the other by one process."""
    modules = [*TORCH_FREE, "diffgen.engine.engine"]
    command = [sys.executable, "-c", PROBE, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {module: set(packages) for module, *packages in lines}


@pytest.mark.parametrize("module", TORCH_FREE)
def test_checking_a_request_needs_no_torch(module, loaded):
    assert "diffgen" in loaded[module]
    assert not loaded[module] & {"torch", "numpy", *HEAVY}


def test_the_engine_needs_no_heavy_library(loaded):
    assert "torch" in loaded["diffgen.engine.engine"]
    assert not loaded["diffgen.engine.engine"] & set(HEAVY)


def test_only_ops_loads_the_triton_kernels():
    for module, path in MODULES.items():
        kernels = [n for n in imports(path, everywhere=True) if n.startswith("diffgen.kernels.t")]
        assert not kernels or module == "diffgen.kernels.ops", module
    late = imports(MODULES["diffgen.kernels.ops"], everywhere=False)
    assert not [name for name in late if "triton" in name]
