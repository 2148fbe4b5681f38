"""Names of streams and keys as subjects of NATS, and back.

A subject is made of tokens between dots. So ``/`` becomes a dot, and the server can filter by what stands before it;
what is unsafe in a token is percent-encoded, and an empty token is a percent sign. Of 512 bytes come 1,536 at the most.
"""

from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

from persist_effects.errors import CorruptStore

EVENTS, KEYS, MARKS, GUARDS, META, READS = "e", "k", "t", "g", "m", "r"
"""What stands after the store's name in a subject: of what kind its messages are."""

_SAFE = "-_:@+=~!()',;"
_EMPTY = "%"

_REMEMBERED = 10_000
"""How many names are not encoded anew."""


@lru_cache(_REMEMBERED)
def tokens_of(name: str) -> str:
    """A name as tokens.

    Args:
        name: The name of a stream, or of a key.

    Returns:
        What stands for it in a subject.

    >>> tokens_of("orders/1"), tokens_of("a b.c"), tokens_of("/a//")
    ('orders.1', 'a%20b%2Ec', '%.a.%.%')
    """
    return ".".join(_token(part) for part in name.encode().split(b"/"))


def _token(part: bytes) -> str:
    # The functions of the standard library leave a dot as it is.
    return quote_from_bytes(part, _SAFE).replace(".", "%2E") or _EMPTY


@lru_cache(_REMEMBERED)
def name_of(tokens: str) -> str:
    """The name that some tokens stand for.

    Args:
        tokens: What `tokens_of` gave.

    Returns:
        The name.

    >>> name_of("orders.1"), name_of("%.a.%.%")
    ('orders/1', '/a//')
    """
    return b"/".join(b"" if token == _EMPTY else unquote_to_bytes(token) for token in tokens.split(".")).decode()


class Subjects:
    """The subjects of one store.

    Args:
        store: The store's name.

    >>> subjects = Subjects("app")
    >>> subjects.of(EVENTS, "orders/1"), subjects.under(EVENTS, "orders/2"), subjects.under(KEYS, "ord")
    ('app.e.orders.1', 'app.e.orders.>', 'app.k.>')
    >>> subjects.kind_and_name("app.k.color")
    ('k', 'color')
    """

    def __init__(self, store: str) -> None:
        self.store = store
        self.all = f"{store}.>"
        self._start = len(store) + 1
        self._name_in = lru_cache(_REMEMBERED)(lambda subject: self.kind_and_name(subject)[1])

    def of(self, kind: str, name: str) -> str:
        """The subject of a stream, or of a key."""
        return f"{self.store}.{kind}.{tokens_of(name)}"

    def under(self, kind: str, prefix: str) -> str:
        """The narrowest filter that has all names with a prefix. It may have others too."""
        above, slash, _ = prefix.rpartition("/")
        return f"{self.store}.{kind}.{tokens_of(above)}.>" if slash else f"{self.store}.{kind}.>"

    def name_in(self, subject: str) -> str:
        """The name of the stream, or of the key, whose message has a subject. Raises `CorruptStore` if it has none."""
        return self._name_in(subject)

    def kind_and_name(self, subject: str) -> tuple[str, str]:
        """Of what kind a message is by its subject, and the name of its stream or key."""
        kind, _, tokens = subject[self._start :].partition(".")
        try:
            return kind, name_of(tokens)
        except ValueError as error:
            raise CorruptStore(
                f"messages of {subject} are none of a store's ({error}): something else writes to the store's subjects"
            ) from error

    @property
    def reads(self) -> str:
        """The filter of barriers for what is read of single names."""
        return f"{self.store}.{READS}.>"
