"""The file store: the whole conformance suite with reopening between steps, and what is its own."""

import shutil
import tempfile
from pathlib import Path

from interpreters import Store
from interpreters.conformance import Capabilities, StoreConformance
from interpreters.file.store import FileStore

SMALLEST_SEGMENT_BYTES = 4096
"""So that every run rolls over again and again."""


class _Temporary(FileStore):
    """A store that takes its directory away when it is closed for good."""

    is_kept = False

    def close(self) -> None:
        super().close()
        if not self.is_kept:
            shutil.rmtree(self.path)


class TestFileStore(StoreConformance):
    capabilities = Capabilities(reopen=True)

    def open_store(self) -> Store:
        return self._open(Path(tempfile.mkdtemp(prefix="persist-effects-")))

    def reopen(self, store: Store) -> Store:
        interpreter = store.interpreter
        assert isinstance(interpreter, _Temporary)
        interpreter.is_kept = True
        store.close()
        return self._open(interpreter.path)

    def _open(self, path: Path) -> Store:
        return Store(_Temporary(path, sync="os", segment_bytes=SMALLEST_SEGMENT_BYTES))
