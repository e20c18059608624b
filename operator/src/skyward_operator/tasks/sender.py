"""Calls as frames: builds the header of a CALL and puts it on the node's link."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final

from skyward_operator.tasks.room import peers_of

if TYPE_CHECKING:
    from skyward.wire.frames import Frame
    from skyward_operator.nodes.fleet import Fleet
    from skyward_operator.tasks.flights import Attempt
    from skyward_operator.tasks.ledger import LiveTask
    from skyward_operator.tasks.payload import CallPayload, Payloads
    from skyward_operator.tasks.room import Room

_FIRST_PORT: Final = 29500
_PORTS: Final = 2000


class Sender:
    """Sends calls to nodes. It never waits: the link reads large bytes when it has room for them."""

    def __init__(self, fleet: Fleet, payloads: Payloads) -> None:
        self._fleet = fleet
        self._payloads = payloads

    def send(self, room: Room, live: LiveTask, attempt: Attempt) -> bool:
        """Send an attempt; False when its node has no link now. Raises PayloadInvalid."""
        link = self._fleet.link(room.namespace, attempt.node)
        known = room.nodes.get(attempt.node)
        if link is None or known is None:
            return False
        attempt.recalled = False
        if live.open is not None:
            payload = live.open.payload(attempt.index)
        else:
            payload = self._payloads.slice(live.work, attempt.index, attempt.count)
        run_seconds = self._payloads.terms(live, attempt.index).run_seconds
        header = _header(room, live, attempt, payload, run_seconds)
        arguments = payload.arguments
        if live.open is not None:
            call = live.open.calls[attempt.index]
            header |= call.traits()
            if call.digest is not None:
                link.send_blob(call.digest, [call.arguments], len(call.arguments))
                header["args"], arguments = call.digest, None
        if (
            payload.function is not None
            and payload.digest is not None
            and payload.digest not in known.functions
        ):
            link.ensure_function(payload.digest, bytes(payload.function))
            known.functions.add(payload.digest)
        for part in payload.parts:
            link.send_blob(part.digest, part.pieces(), part.size)
        link.send_call(header, None if arguments is None else bytes(arguments))
        return True

    def cancel(self, live: LiveTask, attempt: Attempt) -> None:
        """Ask for the end of an attempt."""
        link = self._fleet.link(live.work.namespace, attempt.node)
        if link is not None:
            link.cancel(attempt.id, live.work.grace_seconds)

    def limit(self, live: LiveTask, attempt: Attempt) -> None:
        """Say how long an attempt may run by now. Without a link it is said when there is one."""
        link = self._fleet.link(live.work.namespace, attempt.node)
        if link is not None:
            seconds = self._payloads.terms(live, attempt.index).run_seconds
            link.limit(attempt.id, float(seconds) if seconds else None)

    def pass_on(self, live: LiveTask, attempt: Attempt, frame: Frame) -> None:
        """Send a frame of a stream. Without a link it is lost, and said again when there is one."""
        link = self._fleet.link(live.work.namespace, attempt.node)
        if link is not None:
            link.pass_on(frame)

    def recall(self, live: LiveTask, attempt: Attempt) -> None:
        """Ask for those calls of an attempt that have not begun."""
        link = self._fleet.link(live.work.namespace, attempt.node)
        if link is not None:
            link.recall(attempt.id)

    def cancel_stray(self, namespace: str, node: str, attempt: str) -> None:
        """End an attempt that nobody waits for any more."""
        link = self._fleet.link(namespace, node)
        if link is not None:
            link.cancel(attempt, 0.0)

    def acknowledge(self, namespace: str, node: str, attempts: list[str]) -> None:
        """Let the agent forget results. Without a link they come again and are acknowledged then."""
        link = self._fleet.link(namespace, node)
        if link is not None:
            link.ack(attempts)


def _header(
    room: Room, live: LiveTask, attempt: Attempt, payload: CallPayload, run_seconds: int | None
) -> dict[str, Any]:
    work = live.work
    header: dict[str, Any] = {
        "attempt": attempt.id,
        "task": f"{work.namespace}/{work.name}",
        "index": attempt.index,
        "number": attempt.number,
        "function": payload.digest,
        "context": _context(room, live, attempt),
        "timeout": float(run_seconds) if run_seconds else None,
        "grace": float(work.grace_seconds),
    }
    if payload.parts:
        header["blobs"] = [part.digest for part in payload.parts]
    if payload.entry is not None:
        header["entry"] = payload.entry
    if attempt.count > 1:
        header["sizes"] = payload.sizes
    return header


def _context(room: Room, live: LiveTask, attempt: Attempt) -> dict[str, Any]:
    """The call's place among the nodes, frozen now. In a broadcast it is the place in the frozen set, which
    a retry keeps even on another node."""
    if live.members:
        place, peers = attempt.index, peers_of([member.address for member in live.members])
        port = _FIRST_PORT + zlib.crc32(live.work.uid.encode()) % _PORTS
    else:
        places, peers = room.layout()
        place, port = places.get(attempt.node, 0), _FIRST_PORT
    return {
        "node": place,
        "total_nodes": len(peers),
        "rank": attempt.rank,
        "workers_per_node": room.nodes[attempt.node].node.slots,
        "pool": room.name,
        "namespace": room.namespace,
        "id": attempt.node,
        "peers": peers,
        "head_addr": peers[0]["private_ip"] if peers else "",
        "head_port": port,
        "job_id": live.work.uid,
    }
