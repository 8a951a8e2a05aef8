"""Functions found by name, and called with the arrays that their parameters name.

A loss, a rule or a metric is a plain function. Its positional parameters are names of arrays (one
with a default is optional), its keyword-only parameters are settings that a config gives.
"""

import difflib
import functools
import inspect


def did_you_mean(name, names, otherwise=""):
    """A hint for an error message: the nearest of `names`, else `otherwise`, else all of them."""
    near = difflib.get_close_matches(str(name), [str(known) for known in names], n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    return otherwise or f"It has {sorted(names)}."


def lookup(module, name):
    """Returns the member `name` of `module.__all__`; an unknown name is a ValueError."""
    if name not in module.__all__:
        hint = did_you_mean(name, module.__all__)
        raise ValueError(f"{module.__name__} has no {name!r}. {hint}")
    return getattr(module, name)


def _parameters(function, kind):
    return [p for p in inspect.signature(function).parameters.values() if p.kind == kind]


def needs(function):
    """Names of the arrays that a function takes: (required, optional)."""
    function = getattr(function, "func", function)  # settings given by a partial rename no array
    arrays = _parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p.name for p in arrays if p.default is p.empty]
    return required, [p.name for p in arrays if p.default is not p.empty]


def settings_of(function):
    """{name: value} of a function's settings: from the config as in `configured`, else defaults."""
    parameters = _parameters(function, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def bind(function, arrays, renames=None):
    """Calls `function` with the entries of `arrays` that its positional parameters name.

    `renames` maps a parameter to a name in `arrays` where the two differ. A required array that is
    missing is a ValueError, which lists the available ones.
    """
    required, optional = needs(function)
    names = {p: (renames or {}).get(p, p) for p in required + optional}
    missing = sorted({names[p] for p in required} - set(arrays))
    if missing:
        title = getattr(function, "func", function).__name__
        available = f"the batch and the model give only {sorted(arrays)}"
        raise ValueError(f"{title} needs {missing}, but {available}")
    return function(**{p: arrays[names[p]] for p in required + optional if names[p] in arrays})


def configured(module, entry):
    """The function of `module.__all__` that an entry such as dict(name="fcrc", form="class") names,
    with the entry's settings."""
    return with_settings(lookup(module, entry["name"]), entry)


def with_settings(function, entry, reserved=("name", "weight", "arrays")):
    """The function with the fields of `entry` as settings, keyword-only parameters of it."""
    settings = {field: value for field, value in entry.items() if field not in reserved}
    allowed = [p.name for p in _parameters(function, inspect.Parameter.KEYWORD_ONLY)]
    for name in settings:
        if name not in allowed:
            hint = did_you_mean(name, allowed, f"It takes {allowed}.")
            raise ValueError(f"{function.__name__} has no setting {name!r}. {hint}")
    return functools.partial(function, **settings) if settings else function
