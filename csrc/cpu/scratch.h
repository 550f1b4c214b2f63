// Scratch memory of the calling thread. Kept between calls, because fresh pages cost more than a
// short sequence takes; what is too large to keep is given back.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lstm_kernels::cpu {

class Scratch {
 public:
  // The calling thread's memory, at least `bytes` long, 64-byte aligned, contents undefined.
  explicit Scratch(size_t bytes) {
    Kept& kept = of_this_thread();
    if (bytes > kept.size) {
      kept.release();
      const size_t size = (bytes + kPage - 1) / kPage * kPage;
      kept.data = std::aligned_alloc(kPage, size);
      if (!kept.data)
        throw std::runtime_error("not enough memory: you tried to allocate " +
                                 std::to_string(bytes) + " bytes.");
      kept.size = size;
#ifdef MADV_HUGEPAGE
      madvise(kept.data, size, MADV_HUGEPAGE);  // only a hint: its failure changes nothing
#endif
    }
    data_ = kept.data;
  }
  ~Scratch() {
    if (Kept& kept = of_this_thread(); kept.size > kKeep) kept.release();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* data() const { return data_; }

 private:
  static constexpr size_t kPage = size_t(2) << 20;   // a huge page
  static constexpr size_t kKeep = size_t(64) << 20;  // per thread
  struct Kept {
    void* data = nullptr;
    size_t size = 0;
    void release() {
      std::free(data);
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
