"""Who may ask: keys, or nobody but this machine itself."""

import hmac
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Scope

from qm9flow.config import ServeConfig
from qm9flow.config.keys import (
    KEYS_ENVIRONMENT,
    KEYS_FILE_ENVIRONMENT,
    digest_of,
    load_keys,
    read_keys,
)
from qm9flow.errors import ConfigError
from serving.loopback import refuse_foreign
from serving.requests import RequestError

logger = logging.getLogger("bentoml.qm9flow")

LOOK_SECONDS = 0.5
"""Between two looks at the file of keys."""

MAX_KEY_CHARACTERS = 512


class Guard:
    """The keys of a service; a changed file counts at once, without a restart or a request.

    A thread of its own looks at the file, so that its owner reads in the log what became of a
    change, and no request waits for a disk.
    """

    def __init__(self, settings: ServeConfig, environment: Mapping[str, str] = os.environ) -> None:
        """Read the keys.

        Args:
            settings: May name a file of keys.
            environment: May name one, or hold keys.
        """
        named = settings.keys_file or environment.get(KEYS_FILE_ENVIRONMENT)
        text = environment.get(KEYS_ENVIRONMENT)
        self.has_keys = bool(named) or text is not None
        self._names: dict[str, str] = {}
        self._stamp: tuple[int, ...] | None = None
        self._trouble: str | None = None
        self._closed = threading.Event()
        if named:
            self._look(Path(named))
            threading.Thread(
                target=self._watch, args=(Path(named),), name="keys", daemon=True
            ).start()
        elif text is not None:
            try:
                self._names = read_keys(text, KEYS_ENVIRONMENT)
            except ConfigError as error:
                logger.error("every request is refused: %s", error)

    def close(self) -> None:
        """Look at the file no more."""
        self._closed.set()

    def admit(self, scope: Scope) -> str | None:
        """Let a request pass.

        Args:
            scope: Of its connection.

        Returns:
            The name of its key; None where no key is needed.

        Raises:
            RequestError: It may not pass.
        """
        if not self.has_keys:
            refuse_foreign(scope)
            return None
        given = _given(Headers(scope=scope))
        if given is None:
            raise _refused("send a key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        name = self._name_of(given)
        if name is None:
            raise _refused("the key is not known, or not any more")
        return name

    def _name_of(self, key: str) -> str | None:
        digest, found = digest_of(key[:MAX_KEY_CHARACTERS]), None
        for known, name in self._names.items():  # all of them: the time says nothing
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _watch(self, file: Path) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            try:
                self._look(file)
            except Exception:
                logger.exception("looking at the file of keys broke down; it is tried again")

    def _look(self, file: Path) -> None:
        """Read the file again if it has changed; one that cannot be read changes nothing."""
        stamp = _stamp(file)
        if stamp is not None and stamp == self._stamp:
            return
        try:
            names = load_keys(file, may_be_empty=True)
        except ConfigError as error:
            self._stamp = None  # a disk that failed once is asked again
            self._say(str(error))
            return
        self._names, self._stamp, self._trouble = names, stamp, None
        if names:
            logger.info("keys of %s, from %s", ", ".join(sorted(names.values())), file)
        else:
            logger.warning("every request is refused: there is no key left in %s", file)

    def _say(self, trouble: str) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        known = ", ".join(sorted(self._names.values()))
        stays = f"the keys read before stay ({known})" if known else "every request is refused"
        logger.error("%s: %s", stays, trouble)


def _given(headers: Headers) -> str | None:
    kind, _, key = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("x-api-key", "").strip() or None


def _refused(message: str) -> RequestError:
    return RequestError(401, "unauthorized", message)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_ctime_ns, state.st_size
