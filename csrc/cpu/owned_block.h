// The block that _own_weights returns: the weights of a stack of layers, and all there is to know
// about them. Unlike a PrepackedBlock it is good without the tensors it was made from, so that no
// call compares anything.
#pragma once
#include <cstring>
#include <vector>

#include "integers.h"
#include "kernels.h"
#include "results.h"

namespace lstm_kernels::cpu {

class OwnedBlock {
 public:
  // All layers are of one dtype and have as many directions and units; the input of those after the
  // first is the output of the one before.
  static Tensor of(const std::vector<LayerWeights>& layers, const Kind& kind) {
    const LayerWeights& first = layers.front();
    const Header header = {kMagic,
                           &kernels(),
                           0,
                           {layer_bytes(first), layer_bytes(layers.back())},
                           first.size,
                           first.dtype,
                           first.weight_dtype,
                           first.reduced_precision,
                           first.weights[0].w_hr != nullptr,
                           int(layers.size())};
    const int64_t bytes = offset_of(header, header.layers);
    Tensor block = results({bytes}, kind.with(aoti_torch_dtype_uint8()));
    char* const data = static_cast<char*>(block.mutable_data_ptr());
    std::memset(data, 0, size_t(bytes));  // the gaps: same weights, same bytes
    *reinterpret_cast<Header*>(data) = header;
    reinterpret_cast<Header*>(data)->bytes = bytes;
    for (int l = 0; l < header.layers; ++l)
      kernels().prepack_weights(layers[size_t(l)], data + offset_of(header, l));
    return block;
  }

  explicit OwnedBlock(const Tensor& block) {
    require(block.dim() == 1 && block.is_contiguous() && block.is_cpu() &&
                Kind(block).dtype == aoti_torch_dtype_uint8() &&
                block.size(0) >= int64_t(sizeof(Header)) &&
                uintptr_t(block.const_data_ptr()) % alignof(Header) == 0,
            "owned: expected what _own_weights returned");
    header_ = static_cast<const Header*>(block.const_data_ptr());
    require(header_->magic == kMagic && header_->made_for == &kernels() &&
                header_->bytes == block.size(0),
            "owned: expected what _own_weights returned in this process");
  }

  int layers() const { return header_->layers; }
  DType dtype() const { return header_->dtype; }
  WeightDType weight_dtype() const { return header_->weight_dtype; }
  bool reduced_precision() const { return header_->reduced_precision; }
  bool projects() const { return header_->projects; }
  // Of a layer: I, H, P and D.
  Sizes size(int layer) const {
    Sizes size = header_->size;
    if (layer > 0) size.I = size.D * size.P;
    return size;
  }
  // What prepack_weights made of a layer.
  const void* weights(int layer) const {
    return reinterpret_cast<const char*>(header_) + offset_of(*header_, layer);
  }

 private:
  static constexpr uint64_t kMagic = 0x6e776f6d74736c01;  // "lstmown", 1
  struct alignas(64) Header {
    uint64_t magic;
    const Kernels* made_for;
    int64_t bytes;           // of the whole block
    int64_t layer_bytes[2];  // of the first layer, and of each other
    Sizes size;              // of the first layer: I, H, P, D
    DType dtype;
    WeightDType weight_dtype;
    bool reduced_precision, projects;
    int layers;
  };
  static int64_t layer_bytes(const LayerWeights& layer) {
    return round_up(int64_t(kernels().prepacked_bytes(layer)), int64_t(alignof(Header)));
  }
  static int64_t offset_of(const Header& header, int layer) {
    const int64_t first = int64_t(sizeof(Header));
    return layer == 0 ? first
                      : first + header.layer_bytes[0] + int64_t(layer - 1) * header.layer_bytes[1];
  }
  const Header* header_;
};

}  // namespace lstm_kernels::cpu
