"""What a process leaves to the one that takes its place after a kill: which model answered last.

The registry may be away just then, and the model that the service was started with may be weeks
old.
"""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

from qm9flow.files import replace_file
from qm9flow.registry.find import FoundModel

logger = logging.getLogger("bentoml.qm9flow")

KEEP_SECONDS = 3600.0
"""Between two notes of the same."""


class Handover:
    """A note of the model that answers, in a file of one service's own."""

    def __init__(self, file: str | None) -> None:
        """Read and write nothing yet.

        Args:
            file: Where; None keeps no note.
        """
        self._file = None if file is None else Path(file)

    def note(self, found: FoundModel) -> None:
        """Leave a note; a full disk costs the note alone.

        Args:
            found: The model that answers from now on.
        """
        if self._file is None:
            return
        plain = {"bundle": str(found.bundle), "version": found.version, "alias": found.alias}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._file, json.dumps(plain).encode())
        except OSError as error:
            logger.error(
                "a process that is started again will not begin with %s: %s", found.label, error
            )

    def keep(self, found: FoundModel) -> None:
        """Leave the note anew from time to time: what clears temporary files takes old ones.

        Args:
            found: The model that answers.
        """
        if self._file is not None and _age_s(self._file) > KEEP_SECONDS:
            self.note(found)

    def read(self) -> FoundModel | None:
        """What was noted last.

        Returns:
            The model, not verified; None where there is no note that can be read.
        """
        if self._file is None or not self._file.exists():
            return None
        try:
            return _found(json.loads(self._file.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.error("the note of the model that answered last cannot be read: %r", error)
            return None


def _found(plain: Any) -> FoundModel:
    return FoundModel(Path(plain["bundle"]), plain["version"], plain["alias"])


def _age_s(file: Path) -> float:
    """Infinite for what is not there."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return math.inf
