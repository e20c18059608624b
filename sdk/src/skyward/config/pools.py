"""Tables as the objects that a program writes: `[pools.NAME]` as `Spec`s and `Options`.

The objects check themselves, as they do in a program; here an error learns the line that it stands in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

from skyward.config.files import Path_
from skyward.config.settings import Settings
from skyward.errors import ConfigurationError
from skyward.image import Image, PipIndex
from skyward.providers import BY_NAME, Provider
from skyward.spec import Accelerator, Budget, Nodes, Options, Spec, Volume, Worker
from skyward.validation import nearest

_CANDIDATES: Final = "specs"


@dataclass(frozen=True, slots=True)
class ConfiguredPool:
    """A pool as the files describe it."""

    specs: tuple[Spec, ...]
    options: Options
    origin: str


def pool_names(settings: Settings) -> list[str]:
    """The pools that are described."""
    return list(settings.tables.get("pools", {}))


def options(settings: Settings) -> Options:
    """What a pool has that is given none: `[options]` and the environment. Raises ConfigurationError."""
    return _Reader(settings).options({}, ("options",))


def pool(settings: Settings, name: str) -> ConfiguredPool | None:
    """`[pools.NAME]`, or None where no file has it. Raises ConfigurationError, with the line."""
    table = settings.tables.get("pools", {}).get(name)
    return None if table is None else _Reader(settings).pool(table, ("pools", name))


class _Reader:
    """Makes objects of tables."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._providers = settings.tables.get("providers", {})

    def pool(self, table: Any, path: Path_) -> ConfiguredPool:
        table = self._table(table, path)
        own = {name: value for name, value in table.items() if name in Options.__dataclass_fields__}
        rest = {name: value for name, value in table.items() if name not in own}
        candidates = rest.pop(_CANDIDATES, [{}])
        if not isinstance(candidates, list) or not candidates:
            self._fail(
                (*path, _CANDIDATES), f"must be a list of tables: write [[{'.'.join(map(str, path))}.specs]]"
            )
        specs = []
        for position, candidate in enumerate(candidates):
            place = (*path, _CANDIDATES, position) if _CANDIDATES in table else path
            own_fields = self._table(candidate, place)
            places = {name: (*path, name) for name in rest} | {name: (*place, name) for name in own_fields}
            specs.append(self._spec({**rest, **own_fields}, place, places))
        return ConfiguredPool(tuple(specs), self.options(own, path), self._settings.origin(path))

    def options(self, own: Mapping[str, Any], path: Path_) -> Options:
        """Those of a pool, over those of all pools, with the environment on top."""
        shared = self._table(self._settings.tables.get("options", {}), ("options",))
        fields = {**shared, **{name: own[name] for name in own if name not in self._settings.environment}}
        places: dict[str, Path_] = {
            name: (*path, name) if fields[name] is own.get(name) else ("options", name) for name in fields
        }
        if "worker" in fields:
            fields["worker"] = self._object(Worker, fields["worker"], places["worker"])
        if isinstance(fields.get("budget"), dict):
            fields["budget"] = self._object(Budget, fields["budget"], places["budget"])
        return self._made(Options, fields, path, places)

    def _spec(self, fields: dict[str, Any], path: Path_, places: Mapping[str, Path_]) -> Spec:
        if "provider" not in fields:
            self._fail(
                path, 'has no provider: write provider = "aws", or the name of a [providers.NAME] table'
            )
        made = dict(fields)
        made["provider"] = self._provider(fields["provider"], places["provider"])
        if "image" in fields:
            made["image"] = self._image(fields["image"], places["image"])
        if isinstance(fields.get("accelerator"), dict):
            made["accelerator"] = self._object(Accelerator, fields["accelerator"], places["accelerator"])
        if isinstance(fields.get("nodes"), dict):
            made["nodes"] = self._object(Nodes, fields["nodes"], places["nodes"])
        if isinstance(fields.get("nodes"), list):
            made["nodes"] = tuple(fields["nodes"])
        if isinstance(fields.get("volumes"), list):
            made["volumes"] = [
                self._object(Volume, each, (*places["volumes"], position))
                for position, each in enumerate(fields["volumes"])
            ]
        return self._made(Spec, made, path, places)

    def _provider(self, value: Any, path: Path_) -> Provider:
        if isinstance(value, str) and value in self._providers:
            path = ("providers", value)
            value = self._providers[value]
            if isinstance(value, dict):
                value = {"type": path[-1], **value}
        elif isinstance(value, str):
            value = {"type": value}
        fields = dict(self._table(value, path))
        kind = fields.pop("type", None)
        if kind not in BY_NAME:
            known = (*self._providers, *BY_NAME)
            hint = nearest(str(kind), known, cutoff=0.6)
            self._fail(path, f"there is no provider {kind!r}{hint}; there are: {', '.join(known)}")
        return self._made(BY_NAME[kind], fields, path, {})

    def _image(self, value: Any, path: Path_) -> Image:
        fields = dict(self._table(value, path))
        if isinstance(fields.get("pip_indexes"), list):
            fields["pip_indexes"] = [
                self._object(PipIndex, each, (*path, "pip_indexes", position))
                for position, each in enumerate(fields["pip_indexes"])
            ]
        return self._made(Image, fields, path, {})

    def _object[T](self, kind: Callable[..., T], value: Any, path: Path_) -> T:
        return self._made(kind, dict(self._table(value, path)), path, {})

    def _table(self, value: Any, path: Path_) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            self._fail(path, f"must be a table, not {value!r}")
        return cast("Mapping[str, Any]", value)

    def _made[T](
        self, kind: Callable[..., T], fields: Mapping[str, Any], path: Path_, places: Mapping[str, Path_]
    ) -> T:
        try:
            return kind(**fields)
        except (TypeError, ValueError) as error:
            named = next((name for name in fields if _names(str(error), name)), None)
            place = places.get(named, (*path, named)) if named is not None else path
            self._fail(place, str(error))

    def _fail(self, path: Path_, words: str) -> NoReturn:
        dotted = ".".join(str(part) for part in path)
        raise ConfigurationError(
            f"{self._settings.origin(path)}: {dotted}: {words}",
            remedy="correct it; docs/configuration.md lists all tables and keys",
        )


def _names(words: str, field: str) -> bool:
    """Whether an error is about a field: the messages begin with it, or have it in quotes."""
    return (
        words.startswith((field, f"{field}=")) or f"{field!r}" in words or f".{field}" in words.split(" ")[0]
    )
