"""A process that fills a read model in tables: `python sql_model_child.py PATH VERSION` says each event it handles."""

import sys
from typing import Any

from interpreters import open_store
from persist_effects import SqlModel, follow


def main() -> None:
    path, version = sys.argv[1], int(sys.argv[2])
    model = SqlModel("orders", {"orders": "CREATE TABLE {orders} (id TEXT PRIMARY KEY, made BIGINT)"})
    add = "INSERT INTO {orders} VALUES (:id, 1) ON CONFLICT (id) DO UPDATE SET made = {orders}.made + 1"

    def count(event: Any, model: Any) -> Any:
        print(event.position, flush=True)
        return [model.sql(add, {"id": event.stream})]

    with open_store("sqlite:", path=path) as store:
        store.run(follow(model, "orders/", count, version=version, batch=2))
        # Once more, so that what was left of the version before is dropped.
        store.run(follow(model, "orders/", count, version=version))
    print("done", flush=True)


if __name__ == "__main__":
    main()
