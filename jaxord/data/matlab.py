"""Lists in MATLAB files, read in a process of its own: scipy's reader trusts sizes in the file, and
a damaged one kills it."""

import functools
import json
import os
import resource
import subprocess
import sys

SECONDS = 60  # a list of a data set takes one
MEMORY = 4 << 30  # bytes; a list of a data set takes 0.1 GB


def read(path, variables):
    """Reads variables of a MATLAB file, version 7.2 or older; ValueError if it lacks one.

    Returns a list for each: floats of a numeric array, strings of a cell array of texts.
    """
    status = os.path.exists(path) and os.stat(path)
    stamp = status and (status.st_size, status.st_mtime_ns)
    return _read(str(path), tuple(variables), stamp)


@functools.lru_cache(16)  # folds read the same files; starting a process takes half a second
def _read(path, variables, stamp):
    # -P keeps the modules beside this one off the path of the process.
    command = [sys.executable, "-P", __file__, path, *variables]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=SECONDS)
        if done.returncode == 0:
            return json.loads(done.stdout)
        died = f"its reader died by signal {-done.returncode}"
        reason = (done.stderr.strip() or died).splitlines()[-1]
    except subprocess.TimeoutExpired:
        reason = f"its reader took more than {SECONDS} s"
    message = f"{path} is no MATLAB file (before 7.3) with {list(variables)}: {reason}"
    raise ValueError(f"{message}; export it as CSV")


def _entries(array):
    """The entries of a numeric array, or the texts of a cell array of texts."""
    if array.dtype.kind in "biuf":
        return array.astype(float).ravel().tolist()
    return [text if isinstance(text, str) else str(text.item()) for text in array.ravel()]


def _main(path, *variables):
    from scipy.io import loadmat

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    arrays = loadmat(path, variable_names=variables)
    json.dump([_entries(arrays[name]) for name in variables], sys.stdout)


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except Exception as error:  # scipy's parser raises nearly every type on damaged files
        sys.exit(f"{type(error).__name__} {' '.join(str(error).split())}")
