"""Who may ask a service without keys: this machine, and nobody through it."""

import ipaddress

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
    name = _host(Headers(scope=scope).get("host", ""))
    address = _address(name)
    if not (name in ("", "localhost") if address is None else address.is_loopback):
        raise RequestError(403, "no_keys", _OTHER_NAME)


def _host(header: str) -> str:
    """A `Host` header without its port."""
    text = header.strip().lower()
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]


def _address(host: str) -> _Address | None:
    """None for what is no address of a network."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
