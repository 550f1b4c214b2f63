// The sequence ops in the one form that torch takes them: a parameter for each one in the schema.
// Every device registers these around its functions, which take an argument struct.
#pragma once
#include <torch/csrc/stable/library.h>

#include <cstring>
#include <exception>
#include <string>

#include "variant_arguments.h"

// A function as torch calls it. Errors cross into torch by LSTM_BOX alone: a C++ exception passes
// between libraries that share one C++ runtime, and torch need not have the one of our compiler.
#define LSTM_BOX(function) ::lstm_kernels::boxed::with_torch_errors<TORCH_BOX(function)>

namespace lstm_kernels::boxed {

using Function = void(StableIValue* stack, uint64_t inputs, uint64_t outputs);

// What the function throws, until the next error of this thread; null where it returns.
template <Function* function>
[[gnu::noinline]] const char* error_of(StableIValue* stack, uint64_t inputs,
                                       uint64_t outputs) noexcept {
  static thread_local char message[1024];
  try {
    function(stack, inputs, outputs);
    return nullptr;
  } catch (const std::exception& error) {
    return std::strncpy(message, error.what(), sizeof message - 1);
  } catch (...) {
    return "an unknown error";
  }
}

// Throws torch's own exception, in torch. It passes this frame, where nothing is to be destroyed.
template <Function* function>
void with_torch_errors(StableIValue* stack, uint64_t inputs, uint64_t outputs) {
  if (const char* message = error_of<function>(stack, inputs, outputs))
    aoti_torch_check(false, "lstm_kernels", __FILE__, __LINE__, message);
}

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
                                bool reduced_precision, bool /* recompute */) {
  return forward({input,
                  h0,
                  c0,
                  {weights, has_biases, bidirectional},
                  {batch_sizes, lengths, reset},
                  save_cell,
                  save_gates,
                  reduced_precision});
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
                                  const Tensor& cell, const Tensor& gates, bool reduced_precision) {
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
                   reduced_precision});
}

template <VariantForwardResults (*forward)(const ForwardArguments&, const VariantArguments&)>
VariantForwardResults variant_forward(
    const Tensor& input, const OptionalTensor& h0, const OptionalTensor& c0,
    const std::vector<Tensor>& weights, bool has_biases, bool bidirectional,
    const OptionalTensor& batch_sizes, const OptionalTensor& lengths, const OptionalTensor& reset,
    const OptionalTensor& peephole, const OptionalTensor& norm_gates,
    const OptionalTensor& norm_cell, const OptionalTensor& input_gate,
    const OptionalTensor& hidden_mask, const OptionalTensor& gate_masks,
    const OptionalTensor& candidate_mask, const OptionalTensor& zoneout_cell,
    const OptionalTensor& zoneout_hidden, const std::vector<double>& options, bool save_cell,
    bool save_gates, bool reduced_precision) {
  return forward({input,
                  h0,
                  c0,
                  {weights, has_biases, bidirectional},
                  {batch_sizes, lengths, reset},
                  save_cell,
                  save_gates,
                  reduced_precision},
                 {peephole, norm_gates, norm_cell, input_gate, hidden_mask, gate_masks,
                  candidate_mask, zoneout_cell, zoneout_hidden, options});
}

template <VariantBackwardResults (*backward)(const BackwardArguments&, const VariantArguments&,
                                             const Tensor&)>
VariantBackwardResults variant_backward(
    const OptionalTensor& grad_output, const OptionalTensor& grad_h_n,
    const OptionalTensor& grad_c_n, const OptionalTensor& grad_cell,
    const OptionalTensor& grad_gates, const OptionalTensor& c0, const std::vector<Tensor>& weights,
    bool has_biases, bool bidirectional, const OptionalTensor& batch_sizes,
    const OptionalTensor& lengths, const OptionalTensor& reset, const OptionalTensor& peephole,
    const OptionalTensor& norm_gates, const OptionalTensor& norm_cell,
    const OptionalTensor& input_gate, const OptionalTensor& hidden_mask,
    const OptionalTensor& gate_masks, const OptionalTensor& candidate_mask,
    const OptionalTensor& zoneout_cell, const OptionalTensor& zoneout_hidden,
    const std::vector<double>& options, const Tensor& cell, const Tensor& gates,
    const Tensor& products, bool reduced_precision) {
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
                   reduced_precision},
                  {peephole, norm_gates, norm_cell, input_gate, hidden_mask, gate_masks,
                   candidate_mask, zoneout_cell, zoneout_hidden, options},
                  products);
}

}  // namespace lstm_kernels::boxed
