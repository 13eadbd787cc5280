"""Where a run comes from: code, packages, machine."""

import functools
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

import qm9flow
from qm9flow.cores import usable_cores

_PACKAGES = (
    "qm9flow",
    "mlflow",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "optuna",
    "rdkit",
    "torch",
    "torch-geometric",
)


def _output(*command: str) -> str | None:
    """What a short command prints, None if it is missing, fails or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def git_commit() -> str | None:
    """The commit of the checkout that this package runs from.

    Returns:
        Its hash, with `-dirty` behind it if tracked files differ; None if the package is
        installed rather than run from a checkout, or git is missing.
    """
    root = Path(qm9flow.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}-dirty" if changes else commit


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a result, without importing them.

    Returns:
        Name and version of those that are installed.
    """
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def hardware() -> dict[str, str]:
    """The machine, in words.

    Returns:
        `system`, `processor`, `cores` (that this process may use), `memory_gb`, and `gpus` where
        NVIDIA's driver lists any.
    """
    found = {
        "system": f"{platform.system()}-{platform.machine()}",
        "processor": _processor(),
        "cores": str(usable_cores()),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory_gb"] = f"{memory / 1e9:.1f}"
    gpus = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    if gpus:
        found["gpus"] = ", ".join(gpus.splitlines())
    return found
