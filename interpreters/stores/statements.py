"""SQL statements, which lie in files: one object each, and never a name or a value as text in them."""

from importlib.resources import files


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
        self.texts = {
            entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8")
            for entry in sorted(place.iterdir(), key=lambda entry: entry.name)
            if entry.name.endswith(".sql")
        }

    def __getattr__(self, name: str) -> str:
        """The statement of that name."""
        try:
            return self.texts[name]
        except KeyError:
            raise AttributeError(name) from None
