// Scratch memory of the calling thread, and huge pages. Kept between calls, because fresh pages
// cost more than a short sequence takes; what is too large to keep is given back.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lstm_kernels::cpu {

constexpr size_t kHugePage = size_t(2) << 20;

// Only a hint: where it fails nothing changes.
inline void advise_huge_pages(void* data, size_t bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t begin = (uintptr_t(data) + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (uintptr_t(data) + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

class Scratch {
 public:
  // The calling thread's memory, at least `bytes` long, 64-byte aligned, contents undefined.
  explicit Scratch(size_t bytes) {
    Kept& kept = of_this_thread();
    if (bytes > kept.size) {
      kept.release();
      const size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
      kept.data = std::aligned_alloc(kHugePage, size);
      if (!kept.data)
        throw std::runtime_error("not enough memory: you tried to allocate " +
                                 std::to_string(bytes) + " bytes.");
      kept.size = size;
      advise_huge_pages(kept.data, size);
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
