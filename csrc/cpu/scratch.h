// Scratch memory of the calling thread. It stays between calls, because fresh pages cost more than
// a short sequence takes; a block that is too large to keep is freed after its call.
#pragma once
#include <cstddef>
#include <stdexcept>
#include <string>

#include "platform.h"
#include "tuning.h"

namespace lstm_kernels::cpu {

class Scratch {
 public:
  // The calling thread's memory, at least `bytes` long, 64-byte aligned, contents undefined.
  explicit Scratch(size_t bytes) {
    Kept& kept = of_this_thread();
    if (bytes > kept.size) {
      kept.release();
      const size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
      kept.data = allocate_huge_pages(size);
      if (!kept.data)
        throw std::runtime_error("not enough memory: you tried to allocate " +
                                 std::to_string(bytes) + " bytes.");
      kept.size = size;
    }
    data_ = kept.data;
  }
  ~Scratch() {
    if (Kept& kept = of_this_thread(); kept.size > kKeptScratch) kept.release();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data() const { return data_; }

 private:
  struct Kept {
    void* data = nullptr;
    size_t size = 0;
    void release() {
      free_huge_pages(data);
      data = nullptr;
      size = 0;
    }
    ~Kept() { release(); }
  };
  static Kept& of_this_thread() {
    static thread_local Kept kept;
    return kept;
  }
  void* data_;
};

}  // namespace lstm_kernels::cpu
