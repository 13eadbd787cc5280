"""What comes in, and what is said of it: the body of a request, the one shape of an error."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from qm9flow.errors import ConfigError, UnknownTargetError
from qm9flow.molecules.given import shown, wanted_targets

INCLUDABLE = ("positions",)
"""What a request for predictions may ask for besides values."""

_KEYS = ("molecules", "targets", "include")


class RequestError(Exception):
    """A request that gets no results at all.

    Attributes:
        status: The HTTP status.
        code: Machine-readable reason.
        message: For people.
        retry_after_s: Seconds after which trying again makes sense; None where it never does.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s


@dataclass
class Note:
    """What became of a request, for the access log.

    Attributes:
        id: Of the request, as its answer's header has it.
        key: Name of the key that it came with; None where none was needed.
        molecules: How many it has; None where it was not read.
        failed: How many of them have an error of their own.
        model: Version that answered; None for none, or one that is not from a registry.
        code: Of the error that it was refused with; None for an answer.
    """

    id: str = ""
    key: str | None = None
    molecules: int | None = None
    failed: int = 0
    model: int | None = None
    code: str | None = None


@dataclass(frozen=True)
class PredictRequest:
    """A request that will be answered.

    Attributes:
        molecules: Entries, not yet looked at.
        targets: Names of known targets, in the order asked for.
        include: What to answer besides, of `INCLUDABLE`.
    """

    molecules: Sequence[object]
    targets: tuple[str, ...]
    include: frozenset[str] = frozenset()


def error_body(code: str, message: str, request_id: str) -> dict[str, dict[str, str]]:
    """The one shape of an error.

    Args:
        code: Machine-readable reason.
        message: For people.
        request_id: By which the service's log knows the request.

    Returns:
        The body.
    """
    return {"error": {"code": code, "message": message, "request_id": request_id}}


def read_request(body: bytes, max_molecules: int) -> PredictRequest:
    """The request in a body.

    Args:
        body: Should be JSON.
        max_molecules: Most molecules of a request.

    Returns:
        The request.

    Raises:
        RequestError: It is malformed, too long, or names a target that there is not.
    """
    data = _read_object(body, _KEYS)
    molecules = _molecules(data, max_molecules)
    return PredictRequest(molecules, _targets(data.get("targets")), _include(data.get("include")))


def read_drawing_request(body: bytes, max_molecules: int) -> Sequence[object]:
    """The molecules of a request for drawings.

    Args:
        body: Should be JSON.
        max_molecules: Most molecules of a request.

    Returns:
        Entries, not yet looked at.

    Raises:
        RequestError: It is malformed or too long.
    """
    return _molecules(_read_object(body, ("molecules",)), max_molecules)


def _read_object(body: bytes, keys: Sequence[str]) -> dict[str, Any]:
    data = _parse(body)
    if not isinstance(data, dict):
        raise _malformed(f'the body must be an object {{"molecules": [...]}}, got {shown(data)}')
    unknown = [key for key in data if key not in keys]
    if unknown:
        raise _malformed(f"unknown key {shown(unknown[0])}; the keys are {', '.join(keys)}")
    return data


def _molecules(data: dict[str, Any], max_molecules: int) -> list[object]:
    molecules = data.get("molecules")
    if not isinstance(molecules, list):
        got = shown(molecules) if "molecules" in data else "none"
        raise _malformed(f'"molecules" must be a list, got {got}')
    if len(molecules) > max_molecules:
        raise RequestError(
            400,
            "too_many_molecules",
            f"the request has {len(molecules):,} molecules; the limit is {max_molecules:,}: "
            "send several requests",
        )
    return molecules


def _parse(body: bytes) -> Any:
    try:  # several times faster, and no lane of the network can run Python meanwhile
        return orjson.loads(body)
    except orjson.JSONDecodeError:  # perhaps only to it; if not, json says what is wrong
        return _parse_slowly(body)


def _parse_slowly(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig"))
    except RecursionError as error:
        raise _malformed("the body is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise _malformed(f"the body is not JSON: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _malformed(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except ValueError as error:  # an integer of thousands of digits
        raise _malformed("the body is not JSON that can be read: a number is too long") from error


def _targets(names: object) -> tuple[str, ...]:
    try:
        return wanted_targets(names)
    except UnknownTargetError as error:
        raise RequestError(400, "unknown_target", str(error)) from error
    except ConfigError as error:
        raise _malformed(str(error)) from error


def _include(names: object) -> frozenset[str]:
    if names is None:
        return frozenset()
    if not isinstance(names, list) or not all(name in INCLUDABLE for name in names):
        raise _malformed(f'"include" must be a list of {", ".join(INCLUDABLE)}, got {shown(names)}')
    return frozenset(names)


def _malformed(message: str) -> RequestError:
    return RequestError(400, "bad_request", message)
