"""The caller's own modules, carried by value.

A function that says `import settings` and uses `settings.rate` needs the module `settings` on a node that has
no such file. The module travels as its globals. Those that cannot be pickled (locks, open files, loggers'
handlers) stay behind, and touching one on the node says so, instead of failing every function of the module.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

_MACHINERY = {"__builtins__", "__loader__", "__spec__", "__cached__"}


class ModuleStates:
    """What of each module travels; computed once, and safe for modules that import each other."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, module: ModuleType, can_pickle: Callable[[Any], bool]) -> dict[str, Any]:
        """The globals of `module` that travel, and under `""` the names of those that do not."""
        name = module.__name__
        if name not in self._known:
            self._known[name] = {}  # a module that is being looked at counts as one that can travel
            candidates = {key: value for key, value in vars(module).items() if key not in _MACHINERY}
            state = {key: value for key, value in candidates.items() if can_pickle(value)}
            state[""] = sorted(candidates.keys() - state.keys())
            self._known[name] = state
        return self._known[name]


def reduce_module(module: ModuleType, state: dict[str, Any]) -> tuple[Any, ...]:
    """How pickle takes the module apart: an empty one first, so that its functions may refer to it."""
    return ModuleType, (module.__name__,), state, None, None, fill_module


def fill_module(module: ModuleType, state: dict[str, Any]) -> None:
    """Put the globals into the module on the node."""
    left = frozenset(state.pop("", ()))

    def missing(name: str) -> Any:
        if name in left:
            raise AttributeError(
                f"{module.__name__}.{name} stayed behind because it cannot be pickled; "
                "create it inside the function"
            )
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    vars(module).update(state)
    if "__getattr__" not in state:
        vars(module)["__getattr__"] = missing
