"""Copies of exceptions, because one exception that several tasks raise collects all tracebacks."""

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def copy_exception(error: E) -> E:
    """Return an exception with the type, the attributes, the cause and the traceback of another.

    Raising the copy does not change the other exception. `copy.copy` would call the constructor,
    whose arguments may differ from `args`.
    """
    duplicate = type(error).__new__(type(error), *error.args)
    duplicate.args = error.args
    for base in type(error).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if name != "__dict__" and hasattr(error, name):
                setattr(duplicate, name, getattr(error, name))
    duplicate.__dict__.update(error.__dict__)
    duplicate.__cause__ = error.__cause__
    duplicate.__context__ = error.__context__
    duplicate.__suppress_context__ = error.__suppress_context__
    return duplicate.with_traceback(error.__traceback__)
