"""Names for the functions that a search is made of."""

import functools
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from keras_lottery import checks

T = TypeVar("T")

GROUP = "keras_lottery"
"""The group of entry points by which installed packages are found."""


class Registry(dict[str, T]):
    """The objects that can be given by name for one argument.

    Args:
        argument: the argument's name, for errors.
        form: what a user's own object has to be, for errors.
        names: the library's own objects by name.
        kind: the class of such an object.
        wrap: converts a given object to the one that `look_up` returns: for example a
            plain function to an object with everything that the library needs.

    Example:

    >>> powers = Registry("power", "a function", {"square": lambda x: x ** 2})
    >>> powers.look_up("square")(3)
    9
    >>> @powers.register("cube")
    ... def cube(x):
    ...     return x ** 3
    >>> powers.names()
    ['cube', 'square']
    """

    def __init__(
        self,
        argument: str,
        form: str,
        names: Mapping[str, Any],
        kind: Any = Callable,
        wrap: Callable[[Any], T] = lambda value: value,
    ) -> None:
        super().__init__({name: wrap(value) for name, value in names.items()})
        self._argument, self._form, self._kind = argument, form, kind
        self._wrap = wrap
        self._own = frozenset(names)

    def register(self, name: str, value: Any = None) -> Any:
        """Gives a user's own object a name, which can be used wherever the object can.

        An installed package makes its names known, also on the command line, by
        declaring the module that registers them as an entry point::

            [options.entry_points]
            keras_lottery =
                my_package = my_package.criteria

        Args:
            name: letters, digits and underscores. If a name is registered again, it
                stands for the new object.
            value: the object; leave it out to use this as a decorator.

        Returns:
            The object, or the decorator.

        Raises:
            ValueError: if the name is one of the library's own or has other characters,
                or the object has another form.
        """
        if value is None:
            return functools.partial(self.register, name)
        if not name.isidentifier() or name in self._own:
            raise ValueError(
                "Expected `name` to consist of letters, digits and underscores, and to "
                f"be none of the library's own names, {sorted(self._own)}. Received: "
                f"name={name!r}"
            )
        if not isinstance(value, self._kind):
            raise ValueError(
                f"Expected {self._form} for the {self._argument} {name!r}. "
                f"Received: {value!r}"
            )
        self[name] = self._wrap(value)
        return value

    def include(self, names: Mapping[str, Any]) -> None:
        """Adds more of the library's own objects, whose names users cannot replace.

        This is for folders that are built on the one with the registry.
        """
        self.update({name: self._wrap(value) for name, value in names.items()})
        self._own |= names.keys()

    def look_up(self, value: Any) -> T:
        """Returns the object with a name, or the object given instead of a name.

        Raises:
            ValueError: if the value is neither.
        """
        if isinstance(value, self._kind):
            return self._wrap(value)
        if isinstance(value, str):
            if value not in self:
                load_extensions()
            if value in self:
                return self[value]
        remedy = "(Import the package that registers a name.)"
        checks.choice(self._argument, value, sorted(self), self._form, remedy)
        raise AssertionError("it was no choice")

    def names(self) -> list[str]:
        """All names, including those of installed packages."""
        load_extensions()
        return sorted(self)


@functools.cache
def load_extensions() -> None:
    """Imports the modules that installed packages declare, at the first call.

    Raises:
        ImportError: if a module cannot be imported.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            raise ImportError(
                f"The installed package '{point.name}' names '{point.value}' for "
                f"{GROUP}, which cannot be imported: {error}. Repair or uninstall it."
            ) from error
