"""Names for the functions that a search is made of."""

import functools
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from keras_lottery import checks

T = TypeVar("T")

GROUP = "keras_lottery"
"""The entry points by which an installed package is found."""


class Registry(dict[str, T]):
    """What may be asked for by name in one argument: objects by name.

    Args:
        argument: the argument's name, for errors.
        form: what an object of one's own has to be, for errors.
        names: the library's own objects.
        kind: the class of such an object.
        wrap: makes of what is given what `look_up` returns, once, at the door: of a
            plain function, an object with all that the library asks of one.

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
        """Gives an object of one's own a name, which does wherever the object does.

        An installed package makes its names known, to the command line as well, by
        naming the module that registers them as an entry point::

            [options.entry_points]
            keras_lottery =
                my_package = my_package.criteria

        Args:
            name: letters, digits and underscores. Registered again, a name stands for
                the new object.
            value: the object; leave it out to use this as a decorator.

        Returns:
            The object, or the decorator.

        Raises:
            ValueError: if the name is one of the library's own, or no such word, or
                the object is of another form.
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
        """Adds more of the library's own objects, which nobody registers anew.

        For rooms that are built on the one where the registry is.
        """
        self.update({name: self._wrap(value) for name, value in names.items()})
        self._own |= names.keys()

    def look_up(self, value: Any) -> T:
        """What is registered under a name, or the object given instead of one.

        Raises:
            ValueError: if it is neither.
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
        """All names, those of installed packages as well."""
        load_extensions()
        return sorted(self)


@functools.cache
def load_extensions() -> None:
    """Imports the modules that installed packages name, once.

    Raises:
        ImportError: if one cannot be imported.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            raise ImportError(
                f"The installed package '{point.name}' names '{point.value}' for "
                f"{GROUP}, which cannot be imported: {error}. Repair or uninstall it."
            ) from error
