"""Exceptions across machines: the object where it survives the journey, always the words.

`pickle` keeps an exception's type, arguments and notes, but neither its cause nor its traceback. The cause
chain is packed beside it here; the traceback travels as text, with the file names that the function's code
was pickled with (the caller's own), and without the worker's frames, which explain nothing to anybody.
An exception whose `__init__` does not take its own `args` (a common slip, and fatal to plain pickle) is
rebuilt without calling it.
"""

import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from skyward.wire.codec import dumps, loads
from skyward.wire.digest import BytesLike
from skyward.wire.envelopes import TEXT_LIMIT, ErrorInfo, FailureReason
from skyward.wire.errors import NotDeserializable, PickleError

_CHAIN_LIMIT = 16
_PACKAGE = Path(__file__).resolve().parent.parent
_HIDDEN = (str(_PACKAGE / "agent"), str(_PACKAGE / "wire"))


class Bare:
    """An exception in parts: what it is made of, for one that pickle cannot make again."""

    def __init__(self, error: BaseException) -> None:
        self.kind, self.args, self.state = type(error), error.args, dict(vars(error))

    def rebuild(self) -> BaseException:
        """The exception, without a call of its `__init__`."""
        error = self.kind.__new__(self.kind)
        error.args = self.args
        vars(error).update(self.state)
        return error


def dumps_error(
    error: BaseException,
    *,
    kind: Literal["User", "System"] = "User",
    reason: str = FailureReason.USER_EXCEPTION,
) -> tuple[bytes, ErrorInfo]:
    """The pickled exception (empty if it does not survive a round trip) and its description."""
    trim(error)
    info = ErrorInfo(
        type=type(error).__qualname__,
        module=type(error).__module__,
        message=_cut(_message(error)),
        traceback=_cut(format_error(error)),
        kind=kind,
        reason=reason,
    )
    return _round_trips(error), info


def loads_error(body: BytesLike) -> BaseException:
    """The exception with its causes. Raises `NotDeserializable` where it cannot be made here."""
    chain = loads(body)
    try:
        return _linked(chain)
    except Exception as error:  # a class of the user's own may do anything when it is made
        raise NotDeserializable(f"{type(error).__name__}: {error}") from error


def _linked(chain: dict[str, Any]) -> BaseException:
    chain["errors"] = [each.rebuild() if isinstance(each, Bare) else each for each in chain["errors"]]
    for link, (cause, context, suppress) in zip(chain["errors"], chain["links"], strict=True):
        if cause is not None:
            link.__cause__ = chain["errors"][cause]
        if context is not None:
            link.__context__ = chain["errors"][context]
        link.__suppress_context__ = suppress
    first = chain["errors"][0]
    assert isinstance(first, BaseException)  # noqa: S101
    return first


def format_error(error: BaseException) -> str:
    """The traceback as Python prints it, with causes and notes."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception as problem:  # a __str__ or __notes__ of the user's own may fail
        return f"{type(error).__qualname__} (its traceback cannot be shown: {type(problem).__name__})\n"


def trim(error: BaseException) -> None:
    """Drop the worker's own frames from the top of the traceback, and of its causes."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        link = pending.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = _without_ours(link.__traceback__)
        pending += (link.__cause__, link.__context__)


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """The frames from the first to the last that is not ours (ours come last where a call is interrupted)."""
    while trace is not None and _is_ours(trace):
        trace = trace.tb_next
    last, link = trace, trace
    while link is not None:
        if not _is_ours(link):
            last = link
        link = link.tb_next
    if last is not None:
        last.tb_next = None
    return trace


def _is_ours(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.startswith(_HIDDEN)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def _round_trips(error: BaseException) -> bytes:
    errors, links = _chain(error)
    first = _travels(error)
    if first is None:
        return b""
    try:
        return dumps({"errors": [first, *map(_stand_in, errors[1:])], "links": links})
    except PickleError:
        return b""


def _travels(error: BaseException) -> BaseException | Bare | None:
    """The exception or its parts, whichever comes out of a pickle as it was; None for neither."""
    return next((form for form in (error, Bare(error)) if _comes_out_as(error, form)), None)


def _comes_out_as(error: BaseException, form: BaseException | Bare) -> bool:
    try:
        copy = loads(dumps(form))
        copy = copy.rebuild() if isinstance(copy, Bare) else copy
    except Exception:  # an __init__ or __reduce__ of the user's own may do anything
        return False
    return type(copy).__qualname__ == type(error).__qualname__ and _message(copy) == _message(error)


def _chain(error: BaseException) -> tuple[list[BaseException], list[tuple[Any, ...]]]:
    """The exception, its causes and contexts, each once, and who refers to whom by position."""
    errors: list[BaseException] = [error]
    for link in errors:
        for other in (link.__cause__, link.__context__):
            known = any(other is one for one in errors)
            if other is not None and not known and len(errors) < _CHAIN_LIMIT:
                errors.append(other)
    place = {id(link): position for position, link in enumerate(errors)}
    links = [
        (place.get(id(link.__cause__)), place.get(id(link.__context__)), link.__suppress_context__)
        for link in errors
    ]
    return errors, links


def _stand_in(error: BaseException) -> BaseException | Bare:
    """A cause that cannot be pickled must not cost the exception itself its type."""
    return _travels(error) or RuntimeError(f"{type(error).__qualname__}: {_message(error)}")


def _cut(text: str) -> str:
    if len(text) <= TEXT_LIMIT:
        return text.encode("utf-8", "backslashreplace").decode()
    half = TEXT_LIMIT // 2
    kept = f"{text[:half]}\n… {len(text) - TEXT_LIMIT} characters left out …\n{text[-half:]}"
    return kept.encode("utf-8", "backslashreplace").decode()
