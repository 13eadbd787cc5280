"""Who may ask: keys, or nobody but this machine itself."""

import hmac
import ipaddress
import logging
import os
import time
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
from serving.requests import RequestError

logger = logging.getLogger("bentoml.qm9flow")

LOOK_SECONDS = 1.0
"""Least seconds between two looks at the file of keys."""

MAX_KEY_CHARACTERS = 512


class Guard:
    """The keys of a service; a changed file counts at once, without a restart."""

    def __init__(self, settings: ServeConfig, environment: Mapping[str, str] = os.environ) -> None:
        """Read the keys.

        Args:
            settings: May name a file of keys.
            environment: May name one, or hold keys.
        """
        named = settings.keys_file or environment.get(KEYS_FILE_ENVIRONMENT)
        self._file = Path(named) if named else None
        text = environment.get(KEYS_ENVIRONMENT)
        self.has_keys = self._file is not None or text is not None
        self._names: dict[str, str] = {}
        self._stamp: tuple[int, ...] | None = ()
        self._looked_at = -LOOK_SECONDS
        if self._file is None and text is not None:
            try:
                self._names = read_keys(text, KEYS_ENVIRONMENT)
            except ConfigError as error:
                logger.error("every key is refused: %s", error)

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
            if not is_local(scope):
                raise RequestError(403, "no_keys", NO_KEYS)
            return None
        given = _given(Headers(scope=scope))
        if given is None:
            raise _refused("send a key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        name = self._name_of(given)
        if name is None:
            raise _refused("the key is not known, or not any more")
        return name

    def _name_of(self, key: str) -> str | None:
        self._look()
        digest, found = digest_of(key[:MAX_KEY_CHARACTERS]), None
        for known, name in self._names.items():  # all of them: the time says nothing
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _look(self) -> None:
        """Read the file again if it has changed; one that cannot be read changes nothing."""
        now = time.monotonic()
        if self._file is None or now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._names = load_keys(self._file)
            logger.info("keys: %d, from %s", len(self._names), self._file)
        except ConfigError as error:
            logger.error("the keys known before stay (%d): %s", len(self._names), error)


NO_KEYS = (
    "this service has no keys, so it answers on the loopback address alone: make a key with "
    "`qm9flow serve --make-key NAME` and name its file in QM9FLOW_API_KEYS_FILE"
)


def is_local(scope: Scope) -> bool:
    """Whether a connection came to an address that no other machine reaches.

    Args:
        scope: Of the connection.

    Returns:
        True for the loopback address and for sockets that are files.
    """
    host = (scope.get("server") or ("", None))[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True  # no address of a network
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


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
