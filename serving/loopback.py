"""Who may ask a service without keys: this machine, and nobody through it."""

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.types import Scope

from serving.requests import RequestError

_NO_KEYS = (
    "this service has no keys, so it answers on the loopback address alone: make a key with "
    "`qm9flow serve --make-key NAME` and name its file in QM9FLOW_API_KEYS_FILE"
)
_OTHER_NAME = (
    "this service has no keys, so it answers only requests that call it localhost or 127.0.0.1: "
    "make a key with `qm9flow serve --make-key NAME`, or let your proxy say `Host: localhost`"
)

_NAMES = ("", "localhost", "localhost.", "ip6-localhost")
_HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[^:\[\]@]*)(:[0-9]*)?")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def refuse_foreign(scope: Scope) -> None:
    """Refuse what another machine may have sent, or a page from there.

    A page of the web may let a name of its own point to this machine, and so read answers that its
    browser takes for those of its own server (DNS rebinding).

    Args:
        scope: Of a connection; sockets that are files are this machine's.

    Raises:
        RequestError: It came to another address than the loopback's, or by another name.
    """
    server = _address((scope.get("server") or ("", None))[0])
    if server is None:
        return
    if not server.is_loopback:
        raise RequestError(403, "no_keys", _NO_KEYS)
    if not all(map(_is_ours, Headers(scope=scope).getlist("host"))):
        raise RequestError(403, "no_keys", _OTHER_NAME)


def _is_ours(header: str) -> bool:
    """Whether a `Host` header, with a port or without, names this machine."""
    found = _HOST.fullmatch(header.strip().lower())
    if found is None:
        return False
    address = _address(found[1].strip("[]"))
    return found[1] in _NAMES if address is None else address.is_loopback


def _address(host: str) -> _Address | None:
    """None for what is no address of a network."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
