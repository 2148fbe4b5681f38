"""SQL statements, which lie in files: one object each, and never a name or a value as text in them.

For type checkers they are literal strings, so that a driver that takes no others refuses what is put together.
"""

from importlib.resources import files
from typing import Any, LiteralString


class Statements:
    """The statements in the files of a folder, by their names without ``.sql``, as attributes too.

    Args:
        package: The package that has the folder.
        folder: The folder.

    >>> Statements("interpreters.stores.sqlite", "queries").heads.startswith("-- The newest position")
    True
    """

    def __init__(self, package: str, folder: str) -> None:
        place = files(package).joinpath(folder)
        self.texts: dict[str, LiteralString] = {
            entry.name.removesuffix(".sql"): _literal(entry)
            for entry in sorted(place.iterdir(), key=lambda entry: entry.name)
            if entry.name.endswith(".sql")
        }

    def __getattr__(self, name: str) -> LiteralString:
        """The statement of that name."""
        try:
            return self.texts[name]
        except KeyError:
            raise AttributeError(name) from None


def _literal(file: Any) -> LiteralString:
    text: LiteralString = file.read_text(encoding="utf-8")
    return text
