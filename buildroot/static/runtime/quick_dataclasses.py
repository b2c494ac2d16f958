"""Gives dataclasses their methods as closures: compiling their text was a quarter of a start.

CPython 3.11 writes `__init__`, `__eq__` and the others of each class as Python text and compiles
it, 450 functions before the tunnel is up. install() puts makers of closures in place of the makers
of text. What a caller sees is the same, except for the annotations of `__init__`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Names = tuple[str, ...]


def getter_of(names: Names) -> Callable[[Any], tuple[Any, ...]]:
    """Return what makes a tuple of an object's fields."""
    if not names:
        return lambda thing: ()
    get = operator.attrgetter(*names)
    if len(names) == 1:
        return lambda thing: (get(thing),)
    return get


def names_of(_object_name: str, fields: Sequence[Any]) -> Names:
    """Stand in for the text `(self.a,self.b,)`."""
    return tuple(field.name for field in fields)


def comparison(name: str, sign: str, names: Names, _others: Names, globals: object) -> Any:
    """Return `__eq__`, or one of the orders."""
    get, compare = getter_of(names), OPERATORS[sign]

    def compare_fields(self: Any, other: Any) -> Any:
        if other.__class__ is self.__class__:
            return compare(get(self), get(other))
        return NotImplemented

    compare_fields.__name__ = name
    return compare_fields


def hashing(fields: Sequence[Any], globals: object) -> Any:
    """Return `__hash__`."""
    get = getter_of(names_of("", fields))

    def __hash__(self: Any) -> int:
        return hash(get(self))

    return __hash__


def install(module: ModuleType) -> None:
    """Change `dataclasses`; classes that exist already stay as they are."""
    missing, init_var = module.MISSING, module._FIELD_INITVAR
    error = module.FrozenInstanceError

    def showing(fields: Sequence[Any], globals: object) -> Any:
        names = names_of("", fields)

        def __repr__(self: Any) -> str:
            shown = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
            return f"{self.__class__.__qualname__}({shown})"

        return module._recursive_repr(__repr__)

    def freezing(cls: type, fields: Sequence[Any], globals: object) -> tuple[Any, Any]:
        names = names_of("", fields)

        def __setattr__(self: Any, name: str, value: object) -> None:
            if type(self) is cls or name in names:
                raise error(f"cannot assign to field {name!r}")
            super(cls, self).__setattr__(name, value)

        def __delattr__(self: Any, name: str) -> None:
            if type(self) is cls or name in names:
                raise error(f"cannot delete field {name!r}")
            super(cls, self).__delattr__(name)

        return __setattr__, __delattr__

    def initializer(
        fields: Sequence[Any],
        std_fields: Sequence[Any],
        kw_only_fields: Sequence[Any],
        frozen: bool,
        has_post_init: bool,
        self_name: str,
        globals: object,
        slots: bool,
    ) -> Any:
        seen_default = False
        for field in std_fields:
            if field.default is not missing or field.default_factory is not missing:
                seen_default = True
            elif seen_default:
                raise TypeError(f"non-default argument {field.name!r} follows default argument")
        positional = names_of("", std_fields)
        accepted = frozenset(positional + names_of("", kw_only_fields))
        factories = {f.name: f.default_factory for f in fields if f.default_factory is not missing}
        # Without slots the class attribute is what a field outside __init__ starts with.
        defaults = {
            f.name: f.default for f in fields if f.default is not missing and (f.init or slots)
        }
        needed = accepted - defaults.keys() - factories.keys()
        stored = tuple(
            f.name
            for f in fields
            if f._field_type is not init_var
            and (f.name in accepted or f.name in factories or f.name in defaults)
        )
        passed_on = tuple(f.name for f in fields if f._field_type is init_var)
        put = object.__setattr__ if frozen else setattr

        def __init__(self: Any, /, *given: Any, **named: Any) -> None:
            values = dict(zip(positional, given, strict=False))
            if named or len(values) != len(positional) or len(given) != len(positional):
                what = f"{__init__.__qualname__}()"
                if len(given) > len(positional):
                    raise TypeError(f"{what} takes {len(positional) + 1} positional arguments")
                if unknown := named.keys() - accepted:
                    name = min(unknown)
                    raise TypeError(f"{what} got an unexpected keyword argument {name!r}")
                if twice := named.keys() & values.keys():
                    raise TypeError(f"{what} got multiple values for argument {min(twice)!r}")
                values.update(named)
            if absent := needed - values.keys():
                names = ", ".join(map(repr, sorted(absent)))
                raise TypeError(f"{__init__.__qualname__}() missing required arguments: {names}")
            values = defaults | values
            for name in stored:
                put(self, name, values[name] if name in values else factories[name]())
            if has_post_init:
                self.__post_init__(*[values[name] for name in passed_on])

        return __init__

    module.__dict__.update(
        _tuple_str=names_of,
        _cmp_fn=comparison,
        _hash_fn=hashing,
        _repr_fn=showing,
        _frozen_get_del_attr=freezing,
        _init_fn=initializer,
    )
