"""Files that appear complete or not at all."""

import os
from pathlib import Path

PART = ".part"
"""Ending of a file that is being written."""


def replace_file(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: a reader sees the old or the new, never half.

    The content is on the disk before the name is, so that a power cut leaves no empty file.

    Args:
        path: The file; its folder exists.
        content: All of it.

    Raises:
        OSError: It cannot be written; an older file stays.
    """
    temporary = path.with_name(path.name + PART)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
