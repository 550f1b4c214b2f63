#!/usr/bin/env bash
# Runs the kernel tests with sanitizers. For CI; each takes a few minutes on two cores.
#
#   sanitize.sh address   AddressSanitizer and UBSan: the pytest suite of this folder
#   sanitize.sh thread    ThreadSanitizer: kernel_check, whose threads it understands
#   sanitize.sh aarch64   no sanitizer: kernel_check, cross-compiled and run under qemu-aarch64
#   sanitize.sh windows   the same, compiled by zig and run under wine
#
# PYTHON names a Python with numpy, pytest, pybind11 and cmake (default: python3); for Windows with
# cmake and ziglang. CXX names the compiler, but for Windows and aarch64.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
kind=${1:?address, thread, aarch64 or windows}
build=$here/../../build/kernel_tests_$kind

configure() {
  cmake -S "$here" -B "$build" -DPython_EXECUTABLE="$(command -v "$python")" "$@" >/dev/null
}

case $kind in
  address)
    # The longest vectors and AMX, in software: the other sets have the same code, and each takes
    # minutes to compile. What AddressSanitizer sees too is left out for the same reason.
    configure -DSANITIZE=address,undefined -DWITHOUT=null,object-size -DCPU=x86-64 \
      -DUNCHECKED=baseline
    cmake --build "$build" --target kernel_tests --parallel 2
    # Python itself is not instrumented: the runtime is preloaded, and its leaks are not ours.
    run() {
      LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)" \
        ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 KERNEL_TESTS_MODULE=$build \
        "$python" -m pytest "$here" -p no:cacheprovider -q -k "$1"
    }
    run wide >"$build/wide.log" 2>&1 &  # on another core
    status=0
    run software_amx || status=$?
    wait $! || status=$?
    cat "$build/wide.log"
    exit $status
    ;;
  thread)
    configure -DSANITIZE=thread -DPYTHON_MODULE=OFF -DIN_SOFTWARE=OFF
    cmake --build "$build" --target kernel_check --parallel 2
    # Older runtimes cannot place their shadow memory where addresses are fully randomised.
    setarch -R "$build/kernel_check"
    ;;
  aarch64)
    configure -DPYTHON_MODULE=OFF -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
      -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
    cmake --build "$build" --target kernel_check --parallel 2
    qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/kernel_check"
    ;;
  windows)
    ZIG=$("$python" -c 'import ziglang; print(ziglang.__path__[0] + "/zig")')
    export ZIG ZIG_TARGET=x86_64-windows-gnu
    configure -DPYTHON_MODULE=OFF -DCMAKE_SYSTEM_NAME=Windows -DCMAKE_SYSTEM_PROCESSOR=AMD64 \
      -DCMAKE_CXX_COMPILER="$here/../../.ci/zig_cxx.sh" -DCMAKE_RC_COMPILER=true
    cmake --build "$build" --target kernel_check --parallel 2
    WINEDEBUG=-all wine "$build/kernel_check.exe"
    ;;
esac
