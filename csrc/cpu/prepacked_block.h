// The block that _prepack_weights returns and _prepacked_forward takes.
#pragma once
#include <cstring>

#include "kernels.h"
#include "results.h"

namespace lstm_kernels::cpu {

// A layer's weights in one block of bytes, good for calls of any T, N and number of threads in this
// process. What it begins with says which weights they are, and that the block is whole: layouts
// differ between instruction sets, and a kernel would trust any block.
class PrepackedBlock {
 public:
  static Tensor of(const LayerWeights& layer, const Kind& kind) {
    require(layer.weight_dtype == WeightDType::kOwn || layer.dtype == DType::kFloat32,
            "weight_dtype: only weights of float32 can be kept narrower");
    const int64_t bytes = size(layer);
    Tensor block = results({bytes}, kind.with(aoti_torch_dtype_uint8()));
    std::memset(block.mutable_data_ptr(), 0, size_t(bytes));  // the gaps: same weights, same bytes
    Header& header = *static_cast<Header*>(block.mutable_data_ptr());
    header = {kMagic, &kernels(), bytes, kernels().fingerprint(layer), layer.weight_dtype, {}};
    kernels().prepack_weights(layer, &header + 1);
    return block;
  }

  explicit PrepackedBlock(const Tensor& block) {
    require(block.dim() == 1 && block.is_contiguous() && block.is_cpu() &&
                Kind(block).dtype == aoti_torch_dtype_uint8() &&
                block.size(0) >= int64_t(sizeof(Header)) &&
                uintptr_t(block.const_data_ptr()) % alignof(Header) == 0,
            "prepacked: expected what _prepack_weights returned");
    header_ = static_cast<const Header*>(block.const_data_ptr());
    require(header_->magic == kMagic && header_->made_for == &kernels() &&
                header_->bytes == block.size(0),
            "prepacked: expected what _prepack_weights returned in this process");
  }
  WeightDType weight_dtype() const { return header_->weight_dtype; }
  const void* weights() const { return header_ + 1; }
  bool is_of(const LayerWeights& layer) const {
    return header_->fingerprint == kernels().fingerprint(layer) && header_->bytes == size(layer);
  }

 private:
  static constexpr uint64_t kMagic = 0x6b6361706d74736c;  // "lstmpack"
  struct alignas(64) Header {
    uint64_t magic;
    const Kernels* made_for;
    int64_t bytes;  // of the whole block
    uint64_t fingerprint;
    WeightDType weight_dtype;
    int unused[7];
  };
  static_assert(sizeof(Header) == 64);
  static int64_t size(const LayerWeights& layer) {
    return int64_t(sizeof(Header) + kernels().prepacked_bytes(layer));
  }
  const Header* header_;
};

}  // namespace lstm_kernels::cpu
