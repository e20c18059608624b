"""What a name on the command line means: a task, a node, also one that is gone, or a pool.

`train` is looked for among all of them, `task/train` among tasks only. A name that means several is no guess
of ours: who wrote it says which.
"""

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from skyward.contract.names import KINDS, NODE, POOL, TASK, Kind, is_node_of

if TYPE_CHECKING:
    from skyward.cluster.api import Api

_SHORT = {TASK: "task", NODE: "node", POOL: "pool"}
_WORDS = {
    word: kind
    for kind, short in _SHORT.items()
    for word in (short, f"{short}s", kind.singular, kind.plural, kind.short)
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
NOT_FOUND = 1
WRONG = 2


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose output is wanted, and by whose ticket it may be read."""

    kind: Kind
    name: str
    namespace: str
    owner: tuple[Kind, dict[str, Any]]
    obj: dict[str, Any]
    """As the API server has it; empty for a node that is gone."""

    @property
    def path(self) -> str:
        """Where the gateway has its output."""
        return f"/v1/namespaces/{self.namespace}/{_SHORT[self.kind]}s/{self.name}/logs"

    @property
    def rest(self) -> str:
        """What its status says, for when its output cannot be had."""
        status = self.obj.get("status") or {}
        problem, bootstrap = status.get("error") or {}, status.get("bootstrap") or {}
        parts = (
            status.get("phase"),
            status.get("message"),
            problem.get("traceback") or problem.get("message"),
            bootstrap.get("log") or bootstrap.get("lastLine"),
        )
        return "\n".join(str(part) for part in parts if part) or "nothing yet"


def find(api: "Api", namespace: str, written: str) -> Subject:
    """The one thing that is meant; ends the command with what to do where there is none, or more than one."""
    word, slash, name = written.rpartition("/")
    if slash and word.lower() not in _WORDS:
        raise _refused(
            WRONG, f"{word!r} is no kind: task, node and pool are", f"write for example task/{name}"
        )
    if not _NAME.fullmatch(name):
        raise _refused(
            WRONG, f"{name!r} can be no name of a task, node or pool", "`skyward tasks` lists names of tasks"
        )
    kinds = (_WORDS[word.lower()],) if slash else (TASK, NODE, POOL)
    found = [(kind, obj) for kind in kinds if (obj := api.get(kind, namespace, name)) is not None]
    if len(found) > 1:
        forms = [f"{_SHORT[kind]}/{name}" for kind, _ in found]
        what = " and ".join(f"a {_SHORT[kind]}" for kind, _ in found)
        raise _refused(
            WRONG, f"{name} is {what} in namespace {namespace}", f"say which: {' or '.join(forms)}"
        )
    if found:
        kind, obj = found[0]
        return Subject(kind, name, namespace, _owner(api, namespace, kind, obj), obj)
    if NODE in kinds and (pool := _made_for(api, namespace, name)) is not None:
        return Subject(NODE, name, namespace, (POOL, pool), {})
    what = "no " + ", no ".join(_SHORT[kind] for kind in kinds)
    lists = " and ".join(f"`skyward {_SHORT[kind]}s`" for kind in kinds)
    remedy = f"{lists} list what there is"
    if TASK in kinds:
        remedy += (
            ". A task that has ended is deleted with its result and output when its ttl is over: "
            "600 s unless sky.Options(result_ttl=...) says another time"
        )
    raise _refused(NOT_FOUND, f"there is {what} {name} in namespace {namespace}", remedy)


def names(api: "Api", namespace: str, begin: str) -> list[str]:
    """What may be meant by a name that begins so, for a shell to complete."""
    word, slash, _ = begin.rpartition("/")
    if slash and word.lower() not in _WORDS:
        return []
    kinds = (_WORDS[word.lower()],) if slash else KINDS
    written = [
        f"{word}{slash}{obj['metadata']['name']}" for kind in kinds for obj in api.list(kind, namespace)[0]
    ]
    return sorted({name for name in written if name.startswith(begin)})


def _owner(api: "Api", namespace: str, kind: Kind, obj: dict[str, Any]) -> tuple[Kind, dict[str, Any]]:
    """Whose ticket opens it: of a node, its pool's."""
    if kind is not NODE:
        return kind, obj
    pool = api.get(POOL, namespace, obj["spec"]["poolRef"]["name"])
    return (POOL, pool) if pool is not None else (NODE, obj)


def _made_for(api: "Api", namespace: str, name: str) -> dict[str, Any] | None:
    """The pool that a node was made for which is gone; its log stays for as long as the pool."""
    for pool in api.list(POOL, namespace)[0]:
        metadata = pool["metadata"]
        if is_node_of(name, metadata["name"], metadata["uid"]):
            return pool
    return None


def _refused(status: int, problem: str, remedy: str) -> typer.Exit:
    print(f"error: {problem}\n  → {remedy}", file=sys.stderr)
    return typer.Exit(status)
