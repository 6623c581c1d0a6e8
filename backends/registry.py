"""Components by name: built-in and installed ones alike register in an entry-point group, looked up lazily.

A package adds a component of a kind, for example a device, with

    [project.entry-points."hxtrain.backends"]
    mychip = "my_package:MyBackend"

`BACKENDS` in this module are the devices, whose target is a callable that returns a `Backend` for keyword settings.
Every other kind has its registry beside the base class of its components.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from .backend import Backend

SOURCE = Path(__file__).parents[1]
"""Root of a clone that is used without installation."""

Component = TypeVar("Component")


class UnknownComponentError(ValueError):
    """No component of that name is registered, or it cannot be imported; the text lists the known names."""


class UnknownBackendError(UnknownComponentError):
    """No device of that name is registered, or it does not know a setting."""


def installed(group: str) -> Sequence[EntryPoint]:
    """Return the entry points of a group; all packages are read once, and again when a place of packages changes."""
    return _installed(tuple((place, _change(place)) for place in sys.path)).get(group, ())


@lru_cache(maxsize=1)
def _installed(places: tuple[tuple[str, int], ...]) -> Mapping[str, Sequence[EntryPoint]]:
    """Return the entry points of every group, of packages in places with the times of their last changes."""
    points = entry_points()
    return {group: tuple(points.select(group=group)) for group in points.groups}


def _change(place: str) -> int:
    """Return the time of a folder's last change (ns); 0 if there is none."""
    try:
        return os.stat(place or os.curdir).st_mtime_ns
    except OSError:
        return 0


