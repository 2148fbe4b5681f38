"""How a client of a server shows who it is, and knows whom it talks to: a token, and TLS, as options of a URL."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persist_effects.errors import InvalidRequest, describe

TOKEN_OPTIONS = ("token", "token_file")
TLS_OPTIONS = ("tls", "ca_file")
"""What `client_tls_of` reads in any case; ``cert_file`` and ``key_file`` where the server wants to know the client."""


def secret_in(path: str | Path, what: str = "token") -> str:
    """A secret that stands in a file, without white space around it.

    Args:
        path: The file's.
        what: What it is called.

    Returns:
        The secret.

    Raises:
        InvalidRequest: If it cannot be read, or there is none in it.
    """
    try:
        secret = Path(path).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the {what} cannot be read from {path}: {error}") from error
    if not secret:
        raise InvalidRequest(f"there is no {what} in {path}: write one into it, such as `openssl rand -hex 32` makes")
    return secret


def secret_of(given: Mapping[str, Any], what: str = "token") -> str | None:
    """The secret that some options give, themselves or as the path of a file.

    Args:
        given: The options.
        what: The name of the option; that of the path is this and ``_file``.

    Returns:
        The secret; None where there is none.

    Raises:
        InvalidRequest: If it cannot be had.

    >>> secret_of({"token": "s3cr3t"}), secret_of({})
    ('s3cr3t', None)
    """
    secret, path = given.get(what), given.get(f"{what}_file")
    if secret is not None and path is not None:
        raise InvalidRequest(f"both {what} and {what}_file are given: leave one of them out")
    if path is not None:
        return secret_in(path, what)
    if secret is not None and (type(secret) is not str or not secret or not secret.isprintable()):
        raise InvalidRequest(f"the {what} is not a text of one character or more that can be printed: give a str")
    return secret


def client_tls_of(given: Mapping[str, Any]) -> ssl.SSLContext | None:
    """How a client knows its server, and the server it.

    Args:
        given: The options. ``tls`` is yes or no, or as a keyword an `ssl.SSLContext`; ``ca_file`` has the certificates
            of whoever may vouch for the server; ``cert_file`` and ``key_file`` are the client's own.

    Returns:
        What TLS needs; None where there is none.

    Raises:
        InvalidRequest: If the options contradict each other, or a file cannot be read.
    """
    files = [name for name in ("ca_file", "cert_file", "key_file") if given.get(name) is not None]
    tls = given.get("tls", "yes" if files else "no")
    if isinstance(tls, ssl.SSLContext):
        return tls
    if tls not in ("yes", "no"):
        raise InvalidRequest(f"tls is {describe(tls)}: give yes or no, or as a keyword an ssl.SSLContext")
    if tls == "no":
        if files:
            raise InvalidRequest(f"{files[0]} is given, and tls=no: leave one of them out")
        return None
    if given.get("key_file") is not None and given.get("cert_file") is None:
        raise InvalidRequest("key_file is given, and cert_file is not: give both, or one file as cert_file")
    path = given.get("ca_file")
    try:
        context = ssl.create_default_context(cafile=path)
        if given.get("cert_file") is not None:
            path = given["cert_file"]
            context.load_cert_chain(path, given.get("key_file"))
    except (OSError, ssl.SSLError) as error:
        raise InvalidRequest(f"the certificates cannot be read from {path}: {error}") from error
    return context
