"""What type checkers must find out about the answers of transactions: checked by mypy and pyright, not run."""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=error

from typing import Any, assert_type

from persist_effects import (
    Append,
    Appended,
    Begin,
    Conflict,
    Draft,
    Effect,
    ExpectSeq,
    KvDelete,
    KvPut,
    Sql,
    TruncateThrough,
    transact,
)
from persist_effects.requests import KvGet, Write

ORDER = Append("orders/1", (Draft("placed", None),))
PUT = KvPut("latest", 1)
DELETE = KvDelete("open/1")


def answers() -> Effect[int]:
    """Each answer of up to six writes has its type, and none of them is a conflict: that is the transaction's."""
    assert_type((yield from transact(PUT)), tuple[int] | Conflict)
    assert_type((yield from transact(ORDER, PUT)), tuple[Appended, int] | Conflict)
    assert_type((yield from transact(ORDER, PUT, DELETE)), tuple[Appended, int, bool] | Conflict)
    four = yield from transact(ORDER, PUT, DELETE, Begin("b", 7), checks=[ExpectSeq("orders/1", 0)])
    assert_type(four, tuple[Appended, int, bool, int] | Conflict)
    five = yield from transact(ORDER, PUT, DELETE, Begin("b", 7), TruncateThrough("c", 7))
    assert_type(five, tuple[Appended, int, bool, int, int] | Conflict)
    six = yield from transact(ORDER, PUT, DELETE, Begin("b", 7), TruncateThrough("c", 7), Sql("DELETE FROM orders"))
    assert_type(six, tuple[Appended, int, bool, int, int, int] | Conflict)
    if isinstance(six, Conflict):
        return six.actual
    appended, revision, *_ = six
    return appended.last_seq + revision


def many_answers(writes: list[Write]) -> Effect[None]:
    """Of more writes, and of a list of them, the answers are Any."""
    assert_type((yield from transact(PUT, PUT, PUT, PUT, PUT, PUT, PUT)), list[Any] | Conflict)
    assert_type((yield from transact(*writes)), list[Any] | Conflict)
    assert_type((yield from transact(PUT, *writes, noting=True)), list[Any] | Conflict)


def wrong() -> Effect[int]:
    """What is not a write is refused, and so is an answer that was not looked at."""
    yield from transact(KvGet("latest"))  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    answers = yield from transact(ORDER, PUT)
    print(answers[0])  # type: ignore[index] # pyright: ignore[reportIndexIssue, reportUnknownArgumentType]
    assert not isinstance(answers, Conflict)
    print(answers[2])  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]
    return answers[0]  # type: ignore[return-value] # pyright: ignore[reportReturnType]