class Registry(Mapping[str, Component]):
    """Components of one kind: those of the entry-point group `hxtrain.<kind>`, and those added in this process.

    Names are listed without an import. A component is imported when it is first loaded. As a mapping, a registry holds
    the registered names with their components; `load` also takes the other names of a component.

    Args:
        kind: Kind of the components, plural: `encoders`.
        key: Name of the setting that chooses one, for error texts: `encoder`.
        base: Class of which every component is a subclass; None for components that are functions.
        error: Class of the errors.
    """

    def __init__(
        self,
        kind: str,
        key: str,
        base: type | None = None,
        error: type[UnknownComponentError] = UnknownComponentError,
    ) -> None:
        self.kind = kind
        self.key = key
        self.base = base
        self.error = error
        self._added: dict[str, Component] = {}
        self._loaded: dict[str, Component] = {}

    @property
    def group(self) -> str:
        """Entry-point group."""
        return f"hxtrain.{self.kind}"

    def points(self) -> dict[str, EntryPoint]:
        """Return the installed components by name; nothing is imported."""
        return {point.name: point for point in sorted(installed(self.group))}

    def names(self) -> list[str]:
        """Return the names of all components, sorted; nothing is imported."""
        return sorted({*self.points(), *self._added})

    def __getitem__(self, name: str) -> Component:
        if name not in self:
            raise KeyError(name)
        return self.load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._added or name in self.points())

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        """Describe the registry in a line."""
        return f"Registry({self.kind}: {', '.join(self.names())})"

    def add(self, name: str, component: Component) -> Component:
        """Add a component of this process, which no package provides.

        Raises:
            ValueError: Another component has the name, or the component is of another kind.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{self.key}: {name!r} is no name of a component; give an identifier, such as 'mine'")
        if name in self.points() or not _is_same(self._added.get(name, component), component):
            raise ValueError(f"{self.key}={name} is registered already; choose another name")
        self._added[name] = self._checked(name, component)
        self._loaded[name] = component
        return component

    def load(self, name: str) -> Component:
        """Return the component of a name, or of another name of it, see `canonical`.

        Raises:
            UnknownComponentError: The name is unknown, or the component cannot be imported.
        """
        if isinstance(name, str) and name in self._loaded:
            return self._loaded[name]
        registered = self.canonical(name)
        if registered not in self._loaded:
            self._loaded[registered] = self._import(self._point(registered))
        return self._loaded[registered]

    def canonical(self, name: str) -> str:
        """Return the registered name of a component.

        Args:
            name: Registered name; or name of the class, as in files of old versions; or path `module:Class` of a
                component that was added, or resolved, in this process.

        Raises:
            UnknownComponentError: Nothing of that name is registered.
        """
        if name in self:
            return name
        aliases = {path_of(component).rpartition(":")[2]: added for added, component in self._added.items()}
        for registered, point in self.points().items():
            aliases |= {point.attr: registered, point.value: registered}
        aliases |= {path_of(component): added for added, component in self._added.items()}
        if isinstance(name, str) and name in aliases:
            return aliases[name]
        if isinstance(name, str) and name in self._loaded:
            return name
        raise self.error(self._unknown(name))

    def resolve(self, name: str, modules: Collection[str] | None = None) -> Component:
        """Return the component of a name, or of a class or function in a module: `my_module:MyClass`.

        A module is searched as `import` does, and in the current folder. It serves settings that a user types; for a
        name from a file, `modules` says which modules the user trusts. From then on, `load` knows the path as well.

        Args:
            name: Registered name, or path `module:Class`.
            modules: Names of the modules that may be imported; None: all.

        Raises:
            UnknownComponentError: The name is unknown, or the component cannot be imported.
        """
        if not isinstance(name, str) or ":" not in name:
            return self.load(name)
        if modules is not None and name.partition(":")[0] not in modules:
            return self.load(name)
        if name not in self._loaded:
            with current_folder():
                component = self._import(EntryPoint(name, name, self.group))
            self._loaded |= {name: component, path_of(component): component}
        return self._loaded[name]

    def reachable(self) -> list[str]:
        """Return the names that `load` takes: all names, and the paths that were resolved in this process."""
        return [*self.names(), *(name for name in self._loaded if ":" in name)]

    def name_of(self, component: object) -> str:
        """Return the registered name of a component (a class or a function), or else its path `module:Class`."""
        for name, added in self._added.items():
            if added is component:
                return name
        path = path_of(component)
        for point in self.points().values():
            if point.value == path or self._loaded.get(point.name) is component:
                return point.name
            package, _, attribute = point.value.partition(":")
            is_in_package = path.startswith(f"{package}.") and path.endswith(f":{attribute}")
            if is_in_package and self.load(point.name) is component:  # the entry point names it in its package
                return point.name
        return path

    def _point(self, name: str) -> EntryPoint:
        """Return the entry point of a name.

        Raises:
            UnknownComponentError: Two packages provide different components of this name.
        """
        points = {point.value: point for point in installed(self.group) if point.name == name}
        if len(points) > 1:
            packages = " and ".join(
                f"{'a package' if point.dist is None else point.dist.name} ({point.value})" for point in points.values()
            )
            raise self.error(f"{self.key}={name!r} is provided twice, by {packages}; remove one of these packages")
        return next(iter(points.values()))

    def _import(self, point: EntryPoint) -> Component:
        package = "" if point.dist is None else f" of the package {point.dist.name}"
        try:
            component: Any = import_module(point.module)
            for attribute in point.attr.split("."):
                component = getattr(component, attribute)
        except Exception as error:  # a package of another author may raise anything
            remedy = (
                "Start the command in the folder of the module, or install it"
                if point.dist is None
                else "Install that package again, with its modules in it"
            )
            raise self.error(
                f"{self.key}={point.name!r} cannot be imported: its entry point {point.value!r}{package} fails with "
                f"{type(error).__name__}: {error}. {remedy}"
            ) from error
        checked: Component = self._checked(point.name, component)
        return checked

    def _checked(self, name: str, component: Any) -> Any:
        """Return a component after a check of its kind."""
        is_kind = callable(component) if self.base is None else isinstance(component, type)
        if not is_kind or (self.base is not None and not issubclass(component, self.base)):
            expected = "a function" if self.base is None else f"a subclass of {self.base.__name__}"
            raise self.error(f"{self.key}={name!r} is {component!r:.80}, expected {expected}")
        if inspect.isabstract(component):
            missing = ", ".join(sorted(component.__abstractmethods__))
            raise self.error(f"{self.key}={name!r} is abstract; {component.__name__} lacks {missing}")
        return component

    def _unknown(self, name: object) -> str:
        names = self.names()
        if not names:
            return (
                f"{self.key}={name!r} is not registered, nor is any other: hxtrain is imported from {SOURCE}, but not "
                f"installed; run: pip install {SOURCE}"
            )
        if isinstance(name, str) and ":" in name:
            return (
                f"{self.key}={name!r:.80} is not registered, and no file chooses a module to import; type it in the "
                f"command, name it in modules=[{name.partition(':')[0]:.80}], or in Python add it to the registry of "
                f"{self.kind}"
            )
        nearest = get_close_matches(str(name)[:80], names, 1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        return (
            f"{self.key}={name!r:.80} is not registered; known: {', '.join(names)}.{hint} "
            f"Is the package that provides it installed (entry-point group {self.group!r})?"
        )


def path_of(component: object) -> str:
    """Return the path `module:Class` of a class or a function."""
    return f"{getattr(component, '__module__', '')}:{getattr(component, '__qualname__', '')}"


@contextmanager
def current_folder() -> Iterator[None]:
    """Let imports within the block find modules of the current folder, after all others."""
    folder = str(Path.cwd())
    is_new = folder not in sys.path
    if is_new:
        sys.path.append(folder)
    try:
        yield
    finally:
        if is_new and folder in sys.path:
            sys.path.remove(folder)


def _is_same(first: object, second: object) -> bool:
    """Return whether two components are the same; a module that is executed again makes new ones of the same path."""
    return first is second or (path_of(first) == path_of(second) and ":<" not in path_of(first))


BACKENDS: Registry[Callable[..., object]] = Registry("backends", "backend", error=UnknownBackendError)
"""Devices by name."""
GROUP = BACKENDS.group


def available_backends() -> dict[str, EntryPoint]:
    """Return the registered devices by name; nothing is imported."""
    return BACKENDS.points()


def accepted_settings(name: str) -> set[str]:
    """Return the keyword settings of a device.

    Raises:
        UnknownBackendError: No device of that name is registered.
    """
    return set(inspect.signature(BACKENDS.load(name)).parameters)


def required_settings(name: str) -> set[str]:
    """Return the keyword settings that a device requires, e.g. its address.

    Raises:
        UnknownBackendError: No device of that name is registered.
    """
    parameters = inspect.signature(BACKENDS.load(name)).parameters.values()
    return {p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def free_settings(name: str) -> frozenset[str]:
    """Return the keyword settings of a device that change no recording, see `Backend.FREE_SETTINGS`."""
    if name not in BACKENDS.reachable():
        return frozenset()
    names: frozenset[str] = getattr(inspect.unwrap(BACKENDS.load(name)), "FREE_SETTINGS", frozenset())
    return names


def create_backend(name: str, **settings: Any) -> Backend:
    """Create the device called `name` with its settings.

    Raises:
        UnknownBackendError: The name or a setting is not known; the text lists the known ones.
    """
    accepted = accepted_settings(name)
    unknown = sorted(set(settings) - accepted)
    if unknown:
        raise UnknownBackendError(
            f"backend {name!r} has no setting {', '.join(map(repr, unknown))}; "
            f"it accepts: {', '.join(sorted(accepted)) or 'none'}"
        )
    try:
        backend = BACKENDS.load(name)(**settings)
    except TypeError as error:
        raise UnknownBackendError(f"backend {name!r} does not take the settings {settings}: {error}") from error
    if not isinstance(backend, Backend):
        raise UnknownBackendError(f"backend {name!r} gave a {type(backend).__name__}, not a Backend")
    return backend
