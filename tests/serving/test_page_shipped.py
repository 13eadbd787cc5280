"""The page is in the wheel, and the wheel asks for the viewer."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from serving import pages

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
def test_the_wheel_holds_the_page_and_requires_the_viewer(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder in ("qm9flow", "serving"):
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", str(source)]
    done = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = content.read(about).decode()
        for path in pages.FOLDER.iterdir():
            assert content.read(f"serving/page/{path.name}") == path.read_bytes()
    assert f'Requires-Dist: {pages.VIEWER_PACKAGE}==1.1.0; extra == "serve"' in metadata
    # The viewer itself is nobody's copy: it comes with its own package.
    assert not [name for name in names if "3dmol" in name.lower() or "chemiscope" in name.lower()]
