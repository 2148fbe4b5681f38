"""What commands are given: stores, homes of blobs and files, by their URLs and paths."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import BlobHome
from interpreters.blobs.urls import open_blobs
from interpreters.disk.files import new_file
from interpreters.opening import open_store
from interpreters.stores.file import BLOBS, NUMBERS
from interpreters.stores.urls import options_of_url
from persist_effects.errors import InvalidRequest
from persist_effects.json_values import decode_line, from_json

Url = Annotated[str, typer.Argument(metavar="URL", help="The store: file:PATH.")]


AnyUrl = Annotated[str, typer.Argument(metavar="URL", help="The store: any URL that open_store takes.")]


Into = Annotated[Path, typer.Argument(metavar="INTO", help="A directory that is not there, or empty.")]


Home = Annotated[
    str,
    typer.Argument(
        metavar="HOME",
        help="The blobs: dir:PATH, ipfs:http://HOST:PORT, nats://HOST:PORT/BUCKET, or those beside a store, file:PATH "
        "or sqlite:PATH.",
    ),
]


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines, and no progress.")]


def path_of(url: str) -> str:
    """The directory that a URL names. Raises `InvalidRequest` for what is not a file store's URL.

    >>> path_of("file:var/orders")
    'var/orders'
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon:
        raise InvalidRequest("a memory store is gone with its process, so there is none to look at: give file:PATH")
    if scheme != "file" or not colon:
        raise InvalidRequest(
            f"{url!r} is not a file store, and these tools are for those: give file:PATH. "
            "A store of any kind is copied by `persist-effects export` and `migrate`, and by the means of its database"
        )
    given = options_of_url("file", rest, NUMBERS)
    path: str = given.pop("path", "")
    if not path or given:
        raise InvalidRequest(f"{url!r}: give file:PATH, the directory of a store, without options")
    return path


def check_is_store(path: str) -> None:
    """Refuse a directory without a store, which opening it to write would make there."""
    if not (Path(path) / "CURRENT").exists():
        raise InvalidRequest(f"there is no store in {path}: give the directory that holds CURRENT and log")


def reading(url: str) -> Any:
    """The file store of a URL, opened to be read, so that a program that writes to it may go on."""
    return open_store("file:", path=path_of(url), mode="r")


def reading_any(url: str) -> Any:
    """A store of any kind, opened to be read, so that a program that writes to it may go on."""
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        raise InvalidRequest("a memory store is gone with its process, so there is none to look at: give another URL")
    if scheme == "file":
        # What else stands in the URL is for writing.
        path = options_of_url(scheme, rest, NUMBERS).get("path")
        return open_store(url) if path is None else open_store("file:", path=path, mode="r")
    return open_store(url, mode="r") if scheme in {"sqlite", "postgresql"} and "mode=" not in rest else open_store(url)


def writing_any(url: str) -> Any:
    """A store of any kind that is there, opened to be written. None is made where there is none."""
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        raise InvalidRequest("a memory store is gone with its process, so there is none to change: give another URL")
    if scheme in {"file", "sqlite"}:
        path = options_of_url(scheme, rest, NUMBERS).get("path", "")
        if scheme == "file" and path:
            check_is_store(path)
        if scheme == "sqlite" and path and not Path(path).is_file():
            raise InvalidRequest(f"there is no store in {path}: give the path of one that is there")
    return open_store(url)


def confirm(what: str, yes: bool) -> None:
    """Ask at a terminal whether it is meant. Raises `InvalidRequest` where it is not, or where nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest(f"{what} Nothing was done: give --yes if that is meant")
    try:
        is_meant = typer.confirm(f"{what} Is that meant?", err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if not is_meant:
        raise InvalidRequest("nothing was done")


def value_in(text: str) -> Any:
    """The value that JSON on the command line says.

    >>> value_in('{"by": "Ada"}')
    {'by': 'Ada'}
    >>> value_in("Ada")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: 'Ada' is not JSON, JSON is malformed: ... Text has quotes: '"yes"'
    """
    try:
        plain = decode_line(text)
    except InvalidRequest as error:
        raise InvalidRequest(f"{text!r} is not JSON, {error}. Text has quotes: '\"yes\"'") from error
    return from_json(plain)


@contextlib.contextmanager
def opened_blobs(url: str, *, read_only: bool = False) -> Iterator[BlobHome]:
    """The home of blobs that a URL names, or that of the store that it names, and closed at the end."""
    home = _open_blobs_of(url, read_only)
    try:
        yield home
    finally:
        home.close()


def _open_blobs_of(url: str, read_only: bool) -> BlobHome:
    scheme, colon, rest = url.partition(":")
    beside = {"file": f"/{BLOBS}", "sqlite": "-blobs"}.get(scheme)
    if beside is None or not colon:
        return open_blobs(url, read_only=read_only)
    path = options_of_url(scheme, rest, NUMBERS).get("path", "")
    if not path or not Path(path).exists():
        raise InvalidRequest(f"{url!r} is not a store that is there, so there are no blobs beside it")
    # Where none was ever put there is no directory, and looking at it makes none.
    place = f"{path}{beside}"
    return DirectoryBlobs(place, read_only=read_only or not Path(place).is_dir())


@contextlib.contextmanager
def output_to(out: str) -> Iterator[BinaryIO]:
    """A new file, which is taken away after an error or an interrupt; or stdout for ``-``."""
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if os.path.lexists(out):
        raise InvalidRequest(f"{out} is there already: give a new file, or remove it")
    with new_file(out) as file:
        yield file


@contextlib.contextmanager
def input_from(source: str) -> Iterator[BinaryIO]:
    """A file that is there, or stdin for ``-``."""
    if source == "-":
        yield sys.stdin.buffer
        return
    if not Path(source).exists() or Path(source).is_dir():
        raise InvalidRequest(f"{source} is not a file: give one that `export` wrote")
    with Path(source).open("rb") as file:
        yield file
