"""The command that says how a store is: what it promises, who is behind, what is unsafe, and what to do about it."""

import sys
from collections.abc import Iterable, Iterator
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from interpreters.cli.exits import exit_codes
from interpreters.cli.following import lines_of_followers, with_lags
from interpreters.cli.inputs import AnyUrl, AsJson, reading_any
from interpreters.cli.lines import Paint, painter, print_json
from interpreters.cli.output import printable, progress, time_of
from interpreters.stores.file import file_options
from persist_effects import flow
from persist_effects.capabilities import Capabilities
from persist_effects.followers import Lag, Registered

FindingKind = Literal["unsafe", "behind", "failed"]

_STYLES: dict[FindingKind, str] = {"unsafe": "bold red", "behind": "yellow", "failed": "bold red"}

_DURABLE = {
    "memory": "what is acknowledged is lost with the process",
    "os": "what is acknowledged outlives the process, and the newest of it not the machine",
    "interval": "what is acknowledged outlives the process, and soon after the machine",
    "commit": "what is acknowledged outlives the machine",
}
_PROCESSES = {
    "one": "one process has it open",
    "one-writer": "one process writes, and any number read",
    "many": "any number of processes read and write",
}
_DURABLY = {
    "file": "open the store with sync=commit, which is what it does unless told otherwise",
    "sqlite": "open the store with sync=commit, which is what it does unless told otherwise",
    "postgresql": "have the server sync: fsync=on and synchronous_commit=on",
    "nats": "`persist-effects health URL` says what its servers lack: replicas, or a sync of each message",
    "unix": "have the server open its store with sync=commit",
    "tcp": "have the server open its store with sync=commit",
}
"""What to do, by the scheme of a URL, where an acknowledgement does not mean that it is on a disk."""

_LOCAL = {"127.0.0.1", "::1", "localhost"}
_STANDSTILLS = ("halted", "set aside")


class Finding(msgspec.Struct, frozen=True):
    """What needs care, and what to do: a setting that is unsafe, who is behind, or what has failed and waits."""

    kind: FindingKind
    what: str
    advice: str


def doctor(url: AnyUrl, as_json: AsJson = False) -> None:
    """Say what a store promises, which followers are behind, and what is unsafe or has failed, and what to do.

    The exit code says whether it could be looked at, not what was found. Whether its files are sound says `verify`.
    """
    with exit_codes(as_json), reading_any(url) as store:
        promises = _promised(url, store.capabilities)
        with progress("counting", as_json) as told:
            followers = with_lags(store, told)
        stuck = [(state, store.run(flow.listing(state=state))) for state in _STANDSTILLS]
        findings = [
            *_of_durability(url, promises),
            *_of_url(url),
            *(finding for pair in followers for finding in _of_follower(*pair)),
            *_of_flows((state, [one.flow_id for one in found]) for state, found in stuck),
        ]
        if not as_json:
            sys.stdout.write("\n".join(_lines_of(url, promises, followers, findings, painter())) + "\n")
            return
        answer = {
            "promises": promises,
            "followers": [{"name": found.name, "unseen": lag.unseen, "since": lag.since} for found, lag in followers],
            "findings": findings,
        }
        print_json(answer)


def _promised(url: str, found: Capabilities) -> Capabilities:
    """What a store promises to those who open this URL. A file store was opened here to be read, without its options.

    >>> _promised("file:var/orders?sync=os&share=yes", Capabilities()).durability
    'os'
    """
    scheme, _, rest = url.partition(":")
    if scheme != "file":
        return found
    given = file_options(rest, {})
    return msgspec.structs.replace(
        found,
        durability=given.get("sync", "commit"),
        processes="many" if given.get("share") == "yes" else found.processes,
        payload_limit_bytes=given.get("payload_limit_bytes", found.payload_limit_bytes),
    )


def _of_durability(url: str, promises: Capabilities) -> Iterator[Finding]:
    """Where an acknowledgement does not mean that it is on a disk.

    >>> [finding.what for finding in _of_durability("file:x", Capabilities(durability="os"))]
    ['durability is os: what is acknowledged outlives the process, and the newest of it not the machine']
    """
    level = promises.durability
    if level != "commit":
        advice = _DURABLY.get(url.partition(":")[0], "take a store that syncs each commit")
        yield Finding("unsafe", f"durability is {level}: {_DURABLE[level]}", advice)


