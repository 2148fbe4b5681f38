"""A URL to an open home of blobs: ``dir:var/blobs``, ``ipfs:http://127.0.0.1:5001`` or ``memory:``."""

from urllib.parse import parse_qsl

from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import BlobHome
from interpreters.blobs.memory import MemoryBlobs
from interpreters.disk.files import refuse_home
from persist_effects.errors import InvalidRequest

_SCHEMES = "dir:PATH, ipfs:http://HOST:PORT or memory:"


def open_blobs(url: str, *, read_only: bool = False) -> BlobHome:
    """Open the home of blobs that a URL names. Close it, or give it to a store, which closes it with itself.

    ``dir:PATH`` is a directory, which is made where it is missing; any number of processes may use it.
    ``ipfs:http://HOST:PORT`` is an IPFS node, by the RPC API of Kubo; its option ``timeout``, as in
    ``ipfs:http://127.0.0.1:5001?timeout=10``, says how many seconds it may take to find something or to go on.
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
