"""Values encrypted under a key for each subject, so that a subject can be forgotten in a log that only grows.

An append-only log cannot erase, and its backups still less. So what is about a subject, such as a customer, lies there
encrypted under a key of the subject's own, and the keys lie in another store. `forget` deletes the key, and what was
written under it is unreadable in the log, in its backups and in every copy. What was chosen, and why:

**Who the subject is** says a pure function of the name of the stream or key, given when the store is opened. For one
event of a stream that is about nobody, because several share it, another one says so, of its name and the draft. None:
the value stands in the clear. Names, types, times and numbers always do, so that whatever looks for them works as
before. A blob has no name, so `put_blob` names its subject, and the reference is that of the ciphertext.

**What is stored** is an envelope (`envelope.py`), which says under which key it is, so that reading needs no subject.
It is bound to its stream, type and part, or to its key, and not to its number nor to the store: a store that was
migrated, imported or restored reads on. A value that looks like an envelope is refused when it is written.

**Keys** lie in any other store of ours (`keys.py`), perhaps wrapped under a master key. In the same store they would
lie in each of its backups, which is refused. A subject's name is not in there, only its hash.

**In memory** keys are kept for as long as nothing was forgotten (`ring.py`). This process lets go of them at once,
others within a second: time is bounded without a thread that watches, and on every store. What another process writes
about the subject in that second is erased already.

**What was erased** is read as `Erased`, of events and of keys' values alike. A key whose value was erased is still
there, with its revision, because what others expect of it would otherwise conflict. A state that a fold has kept is
about the subject of its stream; erased, it is as one that no longer decodes, and is made anew of what is left.

**New events of a forgotten subject** are refused, with `SubjectForgotten`, until somebody says `admit`: a program that
still writes about a customer who was forgotten is more often a mistake than his return.

**A key that is lost** is `KeyLost`, a damage, and not `Erased`: only what says when it was forgotten counts as erased.
"""

from interpreters.wrappers.encryption.interpreter import Encrypted
from interpreters.wrappers.encryption.opening import open_encrypted
from interpreters.wrappers.encryption.programs import Forgotten, admit, forget, put_blob, rewrap_keys, rotate_key

__all__ = ["Encrypted", "Forgotten", "admit", "forget", "open_encrypted", "put_blob", "rewrap_keys", "rotate_key"]
