#!/usr/bin/env bash
# Installs the wheel in dist/ that fits this Python and system, and tests it: what the workflow
# `wheels` does on each system.
#
#   bash .ci/test_wheel.sh 'torch==2.11.*'
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
torch=${1:?a requirement, such as torch==2.11.*}
install() {
  python -m pip --disable-pip-version-check install --quiet \
    --find-links dist --only-binary lstm_kernels,torch "$torch" "$@"
}

install lstm_kernels
python .ci/check_installed.py
# Not every test tool has a wheel for free-threaded Python.
if python -c 'import sysconfig, sys; sys.exit(not sysconfig.get_config_var("Py_GIL_DISABLED"))'; then
  exit
fi
install 'lstm_kernels[test]'
cd "$(mktemp -d)"  # in the tree, Python would import its package and not the installed one
python -m pytest "$root/tests/unit" "$root/tests/memory"
