"""Which modules exist on the node, and which are the caller's own files and have to travel.

The standard library and installed packages are imported there; `__main__` and every module whose file lies
outside of them (the script's neighbours, a checkout installed in place) are not, so their code goes by value.
"""

import functools
import site
import sys
import sysconfig
from pathlib import Path

from skyward.wire.bundle import NODE_PARTS

_OWN = "skyward"
_ON_NODE = frozenset(part.removesuffix(".py") for part in NODE_PARTS)


def by_value(name: str | None) -> bool:
    """Whether what module `name` defines must be pickled by value."""
    if name is None or name == "builtins":
        return False
    if name in ("__main__", "__mp_main__"):
        return True
    top = name.partition(".")[0]
    if top == _OWN or top in sys.stdlib_module_names:
        return False
    return _is_own_file(name)


def stays_here(name: str | None) -> bool:
    """Whether module `name` is a part of Skyward that nodes do not have: pools, sessions, the operator."""
    if name is None or not name.startswith(_OWN):
        return False
    top, _, rest = name.partition(".")
    return top == "skyward_operator" or (
        top == _OWN and bool(rest) and rest.partition(".")[0] not in _ON_NODE
    )


@functools.lru_cache(maxsize=4096)
def _is_own_file(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    if not isinstance(file, str):
        return False
    path = Path(file)
    if path.suffix not in (".py", ".pyc"):
        return False  # a compiled module cannot travel; let the import on the node say what is missing
    folder = path.resolve()
    return not any(folder.is_relative_to(root) for root in _installed())


@functools.cache
def _installed() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.update(site.getsitepackages() if hasattr(site, "getsitepackages") else [])
    folders.add(site.getusersitepackages())
    folders.update(entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages")))
    return tuple(Path(folder).resolve() for folder in folders)
