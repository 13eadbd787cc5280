"""API keys of the service: made here, kept as digests, one a line, `name:sha256`.

Keys are long random texts, so a plain digest hides them as well as a slow one would.
"""

import hashlib
import re
import secrets
from pathlib import Path

from qm9flow.errors import ConfigError

KEYS_ENVIRONMENT = "QM9FLOW_API_KEYS"
"""The variable that holds keys' lines, separated by blanks or commas."""

KEYS_FILE_ENVIRONMENT = "QM9FLOW_API_KEYS_FILE"
"""The variable that names a file of them."""

_PREFIX = "qm9flow_"
_RANDOM_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def make_key(name: str) -> tuple[str, str]:
    """A new key.

    Args:
        name: Of whoever is to use it; the access log has it.

    Returns:
        The key itself, which is kept nowhere, and its line for a file of keys.

    Raises:
        ConfigError: The name cannot stand in a line.
    """
    _check_name(name)
    key = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    return key, f"{name}:{digest_of(key)}"


def digest_of(key: str) -> str:
    """What is kept of a key.

    Args:
        key: The key.

    Returns:
        Its SHA-256, in hexadecimal.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read_keys(text: str, origin: str) -> dict[str, str]:
    """Keys from lines; `#` begins a remark.

    Args:
        text: The lines, or such words separated by blanks or commas.
        origin: Where they come from, for messages.

    Returns:
        Name by digest.

    Raises:
        ConfigError: There is none, or a line is no key's. What stands in it is not shown.
    """
    names = {digest: name for name, digest in _lines(text, origin)}
    if not names:
        raise ConfigError(
            f"{origin} holds no key: `qm9flow serve --make-key NAME` makes one and its line"
        )
    return names


def load_keys(path: Path, *, may_be_empty: bool = False) -> dict[str, str]:
    """Keys from a file.

    Args:
        path: The file.
        may_be_empty: Whether a file without keys is one: its last key may have been taken out.

    Returns:
        Name by digest.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    text = _text(path)
    if may_be_empty:
        return {digest: name for name, digest in _lines(text, str(path))}
    return read_keys(text, str(path))


def append_key(path: Path, line: str) -> None:
    """Add a key's line to a file, which is made if it is missing, for its owner alone.

    Args:
        path: The file.
        line: From `make_key`.

    Raises:
        ConfigError: It cannot be written, holds something else than keys, or has one of that
            name: taking out a name's line must not leave another key of it.
    """
    name = line.partition(":")[0]
    try:
        path.touch(mode=0o600)
        text = path.read_text("utf-8-sig")
        if name in (known for known, _ in _lines(text, str(path))):
            raise ConfigError(
                f"{path} has a key named {name} already, so none was made: take its line out "
                "first, which revokes it, or choose another name"
            )
        with path.open("a", encoding="utf-8") as file:
            file.write(("\n" if text and not text.endswith("\n") else "") + line + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file of keys {path} cannot be written: {_why(error)}") from error


def _lines(text: str, origin: str) -> list[tuple[str, str]]:
    """Name and digest of each key."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for word in line.partition("#")[0].replace(",", " ").split():
            name, _, digest = word.partition(":")
            if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest.lower()):
                raise ConfigError(
                    f"{origin}, line {number}: expected `name:sha256` as `qm9flow serve "
                    "--make-key NAME` prints it"
                )
            found.append((name, digest.lower()))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")  # Windows' editor writes a byte order mark
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no file of keys {path}: correct the path, or make it with `qm9flow serve "
            f"--make-key NAME --keys {path}`"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the file of keys {path} cannot be read: {_why(error)}; it must be a text file that "
            "the service's user may read"
        ) from error


def _why(error: OSError | UnicodeDecodeError) -> str:
    """Without the path, which the message has."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a key's name has 1 to 64 letters, digits, dots, dashes or underscores, got {name!r}"
        )
