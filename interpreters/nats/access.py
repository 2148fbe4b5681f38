"""How servers of NATS know a client, and it them: what may stand in a URL about it."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from interpreters.access import TLS_OPTIONS, TOKEN_OPTIONS, client_tls_of, secret_of
from persist_effects.errors import InvalidRequest

ACCESS_OPTIONS = (
    "user", "password", "password_file", *TOKEN_OPTIONS, "nkey_file", "credentials_file", *TLS_OPTIONS, "cert_file",
    "key_file", "inbox_prefix",
)  # fmt: skip


class Access(NamedTuple):
    """How a client is known: by a user and a password, a token, an nkey, or credentials; and TLS.

    ``inbox_prefix`` is where it hears answers: a user who may hear only his own has a prefix of his own.
    """

    user: str | None = None
    password: str | None = None
    token: str | None = None
    nkey_file: str | None = None
    credentials_file: str | None = None
    tls: ssl.SSLContext | None = None
    inbox_prefix: str = "_INBOX"

    def options(self) -> dict[str, Any]:
        """What nats-py is told."""
        return {
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "nkeys_seed": self.nkey_file,
            "user_credentials": self.credentials_file,
            "tls": self.tls,
            "inbox_prefix": self.inbox_prefix,
        }


def access_of(given: Mapping[str, Any], login: str = "") -> Access:
    """How a client is known, by the options that it was given.

    Args:
        given: The options, among others.
        login: What stands before the hosts in a URL, as ``user:password``.

    Returns:
        The access.

    Raises:
        InvalidRequest: If they contradict each other, or a file is not there.

    >>> access_of({}, "app:s%2Fcret").password
    's/cret'
    """
    user, _, password = map(unquote, login.partition(":"))
    if login and ("user" in given or "password" in given or "password_file" in given):
        raise InvalidRequest("the user stands before the hosts, and in an option: leave one of them out")
    found = Access(
        user=user or given.get("user"),
        password=password or secret_of(given, "password"),
        token=secret_of(given),
        nkey_file=_file(given, "nkey_file"),
        credentials_file=_file(given, "credentials_file"),
        tls=client_tls_of(given),
        inbox_prefix=given.get("inbox_prefix", "_INBOX"),
    )
    ways = [name for name in ("user", "token", "nkey_file", "credentials_file") if getattr(found, name) is not None]
    if len(ways) > 1:
        raise InvalidRequest(f"{ways[0]} and {ways[1]} are given: a client is known in one way, leave one of them out")
    if found.password is not None and found.user is None:
        raise InvalidRequest("a password is given, and no user: give both")
    return found


def _file(given: Mapping[str, Any], name: str) -> str | None:
    path = given.get(name)
    if path is not None and not Path(path).is_file():
        raise InvalidRequest(f"{name} is {str(path)!r}: there is no such file")
    return None if path is None else str(path)
