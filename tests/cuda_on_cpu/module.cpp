// The CUDA kernels, run on the CPU, bound to NumPy arrays.
#include "binding.h"
#include "machine.h"

void bind_persistent(py::module_& m);

PYBIND11_MODULE(cuda_on_cpu, m) {
  m.def("set_seed", &machine::set_seed);
  bind_persistent(m);
}
