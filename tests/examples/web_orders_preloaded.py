"""`examples/web_orders.py` with a store that is open, and was used, before the workers are forked: for gunicorn."""

import os

from examples.web_orders import application
from interpreters import open_store
from persist_effects import kv

# In memory where pytest looks for doctests here.
store = open_store(os.environ.get("STORE", "memory:"))
store.run(kv.put("master", os.getpid()))
app = application(lambda: store)
