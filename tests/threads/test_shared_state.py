"""What of a store is shared, and with whom: one row for each attribute that may change once it was made.

A row says who may touch the attribute, what guards it, and which test shows that. Whatever else these classes set is
set where the object is made, and never after. A forked child has one thread, and makes anew what it must: those rules
are in `interpreters.threads.forks`, and their tests in `test_forks`.
"""

import ast
from typing import NamedTuple

import pytest
from places import ROOT

ROOM = ROOT / "interpreters"


class Row(NamedTuple):
    """Who may touch an attribute, what guards it, and the test that shows it."""

    who: str
    guard: str
    test: str


ANY = "any thread"
COMMITTER = "the thread that has the turn to commit"
KEEPER = "the thread that keeps the store"
OWN_LOOP = "the thread of one event loop"
OWN_PROGRAM = "the thread that runs the program"

IN_ONE_STEP = "it changes in one step, from one whole value to another"
ONCE = "it goes one way only, once"
HOST_LOCK = "_Host._lock, let go while the disk works, when the index is whole"
TURN = "GroupCommit.turn, within _Host._lock while the engine runs"

ASKED_AGAIN = "test_tasks_ask_again_until_the_store_is_back"
LOSS = "test_a_task_that_waits_is_not_woken_by_a_loss_but_by_what_it_waits_for"
FORK = "test_a_fork_waits_for_the_commit_of_another_thread_and_the_child_has_it_whole"
THREADS = "test_threads_share_a_store_and_lose_nothing"
LOOPS = "test_event_loops_of_many_threads_share_a_store_and_lose_nothing"
COMPACTING = "test_writers_and_readers_go_on_while_it_compacts"
CLOSED_MEANWHILE = "test_a_store_may_be_closed_by_several_threads_at_once"
ANY_LINE = "test_whichever_line_an_interrupt_comes_at_the_other_threads_go_on"
DISK_THREADS = "test_under_many_threads_a_read_is_whole_or_of_no_file"
CHILD_READS = "test_a_forked_child_reads_on_though_another_thread_was_opening_a_file"
TOLD_CLOSED = "test_programs_that_wait_when_their_store_is_closed_are_told_so"
NOT_TOLD = "test_a_thread_that_was_not_told_of_an_event_finds_it_all_the_same"
BOTH_WAYS = "test_values_larger_than_a_socket_holds_go_both_ways_at_once"
CUT_BY_INTERRUPT = "test_an_interrupt_that_ends_the_event_loop_leaves_no_task_waiting"
SUBMITTED = "test_an_interrupt_while_requests_are_submitted_leaves_no_task_waiting"
CHILD_TASKS = "test_a_child_runs_tasks_though_the_parents_worker_is_not_there"
SERVED_CHILD = "test_a_child_has_a_connection_of_its_own_though_another_thread_is_just_sending"
SERVED_INTERRUPTED = "test_an_interrupt_at_any_line_of_asking_leaves_the_store_usable"
SERVED_ORDER = "test_who_waits_for_the_order_of_a_served_store_is_told_what_the_store_says"
SERVED_TOGETHER = "test_what_several_clients_write_while_the_store_is_busy_is_one_commit"
READ_TOKEN = "test_a_client_with_the_second_token_reads_and_does_not_write"
STOPPED = "test_a_server_that_is_told_to_end_before_it_runs_ends_at_once"
INTERRUPTED_COMMIT = "test_an_interrupted_commit_is_settled_by_opening_anew"

NATS_CHILD = "test_a_forked_child_has_a_connection_to_nats_of_its_own_and_the_parents_goes_on"
NATS_ENDED = "test_what_is_asked_once_the_loop_has_ended_its_tasks_is_told_that_it_has_ended"
NATS_OPENED = "test_an_interrupt_anywhere_while_a_store_on_nats_is_opened_leaves_nothing_behind"
NATS_INTERRUPTED = "test_an_interrupt_at_any_line_of_asking_nats_leaves_the_store_usable"
BUCKET_CHILD = "test_a_child_of_a_fork_has_a_bucket_by_a_connection_of_its_own_and_its_parent_too"
BLOB_THREADS = "test_threads_that_put_and_read_the_same_blobs_find_them_whole"
PROVED_WHEN_IDLE = "test_an_idle_store_proves_its_last_commit_so_that_damage_to_it_is_found"
FORK_OF_WRITER = "test_a_fork_of_the_writer_reads_and_does_not_write_and_does_not_keep_the_lock"
PERMISSIONS = "test_what_is_made_is_for_its_owner_alone_unless_told_otherwise"
LOOKED_AT_ONCE = "test_the_times_of_a_file_in_its_place_are_looked_at_once_because_its_next_sync_would_take_longer"
UNSYNCED = "test_open_files_are_bounded_but_for_the_unsynced"

KEYS_SHARED = "test_threads_that_write_read_and_forget_find_nothing_of_the_forgotten"
KEYS_NOTICED = "test_another_process_notices_within_the_time_that_is_stated"

