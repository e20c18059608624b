"""What can be wrong with bytes.

WireError
├── FrameError          close the connection
├── PackageError        send it again
└── PickleError
    ├── NotPicklable        the caller changes what it passes
    └── NotDeserializable   the reader lacks a module or has another version of it
        └── Damaged             what is to be read is not what was written: send it again
"""


class WireError(Exception):
    """Bytes or objects that cannot travel."""


class FrameError(WireError, ValueError):
    """The byte stream is not a sequence of frames. Close the connection: nothing after it can be read."""


class PackageError(WireError, ValueError):
    """The bytes are not a package, or are damaged. Sending them again is the only remedy."""


class PickleError(WireError, TypeError):
    """An object cannot be turned into bytes, or back."""


class NotPicklable(PickleError):
    """An object, or the named part of it, cannot be pickled. Create that part inside the function instead."""


class NotDeserializable(PickleError):
    """A payload cannot be unpickled here; `missing` is the module that is not installed, if that is why."""

    def __init__(self, message: str, missing: str = "") -> None:
        super().__init__(message)
        self.missing = missing


class Damaged(NotDeserializable):
    """What stands apart of a payload was changed or removed where it lies. Sending it again is the remedy."""
