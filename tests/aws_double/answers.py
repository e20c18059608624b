"""Answers as AWS writes them: XML for EC2, JSON for the others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.aws_double.asked import Asked

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes
    kind: str = "text/xml;charset=UTF-8"


class Refused(Exception):
    """An error of AWS."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


def refusal(asked: Asked, error: Refused) -> Answer:
    """An error in the form of its service."""
    if asked.service == "ec2":
        inside = element("Code", error.code) + element("Message", str(error))
        body = f"<Response><Errors><Error>{inside}</Error></Errors><RequestID>double</RequestID></Response>"
        return Answer(error.status, body.encode())
    return document({"__type": error.code, "message": str(error)}, error.status)


def document(content: Mapping[str, Any], status: int = 200) -> Answer:
    """A JSON answer."""
    return Answer(status, json.dumps(content).encode(), "application/x-amz-json-1.1")


def answer(action: str, inside: str) -> Answer:
    """An answer of EC2."""
    return Answer(200, f'<{action}Response xmlns="{NAMESPACE}">{inside}</{action}Response>'.encode())


def element(name: str, text: str) -> str:
    """One element."""
    return f"<{name}>{escape(text)}</{name}>"


def listed(name: str, entries: Iterable[Mapping[str, str]]) -> str:
    """A list of flat entries."""
    items = "".join(
        f"<item>{''.join(element(key, value) for key, value in entry.items())}</item>" for entry in entries
    )
    return f"<{name}>{items}</{name}>"