SQLITE_CHILD = "test_a_child_of_a_fork_goes_on_with_connections_of_its_own"
SQLITE_SHARED = "test_threads_and_programs_share_transactions"
SQLITE_WAIT = "test_a_wait_ends_by_another_stores_write"
SQLITE = Row(COMMITTER, "GroupCommit.turn", SQLITE_SHARED)

POOL = Row(ANY, "Pool._lock", "test_more_threads_than_connections_take_turns_and_a_lost_one_is_made_up_for")
POSTGRES_CHILD = "test_a_child_of_a_fork_goes_on_with_connections_of_its_own_and_its_parent_too"
POSTGRES_WAIT = "test_a_wait_is_told_by_a_notification_of_another_store"
POSTGRES = Row(COMMITTER, "GroupCommit.turn", "test_one_call_is_made_for_whatever_is_asked")

MEMORY = Row(ANY, "MemoryStore._lock", THREADS)
ENGINE = Row(COMMITTER, TURN, COMPACTING)
WAITING = Row(ANY, "the store's lock; once it is closed, each is taken in one step; who waits looks again", NOT_TOLD)
INDEX = Row("any thread", HOST_LOCK, COMPACTING)
LOOP = Row("the thread of the server's loop", "one loop, one thread", SERVED_TOGETHER)
TASK = Row("the task that runs the program", "a task is one thing at a time", LOOPS)

