#!/usr/bin/env bash
# Builds, tests, checks and measures the CUDA kernels on the NVIDIA GPU of this machine.
#
#   bash benchmarks/gpu.sh [FOLDER]     # default: benchmarks/results/<gpu>
#
# Takes at most 9 minutes. Needs python3 with a CUDA build of torch and pytest, nvcc, cmake and
# ninja; no network. A stage that fails or hangs does not keep the next from running, and what each
# left lies in FOLDER: gpu.json and gpu.png from the benchmark, a log from every stage.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

fail() {
  echo "$*" >&2
  exit 2
}
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || gpu=""
test -n "$gpu" || fail "There is no NVIDIA GPU here: nvidia-smi names none. Nothing was run."
"$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null ||
  fail "$python has no torch that can use $gpu. Set PYTHON to one that has."
cuda=${CUDA_HOME:-/usr/local/cuda}
PATH="$PATH:$cuda/bin:$cuda/compute-sanitizer"
for tool in nvcc cmake ninja; do
  command -v $tool >/dev/null || fail "$tool is missing."
done

out=${1:-benchmarks/results/$(tr -cs 'a-z0-9\n' - <<<"${gpu,,}" | sed 's/^-//; s/-$//')}
mkdir -p "$out"
out=$(cd "$out" && pwd)
begin=$SECONDS
report=""

# stage NAME LIMIT COMMAND...: runs it for at most LIMIT seconds, of which 540 are left in all.
stage() {
  local name=$1 limit=$2 start=$SECONDS left=$((540 - (SECONDS - begin))) status
  shift 2
  if [ "$left" -lt "$limit" ]; then limit=$left; fi
  if [ "$limit" -le 5 ]; then
    report+=$(printf '%-12s not run: the time is up' "$name")$'\n'
    return
  fi
  printf '\n===== %s\n' "$name"
  timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$out/$name.log"
  status=${PIPESTATUS[0]}
  case $status in
    0) result=ok ;;
    124 | 137) result="stopped after $limit s" ;;
    *) result="FAILED ($status)" ;;
  esac
  report+=$(printf '%-12s %4d s   %s' "$name" $((SECONDS - start)) "$result")$'\n'
}

build() {
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
  if [ "$capability" = 90 ]; then capability=90a; fi
  cmake -S . -B build/gpu -G Ninja -DPython3_EXECUTABLE="$(command -v "$python")" \
    -DLSTM_KERNELS_CUDA=ON -DCMAKE_CUDA_COMPILER="$(command -v nvcc)" \
    -DCMAKE_CUDA_ARCHITECTURES="$capability-real" -DCMAKE_INSTALL_PREFIX="$PWD/lstm_kernels" &&
    cmake --build build/gpu && cmake --install build/gpu &&
    "$python" -c 'import lstm_kernels; lstm_kernels.show_config()'
}
export -f build
export python

tests() {
  local each=()
  if "$python" -c 'import pytest_timeout' 2>/dev/null; then each=(--timeout=60); fi
  "$python" -m pytest -m cuda -q --durations=5 -p no:cacheprovider "${each[@]}" tests/cuda
}
export -f tests

sanitize() {
  command -v compute-sanitizer >/dev/null || {
    echo "compute-sanitizer is not here: memory and races were not checked."
    return 1
  }
  compute-sanitizer --tool "$1" --error-exitcode 1 --print-limit 20 \
    "$python" -m benchmarks.gpu_sanitize
}
export -f sanitize

stage build 60 bash -c build
stage tests 170 bash -c tests
stage memcheck 60 bash -c "sanitize memcheck"
stage racecheck 60 bash -c "sanitize racecheck"
left=$((540 - (SECONDS - begin)))
stage benchmark "$left" "$python" -m benchmarks.gpu --output "$out" --seconds $((left - 30))
printf '\n%s%s, %d s in all; results in %s\n' "$report" "$gpu" $((SECONDS - begin)) "$out" |
  tee "$out/summary.txt"
grep -q -e FAILED -e stopped -e "not run" "$out/summary.txt" && exit 1
exit 0
