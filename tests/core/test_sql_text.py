"""What of a statement is a parameter, and what a statement may not be, before any database sees it."""

from typing import Any

import pytest

from persist_effects import InvalidRequest, KvPut, Sql, perform
from persist_effects.codec import decode_answer, decode_request, encode_answer, encode_request
from persist_effects.requests import Answered, Transact
from persist_effects.sql_text import parsed
from persist_effects.trace import record, replay


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("INSERT INTO o VALUES (:id, :total)", {"id", "total"}),
        ("INSERT INTO o VALUES (:id, ':no')", {"id"}),
        ("INSERT INTO o VALUES (:id, 'it''s :no')", {"id"}),
        (r"INSERT INTO o VALUES (:id, E'it\'s :no')", {"id"}),
        (r"INSERT INTO o (name) VALUES ('\'), (:id)", {"id"}),
        ("INSERT INTO o VALUES (:id, $$ :no $$, $a$ $$ :no $a$)", {"id"}),
        ('INSERT INTO o ("x:no", `y:no`) VALUES (:id, 1)', {"id"}),
        ("INSERT INTO o VALUES (:id) -- :no", {"id"}),
        ("INSERT /* :no */ INTO o VALUES (:id)", {"id"}),
        ("INSERT INTO o VALUES (:id::int, '1'::text)", {"id"}),
        ("UPDATE o SET a = b[1 : 2], c = :id;", {"id"}),
        ("UPDATE o SET name = 'x' WHERE namee = :id -- it's", {"id"}),
        ("DELETE FROM o", set()),
    ],
)
def test_only_what_stands_in_the_text_itself_is_a_parameter(statement: str, parameters: set[str]) -> None:
    found = parsed(statement)
    assert found.parameters == parameters
    written = "".join(f":{part}" if number % 2 else part for number, part in enumerate(found.parts))
    assert written == statement.partition(";")[0]


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("", "there is no statement in it"),
        (" -- nothing", "there is no statement in it"),
        ("COMMIT", "it begins with COMMIT: a store takes INSERT"),
        ("ROLLBACK", "it says ROLLBACK"),
        ("INSERT OR ROLLBACK INTO o VALUES (1)", "it says ROLLBACK"),
        ("PRAGMA synchronous = OFF", "it begins with PRAGMA"),
        ("ATTACH 'x' AS y", "it begins with ATTACH"),
        ("SELECT 1", "it begins with SELECT"),
        ("SET search_path = x", "it begins with SET"),
        ("DO $$ BEGIN END $$", "it begins with DO"),
        ("CREATE TEMP TABLE o (id int)", "it begins with CREATE TEMP"),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int", "it begins with CREATE OR"),
        ("CREATE TRIGGER t AFTER INSERT ON o BEGIN DELETE FROM p; END", "more than one statement"),
        ("DELETE FROM o; DELETE FROM p", "more than one statement"),
        ("DELETE FROM o;;", "more than one statement"),
        ("DELETE FROM o WHERE id = 'x", "a literal has no end"),
        ('DELETE FROM "o', "a quoted name has no end"),
        ("DELETE FROM o /* x", "a comment has no end, or another one in it"),
        ("DELETE FROM o /* x /* y */ z */", "a comment has no end, or another one in it"),
        ('DELETE FROM U&"\\006f"', "it has a name or a literal behind &"),
        ("DELETE FROM o\0", "it has a zero character or a lone surrogate"),
        ("DELETE FROM o\ud800", "it has a zero character or a lone surrogate"),
        (7, "an SQL statement is an int, 7: give a str"),
    ],
)
def test_what_is_not_one_statement_that_writes_is_refused_with_the_reason(statement: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why.replace("(", r"\(")):
        Sql(statement)


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({}, "it has no value for :id"),
        ({"id": 1, "other": 2}, "it has no :other, for which a value was given"),
        ([1], r"params is a list, \[1\]: give a dict"),
        ({"id": [1]}, r"parameter 'id' is a list, \[1\]: give None, a bool, int"),
        ({"id": {"a": 1}}, "by json.dumps"),
        ({"id": 2**63}, "an integer has 64 bits: give it as text"),
        ({"id": float("nan")}, "not a number"),
        ({"id": "a\0b"}, "text has no zero characters"),
        ({"id": "\ud800"}, "no lone surrogates"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_with_their_names(params: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        Sql("DELETE FROM o WHERE id = :id", params)


def test_a_transaction_that_notes_takes_no_sql() -> None:
    with pytest.raises(InvalidRequest, match="a transaction that notes has no Sql"):
        Transact((Sql("DELETE FROM o"), KvPut("a", {})), noting=True)


def test_a_statement_travels_and_is_recorded_as_any_other_request() -> None:
    sql = Sql("DELETE FROM o WHERE id = :id", {"id": b"\0"})
    assert decode_request(encode_request(sql)) == sql
    assert decode_answer(sql, encode_answer(3)) == 3
    both = Transact((sql, KvPut("a", 1)))
    outcome, trace = record(perform(both), {Transact: lambda request: [3, 7]})
    assert outcome == Answered([3, 7])
    assert replay(perform(both), trace) == [3, 7]
