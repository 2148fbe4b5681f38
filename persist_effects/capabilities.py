"""What a store promises beside what every store must: what an acknowledgement means, who may open it, its limits."""

from typing import Literal

from msgspec import Struct

from persist_effects.codec import PAYLOAD_LIMIT_BYTES
from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_integer

Durability = Literal["memory", "os", "interval", "commit"]
Processes = Literal["one", "one-writer", "many"]
SqlDialect = Literal["", "sqlite", "postgresql"]

DURABILITIES: tuple[Durability, ...] = ("memory", "os", "interval", "commit")
PROCESSES: tuple[Processes, ...] = ("one", "one-writer", "many")
SQL_DIALECTS: tuple[SqlDialect, ...] = ("", "sqlite", "postgresql")


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a store promises, as `Store.capabilities` has it. The conformance suite holds a store to it.

    What a field does not say, the store need not do. The defaults are what an interpreter promises that says nothing.

    Args:
        durability: What outlives what, once a write is acknowledged. "memory": it is lost with the process. "os": it
            outlives the process, not the machine. "interval": as "os", and soon after the machine too. "commit": it
            outlives the machine.
        processes: Who may have the store open: "one" process, "one-writer" with any number that read, or "many".
        order_lags: Whether `ReadAll`, `Wait` and `KvWait` may show late what was acknowledged, though without a gap.
        payload_limit_bytes: How large one value may be when it is encoded, in bytes.
        batch_limit: How many writes one transaction may have, and how many events one append; None for any number.
        reopen: Whether a store that is closed and opened again has the same data.
        transact: Whether it answers `Transact`: several writes, all or nothing.
        wait: Whether it answers `Wait`: a reader is woken by an append.
        sql: Whose SQL it carries out in its transactions, "sqlite" or "postgresql"; "" where it refuses `Sql`.

    Raises:
        InvalidRequest: Where a field is none of these.

    >>> Capabilities(durability="commit", reopen=True).is_durable
    True
    """

    durability: Durability = "memory"
    processes: Processes = "one"
    order_lags: bool = False
    payload_limit_bytes: int = PAYLOAD_LIMIT_BYTES
    batch_limit: int | None = None
    reopen: bool = False
    transact: bool = True
    wait: bool = True
    sql: SqlDialect = ""

    def __post_init__(self) -> None:
        for name, known in (("durability", DURABILITIES), ("processes", PROCESSES), ("sql", SQL_DIALECTS)):
            if getattr(self, name) not in known:
                choices = ", ".join(one or "''" for one in known)
                raise InvalidRequest(f"{name} is {getattr(self, name)!r}: give one of {choices}")
        for name in ("order_lags", "reopen", "transact", "wait"):
            if type(getattr(self, name)) is not bool:
                raise InvalidRequest(f"{name} is {describe(getattr(self, name))}: give True or False")
        check_integer("payload_limit_bytes", self.payload_limit_bytes, 1)
        if self.batch_limit is not None:
            check_integer("batch_limit", self.batch_limit, 1)

    @property
    def is_durable(self) -> bool:
        """Whether what was acknowledged outlives the process."""
        return self.durability != "memory"
