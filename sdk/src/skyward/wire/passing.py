"""The digest of a stream of outcomes while it passes in pieces cut anywhere: nobody has to read it again."""

import hashlib

from skyward.wire.digest import BytesLike
from skyward.wire.errors import PackageError
from skyward.wire.outcomes import StreamDigest, head_size, record_sizes


class PassingDigest:
    """Feed it every byte in order."""

    def __init__(self) -> None:
        self._stream = StreamDigest()
        self._head = bytearray()
        self._body = hashlib.sha256()
        self._in_body = False
        self._left = 0

    def feed(self, piece: BytesLike) -> None:
        """Some bytes passed. Raises PackageError where no outcome begins that should."""
        view = memoryview(piece).cast("B")
        while view.nbytes:
            wanted = self._left if self._in_body else head_size(self._head) - len(self._head)
            taken, view = view[:wanted], view[wanted:]
            if self._in_body:
                self._body.update(taken)
                self._left -= taken.nbytes
            else:
                self._head += taken
                if len(self._head) == head_size(self._head):
                    self._left, self._in_body = record_sizes(self._head)[1], True
            if self._in_body and not self._left:
                self._stream.add(bytes(self._head), self._body.hexdigest())
                self._head, self._body, self._in_body = bytearray(), hashlib.sha256(), False

    def hexdigest(self) -> str:
        """The digest of all that passed. Raises PackageError in the middle of an outcome."""
        if self._head:
            raise PackageError("the last outcome is cut off")
        return self._stream.hexdigest()
