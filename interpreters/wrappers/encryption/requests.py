"""What programs ask of an encrypted store beside what they ask of any: to forget a subject, and what goes with that."""

from persist_effects.requests import BlobPut, BlobRef, Request


class DeleteKeys(Request[int], frozen=True, tag="encryption/delete-keys"):
    """Delete all keys of a subject. Answered with when that was done first, in microseconds since 1970, UTC."""

    subject: str


class RotateKey(Request[int], frozen=True, tag="encryption/rotate-key"):
    """Give a subject a key of the next generation. Answered with how many keys it has."""

    subject: str


class AdmitSubject(Request[int], frozen=True, tag="encryption/admit-subject"):
    """Let a forgotten subject be written about again, under a new key. Answered with how many keys it has."""

    subject: str


class HoldsSeveral(Request[bool], frozen=True, tag="encryption/holds-several"):
    """Whether a stream may hold events of several subjects, so that its states stand in the clear. None: any stream."""

    stream: str | None = None


class MayHold(Request[bool], frozen=True, tag="encryption/may-hold"):
    """Whether a stream may hold what is about a subject."""

    stream: str
    subject: str


class PutSubjectsBlob(Request[BlobRef], frozen=True, tag="encryption/put-blob"):
    """Store bytes about a subject as a blob, under its key."""

    subject: str
    data: bytes
    mime: str = "application/octet-stream"

    def __post_init__(self) -> None:
        # It is checked as one that is put without a subject.
        BlobPut(self.data, self.mime)
