"""A folder of named arrays: `.npy` files and a manifest, written once, loaded by memory map.

A folder appears under its name only when it is complete (it is written under a temporary name and
renamed), so that killed or simultaneous writers leave no half of one behind.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qm9flow.errors import CacheError

FORMAT = 2
MANIFEST = "manifest.json"

_STALE_SECONDS = 3600.0
REBUILD = "make it anew with `qm9flow data prepare --force`"

Arrays = dict[str, npt.NDArray[Any]]


def content_digest(hashes: Mapping[str, str]) -> str:
    """One SHA-256 for several arrays.

    Args:
        hashes: SHA-256 of each array's content, by its name.

    Returns:
        The digest; it does not depend on the order.
    """
    text = "\n".join(f"{name} {hashes[name]}" for name in sorted(hashes))
    return hashlib.sha256(text.encode()).hexdigest()


def array_hash(array: npt.NDArray[Any]) -> str:
    """SHA-256 of an array's type, shape and values, the same on every platform.

    Args:
        array: Any array without objects.

    Returns:
        The hash.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str} {little.shape}".encode())
    digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def require_writable(folder: Path) -> None:
    """Find out before the work is done whether its result can be kept.

    Args:
        folder: What is to be written.

    Raises:
        CacheError: The place cannot be written, or holds something else.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)).rmdir()
    except OSError as error:
        raise _unwritable(folder, error) from error
    _refuse_foreign(folder)


def write(folder: Path, arrays: Arrays, facts: dict[str, Any], replace: bool = False) -> None:
    """Write a folder, completely or not at all.

    Args:
        folder: Where it appears. A good one that is there already, made by another process, is
            left as it is; a damaged one is replaced.
        arrays: What to write.
        facts: What else the manifest says, as JSON values.
        replace: Replace a good one too.

    Raises:
        CacheError: The place cannot be written, or holds something else.
    """
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        _fill(temporary, arrays, facts)
        _move_into_place(temporary, folder, replace)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def read(folder: Path, remedy: str = REBUILD) -> tuple[Arrays, dict[str, Any]]:
    """Open a folder by memory map, with the checks that cost nothing: names, sizes, shapes.

    Args:
        folder: What `write` made.
        remedy: What to do if it is damaged, in words.

    Returns:
        Read-only arrays, and the manifest.

    Raises:
        FileNotFoundError: There is no such folder.
        CacheError: It is damaged, or of another format.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    manifest = _read_manifest(folder, remedy)
    arrays: Arrays = {}
    for name, entry in manifest["arrays"].items():
        path = folder / f"{name}.npy"
        try:
            if path.stat().st_size != entry["bytes"]:
                raise ValueError(f"{path.stat().st_size} bytes instead of {entry['bytes']}")
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
                raise ValueError(f"{array.dtype} {array.shape} instead of {entry}")
        except (OSError, ValueError, EOFError) as error:
            raise CacheError(f"the cache's file {path} is damaged ({error}): {remedy}") from error
        arrays[name] = array
    return arrays, manifest


def verify(folder: Path) -> None:
    """Compare every byte of a folder with its manifest.

    Args:
        folder: What `write` made.

    Raises:
        FileNotFoundError: There is no such folder.
        CacheError: It is damaged, or of another format.
    """
    _, manifest = read(folder)
    for name, entry in manifest["arrays"].items():
        path = folder / f"{name}.npy"
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise CacheError(f"the cache's file {path} does not have its SHA-256: {REBUILD}")


def _fill(folder: Path, arrays: Arrays, facts: dict[str, Any]) -> None:
    entries = {}
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        content = path.read_bytes()
        entries[name] = {
            "bytes": len(content),
            "shape": list(array.shape),
            "dtype": array.dtype.str,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    manifest = {"format": FORMAT, **facts, "arrays": entries}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _unwritable(folder: Path, error: OSError) -> CacheError:
    return CacheError(
        f"cannot write the cache {folder}: {error}; free space there or name another folder in "
        "the environment variable QM9FLOW_CACHE"
    )


def _refuse_foreign(folder: Path) -> None:
    """Never replace what is not a cache."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:  # nothing there, or not any more: another process was quicker
        return
    except NotADirectoryError as error:
        message = f"the cache {folder} is to be a folder, but is a file: move it away"
        raise CacheError(message) from error
    foreign = [name for name in names if not name.endswith(".npy") and name != MANIFEST]
    if foreign:
        raise CacheError(
            f"the folder {folder} is to be QM9's cache, but holds {foreign[0]}: move it away or "
            "name another folder in the environment variable QM9FLOW_CACHE"
        )


def _move_into_place(temporary: Path, folder: Path, replace: bool) -> None:
    temporary.chmod(0o755)
    while True:
        try:
            temporary.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        if not replace and _is_good(folder):
            return
        _refuse_foreign(folder)
        discarded = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        with suppress(FileNotFoundError):  # another process was quicker
            folder.rename(discarded / "old")
        shutil.rmtree(discarded, ignore_errors=True)


def _is_good(folder: Path) -> bool:
    try:
        read(folder)
    except (CacheError, FileNotFoundError):
        return False
    return True


def _remove_stale(folder: Path) -> None:
    """What killed writers left behind long ago."""
    for path in folder.parent.glob(f".{folder.name}.*"):
        with suppress(FileNotFoundError):  # another process was quicker
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _read_manifest(folder: Path, remedy: str) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        found = manifest["format"]
        entries = manifest["arrays"].values()
        is_complete = all({"bytes", "shape", "dtype", "sha256"} <= set(e) for e in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheError(f"the cache's manifest {path} is damaged ({error}): {remedy}") from error
    if found != FORMAT or not is_complete:
        raise CacheError(f"the cache {folder} has format {found}, not {FORMAT}: {remedy}")
    return dict(manifest)