TABLE: dict[str, dict[str, Row]] = {
    "runtime/store.py Store": {
        "_is_closed": Row(ANY, ONCE, CLOSED_MEANWHILE),
        "_task_runners": Row(ANY, "the first one stays, by dict.setdefault", LOOPS),
    },
    "runtime/rounds.py Rounds": {
        "_deadlines": Row(OWN_PROGRAM, "made for each run_many", "test_run_many_is_woken_by_another_thread"),
    },
    "runtime/sleeping.py Sleepers": {
        "is_closed": Row(ANY, ONCE, "test_closing_the_store_ends_a_sleep"),
        "_ended": Row(ANY, "it is set before `is_closed` is", "test_who_sleeps_when_the_plug_is_pulled_is_told_so"),
        "sleeping": Row(ANY, "of a dict's single operations each is atomic", "test_closing_the_store_ends_a_sleep"),
    },
    "runtime/tasks.py TaskRunner": {
        "_own": Row(OWN_LOOP, "each thread has its own, as threading.local", LOOPS),
    },
    "runtime/tasks.py _Turn": {
        "is_cancelled": TASK,
        "late_cancellation": TASK,
        "comes_again": TASK,
        "_left": TASK,
    },
    "runtime/tasks.py _Lot": {
        "requests": Row(OWN_LOOP, "the worker has it only once no more are added", LOOPS),
        "outcomes": Row("the worker, or the loop", "whoever takes `claim` sets it, then tells", CUT_BY_INTERRUPT),
        "answered": Row(OWN_LOOP, "the worker tells the loop, by call_soon", CUT_BY_INTERRUPT),
        "is_scheduled": Row(OWN_LOOP, "one loop, one thread", CUT_BY_INTERRUPT),
        "claim": Row("the worker, or the loop", "a lock that is taken once, by one of them", CUT_BY_INTERRUPT),
    },
    "runtime/tasks.py _Loop": {
        "_next": Row(OWN_LOOP, "one loop, one thread", LOOPS),
        "_is_sending": Row(OWN_LOOP, "one loop, one thread", CUT_BY_INTERRUPT),
        "waits": Row(
            OWN_LOOP,
            "anyio's own",
            "test_many_waits_on_a_store_that_must_be_asked_again_and_again_keep_nobody_from_a_thread",
        ),
    },
    "runtime/tasks.py _Party": {},
    "runtime/tasks.py _Arrivals": {
        "_come": Row("any thread, and the loop's", "a deque, of which each takes one in one step", SUBMITTED),
        "_is_told": Row("any thread, and the loop's", "taken back before anything is taken out", SUBMITTED),
    },
    "runtime/tasks.py _SubmittingLoop": {
        "_next": Row(OWN_LOOP, "one loop, one thread", SUBMITTED),
    },
    "runtime/tasks.py _Worker": {
        "_lock": Row("the loop, the worker, and a forked child", "made anew in the child", CHILD_TASKS),
        "_jobs": Row("the loop and the worker", "a queue", CHILD_TASKS),
        "_is_there": Row(
            "the loop and the worker",
            "_Worker._lock",
            "test_where_no_thread_can_be_started_the_request_fails_and_the_next_one_is_carried_out",
        ),
    },
    "stores/memory.py MemoryStore": {
        "_lock": Row("any thread, a fork, and whoever closes", "held while it is replaced", FORK),
        "_streams": MEMORY,
        "_stream_names": MEMORY,
        "_log": MEMORY,
        "_dropped_in_log": MEMORY,
        "_position": MEMORY,
        "_truncated": MEMORY,
        "_truncated_names": MEMORY,
        "_entries": Row(ANY, "MemoryStore._lock", "test_racing_updates_of_a_key_lose_nothing"),
        "_keys": Row(ANY, "MemoryStore._lock", "test_racing_updates_of_a_key_lose_nothing"),
        "_revision": Row(ANY, "MemoryStore._lock", "test_racing_updates_of_a_key_lose_nothing"),
        "_ended": Row(ANY, "MemoryStore._lock; it goes one way only, once", CLOSED_MEANWHILE),
    },
    "stores/sqlite/store.py SqliteStore": {
        "_writer": SQLITE,
        "_heads": SQLITE,
        "_data_version": SQLITE,
        "_unmoved_bytes": SQLITE,
        "_room_bytes": SQLITE,
        "_turns": SQLITE,
        "_unsynced": Row(f"{COMMITTER}, and {KEEPER}", IN_ONE_STEP, "test_a_failed_sync_is_told_and_ends_all_writing"),
        "_poison": Row(f"{COMMITTER}, and {KEEPER}", ONCE, "test_a_failed_sync_is_told_and_ends_all_writing"),
        "_idle": Row(ANY, "SqliteStore._lock", SQLITE_SHARED),
        "_looker": Row(ANY, "SqliteStore._lock", SQLITE_WAIT),
        "_seen": Row(ANY, "SqliteStore._lock", SQLITE_WAIT),
        "_keeper": Row(f"{COMMITTER}, and whoever closes", IN_ONE_STEP, SQLITE_CHILD),
    },
    "stores/grouped.py GroupedStore": {
        "_lock": Row("any thread, a fork, and whoever closes", "held while it is replaced", SQLITE_CHILD),
        "_group": Row("a fork", "GroupCommit.turn, held by the fork", SQLITE_CHILD),
        "_closing": Row("a fork", "GroupCommit.turn, held by the fork", SQLITE_CHILD),
        "_is_closed": Row(ANY, ONCE, CLOSED_MEANWHILE),
    },
    "stores/postgres/store.py PostgresStore": {
        "_courier": Row(ANY, "GroupedStore._lock", POSTGRES_WAIT),
        "_deletion_count": POSTGRES,
    },
    "stores/postgres/server.py Server": {
        "_pool": Row("whoever opens, closes or forks", IN_ONE_STEP, POSTGRES_CHILD),
        "_writer": POSTGRES,
        "_configure": Row("whoever opens", ONCE, POSTGRES_CHILD),
        "space": Row("whoever makes a connection", "always the same value", POSTGRES_CHILD),
    },
    "stores/postgres/pool.py Pool": {
        "_free": POOL,
        "_waiting": POOL,
        "_is_closed": Row("whoever closes", ONCE, CLOSED_MEANWHILE),
    },
    "stores/postgres/pool.py Connection": {
        "_asking": Row("whoever has the connection", "Pool._lock, or GroupCommit.turn", THREADS),
    },
    "stores/postgres/courier.py Courier": {
        "_is_untold": Row("whoever writes, and the courier", "it is taken back before it is told", POSTGRES_WAIT),
        "_is_unseen": Row("whoever writes, and the courier", "it is taken back before it is looked", POSTGRES_WAIT),
        "_is_to_listen": Row("whoever waits, and the courier", "Courier._lock", POSTGRES_WAIT),
        "_seen": Row("whoever waits, and the courier", "Courier._lock, before the courier listens", POSTGRES_WAIT),
        "_is_closed": Row("whoever closes", ONCE, POSTGRES_WAIT),
    },
    "stores/sqlite/writing.py KnownHeads": dict.fromkeys(("position", "revision", "_streams", "_revisions"), SQLITE),
    "stores/sqlite/writing.py Writing": {"written_bytes": SQLITE},
    "stores/waiting.py Watchers": {
        "_watching": WAITING,
        "_tokens": WAITING,
    },
    "stores/waiting.py Revisions": dict.fromkeys(
        ("_deleted", "_forgotten"),
        Row("whoever changes what is stored", "as the keys of the store", "test_racing_updates_of_a_key_lose_nothing"),
    ),
    "stores/memory.py _Stream": {
        "events": MEMORY,
        "dropped": MEMORY,
        "dropped_position": MEMORY,
        "last_position": MEMORY,
    },
    "stores/names.py SortedNames": dict.fromkeys(
        ("_runs", "_firsts", "_newest", "_tops", "_changed", "_is_sorted", "is_ranked"),
        Row(
            ANY,
            "the store's lock; after an interrupt all is made anew",
            "test_an_interrupt_at_any_line_of_a_change_leaves_the_names_as_they_are_in_the_mapping",
        ),
    ),
    "blobs/memory.py ChunksOf": {},
    "blobs/memory.py MemoryBlobs": {
        "_swept": Row(ANY, "one is added before it is taken from the others", "test_memory_drops_what_is_old_too"),
        "_blobs": Row(ANY, "bytes by their own name: whoever puts them puts the same", "test_threads_may_put_one_blob"),
    },
    "stores/nats/store.py NatsStore": {
        "_is_closed": Row(ANY, ONCE, "test_a_store_may_be_closed_by_several_threads_at_once"),
        "_connection": Row("whoever opens or closes it, and a forked child", "NatsStore._connecting", NATS_CHILD),
        "_connecting": Row("a fork", "a child has one thread", NATS_CHILD),
        "_abandoned": Row("whoever opens it, and a forked child", IN_ONE_STEP, NATS_OPENED),
    },
    "nats/connection.py NatsConnection": {
        "loop": Row("whoever opens it", ONCE, NATS_OPENED),
        "_thread": Row("whoever opens it", ONCE, NATS_OPENED),
        "_coming": Row(ANY, IN_ONE_STEP, NATS_ENDED),
        "_is_over": Row("the loop's thread", ONCE, NATS_ENDED),
        **dict.fromkeys(
            ("_asked", "_tasks", "on_back", "on_end", "_trouble", "_is_looking", "client", "_ending"),
            Row("the loop's thread", "no other does", NATS_INTERRUPTED),
        ),
    },
    "nats/connection.py _Client": dict.fromkeys(
        ("_own_inbox", "_heard"), Row("the loop's thread", "no other does", NATS_INTERRUPTED)
    ),
    "nats/connection.py Unanswered": {},
    "nats/connection.py Denied": {},
    "blobs/later.py BlobsOf": {},
    "blobs/later.py BlobsLater": {
        "_home": Row(ANY, "BlobsLater._lock", "test_blobs_stand_beside_the_file"),
        "_is_closed": Row(ANY, ONCE, "test_blobs_stand_beside_the_file"),
        "_lock": Row("a fork", "a child has one thread", "test_a_fork_has_a_connection_of_its_own"),
    },
    "blobs/ipfs.py IpfsBlobs": {
        "_is_closed": Row(ANY, ONCE, "test_a_home_that_is_only_read_and_one_that_is_closed_say_so"),
    },
    "blobs/bucket_calls.py BucketCalls": {
        "_opened": Row("whoever opens or closes it, and a forked child", "BucketCalls._lock", BUCKET_CHILD),
        "_is_closed": Row(ANY, ONCE, "test_a_home_that_is_closed_says_so"),
        "_lock": Row("a fork", "a child has one thread", BUCKET_CHILD),
    },
    "blobs/files.py BlobFiles": {
        "_begins": Row(
            ANY,
            "a lock of flock, or a name that no other opening has: two threads may each take one",
            "test_threads_that_put_the_first_blobs_at_once_take_nothing_from_each_other",
        ),
        "_shards": Row(ANY, "one is added in one step, once it is on the disk", BLOB_THREADS),
        "_numbers": Row(ANY, "itertools.count gives each number once", BLOB_THREADS),
    },
    "blobs/directory.py BlobDirectory": {},
    "blobs/directory.py DirectoryBlobs": {
        "_is_closed": Row(ANY, ONCE, "test_a_directory_that_cannot_be_made_and_one_that_is_closed_say_so"),
    },
    "stores/served/client.py RemoteStore": {
        "_is_closed": Row(ANY, ONCE, TOLD_CLOSED),
        "_door": Row("a forked child", ONCE, SERVED_CHILD),
        "_pid": Row("a forked child", ONCE, SERVED_CHILD),
        "_line": Row("whoever opens it, and a forked child", IN_ONE_STEP, SERVED_CHILD),
        "_abandoned": Row("whoever opens or closes it, and a forked child", IN_ONE_STEP, SERVED_CHILD),
        "may": Row("whoever opens it", ONCE, READ_TOKEN),
        "capabilities": Row(
            "whoever opens it", ONCE, "test_a_client_knows_what_the_store_behind_the_connection_promises"
        ),
    },
    "stores/served/line.py Line": {
        "_inbox": Row(ANY, "a deque, of which each takes one in one step", SERVED_INTERRUPTED),
        "_alone": Row(ANY, "Line._turn; whoever has it next goes on from there", SERVED_INTERRUPTED),
        **dict.fromkeys(
            ("_calls", "_last_id", "_buffer", "_begun", "_sent_bytes", "_socket", "_is_plain"),
            Row(ANY, "Line._turn; an answered call is taken out in one step", SERVED_INTERRUPTED),
        ),
        "_due": Row(ANY, "a deque, of which each takes one in one step", SERVED_INTERRUPTED),
        "_is_asleep": Row("its thread", "said before it looks into the inbox, so who comes then is seen", BOTH_WAYS),
        "_is_closing": Row(ANY, ONCE, TOLD_CLOSED),
        "_is_abandoned": Row("the collector", ONCE, "test_a_client_that_nobody_has_any_more_goes_away"),
        "_is_over": Row("its thread", ONCE, "test_a_process_that_was_killed_before_anything_was_asked_is_named_too"),
        "_thread": Row(
            "whoever opens or closes it",
            "a thread that was not started is not joined",
            "test_an_interrupt_anywhere_while_a_served_store_is_closed_leaves_nothing_behind",
        ),
        **dict.fromkeys(
            (
                "failure", "greeting", "_reason", "_queue", "_lasting", "_parser", "_frames", "_goodbyes",
                "_is_refusing", "_said", "_is_begun",
                "_heard", "_moved", "_lost_at", "_look_at",
            ),
            Row("its thread", "no other does", BOTH_WAYS),
        ),
    },
    "stores/served/line.py WireCall": {
        "id": Row("whoever sends", "Line._turn", BOTH_WAYS),
        "is_sent": Row("whoever sends", "Line._turn", BOTH_WAYS),
        "asked": Row("whoever sends", "Line._turn", BOTH_WAYS),
        "is_done": Row("the line's thread", ONCE, BOTH_WAYS),
        "record": Row("the line's thread", "no other does, once it is in the inbox", BOTH_WAYS),
        "is_wanted": Row(ANY, ONCE, SERVED_INTERRUPTED),
    },
    "stores/served/doors.py Door": {},
    "stores/served/doors.py GivenDoor": {},
    "stores/served/doors.py UnixDoor": {},
    "stores/served/doors.py TcpDoor": {},
    "stores/served/doors.py ForeignDoor": {},
    "stores/served/processes.py SpawnedDoor": {
        "_process": Row(
            "the line's thread",
            "whoever closes joins the thread first",
            "test_an_interrupt_anywhere_while_a_process_is_spawned_leaves_none_behind",
        ),
    },
    "stores/served/wire.py FrameParser": dict.fromkeys(
        ("_rest", "_needed", "limit_bytes"), Row("whoever reads from the connection", "one does", BOTH_WAYS)
    ),
    "stores/served/server.py StoreServer": {
        "_is_to_stop": Row(ANY, ONCE, STOPPED),
        "_left": Row(
            "the loop's thread",
            "no other does",
            "test_an_agent_that_nobody_has_needed_for_a_while_ends_and_the_next_one_has_what_was_written",
        ),
        "arriving": LOOP,
        "_stop": Row("the loop's thread, and whoever stops it", ONCE, STOPPED),
        "loop": Row("the loop's thread, and whoever stops it", ONCE, STOPPED),
        **dict.fromkeys(
            ("_is_empty", "_is_of_one", "_is_leaving", "_ended_by", "_clients", "answering", "is_to_flush"), LOOP
        ),
    },
    "stores/served/answering.py Answering": {
        "_pending": Row(
            "the loop's thread, and the writer", "a deque, of which each takes one in one step", SERVED_TOGETHER
        ),
        "_come": Row("any thread, and the loop's", "a deque, of which each takes one in one step", SERVED_TOGETHER),
        "_is_come_told": Row("any thread, and the loop's", "taken back before anything is taken out", SERVED_TOGETHER),
        "_orders": Row(
            "the loop's thread, and one that waits", "a deque, of which each takes one in one step", SERVED_ORDER
        ),
        "_answer_all": Row("whoever makes it", ONCE, SERVED_TOGETHER),
        "_together": Row("whoever makes it", ONCE, SERVED_TOGETHER),
        "_is_giving": LOOP,
    },
    "stores/served/answering.py _Polling": {
        "_watching": LOOP,
        "_task": LOOP,
    },
    "stores/served/clients.py ServedClient": dict.fromkeys(
        (
            "_transport", "_is_half_closable", "_may", "name", "_backlog", "_is_continuing", "_last_id", "_in_flight",
            "_in_flight_bytes", "_waits", "_out", "_out_bytes", "_is_reading", "_is_stalled", "_is_at_end",
            "_is_closed", "due",
        ),
        LOOP,
    ),
    "stores/served/tally.py Tally": {
        **dict.fromkeys(
            ("latencies", "waited", "errors", "received_bytes", "sent_bytes", "connection_count", "dropped", "waits"),
            LOOP,
        ),
        "commit_count": Row("the one that gives writes to the store", "no other does", SERVED_TOGETHER),
        "committed_count": Row("the one that gives writes to the store", "no other does", SERVED_TOGETHER),
    },
    "stores/served/tally.py Latencies": dict.fromkeys(("counts", "count", "seconds"), LOOP),
    "threads/workers.py Workers": {
        "_threads": Row("the one that gives jobs", "no other does", SERVED_TOGETHER),
    },
    "threads/workers.py ThreadPool": dict.fromkeys(
        ("_threads", "_asleep", "_free", "_is_ending"),
        Row(ANY, "ThreadPool._lock", "test_no_more_activities_run_at_once_than_is_said"),
    ),
    "threads/later.py Later": {
        **dict.fromkeys(
            ("_lock", "_coming"),
            Row(
                "any thread, and a forked child",
                "made anew in the child",
                "test_a_child_of_a_fork_asks_again_in_a_thread_of_its_own",
            ),
        ),
        "_thread": Row(ANY, "Later._lock", "test_no_thread_outlives_a_closed_store"),
        "_is_closed": Row("whoever closes", ONCE, "test_closing_the_store_ends_the_waiting"),
    },
    "stores/file/store.py _Host": {
        "_lock": Row(
            "any thread, and a forked child",
            "taken back whatever comes, and made anew in the child",
            "test_a_child_whose_copy_of_a_file_store_may_be_half_of_something_is_refused",
        ),
        "_is_closed": Row(ANY, "_Host._lock, or a forked child with one thread", CLOSED_MEANWHILE),
        "_is_fork": Row("a forked child", ONCE, FORK_OF_WRITER),
    },
    "stores/file/store.py _Seldom": {
        "_due": Row(ANY, IN_ONE_STEP, "test_writes_that_are_not_synced_look_at_most_every_so_often"),
    },
    "stores/file/store.py FileReader": {
        "_engine": Row(
            "any thread, and a forked child",
            "FileReader._reading",
            "test_the_threads_of_a_reading_process_see_each_event_once_and_in_order",
        ),
        "_is_closed": Row(ANY, "_Host._lock", "test_a_reader_that_is_closed_while_others_read_says_so"),
        "_is_check_due": Row(
            ANY, ONCE, "test_a_reader_that_was_told_of_another_directory_is_told_again_and_what_to_do"
        ),
        "_reading": Row(
            "any thread, and a forked child",
            "made anew in the child",
            "test_a_reader_whose_copy_may_be_half_of_something_reads_all_anew",
        ),
    },
    "stores/file/store.py FileStore": {
        "_group": Row(
            "any thread, and a forked child",
            "made anew in the child",
            "test_a_fork_in_the_middle_of_another_threads_write_reads_and_is_refused_and_closes",
        ),
        "_compacting": Row("any thread, and a forked child", "made anew in the child", COMPACTING),
        "_is_half_copied": Row(
            "a forked child", ONCE, "test_a_child_whose_copy_of_a_file_store_may_be_half_of_something_is_refused"
        ),
        "_is_let_go": Row(
            ANY, ONCE, "test_after_an_interrupt_anywhere_in_closing_it_the_store_can_be_closed_again_and_then_opened"
        ),
        "_is_closing": Row(
            ANY, "_Host._lock", "test_a_wait_ends_as_soon_as_a_file_store_begins_to_close_whatever_it_has_to_do_yet"
        ),
        "_is_closed": Row(ANY, "_Host._lock", CLOSED_MEANWHILE),
        "_commits": Row(COMMITTER, "GroupCommit.turn", PROVED_WHEN_IDLE),
        "_commits_seen": Row(KEEPER, "no other does", PROVED_WHEN_IDLE),
        "_commits_proved": Row(KEEPER, "no other does", PROVED_WHEN_IDLE),
        "_closing": Row("any thread, and a forked child", "an event, made anew in the child", CLOSED_MEANWHILE),
        "_keeper": Row(
            "whoever opens or closes it",
            "a thread that was not started is not joined",
            "test_an_interrupt_anywhere_while_a_file_store_is_opened_leaves_nothing_behind",
        ),
        "_abandoned": Row(
            "whoever closes it, or the collector",
            "weakref.finalize runs once",
            "test_a_store_that_nobody_has_any_more_gives_up_its_lock_with_a_warning_like_that_of_an_unclosed_file",
        ),
    },
    "stores/group.py _Party": {
        "outcomes": Row("its own thread, and the leader", "GroupCommit.turn", ANY_LINE),
        "gate": Row("its own thread, and the leader", "the leader opens it; a thread looks by itself too", ANY_LINE),
    },
    "stores/group.py GroupCommit": {
        "_waiting": Row(ANY, "GroupCommit._lock", "test_one_sync_is_shared_by_all_that_wait"),
        "_has_leader": Row(
            ANY,
            "GroupCommit._lock; and it is not relied on",
            "test_threads_that_wait_with_an_interrupted_leader_learn_that_nothing_is_known",
        ),
        "turn": Row("whoever commits, compacts, backs up or closes", "a lock", COMPACTING),
        "_taken": Row(
            COMMITTER, TURN, "test_whoever_a_twice_interrupted_thread_committed_for_is_told"
        ),
    },
    "disk/real.py RealDisk": {
        "_permissions": Row(
            "whoever opens it", "set before others have it", PERMISSIONS
        ),
        "_may_change": Row("any thread, and a forked child", ONCE, "test_a_forked_child_changes_nothing"),
        "_is_closed": Row(ANY, "RealDisk._lock", "test_a_disk_that_is_closed_while_it_takes_a_lock_does_not_keep_it"),
        "_open_flags": Row("a forked child", ONCE, CHILD_READS),
        "_lock": Row("any thread, and a forked child", "made anew in the child", CHILD_READS),
        "_directories": Row(ANY, "a directory once held stays, by dict.setdefault", DISK_THREADS),
        "_files": Row(
            ANY, "RealDisk._lock to change it; to look takes one step", "test_two_threads_that_miss_a_file_open_it_once"
        ),
        "_identities": Row(
            ANY, "RealDisk._lock", "test_a_file_that_is_opened_again_is_the_one_that_was_opened_before"
        ),
        "_held_locks": Row(
            ANY, "RealDisk._lock", "test_a_disk_that_is_closed_while_it_takes_a_lock_does_not_keep_it"
        ),
    },
    "disk/files.py File": {
        "is_unsynced": Row(ANY, "set before a write, cleared before a sync", UNSYNCED),
        "_link": Row(ANY, "set to what was just found true", LOOKED_AT_ONCE),
    },
    "stores/file/engine.py Engine": {
        "index": Row("any thread", HOST_LOCK, COMPACTING),
        "queries": Row("any thread", HOST_LOCK, COMPACTING),
        "log": ENGINE,
    },
    "stores/file/segments.py SegmentLog": {
        "_manifest": ENGINE,
        "_writer": ENGINE,
        "_next_segment": ENGINE,
        "_poison": Row(COMMITTER, f"{ONCE}; {TURN}", INTERRUPTED_COMMIT),
        "_begun": Row(
            f"{COMMITTER}, and a forked child",
            TURN,
            "test_an_interrupt_while_another_one_is_noted_ends_the_writing_too",
        ),
    },
    "stores/file/writer.py Writer": {
        "offset": ENGINE,
        "synced": ENGINE,
        "filled": ENGINE,
        "digest": ENGINE,
        "poison": Row(COMMITTER, f"{ONCE}; {TURN}", INTERRUPTED_COMMIT),
    },
    "stores/file/index.py Index": dict.fromkeys(
        (
            "_streams", "_stream_names", "_stream_tables", "truncated", "truncated_names", "_spots", "_key_names",
            "_key_tables", "segments", "position", "revision", "generation", "shape", "is_changing",
        ),
        Row("any thread", HOST_LOCK, COMPACTING),
    ),
    "stores/file/kinds.py FrameKinds": dict.fromkeys(
        ("_count", "_numbers", "_of_frames"), Row("any thread", HOST_LOCK, COMPACTING)
    ),
    "stores/file/tables.py _Names": {},
    "stores/file/tables.py StreamTable": {},
    "stores/file/tables.py KeyTable": {},
    "stores/file/tables.py Tables": dict.fromkeys(
        ("_tables", "_gone", "_next", "_slices"), Row("any thread", HOST_LOCK, COMPACTING)
    ),
    "stores/file/places.py StreamIndex": dict.fromkeys(("frames", "last_seq", "last_position"), INDEX),
    "stores/file/places.py _Frames": dict.fromkeys(("firsts", "first_seq", "dropped", "dropped_position"), INDEX),
    "stores/file/index.py SegmentIndex": dict.fromkeys(
        (
            "length_bytes", "rank", "frames", "positions", "kinds", "first_position", "last_position",
            "streams", "keys", "drops", "states",
        ),
        Row("any thread", HOST_LOCK, COMPACTING),
    ),
    "stores/file/queries.py Queries": {"_reader": Row("any thread", HOST_LOCK, COMPACTING)},
    "stores/file/frames.py FrameReader": {
        "_chunk": Row("any thread", f"{IN_ONE_STEP}; who reads goes on with the one it has", COMPACTING),
        "_commit": Row("any thread", f"{IN_ONE_STEP}; who reads goes on with the one it has", COMPACTING),
    },
    "stores/file/values.py Values": {},
    "stores/file/values.py Recent": dict.fromkeys(
        ("_young", "_old", "_young_bytes"),
        Row(
            ANY,
            "what has a revision never changes; a count that is wrong is made anew",
            "test_threads_that_read_and_write_keys_see_each_commit_whole",
        ),
    ),
    "stores/file/beside_writer.py ReaderEngine": dict.fromkeys(
        ("index", "_queries", "_manifest", "_active", "_proved"),
        Row(
            "any thread",
            "FileReader._reading",
            "test_the_threads_of_a_reading_process_see_each_event_once_and_in_order",
        ),
    ),
    "stores/file/compaction.py Compaction": dict.fromkeys(
        ("_old", "_replaced", "_new", "_copies", "_files", "_states", "_writer"),
        Row("the thread that compacts", "FileStore._compacting", COMPACTING),
    ),
    "wrappers/retrying.py Retrying": {},
    "wrappers/retrying.py _AskingAgain": {},
    "wrappers/retrying.py _Watching": {},
    "wrappers/retrying.py _Refused": {
        "_refusals": Row("whoever was told of the last refusal", "one at a time", ASKED_AGAIN),
    },
    "wrappers/retrying.py _Asked": {
        "refused": Row("whoever was told of the first refusal", ONCE, ASKED_AGAIN),
    },
    "wrappers/retrying.py _Look": {
        "_has_ended": Row("whoever waits", ONCE, LOSS),
        "_end_inner": Row("whoever was told last", "whoever sets it looks whether it has ended meanwhile", LOSS),
    },
    "wrappers/encryption/ring.py _Kept": dict.fromkeys(
        ("newest", "by_id"), Row(ANY, "a dict, of which each sets and takes one in one step", KEYS_SHARED)
    ),
    "wrappers/encryption/ring.py KeyRing": {
        "_kept": Row(ANY, IN_ONE_STEP, KEYS_SHARED),
        "_changes": Row(ANY, "whoever sees another number than before lets go of all keys", KEYS_NOTICED),
        "_fresh_until": Row(ANY, IN_ONE_STEP, KEYS_NOTICED),
    },
    "wrappers/encryption/ring.py KeptKeys": {},
    "wrappers/encryption/submitting.py Submitting": {
        "_threads": Row(
            "whoever submits, and whoever closes",
            "two that come first may each make some; those of one end when they have nothing to do",
            "test_a_child_of_a_fork_looks_keys_up_by_threads_of_its_own",
        ),
        "_is_closed": Row("whoever closes", ONCE, "test_a_store_that_was_closed_says_so_to_what_waits_for_a_key"),
    },
}  # fmt: skip

