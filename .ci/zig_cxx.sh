#!/bin/sh
# zig as a C++ compiler that takes GCC's and clang's names of processors.
#
#   ZIG_TARGET=aarch64-linux-gnu.2.28 ZIG=path/to/zig zig_cxx.sh -c file.cpp
#
# zig compiles the C++ library anew for each set of these options, in minutes: so whatever links, CMake's
# experiments too, gets those of the library that is wanted. Without -O it would add sanitizers.
linked="-fPIC -s"
case $ZIG_TARGET in *windows*) linked=-s ;; esac
for argument; do
  shift
  case $argument in
    -c | -E) linked= ;;
    -march=x86-64-v*) argument=-march=x86_64_v${argument#-march=x86-64-v} ;;
    -march=armv8.2-a+*) argument=-mcpu=generic+v8_2a+${argument#-march=armv8.2-a+} ;;
  esac
  set -- "$@" "$argument"
done
exec "$ZIG" c++ -target "$ZIG_TARGET" -O3 $linked "$@"
