"""Courses with a capacity, students with a limit: rules over several streams, which no race can break.

A course is a stream, a student is one, and so is the term, which ends some day. Who subscribes depends on all three, so
`decide` reads them, and writes only if none of the three has changed by then. Everything above `main` is pure.
"""

import sys
from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from interpreters import open_store
from persist_effects import Append, Draft, Effect, Event, InvalidRequest, all_of, decide, log, projection
from persist_effects.requests import Write

TERM = "term"
COURSES_OF_A_STUDENT = 2


class Refused(Struct, frozen=True):
    """Why somebody may not do what they asked for."""

    reason: str


class Known(Struct, frozen=True):
    """What the streams of a course, of a student and of the term say together."""

    capacity: int = 0
    students: frozenset[str] = frozenset()
    courses: frozenset[str] = frozenset()
    is_over: bool = False


def step(known: Known, event: Event) -> Known:
    match event.type, event.data:
        case (("offered" | "resized"), int(capacity)):
            return replace(known, capacity=capacity)
        case "seat taken", str(student):
            return replace(known, students=known.students | {student})
        case "seat freed", str(student):
            return replace(known, students=known.students - {student})
        case "joined", str(course):
            return replace(known, courses=known.courses | {course})
        case "left", str(course):
            return replace(known, courses=known.courses - {course})
        case "ended", None:
            return replace(known, is_over=True)
        case unknown:
            raise InvalidRequest(f"event {event.seq} of {event.stream!r} is {unknown}, of which this knows nothing")


def course_stream(course: str) -> str:
    return f"courses/{course}"


def student_stream(student: str) -> str:
    return f"students/{student}"


def appended(stream: str, type: str, data: Any) -> Write:
    return Append(stream, (Draft(type, data),))


# Decisions: pure functions of what is known. Each returns what is to be written, or why not.

Decision = list[Write] | Refused


def to_offer(known: Known, course: str, capacity: int) -> Decision:
    if known.capacity:
        return Refused(f"{course} is offered already")
    return [appended(course_stream(course), "offered", capacity)]


def to_resize(known: Known, course: str, capacity: int) -> Decision:
    if len(known.students) > capacity:
        return Refused(f"{course} has {len(known.students)} students")
    return [appended(course_stream(course), "resized", capacity)]


def to_subscribe(known: Known, student: str, course: str) -> Decision:
    if known.is_over:
        return Refused("the term is over")
    if student in known.students:
        return Refused(f"{student} is in {course} already")
    if len(known.students) >= known.capacity:
        return Refused(f"{course} is full")
    if len(known.courses) >= COURSES_OF_A_STUDENT:
        return Refused(f"{student} has {COURSES_OF_A_STUDENT} courses")
    return [
        appended(course_stream(course), "seat taken", student),
        appended(student_stream(student), "joined", course),
    ]


def to_leave(known: Known, student: str, course: str) -> Decision:
    if student not in known.students:
        return Refused(f"{student} is not in {course}")
    return [appended(course_stream(course), "seat freed", student), appended(student_stream(student), "left", course)]


# Programs: each names the streams that its decision depends on.

Done = Effect[Any]
"""Of a program that returns the answers of its writes, or `Refused`."""


def offer(course: str, capacity: int) -> Done:
    return decide([course_stream(course)], step, Known(), lambda known: to_offer(known, course, capacity))


def resize(course: str, capacity: int) -> Done:
    return decide([course_stream(course)], step, Known(), lambda known: to_resize(known, course, capacity))


def subscribe(student: str, course: str) -> Done:
    streams = [course_stream(course), student_stream(student), TERM]
    return decide(streams, step, Known(), lambda known: to_subscribe(known, student, course))


def leave(student: str, course: str) -> Done:
    streams = [course_stream(course), student_stream(student)]
    return decide(streams, step, Known(), lambda known: to_leave(known, student, course))


def end_term() -> Done:
    return decide([TERM], step, Known(), lambda known: [] if known.is_over else [appended(TERM, "ended", None)])


def check_courses() -> Effect[None]:
    """Assert what holds at any time, by all events in their order. Not for a store that others are writing to."""
    courses: dict[str, Known] = {}
    joined: set[tuple[str, str]] = set()
    is_over = False
    for event in (yield from log.read_all()):
        kind, _, name = event.stream.partition("/")
        is_over = is_over or event.stream == TERM
        if kind == "courses":
            known = courses[name] = step(courses.get(name, Known()), event)
            assert len(known.students) <= known.capacity, f"{name} has {known.students} and {known.capacity} seats"
            assert not (is_over and event.type == "seat taken"), f"{event.data} joined {name} after the term's end"
        elif kind == "students":
            joined = joined | {(name, event.data)} if event.type == "joined" else joined - {(name, event.data)}
            count = sum(student == name for student, _ in joined)
            assert count <= COURSES_OF_A_STUDENT, f"{name} has {count} courses"
    seats = {(student, course) for course, known in courses.items() for student in known.students}
    assert seats == joined, f"courses say {seats}, students say {joined}"


def told(results: Iterable[Any]) -> list[str]:
    return [f"refused: {result.reason}" if isinstance(result, Refused) else "done" for result in results]


def term() -> Effect[list[str]]:
    """The last days of a term. Two take the last seat at once, and one of them has it."""
    results = [(yield from offer("algebra", 1)), (yield from offer("botany", 2)), (yield from offer("chess", 9))]
    race = yield from all_of(subscribe("ada", "algebra"), subscribe("bob", "algebra"))
    results += sorted(race, key=lambda result: isinstance(result, Refused))
    for course in ("botany", "chess", "algebra"):
        results.append((yield from subscribe("cy", course)))
    results += [(yield from leave("cy", "chess")), (yield from resize("botany", 0)), (yield from end_term())]
    return told([*results, (yield from subscribe("cy", "chess"))])


def main(url: str = "memory:") -> None:
    with open_store(url) as store:
        print(*store.run(term()), sep="\n")
        store.wait_for_order()
        store.run(check_courses())
        algebra = store.run(projection.project(course_stream("algebra"), step, Known())).value
        print(f"students in algebra: {len(algebra.students)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
