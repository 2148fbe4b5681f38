"""What stands behind ``unix:`` and ``tcp:`` in a URL: where a server listens, and how it knows this client."""

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interpreters.stores.served.client import TIMEOUT_SECONDS, RemoteStore
from interpreters.stores.served.doors import TcpDoor, UnixDoor
from interpreters.stores.urls import Numbers, if_in_path, options_given
from persist_effects.errors import InvalidRequest, describe

_NUMBERS: Numbers = {"timeout": float}
_FOR_ALL = ("timeout", "token", "token_file")
_FOR_TLS = ("tls", "ca_file")

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
    return RemoteStore(UnixDoor(path), token=_token(given), timeout=given.get("timeout", TIMEOUT_SECONDS))


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
    _check_known("tcp", rest, given, (*_FOR_ALL, *_FOR_TLS))
    tls = _tls(given)
    token = _token(given)
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


def token_in(path: str | Path) -> str:
    """The token that stands in a file, without white space around it.

    Args:
        path: The file's.

    Returns:
        The token.

    Raises:
        InvalidRequest: If it cannot be read, or there is none in it.
    """
    try:
        token = Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the token cannot be read from {path}: {error}") from error
    if not token:
        raise InvalidRequest(f"there is no token in {path}: write one into it, such as `openssl rand -hex 32` makes")
    return token


def _check_known(scheme: str, rest: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise InvalidRequest(
            f"a store behind {scheme}: has no option {unknown[0]!r}: it takes {', '.join(known)}"
            f"{if_in_path(scheme, rest) if scheme == 'unix' else ''}"
        )


def _token(given: Mapping[str, Any]) -> str | None:
    token, path = given.get("token"), given.get("token_file")
    if token is not None and path is not None:
        raise InvalidRequest("both token and token_file are given: leave one of them out")
    if path is not None:
        return token_in(path)
    if token is not None and (type(token) is not str or not token or not token.isprintable()):
        raise InvalidRequest("the token is not a text of one character or more that can be printed: give a str")
    return token


def _tls(given: Mapping[str, Any]) -> ssl.SSLContext | None:
    tls, ca_file = given.get("tls", "yes" if "ca_file" in given else "no"), given.get("ca_file")
    if isinstance(tls, ssl.SSLContext):
        return tls
    if tls not in ("yes", "no"):
        raise InvalidRequest(f"tls is {describe(tls)}: give yes or no, or as a keyword an ssl.SSLContext")
    if tls == "no":
        if ca_file is not None:
            raise InvalidRequest("ca_file is given, and tls=no: leave one of them out")
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidRequest(f"the certificates cannot be read from {ca_file}: {error}") from error
