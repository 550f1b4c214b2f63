#!/usr/bin/env bash
# Builds, tests, checks and measures the CUDA kernels on the NVIDIA GPU of this machine.
#
#   bash benchmarks/gpu.sh [FOLDER]     # default: benchmarks/results/<gpu>
#   STAGES="build benchmark" QUESTION="never" bash benchmarks/gpu.sh    # some stages and questions
#
# Takes at most LIMIT seconds, 540 unless it is set. Needs python3 with a CUDA build of torch and pytest, nvcc, cmake and
# ninja; no network. A stage that fails or hangs does not keep the next from running. FOLDER holds
# five files at the end: gpu.json, gpu.png and gpu.txt from the benchmark, summary.txt, and the logs
# of all stages in logs.tar.gz. No test, row of the benchmark or other single step may take more
# than 60 s.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

fail() {
  echo "$*" >&2
  exit 2
}
found=$("$python" -c '
import torch
if torch.cuda.is_available():
    major, minor = torch.cuda.get_device_capability()
    print(f"{major}{minor} {torch.cuda.get_device_name()}")') ||
  fail "$python cannot import torch. Set PYTHON to one that can."
test -n "$found" || fail "torch finds no NVIDIA GPU here. Nothing was run."
capability=${found%% *} gpu=${found#* }
cuda=${CUDA_HOME:-/usr/local/cuda}
PATH="$PATH:$cuda/bin:$cuda/compute-sanitizer"
for tool in nvcc cmake ninja; do
  command -v $tool >/dev/null || fail "$tool is missing."
done

out=${1:-benchmarks/results/$(tr -cs 'a-z0-9\n' - <<<"${gpu,,}" | sed 's/^-//; s/-$//')}
"$python" -m benchmarks.results_folder "$out" || exit 2
mkdir -p "$out"
out=$(cd "$out" && pwd)
logs=$(mktemp -d)
begin=$SECONDS
report=""
all="build step persistent contract variants memcheck racecheck benchmark synccheck initcheck"
stages=${STAGES:-$all}
limit=${LIMIT:-540}
for name in $stages; do
  [[ " $all " == *" $name "* ]] || fail "STAGES: there is no stage $name, only $all."
done

# stage NAME SECONDS COMMAND...: runs it for at most so long, or for what is left of the limit.
stage() {
  local name=$1 most=$2 start=$SECONDS left=$((limit - (SECONDS - begin))) status
  shift 2
  [[ " $stages " == *" $name "* ]] || return
  if [ "$left" -lt "$most" ]; then most=$left; fi
  if [ "$most" -le 5 ]; then
    report+=$(printf '%-12s not run: the time is up' "$name")$'\n'
    return
  fi
  printf '\n===== %s\n' "$name"
  timeout --kill-after=5 "$most" "$@" 2>&1 | tee "$logs/$name.log"
  status=${PIPESTATUS[0]}
  case $status in
    0) result=ok ;;
    124 | 137) result="stopped after $most s" ;;
    *) result="FAILED ($status)" ;;
  esac
  report+=$(printf '%-12s %4d s   %s' "$name" $((SECONDS - start)) "$result")$'\n'
}

if [ "$capability" = 90 ]; then capability=90a; fi
build() {
  cmake -S . -B build/gpu -G Ninja -DPython3_EXECUTABLE="$(command -v "$python")" \
    -DLSTM_KERNELS_CUDA=ON -DCMAKE_CUDA_COMPILER="$(command -v nvcc)" \
    -DCMAKE_CUDA_ARCHITECTURES="$capability-real" -DCMAKE_INSTALL_PREFIX="$PWD/lstm_kernels" &&
    cmake --build build/gpu --target all gpu_floor && cmake --install build/gpu &&
    "$python" -c '
import sys, lstm_kernels
lstm_kernels.show_config()
sys.exit(lstm_kernels._load.cuda_problem)'
}
export -f build
export python capability

# After a test that loses the device, the others run in another process. Plugins that happen to be
# installed are left out, and warnings are not what is looked for here.
tests() {
  PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 "$python" -m benchmarks.gpu_tests -m cuda -v --capture=sys \
    --durations=5 -W default -p no:cacheprovider "$@"
}
export -f tests

# Without torch's cache of memory every tensor ends where its allocation ends. Errors of CUDA calls
# are left out: torch asks for symbols that a driver may lack, and deals with the answer. racecheck
# sees shared memory only, so nothing here checks the exchange in global memory.
sanitize() {
  command -v compute-sanitizer >/dev/null || {
    echo "compute-sanitizer is not here: $1 was not done."
    return 1
  }
  local options=() sizes=()
  if [ "$1" = memcheck ]; then options=(--report-api-errors no); fi
  if [ "$1" = initcheck ]; then sizes=(--odd); fi
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 1 \
    --print-limit 20 "${options[@]}" "$python" -m benchmarks.gpu_sanitize "${sizes[@]}"
}
export -f sanitize

stage build 180 bash -c build
stage step 70 bash -c "tests tests/cuda/test_cuda_parity.py -k 'not persistent'"
stage persistent 60 bash -c "tests tests/cuda/test_cuda_parity.py -k persistent"
stage contract 70 bash -c "tests tests/cuda/test_cuda_contract.py"
stage variants 60 bash -c "tests tests/cuda/test_cuda_variants.py"
stage memcheck 75 bash -c "sanitize memcheck"
stage racecheck 75 bash -c "sanitize racecheck"
left=$((limit - (SECONDS - begin)))
benchmark() {
  "$python" -m benchmarks.gpu --output "$out" --seconds $((left - 80)) \
    --floor build/gpu/gpu_floor.so ${QUESTION:+--question $QUESTION}
}
export -f benchmark
export out left
stage benchmark "$left" bash -c benchmark
stage synccheck 60 bash -c "sanitize synccheck"
stage initcheck 60 bash -c "sanitize initcheck"
tar -czf "$out/logs.tar.gz" -C "$logs" . && rm -r "$logs"
cat "$out/gpu.txt" 2>/dev/null
printf '\n%s%s, %d s in all; results in %s\n' "$report" "$gpu" $((SECONDS - begin)) "$out" |
  tee "$out/summary.txt"
grep -q -e FAILED -e stopped -e "not run" "$out/summary.txt" && exit 1
exit 0
