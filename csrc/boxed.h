// The sequence ops in the one form that torch takes them: a parameter for each one in the schema.
// Every device registers these around its functions, which take an argument struct.
#pragma once
#include <string>

#include "arguments.h"

namespace lstm_kernels::boxed {

// Registers a kernel under both names of its op (see schema.cpp).
template <class Library, class Kernel>
void implement_both(Library& library, const std::string& op, Kernel kernel) {
  library.impl(op.c_str(), kernel);
  library.impl(("_" + op).c_str(), kernel);
}

template <ForwardResults (*forward)(const ForwardArguments&)>
ForwardResults sequence_forward(const Tensor& input, const OptionalTensor& h0,
                                const OptionalTensor& c0, const std::vector<Tensor>& weights,
                                bool has_biases, bool bidirectional,
                                const OptionalTensor& batch_sizes, const OptionalTensor& lengths,
                                const OptionalTensor& reset, bool save_cell, bool save_gates,
                                bool allow_tf32, bool /* recompute */) {
  return forward({input,
                  h0,
                  c0,
                  {weights, has_biases, bidirectional},
                  {batch_sizes, lengths, reset},
                  save_cell,
                  save_gates,
                  allow_tf32});
}

using PrepackedResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <PrepackedResults (*forward)(const ForwardArguments&, const Tensor&)>
PrepackedResults prepacked_forward(const Tensor& input, const OptionalTensor& h0,
                                   const OptionalTensor& c0, const std::vector<Tensor>& weights,
                                   bool has_biases, bool bidirectional,
                                   const OptionalTensor& batch_sizes, const OptionalTensor& lengths,
                                   const OptionalTensor& reset, bool save_cell, bool save_gates,
                                   const Tensor& prepacked) {
  return forward({input,
                  h0,
                  c0,
                  {weights, has_biases, bidirectional},
                  {batch_sizes, lengths, reset},
                  save_cell,
                  save_gates,
                  false},
                 prepacked);
}

template <BackwardResults (*backward)(const BackwardArguments&)>
BackwardResults sequence_backward(const OptionalTensor& grad_output, const OptionalTensor& grad_h_n,
                                  const OptionalTensor& grad_c_n, const OptionalTensor& grad_cell,
                                  const OptionalTensor& grad_gates, const OptionalTensor& c0,
                                  const std::vector<Tensor>& weights, bool has_biases,
                                  bool bidirectional, const OptionalTensor& batch_sizes,
                                  const OptionalTensor& lengths, const OptionalTensor& reset,
                                  const Tensor& cell, const Tensor& gates, bool allow_tf32) {
  return backward({grad_output,
                   grad_h_n,
                   grad_c_n,
                   grad_cell,
                   grad_gates,
                   c0,
                   {weights, has_biases, bidirectional},
                   {batch_sizes, lengths, reset},
                   cell,
                   gates,
                   allow_tf32});
}

}  // namespace lstm_kernels::boxed
