// Keeps persistent kernels of different streams from waiting for each other endlessly.
//
// The blocks of a persistent kernel wait for one another, so all of them must be on the device at
// once. A cooperative launch checks that there is room for them on an empty device. With two such
// kernels on streams of different priority, each might hold multiprocessors that the other needs,
// and neither would end. Nothing in CUDA's documentation excludes that. So a kernel that does not
// fit together with those of other streams waits for them, on the device. The host does not wait.
//
// What a graph captures is left alone: its order is that of the graph.
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <mutex>
#include <vector>

namespace lstm_kernels::cuda {

// Persistent kernels come in generations. Those of one fit on the device together, whatever their
// streams, and each waits for the whole generation before.
class Residents {
 public:
  static Residents& of_device(int device) {
    constexpr int kMostDevices = 128;
    static Residents residents[kMostDevices];
    return residents[device % kMostDevices];
  }

  // Launches `blocks` blocks by launch(), on a device that holds `room` of them.
  template <class F>
  cudaError_t launch(cudaStream_t stream, int blocks, int room, F launch) {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    cudaError_t error = cudaStreamIsCapturing(stream, &capture);
    if (error != cudaSuccess) return error;
    if (capture != cudaStreamCaptureStatusNone) return launch();

    const std::lock_guard<std::mutex> lock(mutex_);
    int others = 0;
    for (const Stream& s : now_)
      if (s.stream != stream) others += s.blocks;
    if (others + blocks > room) {
      spare_.insert(spare_.end(), before_.begin(), before_.end());
      before_.swap(now_);
      now_.clear();
    }
    auto mine =
        std::find_if(now_.begin(), now_.end(), [&](const Stream& s) { return s.stream == stream; });
    if (mine == now_.end()) {  // later launches on the stream follow this one
      for (const Stream& s : before_)
        if (error == cudaSuccess && s.stream != stream)
          error = cudaStreamWaitEvent(stream, s.ended, 0);
      if (error != cudaSuccess) return error;
      cudaEvent_t ended = nullptr;
      if (spare_.empty()) {
        error = cudaEventCreateWithFlags(&ended, cudaEventDisableTiming);
        if (error != cudaSuccess) return error;
      } else {
        ended = spare_.back().ended;
        spare_.pop_back();
      }
      mine = now_.insert(now_.end(), {stream, 0, ended});
    }
    mine->blocks = std::max(mine->blocks, blocks);
    error = launch();
    const cudaError_t recorded = cudaEventRecord(mine->ended, stream);
    return error != cudaSuccess ? error : recorded;
  }

 private:
  struct Stream {
    cudaStream_t stream;
    int blocks;         // of its largest kernel in the generation
    cudaEvent_t ended;  // recorded after its last one
  };
  std::mutex mutex_;
  std::vector<Stream> before_, now_;
  std::vector<Stream> spare_;  // for their events
};

}  // namespace lstm_kernels::cuda