def _of_url(url: str) -> Iterator[Finding]:
    """What a URL tells to those who should not know it.

    >>> for url in ("tcp://127.0.0.1:7420?token_file=t", "tcp://db.example:7420?token=abc", "postgresql://a:b@db/x"):
    ...     print([finding.what for finding in _of_url(url)])
    []
    ['what goes to db.example can be read on its way', 'the token stands in the URL, where other processes see it']
    ['the password stands in the URL, where other processes see it']
    """
    scheme, _, rest = url.partition(":")
    if scheme not in ("tcp", "unix", "nats", "postgresql"):
        return
    given = dict(parse_qsl(rest.partition("?")[2]))
    parts = urlsplit(url)
    if scheme == "tcp" and parts.hostname not in _LOCAL and given.get("tls") != "yes" and "ca_file" not in given:
        yield Finding(
            "unsafe", f"what goes to {parts.hostname} can be read on its way", "serve with --tls-cert, and give tls=yes"
        )
    if "token" in given:
        yield Finding("unsafe", "the token stands in the URL, where other processes see it", "give token_file=PATH")
    if parts.password is not None:
        advice = "keep it in ~/.pgpass" if scheme == "postgresql" else "keep it in a file: see docs/how-to/nats.md"
        yield Finding("unsafe", "the password stands in the URL, where other processes see it", advice)


def _of_follower(found: Registered, lag: Lag) -> Iterator[Finding]:
    name = printable(repr(found.name))
    if found.is_forgotten:
        advice = f"`persist-effects follower forget URL {found.name}` again"
        yield Finding("failed", f"follower {name} was not forgotten to the end", advice)
        return
    if lag.since is not None:
        what = f"follower {name} has not seen {lag.unseen} events, the first from {time_of(lag.since)}"
        yield Finding("behind", what, "start what follows under this name, or if it runs, wait or look at its log")
    if found.aside:
        what = f"follower {name} has set aside events of {len(found.aside)} streams"
        advice = f"`persist-effects follower set-aside URL {found.name}` says why; mend the handler, then `retry`"
        yield Finding("failed", what, advice)


def _of_flows(stuck: Iterable[tuple[str, list[str]]]) -> Iterator[Finding]:
    """Those that go on only if somebody does something.

    >>> [finding.what for finding in _of_flows([("halted", ["o-1", "o-2"]), ("set aside", [])])]
    ['2 flows are halted, the first o-1']
    """
    for state, ids in stuck:
        if ids:
            what = f"{len(ids)} flows are {state}, the first {printable(ids[0])}"
            advice = "`persist-effects flows show URL ID` says why; mend it, then `persist-effects flows retry URL ID`"
            yield Finding("failed", what, advice)


def _lines_of(
    url: str, promises: Capabilities, followers: list[tuple[Registered, Lag]], findings: list[Finding], paint: Paint
) -> list[str]:
    numbers = {
        "durability": f"{promises.durability}, {_DURABLE[promises.durability]}",
        "processes": f"{promises.processes}, {_PROCESSES[promises.processes]}",
        "order": "reads of all streams may lag, without a gap"
        if promises.order_lags
        else "reads of all streams are fresh",
        "payload limit": f"{promises.payload_limit_bytes} bytes",
        "writes of a transaction": "any number" if promises.batch_limit is None else f"{promises.batch_limit} at most",
        "sql": promises.sql or "none",
    }
    if url.startswith("file:"):
        numbers["bytes"] = "not looked at here, `persist-effects verify` reads them"
    lines = [f"{paint(name, 'bold')}: {text}" for name, text in numbers.items()]
    lines += lines_of_followers(followers)
    lines += [f"{paint(each.kind, _STYLES[each.kind])}: {each.what}: {each.advice}" for each in findings]
    return lines if findings else [*lines, paint("nothing was found that needs care", "green")]