FILES = sorted({name.split()[0] for name in TABLE})
# What an object is made by, and what only a forked child runs, which has one thread.
MAKES = {"__init__"}
ONE_THREAD = {"leave_to_parent", "_leave_to_parent", "_forget_half_copied"}
# Read and set within one call, by whoever made them; or a part of what the row of its owner tells of.
OWNED_BY_ONE = {
    "stores/memory.py _Heads", "stores/file/index.py SegmentGone", "stores/file/frames.py Chunk",
    "stores/file/frames.py StreamPart", "stores/file/frames.py LogPart", "disk/files.py Directory",
    "disk/files.py _Descriptor", "blobs/directory.py _Unfinished", "blobs/ipfs.py _Upload",
    "blobs/ipfs.py _NodeChunks", "blobs/ipfs.py _Refused",
    "blobs/directory.py _StoredChunks", "stores/postgres/courier.py _Link",
    "nats/connection.py _Asked",
}  # fmt: skip
# Tables that are filled where they are made.
FILLED_ONCE = {"handlers", "_arguments", "_known", "_read_from_segments", "_command", "_disk_rows"}
MUTABLE = (ast.Dict, ast.List, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


def classes() -> dict[str, ast.ClassDef]:
    return {
        f"{place} {node.name}": node
        for place in FILES
        for node in ast.parse((ROOM / place).read_text()).body
        if isinstance(node, ast.ClassDef)
    }


CLASSES = classes()


def changes_of(node: ast.ClassDef) -> tuple[set[str], set[str]]:
    """What a class sets at all, and what it may change after an object was made: set elsewhere, or made mutable."""
    every: set[str] = set()
    changing: set[str] = set()
    for method in node.body:
        if not isinstance(method, ast.FunctionDef):
            continue
        made = {
            id(target): statement.value
            for statement in ast.walk(method)
            if isinstance(statement, ast.Assign | ast.AnnAssign)
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
        }
        for found in ast.walk(method):
            if isinstance(found, ast.Attribute) and isinstance(found.ctx, ast.Store) and is_self(found.value):
                every.add(found.attr)
                value = made.get(id(found))
                if method.name not in MAKES or (isinstance(value, MUTABLE) and found.attr not in FILLED_ONCE):
                    changing.add(found.attr)
    return every, changing


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def set_from_outside() -> dict[str, set[str]]:
    """Attributes of other objects that these files set: `party.outcomes = …`, by name."""
    found: dict[str, set[str]] = {}
    for place in FILES:
        for node in ast.walk(ast.parse((ROOM / place).read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and not is_self(node.value):
                found.setdefault(node.attr, set()).add(f"{place}:{node.lineno}")
    return found


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_what_may_change_has_a_row_that_says_who_may_touch_it(name):
    every, changing = changes_of(CLASSES[name])
    if name in OWNED_BY_ONE or not every or is_record(CLASSES[name]):
        return
    assert name in TABLE, f"{name} has no rows: say who may touch {sorted(every)}"
    missing = sorted(changing - set(TABLE[name]))
    assert not missing, f"{name} changes {missing}: give a row to each"


def is_record(node: ast.ClassDef) -> bool:
    """A tuple or a frozen struct, which cannot change."""
    bases = {ast.unparse(base) for base in node.bases}
    is_frozen = any(keyword.arg == "frozen" for keyword in node.keywords)
    return bool(bases & {"NamedTuple", "Protocol"}) or ("msgspec.Struct" in bases and is_frozen)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_each_row_is_of_an_attribute_that_is_there(name):
    assert name in CLASSES, f"there is no class {name} any more"
    every, _ = changes_of(CLASSES[name])
    assert set(TABLE[name]) <= every, f"{name} does not set {sorted(set(TABLE[name]) - every)} any more"


def test_what_is_set_from_outside_of_its_class_has_a_row_too():
    rows = {attribute for rows in TABLE.values() for attribute in rows}
    owned = {attribute for name in OWNED_BY_ONE for attribute in changes_of(CLASSES[name])[0]}
    # Of the standard library's objects: a thread's own, a process, a finalizer, an error on its way.
    others = {"loops", "returncode", "atexit", "filename", "filename2"}
    found = set_from_outside()
    assert not {name: places for name, places in found.items() if name not in rows | owned | others}


def test_each_row_names_a_test_that_is_there():
    places = [*(ROOT / "tests").rglob("test_*.py"), *(ROOM / "conformance" / "facts").glob("*.py")]
    tests = {
        node.name
        for place in places
        for node in ast.walk(ast.parse(place.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    named = {row.test for rows in TABLE.values() for row in rows.values()}
    assert named <= tests, f"not there: {sorted(named - tests)}"


def test_the_locks_that_guard_are_there():
    for guard in ("MemoryStore._lock", "_Host._lock", "_Worker._lock", "GroupCommit._lock", "GroupCommit.turn",
                  "Line._turn", "RealDisk._lock", "FileReader._reading", "FileStore._compacting"):  # fmt: skip
        owner, attribute = guard.split(".")
        (name,) = [one for one in CLASSES if one.endswith(f" {owner}")]
        assert attribute in changes_of(CLASSES[name])[0]
