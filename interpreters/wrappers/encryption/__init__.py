"""Values encrypted under a key for each subject, so that a subject can be forgotten in a log that only grows.

To do: doc
"""

from interpreters.wrappers.encryption.interpreter import Encrypted
from interpreters.wrappers.encryption.opening import open_encrypted
from interpreters.wrappers.encryption.programs import Forgotten, admit, forget, put_blob, rewrap_keys, rotate_key

__all__ = ["Encrypted", "Forgotten", "admit", "forget", "open_encrypted", "put_blob", "rewrap_keys", "rotate_key"]
