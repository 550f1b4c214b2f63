# One kernel source, compiled once per line of isas.def into a namespace of its name. Shared by the
# package and by the kernel tests.
set(KERNEL_FLAGS -O2 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-exceptions -Wno-psabi)
find_package(Threads REQUIRED)
set(SYSTEM_LIBRARIES Threads::Threads)
if(WIN32)
  list(APPEND SYSTEM_LIBRARIES api-ms-win-core-synch-l1-2-0)  # WaitOnAddress
endif()
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

# The preprocessor leaves the lines of the architecture that is compiled for.
separate_arguments(isa_flags UNIX_COMMAND "${CMAKE_CXX_FLAGS} ${ISA_TARGET}")
execute_process(
  COMMAND "${CMAKE_CXX_COMPILER}" ${isa_flags} -E -P -x c++ "${KERNEL_DIR}/isas.def"
  OUTPUT_VARIABLE isa_lines COMMAND_ERROR_IS_FATAL ANY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${KERNEL_DIR}/isas.def")
string(REGEX MATCHALL "ISA\\([a-z0-9_]+, \"[^\"]*\"" isa_lines "${isa_lines}")
foreach(line ${isa_lines})
  string(REGEX MATCH "ISA\\(([a-z0-9_]+), \"([^\"]*)\"" line "${line}")
  set(isa_name ${CMAKE_MATCH_1})
  separate_arguments(isa_flags UNIX_COMMAND "${CMAKE_MATCH_2}")
  lstm_add_isa(${isa_name} ${isa_flags})
endforeach()
