"""Functions found by name, and called with the arrays their parameters name.

A loss, a rule or a metric is a plain function. Its positional parameters are names of arrays (one
with a default is optional), its keyword-only parameters are settings that a config gives. Nothing
has to be registered.
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


def needs(function):
    """Names of the arrays that `function` takes: (required, optional)."""
    function = function.func if isinstance(function, functools.partial) else function
    positional = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    return (
        [p.name for p in positional if p.default is p.empty],
        [p.name for p in positional if p.default is not p.empty],
    )


def settings(function):
    """{name: value} of the settings of a function as `configured` gives it: the config's, else
    their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind == p.KEYWORD_ONLY and p.default is not p.empty
    }


def bind(function, arrays, renames=None):
    """Calls `function` with the entries of `arrays` that its positional parameters name.

    Args:
      function: any function whose array parameters are positional.
      arrays: name -> array; more than needed may be there.
      renames: parameter -> name in `arrays`, where the two differ.

    Raises:
      ValueError: a required array is missing; the message lists those that are there.
    """
    required, optional = needs(function)
    names = {p: (renames or {}).get(p, p) for p in required + optional}
    missing = sorted({names[p] for p in required} - set(arrays))
    if missing:
        title = getattr(function, "func", function).__name__
        raise ValueError(
            f"{title} needs {missing}, but the batch and the model give only {sorted(arrays)}"
        )
    return function(**{p: arrays[names[p]] for p in required + optional if names[p] in arrays})


def configured(module, entry):
    """Returns the function that a config entry names, with the entry's settings.

    Args:
      module: looked up in its `__all__`.
      entry: mapping with `name` and settings, e.g. dict(name="fcrc", form="class").
    """
    return with_settings(lookup(module, entry["name"]), entry)


def with_settings(function, entry, reserved=("name", "weight", "arrays")):
    """Returns `function` with the fields of `entry` but `reserved` as its settings.

    Raises:
      ValueError: a field that is no keyword-only parameter of the function.
    """
    settings = {field: value for field, value in entry.items() if field not in reserved}
    parameters = inspect.signature(function).parameters.values()
    allowed = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
    for name in settings:
        if name not in allowed:
            hint = did_you_mean(name, allowed, f"It takes {allowed}.")
            raise ValueError(f"{function.__name__} has no setting {name!r}. {hint}")
    return functools.partial(function, **settings) if settings else function
