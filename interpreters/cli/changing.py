"""Commands that change one key of any store: put, delete."""

from typing import Annotated

import typer

from interpreters.cli.exits import exit_codes
from interpreters.cli.inputs import AnyUrl, AsJson, Yes, confirm, input_from, value_in, writing_any
from interpreters.cli.looking import KeyName
from interpreters.cli.output import print_answer, printable
from interpreters.cli.typed import As, TypeName
from persist_effects.errors import CallerError, InvalidRequest
from persist_effects.machine import perform
from persist_effects.requests import Conflict, KvDelete, KvPut

Expected = Annotated[
    int | None,
    typer.Option("--expect", min=0, metavar="REVISION", help="Only if this is its revision; 0: if it is not there."),
]


class RevisionConflict(CallerError):
    """A key has another revision than was expected. Nothing was changed.

    >>> print(RevisionConflict("color", 3, 5))
    key 'color' has revision 5, and 3 was expected: nothing was changed. `persist-effects get` shows what is there now
    """

    def __init__(self, key: str, expected: int, actual: int) -> None:
        super().__init__(key, expected, actual)
        self.key = key
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        found = f"has revision {self.actual}" if self.actual else "is not there"
        wanted = f"{self.expected} was expected" if self.expected else "it was expected to be absent"
        told = f"key {self.key!r} {found}, and {wanted}: nothing was changed"
        return f"{told}. `persist-effects get` shows what is there now"


def put(
    url: AnyUrl,
    key: KeyName,
    value: Annotated[str, typer.Argument(metavar="JSON", help="The value; - reads it from stdin.")],
    *,
    expect: Expected = None,
    type_name: TypeName = None,
    as_json: AsJson = False,
) -> None:
    """Put a value under a key. With --type, it is checked first, and stored as that type is."""
    with exit_codes(as_json):
        text = value if value != "-" else _from_stdin()
        plain = As(type_name).plain(f"key {key!r}", value_in(text))
        request = KvPut(key, plain, expect)
        with writing_any(url) as store:
            answer = store.run(perform(request))
        if isinstance(answer, Conflict):
            raise RevisionConflict(key, answer.expected, answer.actual)
        line = f"put: {printable(key)}, revision {answer}"
        print_answer({"key": key, "revision": answer}, as_json, lambda _: [line])


def delete(url: AnyUrl, key: KeyName, expect: Expected = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Delete a key. Asks first, unless --yes or --expect is given."""
    with exit_codes(as_json):
        request = KvDelete(key, expect)
        with writing_any(url) as store:
            confirm(f"The key {key!r} will be deleted.", yes or expect is not None)
            answer = store.run(perform(request))
        if isinstance(answer, Conflict):
            raise RevisionConflict(key, answer.expected, answer.actual)
        line = f"deleted: {printable(key)}" if answer else f"there was no key {printable(key)}"
        print_answer({"key": key, "deleted": answer}, as_json, lambda _: [line])


def _from_stdin() -> str:
    with input_from("-") as file:
        try:
            return file.read().decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"what stdin has is not UTF-8: {error}: give JSON") from error
