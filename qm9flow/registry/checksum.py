"""One digest for a folder: changed, missing and added files all change it."""

import hashlib
from pathlib import Path

_BLOCK = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file.

    Args:
        path: The file.

    Returns:
        In hexadecimal.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder.

    Args:
        folder: The folder.

    Returns:
        In hexadecimal; the same wherever the folder lies.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
