"""The order of the rooms: imports point only downwards, and some rooms know no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER: tuple[tuple[str, ...], ...] = (
    ("qm9flow.__main__",),
    ("qm9flow.cli", "serving"),
    ("qm9flow.workflows",),
    ("qm9flow.evaluation",),
    ("qm9flow.tuning",),
    ("qm9flow.tracking",),
    ("qm9flow.release",),
    ("qm9flow.training",),
    ("qm9flow.nn", "qm9flow.data"),
    ("qm9flow.model",),
    ("qm9flow.registry",),
    ("qm9flow.bulk",),
    ("qm9flow.inference",),
    ("qm9flow.molecules",),
    (
        "qm9flow.targets",
        "qm9flow.config",
        "qm9flow.properties",
        "qm9flow.elements",
        "qm9flow.units",
        "qm9flow.errors",
        "qm9flow.cores",
        "qm9flow.locations",
        "qm9flow.files",
    ),
)
"""Highest first; rooms of one line are siblings that do not import each other."""

GROUND = len(ORDER) - 1
HEAVY = {"torch", "torch_geometric", "optuna", "ray"}
TORCH_FREE = ("serving", "registry", "bulk", "inference", "molecules", "tracking", "cli")
SERVING_MAY_USE = {"qm9flow.inference", "qm9flow.registry", "qm9flow.molecules", *ORDER[GROUND]}


def room_of(module: str) -> str | None:
    """The room that a module lies in, None for other packages' modules."""
    for line in ORDER:
        for room in line:
            if module == room or module.startswith(room + "."):
                return room
    return None


def level_of(room: str) -> int:
    return next(level for level, line in enumerate(ORDER) if room in line)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def sources() -> list[Path]:
    return sorted([*(ROOT / "qm9flow").rglob("*.py"), *(ROOT / "serving").rglob("*.py")])


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_downwards(path: Path) -> None:
    here = room_of(module_name(path))
    if here is None:
        assert module_name(path) == "qm9flow", f"{path} lies in no room"
        return
    for module in imported_modules(path):
        there = room_of(module)
        if there is None or there == here:
            continue
        if level_of(here) == GROUND and level_of(there) == GROUND:
            continue
        assert level_of(there) > level_of(here), (
            f"{path.name} imports {module} from above or beside"
        )
        if here == "serving":
            assert there in SERVING_MAY_USE, f"serving must not import {module}"


@pytest.mark.parametrize("room", TORCH_FREE)
def test_rooms_without_torch(room: str) -> None:
    folder = ROOT / "serving" if room == "serving" else ROOT / "qm9flow" / room
    for path in folder.rglob("*.py"):
        heavy = {module.split(".")[0] for module in imported_modules(path)} & HEAVY
        assert not heavy, f"{path} imports {heavy}"


def test_optuna_and_ray_live_in_tuning_only() -> None:
    for path in sources():
        used = {module.split(".")[0] for module in imported_modules(path)} & {"optuna", "ray"}
        if used:
            assert room_of(module_name(path)) == "qm9flow.tuning", f"{path} imports {used}"


def test_importing_serving_brings_no_torch() -> None:
    code = (
        "import sys, serving.service, qm9flow.registry.versions, qm9flow.inference.predictor;"
        "import qm9flow.model;"
        "print(sorted({'torch', 'optuna', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_the_package_loads_nothing() -> None:
    """`qm9flow.load` brings what it needs when it is asked for."""
    code = (
        "import sys, qm9flow; assert qm9flow.__version__; assert 'load' in qm9flow.__all__;"
        "print(sorted({'numpy', 'rdkit', 'mlflow', 'onnxruntime', 'qm9flow.errors'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
