"""What stands behind ``unix:`` and ``tcp:`` in a URL: where a server listens, and how it knows this client."""

import re
from collections.abc import Mapping
from typing import Any

from interpreters.access import TLS_OPTIONS, TOKEN_OPTIONS, client_tls_of, secret_of
from interpreters.stores.served.client import TIMEOUT_SECONDS, RemoteStore
from interpreters.stores.served.doors import TcpDoor, UnixDoor
from interpreters.stores.urls import Numbers, if_in_path, options_given
from persist_effects.errors import InvalidRequest

_NUMBERS: Numbers = {"timeout": float}
_FOR_ALL = ("timeout", *TOKEN_OPTIONS)

_ADDRESS = re.compile(r"//(\[[0-9A-Fa-f:.]+\]|[^/@:\[\]]+):([0-9]{1,5})/?")


def open_unix(rest: str, options: dict[str, Any]) -> RemoteStore:
    """Be a client of the server that listens at a Unix socket.

    Args:
        rest: The socket's path, and options, as in ``/run/app.sock?timeout=5``.
        options: The same as keywords; ``path`` may be one of them.

    Returns:
        The client.

    Raises:
        InvalidRequest: If an option makes no sense, or the token is not known there.
        StoreUnavailable: If nobody serves there.
    """
    given = options_given("unix", rest, options, _NUMBERS)
    path = given.pop("path", "")
    if not path:
        raise InvalidRequest("'unix:' names no socket: write unix:PATH")
    _check_known("unix", rest, given, _FOR_ALL)
    return RemoteStore(UnixDoor(path), token=secret_of(given), timeout=given.get("timeout", TIMEOUT_SECONDS))


def open_tcp(rest: str, options: dict[str, Any]) -> RemoteStore:
    """Be a client of the server that listens at a TCP port.

    Args:
        rest: Its address, and options, as in ``//db.example:7420?tls=yes&token_file=secret``.
        options: The same as keywords.

    Returns:
        The client.

    Raises:
        InvalidRequest: If an option makes no sense, or the token is not known there.
        StoreUnavailable: If nobody serves there.
    """
    address, mark, query = rest.partition("?")
    host, port = address_of(f"tcp:{address}")
    given = options_given("tcp", f"{mark}{query}", options, _NUMBERS)
    _check_known("tcp", rest, given, (*_FOR_ALL, *TLS_OPTIONS))
    tls = client_tls_of(given)
    token = secret_of(given)
    return RemoteStore(TcpDoor(host, port, tls), token=token, timeout=given.get("timeout", TIMEOUT_SECONDS))


def address_of(url: str) -> tuple[str, int]:
    """The host and the port of a URL.

    Args:
        url: As in ``tcp://HOST:PORT``; an address of IPv6 stands in brackets.

    Returns:
        Both.

    Raises:
        InvalidRequest: If it has another form.

    >>> address_of("tcp://[::1]:7420")
    ('::1', 7420)
    """
    found = _ADDRESS.fullmatch(url.removeprefix("tcp:"))
    if found is None or int(found[2]) > 65_535:
        raise InvalidRequest(f"{url!r} is not an address: write tcp://HOST:PORT")
    return found[1].strip("[]"), int(found[2])


def _check_known(scheme: str, rest: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise InvalidRequest(
            f"a store behind {scheme}: has no option {unknown[0]!r}: it takes {', '.join(known)}"
            f"{if_in_path(scheme, rest) if scheme == 'unix' else ''}"
        )
