#!/usr/bin/env bash
# Tests Python 3.11, 3.12 and 3.13, each with the lowest and the newest versions of pyproject.toml.
#
#   tools/matrix.sh                                                  # all six
#   tools/matrix.sh 3.12-newest 3.11-lowest                          # two of them
#   tools/matrix.sh 3.13-newest -- -n 1 tests/test_optim.py           # pytest's own arguments follow --
#
# A Python is python3.X of the PATH, else the newest one of pyenv. "lowest" is the lowest version of
# each package that pyproject.toml names and that goes with the others; their own dependencies are
# the newest. The environments stay in build/matrix until pyproject.toml is younger.
set -euo pipefail
cd "$(dirname "$0")/.."
names=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do names+=("$1"); shift; done
[ $# -eq 0 ] || shift
[ ${#names[@]} -gt 0 ] || names=(3.1{1,2,3}-{newest,lowest})

python_of() {
  { "python$1" -c "" && command -v "python$1"; } 2>/dev/null ||
    ls -d ~/.pyenv/versions/"$1".*/bin/python3 2>/dev/null | sort -V | tail -1 | grep . ||
    { echo "no Python $1 on the PATH or in pyenv" >&2; return 1; }
}

prepare() {  # name -> build/matrix/<name> with the package, its test extra and nothing else
  local place=build/matrix/$1 version=${1%-*}
  [ "$place/ready" -nt pyproject.toml ] && return
  rm -rf "$place"
  "$(python_of "$version")" -m venv "$place" || return
  : > "$place/constraints"
  if [ "${1#*-}" = lowest ]; then
    "$place/bin/pip" install -q "uv>=0.5,<1" || return
    # The extra pins torch itself. promise, which tensorflow-datasets needs, has no wheel.
    echo "torch; python_version < '3'" > "$place/overrides"
    "$place/bin/uv" pip compile -q --resolution lowest-direct --only-binary :all: \
      --no-binary promise --no-header --python-version "$version" --extra test \
      --override "$place/overrides" pyproject.toml -o "$place/constraints" > /dev/null || return
  fi
  "$place/bin/pip" install -q -c "$place/constraints" -e ".[test]" && touch "$place/ready"
}

failed=0
for name in "${names[@]}"; do
  case $name in
    3.1[123]-lowest | 3.1[123]-newest) ;;
    *) echo "no environment $name; expected a name like 3.12-lowest"; exit 2 ;;
  esac
  if prepare "$name" && build/matrix/"$name"/bin/python -m pytest "$@"; then
    echo "$name: passed"
  else
    echo "$name: FAILED"
    failed=1
  fi
done
exit $failed
