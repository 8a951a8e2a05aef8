"""Lists in MATLAB files, read in a process of its own: scipy's reader trusts sizes in the file, and
a damaged one kills it."""

import functools
import json
import os
import resource
import subprocess
import sys

SECONDS, MEMORY = 60, 4 << 30  # a list of a data set takes one second and 0.1 GB


def read(path, variables):
    """The entries of some variables of a MATLAB file, row by row.

    Args:
        path: file, of a version before 7.3.
        variables: names.

    Returns:
        A list for each variable: floats of a numeric array, strings of a cell array of texts.

    Raises:
        ValueError: no such file, not such a file, or one without a variable.
    """
    try:
        status = os.stat(path)
    except OSError:
        status = None  # the reader says so
    return _read(str(path), tuple(variables), status and (status.st_size, status.st_mtime_ns))


@functools.lru_cache(16)  # folds read the same files; starting a process takes half a second
def _read(path, variables, stamp):
    command = [
        sys.executable,
        "-P",
        __file__,
        path,
        *variables,
    ]  # -P: the modules beside this one are not on its path
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=SECONDS
        )
        if done.returncode == 0:
            return json.loads(done.stdout)
        reason = (
            done.stderr.strip() or f"its reader died by signal {-done.returncode}"
        ).splitlines()[-1]
    except subprocess.TimeoutExpired:
        reason = f"its reader took more than {SECONDS} s"
    raise ValueError(
        f"{path} is no MATLAB file (before 7.3) with {list(variables)}: {reason}; export it as CSV"
    )


def _entries(array):
    """The entries of an array, or the texts of a cell array of texts."""
    if array.dtype.kind in "biuf":
        return array.astype(float).ravel().tolist()
    return [text if isinstance(text, str) else str(text.item()) for text in array.ravel()]


def _main(path, *variables):
    from scipy.io import loadmat

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    found = loadmat(path, variable_names=variables)
    json.dump([_entries(found[name]) for name in variables], sys.stdout)


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except Exception as error:  # scipy's parser raises nearly every type on damaged files
        sys.exit(f"{type(error).__name__} {' '.join(str(error).split())}")
