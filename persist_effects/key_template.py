"""Keys by a template, such as ``"profile/{id}"``: what stands in braces is a name that is filled in.

Two ways to fill in a template never make one key: what is filled in does not hold the character that follows it in the
template, and no two names stand side by side.
"""

import re
from collections.abc import Mapping

from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_name

_BRACES = re.compile(r"\{([^{}]*)\}")


class KeyTemplate:
    """A template of keys. Raises `InvalidRequest` for one that is wrong.

    >>> template = KeyTemplate("profile/{id}")
    >>> template.filled({"id": 7})
    'profile/7'
    >>> template.filled({"ident": 7})
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: the key 'profile/{id}' has no name 'ident': give id
    """

    def __init__(self, text: str) -> None:
        check_name("key template", text)
        # Text and names in turn, beginning and ending with text.
        self._parts = _BRACES.split(text)
        self.text = text
        self.names = tuple(self._parts[1::2])
        self._check()

    def filled(self, values: Mapping[str, str | int]) -> str:
        """The key that has these values for its names.

        Raises `InvalidRequest` for a name that is missing or not in the template, and for a value that is neither an
        int nor a str, is empty, or holds the character that follows it.

        >>> KeyTemplate("stock/{shop}/{sku}").filled({"shop": "north/7", "sku": "tea"})
        Traceback (most recent call last):
        persist_effects.errors.InvalidRequest: the name 'shop' of the key 'stock/{shop}/{sku}' is 'north/7', which ...
        """
        self._check_names(values)
        parts = list(self._parts)
        for at, name in enumerate(self.names):
            parts[2 * at + 1] = self._shown(name, values[name], self._parts[2 * at + 2][:1])
        return "".join(parts)

    def _check(self) -> None:
        for name in self.names:
            if not name.isidentifier():
                raise InvalidRequest(
                    f"the key template {self.text!r} has {{{name}}}: give each name as {{id}}, without a format"
                )
        for text in self._parts[::2]:
            if "{" in text or "}" in text:
                raise InvalidRequest(f"the key template {self.text!r} has a brace without its other one: take it out")
        if "" in self._parts[2:-1:2]:
            raise InvalidRequest(
                f"the key template {self.text!r} has two names side by side, so that two pairs of values may make one "
                "key: put a character between them, such as '/'"
            )

    def _check_names(self, values: Mapping[str, str | int]) -> None:
        wanted = ", ".join(self.names) or "none"
        for name in values:
            if name not in self.names:
                raise InvalidRequest(f"the key {self.text!r} has no name {name!r}: give {wanted}")
        for name in self.names:
            if name not in values:
                raise InvalidRequest(f"the key {self.text!r} lacks a value for {name!r}: give {wanted}")

    def _shown(self, name: str, value: str | int, following: str) -> str:
        what = f"the name {name!r} of the key {self.text!r} is"
        if type(value) not in (str, int):
            raise InvalidRequest(f"{what} {describe(value)}: give a str or an int")
        shown = str(value)
        if not shown:
            raise InvalidRequest(f"{what} empty: give at least one character")
        if following and following in shown:
            raise InvalidRequest(
                f"{what} {shown!r:.80}, which holds {following!r}, the character that follows it there, so that other "
                "values might make the same key: give one without"
            )
        return shown
