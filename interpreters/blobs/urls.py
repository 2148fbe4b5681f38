"""A URL to an open home of blobs: of ``dir:``, ``ipfs:``, ``nats:`` or ``memory:``."""

import re
from typing import Any
from urllib.parse import parse_qsl

from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import BlobHome
from interpreters.blobs.memory import MemoryBlobs
from interpreters.disk.files import refuse_home
from persist_effects.errors import InvalidRequest

_SCHEMES = "dir:PATH, ipfs:http://HOST:PORT, nats://HOST:PORT/BUCKET or memory:"

_BUCKET = re.compile(r"//(?:([^/?#@]*)@)?([^/?#@]+)/([A-Za-z0-9_-]{1,64})")
_NUMBERS = {"replicas": int, "timeout": float}


def open_blobs(url: str, *, read_only: bool = False) -> BlobHome:
    """Open the home of blobs that a URL names. Close it, or give it to a store, which closes it with itself.

    ``dir:PATH`` is a directory, which is made where it is missing; any number of processes may use it.
    ``ipfs:http://HOST:PORT`` is an IPFS node, by the RPC API of Kubo; its option ``timeout``, as in
    ``ipfs:http://127.0.0.1:5001?timeout=10``, says how many seconds it may take to find something or to go on.
    ``nats://HOST:PORT,HOST:PORT/BUCKET`` is a bucket of JetStream's object store, which is made where it is missing;
    any number of processes may use it. Its options are ``replicas``, on how many servers it is kept; ``timeout``, how
    many seconds they may take to be there again, 30 unless given; and those of `interpreters.nats.access`.
    ``memory:`` is a new, empty one in this process.

    Args:
        url: The URL.
        read_only: Whether nothing is put or dropped, nor a directory made.

    Returns:
        The home.

    Raises:
        InvalidRequest: It names no home of blobs.
        StoreUnavailable: It cannot be opened now.

    >>> home = open_blobs("memory:")
    >>> list(home.kept())
    []
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon and not rest:
        return MemoryBlobs()
    if scheme == "dir" and rest:
        return _open_directory(url, rest, read_only)
    if scheme == "ipfs" and rest:
        return _open_ipfs(url, rest, read_only)
    if scheme == "nats" and rest:
        return _open_nats(rest, read_only)
    raise InvalidRequest(f"{url!r} names no home of blobs: write {_SCHEMES}")


def _open_directory(url: str, path: str, read_only: bool) -> BlobHome:
    if path.startswith("//") or not path.isprintable() or path != path.strip():
        raise InvalidRequest(
            f"{url!r}: write dir:PATH with the path as it stands, or give DirectoryBlobs(path), of "
            "interpreters.blobs.directory"
        )
    refuse_home(path)
    return DirectoryBlobs(path, read_only=read_only)


def _open_ipfs(url: str, rest: str, read_only: bool) -> BlobHome:
    # Imported when it is used: it needs a package of an extra.
    from interpreters.blobs.ipfs import IpfsBlobs

    api, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    timeout = options.pop("timeout", None)
    if options:
        raise InvalidRequest(f"{url!r}: an IPFS node has no option {min(options)!r}: it takes timeout")
    try:
        return IpfsBlobs(api, read_only=read_only, **({} if timeout is None else {"timeout_seconds": float(timeout)}))
    except ValueError as error:
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(f"{url!r}: timeout is {timeout!r}: give a number of seconds") from error


def _open_nats(rest: str, read_only: bool) -> BlobHome:
    # Imported when it is used: it needs a package of an extra.
    try:
        from interpreters.blobs.objects import NatsBlobs
        from interpreters.nats.access import ACCESS_OPTIONS, access_of
    except ModuleNotFoundError as error:
        raise InvalidRequest("blobs on NATS need the package nats-py: pip install nats-py") from error

    # The URL may hold a password, and is not told.
    place, _, query = rest.partition("?")
    found = _BUCKET.fullmatch(place)
    if found is None:
        raise InvalidRequest(
            "the URL of blobs on NATS is nats://HOST:PORT,HOST:PORT/BUCKET, with a bucket of letters, digits, - and _"
        )
    login, hosts, bucket = found.groups()
    given: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in (*_NUMBERS, *ACCESS_OPTIONS):
            known = ", ".join((*_NUMBERS, *ACCESS_OPTIONS))
            raise InvalidRequest(f"blobs on NATS have no option {name!r}: they take {known}")
        if name in given:
            raise InvalidRequest(f"the option {name!r} of blobs on NATS is given twice: leave one of them out")
        try:
            given[name] = _NUMBERS.get(name, str)(value)
        except ValueError as error:
            raise InvalidRequest(f"{name} is {value!r}: give a number") from error
    return NatsBlobs(
        hosts.split(","),
        bucket,
        access=access_of(given, login or ""),
        replicas=given.get("replicas"),
        **({"timeout_seconds": given["timeout"]} if "timeout" in given else {}),
        read_only=read_only,
    )
