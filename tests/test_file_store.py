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
    goes_down = False

    def close(self) -> None:
        if self.goes_down:
            # As when the process is killed: the system closes the files, and nothing else is done.
            self._disk.close()
        else:
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
        self.before_closing(interpreter)
        interpreter.is_kept = True
        store.close()
        return self._open(interpreter.path)

    def before_closing(self, interpreter: _Temporary) -> None:
        """What a kind of reopening does first."""

    def _open(self, path: Path) -> Store:
        return Store(_Temporary(path, sync="os", segment_bytes=SMALLEST_SEGMENT_BYTES))


class TestCompactedFileStore(TestFileStore):
    """Each reopening comes after a compaction, so that what is read next comes from the copies."""

    def before_closing(self, interpreter: _Temporary) -> None:
        interpreter.compact()


class TestFileStoreThatGoesDown(TestFileStore):
    """Each reopening comes after a process that just ended, so that it is a recovery."""

    def before_closing(self, interpreter: _Temporary) -> None:
        interpreter.goes_down = True
