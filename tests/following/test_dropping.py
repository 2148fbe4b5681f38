"""What is left of an old version is deleted while events go on: nobody waits for a million keys."""

from follower_scenes import GROUP

from persist_effects import ReadModel, follow, log, start
from persist_effects.following.records import members_prefix
from persist_effects.requests import KvDelete, KvPut, Transact

MODEL = ReadModel("model")


def put_each(event, model):
    return [model.put(f"{event.stream}/{event.seq}", event.data)]


def requests_of(program, store):
    """All that a program asks, answered by the store."""
    asked, step = [], start(program)
    while hasattr(step, "request"):
        asked.append(step.request)
        step = step.resume(store.handlers[type(step.request)](step.request))
    return asked


def is_drop(request):
    return isinstance(request, Transact) and isinstance(request.writes[0], KvDelete)


def with_old_keys(store, **options):
    for number in range(1_000):
        store.run(log.append("s/1", "made", number))
    store.run(follow(MODEL, "s/", put_each, batch=100, **options))


def test_an_event_that_comes_while_old_keys_are_deleted_does_not_wait_for_the_last_of_them(store):
    with_old_keys(store)
    appended = []

    def asked_when_dropping():
        step = start(follow(MODEL, "s/", put_each, version=2, batch=100))
        while hasattr(step, "request"):
            request = step.request
            if is_drop(request) and not appended:
                appended.append(store.run(log.append("s/1", "made", "new")))
            yield request
            step = step.resume(store.handlers[type(request)](request))

    asked = list(asked_when_dropping())
    effect = next(
        place for place, request in enumerate(asked)
        if isinstance(request, Transact) and any(getattr(write, "value", None) == "new" for write in request.writes)
    )  # fmt: skip
    assert sum(map(is_drop, asked[:effect])) <= 2, "it waited for all keys to be deleted"


def test_a_member_gives_signs_of_life_while_old_keys_are_deleted(store):
    with_old_keys(store, group=GROUP, member="a")
    asked = requests_of(follow(MODEL, "s/", put_each, version=2, batch=100, group=GROUP, member="a"), store)
    drops = [place for place, request in enumerate(asked) if is_drop(request)]
    beats = [
        place for place, request in enumerate(asked)
        if isinstance(request, KvPut) and request.key.startswith(members_prefix("model"))
    ]  # fmt: skip
    # By the clock of this store no time passes; it is asked for at the least.
    looks = [place for place, request in enumerate(asked) if type(request).__name__ == "Now"]
    assert any(drops[0] < place < drops[-1] for place in beats + looks), "nothing tells the others that it lives"
