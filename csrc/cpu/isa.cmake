# One kernel source, compiled once per instruction set into its own namespace. Shared by the package
# and by the kernel tests.
set(KERNEL_FLAGS -O2 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-exceptions -Wno-psabi)
set(KERNEL_DIR "${CMAKE_CURRENT_LIST_DIR}")

# lstm_add_isa(name [flag...]) compiles kernels.cpp as that instruction set; its object file is
# appended to ISA_OBJECTS, its name to ISA_NAMES.
function(lstm_add_isa name)
  add_library(kernels_${name} OBJECT "${KERNEL_DIR}/kernels.cpp")
  target_compile_definitions(kernels_${name} PRIVATE LSTM_ISA=${name})
  target_compile_options(kernels_${name} PRIVATE ${KERNEL_FLAGS} ${ARGN})
  set(ISA_OBJECTS ${ISA_OBJECTS} $<TARGET_OBJECTS:kernels_${name}> PARENT_SCOPE)
  set(ISA_NAMES ${ISA_NAMES} ${name} PARENT_SCOPE)
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  lstm_add_isa(baseline)
  lstm_add_isa(avx2 -march=x86-64-v3)
  lstm_add_isa(avx512 -march=x86-64-v4 -mprefer-vector-width=512)
  lstm_add_isa(avx512_bf16 -march=x86-64-v4 -mavx512bf16 -mprefer-vector-width=512)
else()
  lstm_add_isa(baseline)
endif()
