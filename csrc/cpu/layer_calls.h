// The forward and the backward call of a layer, whatever its kernel: the tensors that it takes,
// checked for memory safety, those that it returns, and the parameters that point to both.
#pragma once
#include "calls.h"
#include "results.h"
#include "rows.h"

namespace lstm_kernels::cpu {

class ForwardCall {
 public:
  explicit ForwardCall(const ForwardArguments& given)
      : layer(given.input, "input: expected (T, N, I), or (R, I) with batch_sizes", 1,
              given.weights, given.ragged),
        x_(with_dense_rows(of_width(given.input, layer.size.I))),
        h0_(checked_dense(given.h0, "h0", of_states(layer.size.P), layer.kind)),
        c0_(checked_dense(given.c0, "c0", of_states(layer.size.H), layer.kind)),
        lists_(layer.ragged, layer.rows),
        output_(cpu::results(of_rows(layer.size.P), layer.kind)),
        h_n_(empty(of_states(layer.size.P), layer.kind)),
        c_n_(empty(of_states(layer.size.H), layer.kind)),
        cell_(results_if(given.save_cell, of_rows(layer.size.H), layer.kind)),
        gates_(results_if(given.save_gates, layer.rows.of({layer.size.D, kGates, layer.size.H}),
                          layer.kind)) {}

  template <class Parameters>
  Parameters parameters() const {
    Parameters a = call_of<Parameters>(layer.size, layer.dtype);
    a.rows = lists_.rows();
    set_input(a, x_);
    a.h0 = data_or_null(h0_);
    a.c0 = data_or_null(c0_);
    set_weights(a.weights, layer);
    a.output = output_.mutable_data_ptr();
    a.h_n = h_n_.mutable_data_ptr();
    a.c_n = c_n_.mutable_data_ptr();
    a.cell = result_or_null(cell_);
    a.gates = result_or_null(gates_);
    return a;
  }
  ForwardResults results() const { return {output_, h_n_, c_n_, cell_, gates_}; }

  const Layer layer;

 private:
  static const Tensor& of_width(const Tensor& input, int64_t I) {
    require(input.size(input.dim() - 1) == I, "input: its last size is not that of w_ih");
    return input;
  }
  TensorShape of_states(int64_t width) const { return {layer.size.D, layer.size.N, width}; }
  TensorShape of_rows(int64_t width) const { return layer.rows.of({layer.size.D * width}); }

  const Tensor x_;
  const OptionalTensor h0_, c0_;
  const RowLists lists_;
  const Tensor output_, h_n_, c_n_, cell_, gates_;
};

class BackwardCall {
 public:
  explicit BackwardCall(const BackwardArguments& given)
      : layer(given.cell, "cell: expected (T, N, D*H), or (R, D*H) with batch_sizes", 1,
              given.weights, given.ragged),
        of_output(layer.rows.of({layer.size.D * layer.size.P})),
        of_cell(layer.rows.of({layer.size.D * layer.size.H})),
        of_gates(layer.rows.of({layer.size.D, kGates, layer.size.H})),
        grad_output_(checked_dense(given.grad_output, "grad_output", of_output, layer.kind)),
        grad_h_n_(checked_dense(given.grad_h_n, "grad_h_n", of_states(layer.size.P), layer.kind)),
        grad_c_n_(checked_dense(given.grad_c_n, "grad_c_n", of_states(layer.size.H), layer.kind)),
        grad_cell_(checked_dense(given.grad_cell, "grad_cell", of_cell, layer.kind)),
        grad_gates_(checked_dense(given.grad_gates, "grad_gates", of_gates, layer.kind)),
        c0_(checked_dense(given.c0, "c0", of_states(layer.size.H), layer.kind)),
        cell_(checked_dense(given.cell, "cell", of_cell, layer.kind)),
        gates_(checked_dense(given.gates, "gates", of_gates, layer.kind)),
        lists_(layer.ragged, layer.rows),
        grad_preactivations_(cpu::results(of_gates, layer.kind)),
        grad_h0_(empty(of_states(layer.size.P), layer.kind)),
        grad_c0_(empty(of_states(layer.size.H), layer.kind)),
        grad_hidden_(results_if(layer.projects, of_output, layer.kind)) {}

  template <class Parameters>
  Parameters parameters() const {
    Parameters a = call_of<Parameters>(layer.size, layer.dtype);
    a.rows = lists_.rows();
    a.grad_output = data_or_null(grad_output_);
    a.grad_h_n = data_or_null(grad_h_n_);
    a.grad_c_n = data_or_null(grad_c_n_);
    a.grad_cell = data_or_null(grad_cell_);
    a.grad_gates = data_or_null(grad_gates_);
    a.c0 = data_or_null(c0_);
    set_weights(a.weights, layer);
    a.cell = cell_.const_data_ptr();
    a.gates = gates_.const_data_ptr();
    a.grad_preactivations = grad_preactivations_.mutable_data_ptr();
    a.grad_h0 = grad_h0_.mutable_data_ptr();
    a.grad_c0 = grad_c0_.mutable_data_ptr();
    a.grad_hidden = result_or_null(grad_hidden_);
    return a;
  }
  BackwardResults results() const {
    return {grad_preactivations_, grad_h0_, grad_c0_, grad_hidden_};
  }

  const Layer layer;
  const TensorShape of_output, of_cell, of_gates;

 private:
  TensorShape of_states(int64_t width) const { return {layer.size.D, layer.size.N, width}; }

  const OptionalTensor grad_output_, grad_h_n_, grad_c_n_, grad_cell_, grad_gates_, c0_;
  const Tensor cell_, gates_;
  const RowLists lists_;
  const Tensor grad_preactivations_, grad_h0_, grad_c0_, grad_hidden_;
};

}  // namespace lstm_kernels::cpu
