// Compares the kernels with a plain double-precision loop, without Python: for other architectures
// (under an emulator) and for thread sanitizer: also with threads that come late, and with several
// callers at once. Prints what failed; exits with 1 if anything did.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "isas.h"
#include "team_check.h"

using namespace lstm_kernels;

namespace {

struct Case {
  int64_t T, N, I, H;
  int threads;
};
constexpr Case kCases[] = {{1, 1, 1, 1, 1},    {3, 2, 5, 7, 1},    {5, 7, 3, 16, 2},
                           {4, 1, 33, 100, 2}, {3, 64, 9, 64, 2},  {6, 3, 8, 40, 4},
                           {2, 130, 4, 24, 3}, {40, 16, 20, 48, 2}};

std::vector<double> random_numbers(int64_t n) {
  thread_local uint64_t state = 1;
  std::vector<double> numbers(static_cast<size_t>(n));
  for (double& x : numbers) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = double(state >> 40) / double(1 << 23) - 1;
  }
  return numbers;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

template <class T>
std::vector<T> as(const std::vector<double>& from) {
  return std::vector<T>(from.begin(), from.end());
}

// The largest difference, infinite where a number is missing.
template <class T>
double distance(const std::vector<T>& got, const std::vector<double>& expected) {
  double most = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double d = std::fabs(double(got[i]) - expected[i]);
    most = d <= most ? most : std::isnan(d) ? INFINITY : d;
  }
  return most;
}

struct Aligned {
  void* data;
  static constexpr std::align_val_t kAlignment{64};
  explicit Aligned(size_t bytes) : data(::operator new(bytes + 64, kAlignment)) {}
  ~Aligned() { ::operator delete(data, kAlignment); }
};

template <class T>
double forward_and_backward(const cpu::Kernels& kernels, DType dtype, const Case& k) {
  const int64_t T_ = k.T, N = k.N, I = k.I, H = k.H, R = T_ * N;
  const auto x = random_numbers(R * I), w_ih = random_numbers(4 * H * I),
             w_hh = random_numbers(4 * H * H), b = random_numbers(4 * H),
             h0 = random_numbers(N * H), c0 = random_numbers(N * H), dy = random_numbers(R * H);
  std::vector<double> y(size_t(R * H)), cell(y), gates(size_t(R * 4 * H)), dg(gates),
      dh0(size_t(N * H)), dc0(dh0);
  for (int64_t t = 0; t < T_; ++t)
    for (int64_t n = 0; n < N; ++n) {
      const double* h = t ? &y[size_t(((t - 1) * N + n) * H)] : &h0[size_t(n * H)];
      const double* c = t ? &cell[size_t(((t - 1) * N + n) * H)] : &c0[size_t(n * H)];
      const size_t row = size_t(t * N + n);
      for (int64_t u = 0; u < H; ++u) {
        double a[4];
        for (int64_t g = 0; g < 4; ++g) {
          a[g] = b[size_t(g * H + u)];
          for (int64_t j = 0; j < I; ++j)
            a[g] += x[row * size_t(I) + size_t(j)] * w_ih[size_t((g * H + u) * I + j)];
          for (int64_t j = 0; j < H; ++j) a[g] += h[j] * w_hh[size_t((g * H + u) * H + j)];
          a[g] = g == kCandidate ? std::tanh(a[g]) : sigmoid(a[g]);
          gates[(row * 4 + size_t(g)) * size_t(H) + size_t(u)] = a[g];
        }
        const double next = a[1] * c[u] + a[0] * a[2];
        cell[row * size_t(H) + size_t(u)] = next;
        y[row * size_t(H) + size_t(u)] = a[3] * std::tanh(next);
      }
    }
  for (int64_t t = T_ - 1; t >= -1; --t)
    for (int64_t n = 0; n < N; ++n)
      for (int64_t u = 0; u < H; ++u) {
        double dh = t < 0 ? 0 : dy[size_t((t * N + n) * H + u)];
        if (t + 1 < T_)
          for (int64_t j = 0; j < 4 * H; ++j)
            dh += dg[size_t(((t + 1) * N + n) * 4 * H + j)] * w_hh[size_t(j * H + u)];
        double& dc = dc0[size_t(n * H + u)];  // carried from step to step
        if (t < 0) {
          dh0[size_t(n * H + u)] = dh;
          continue;
        }
        const size_t row = size_t(t * N + n);
        const double* g = &gates[row * 4 * size_t(H) + size_t(u)];
        const double c = cell[row * size_t(H) + size_t(u)];
        const double before =
            t ? cell[(row - size_t(N)) * size_t(H) + size_t(u)] : c0[size_t(n * H + u)];
        const double i = g[0], f = g[H], z = g[2 * H], o = g[3 * H], squashed = std::tanh(c);
        dc += dh * o * (1 - squashed * squashed);
        double* to = &dg[row * 4 * size_t(H) + size_t(u)];
        to[0] = dc * z * i * (1 - i), to[H] = dc * before * f * (1 - f);
        to[2 * H] = dc * i * (1 - z * z), to[3 * H] = dh * squashed * o * (1 - o);
        dc *= f;
      }
  std::vector<double> dx(size_t(R * I)), dw(size_t(4 * H * I)), du(size_t(4 * H * H)),
      db(size_t(4 * H));
  for (int64_t row = 0; row < R; ++row)
    for (int64_t g = 0; g < 4 * H; ++g) {
      const double* h = row < N ? &h0[size_t(row * H)] : &y[size_t((row - N) * H)];
      const double grad = dg[size_t(row * 4 * H + g)];
      db[size_t(g)] += grad;
      for (int64_t j = 0; j < H; ++j) du[size_t(g * H + j)] += grad * h[j];
      for (int64_t j = 0; j < I; ++j) {
        dw[size_t(g * I + j)] += grad * x[size_t(row * I + j)];
        dx[size_t(row * I + j)] += grad * w_ih[size_t(g * I + j)];
      }
    }

  const auto X = as<T>(x), W = as<T>(w_ih), U = as<T>(w_hh), B = as<T>(b), H0 = as<T>(h0),
             C0 = as<T>(c0), DY = as<T>(dy);
  std::vector<T> Y(y.size()), C(cell.size()), G(gates.size()), HN(h0.size()), CN(h0.size());
  cpu::SequenceForward a{};
  a.size = {T_, N, I, H, H, 1}, a.dtype = dtype, a.threads = {k.threads, true};
  a.x = X.data(), a.x_step = N * I, a.x_row = I, a.h0 = H0.data(), a.c0 = C0.data();
  a.weights[0] = {W.data(), U.data(), B.data(), nullptr, nullptr};
  a.output = Y.data(), a.h_n = HN.data(), a.c_n = CN.data(), a.cell = C.data(), a.gates = G.data();
  const Aligned scratch(kernels.sequence_forward_scratch(a));
  kernels.sequence_forward(a, scratch.data);

  std::vector<T> DG(dg.size()), DH0(h0.size()), DC0(h0.size());
  cpu::SequenceBackward d{};
  d.size = a.size, d.dtype = dtype, d.threads = {k.threads, true}, d.grad_output = DY.data(),
  d.c0 = C0.data();
  d.weights[0] = a.weights[0], d.cell = C.data(), d.gates = G.data();
  d.grad_preactivations = DG.data(), d.grad_h0 = DH0.data(), d.grad_c0 = DC0.data();
  const Aligned more(kernels.sequence_backward_scratch(d));
  kernels.sequence_backward(d, more.data);

  std::vector<T> DX(dx.size()), DW(dw.size()), DU(du.size()), DB(db.size());
  cpu::GradWeights w{};
  w.size = a.size, w.dtype = dtype, w.threads = {k.threads, true},
  w.grad_preactivations = DG.data();
  w.x = X.data(), w.x_step = N * I, w.x_row = I, w.h0 = H0.data(), w.output = Y.data();
  w.grad_w_ih = DW.data(), w.grad_w_hh = DU.data(), w.grad_bias = DB.data();
  const Aligned for_weights(kernels.weight_gradients_scratch(w));
  kernels.weight_gradients(w, for_weights.data);

  cpu::GradInput i{};
  i.size = a.size, i.dtype = dtype, i.threads = {k.threads, true},
  i.grad_preactivations = DG.data();
  i.weights[0] = a.weights[0], i.grad_input = DX.data();
  const Aligned for_input(kernels.input_gradient_scratch(i));
  kernels.input_gradient(i, for_input.data);

  double most = 0;
  for (double e :
       {distance(Y, y), distance(C, cell), distance(G, gates), distance(DG, dg), distance(DH0, dh0),
        distance(DC0, dc0), distance(DX, dx), distance(DW, dw), distance(DU, du), distance(DB, db)})
    most = e > most ? e : most;
  return most;
}

// One step of 8-bit products. Operands are integers whose range is 255, so that rounding them to 8
// bits changes nothing, and the scale of all weights is a power of two.
double quantized_step(const cpu::Kernels& kernels, const Case& k) {
  const int64_t N = k.N, I = k.I, H = k.H;
  auto integers = [](int64_t n, double least, double most) {
    std::vector<double> numbers = random_numbers(n);
    for (double& x : numbers) x = std::floor(least + (x + 1) / 2 * (most - least + 1));
    return numbers;
  };
  auto operands = [&](int64_t width) {
    std::vector<double> rows = integers(N * width, -100, 155);
    for (int64_t n = 0; n < N; ++n) rows[size_t(n * width)] = 155;
    for (int64_t n = 0; n < N && width > 1; ++n) rows[size_t(n * width + width - 1)] = -100;
    return rows;
  };
  const auto x = operands(I), h0 = operands(H), c0 = random_numbers(N * H),
             w_ih = integers(4 * H * I, -127, 127), w_hh = integers(4 * H * H, -127, 127),
             b = random_numbers(4 * H);
  const double scale = std::exp2(-17);
  std::vector<double> y(size_t(N * H)), cell(y), gates(size_t(N * 4 * H));
  for (int64_t n = 0; n < N; ++n)
    for (int64_t u = 0; u < H; ++u) {
      double a[4];
      for (int64_t g = 0; g < 4; ++g) {
        double sum = 0;
        for (int64_t j = 0; j < I; ++j)
          sum += x[size_t(n * I + j)] * w_ih[size_t((g * H + u) * I + j)];
        for (int64_t j = 0; j < H; ++j)
          sum += h0[size_t(n * H + j)] * w_hh[size_t((g * H + u) * H + j)];
        a[g] = b[size_t(g * H + u)] + scale * sum;
        a[g] = g == kCandidate ? std::tanh(a[g]) : sigmoid(a[g]);
        gates[size_t((n * 4 + g) * H + u)] = a[g];
      }
      const double next = a[1] * c0[size_t(n * H + u)] + a[0] * a[2];
      cell[size_t(n * H + u)] = next;
      y[size_t(n * H + u)] = a[3] * std::tanh(next);
    }

  const auto X = as<float>(x), H0 = as<float>(h0), C0 = as<float>(c0), B = as<float>(b);
  const auto W = as<int8_t>(w_ih), U = as<int8_t>(w_hh);
  const std::vector<float> scales(size_t(4 * H), float(scale));
  cpu::LayerWeights layer{};
  layer.size = {1, N, I, H, H, 1}, layer.threads = {k.threads, true};
  layer.weights[0] = {W.data(), U.data(), B.data(), nullptr, nullptr};
  layer.weight_dtype = cpu::WeightDType::kInt8;
  layer.scales[0] = {scales.data(), scales.data(), nullptr};
  const Aligned prepacked(kernels.prepacked_bytes(layer));
  kernels.prepack_weights(layer, prepacked.data);
  std::vector<float> Y(y.size()), C(cell.size()), G(gates.size());
  cpu::SequenceForward a{};
  a.size = layer.size, a.threads = layer.threads, a.weight_dtype = layer.weight_dtype;
  a.x = X.data(), a.x_step = N * I, a.x_row = I, a.h0 = H0.data(), a.c0 = C0.data();
  a.prepacked = prepacked.data, a.output = Y.data(), a.cell = C.data(), a.gates = G.data();
  const Aligned scratch(kernels.sequence_forward_scratch(a));
  kernels.sequence_forward(a, scratch.data);
  double most = 0;
  for (double e : {distance(Y, y), distance(C, cell), distance(G, gates)})
    most = e > most ? e : most;
  return most;
}

}  // namespace

// Every case on every instruction set; says how many failed.
int check_all(const char* how) {
  int failures = 0;
  for (const cpu::Kernels* kernels : testable_kernels())
    for (const Case& k : kCases) {
      // Sums of up to 4 * H products of numbers below 1, through at most 40 steps.
      const double e32 = forward_and_backward<float>(*kernels, DType::kFloat32, k);
      const double e64 = forward_and_backward<double>(*kernels, DType::kFloat64, k);
      const double e8 = quantized_step(*kernels, k);
      const bool failed = !(e32 < 1e-3 && e64 < 1e-11 && e8 < 1e-5);
      failures += failed;
      std::printf(
          "%-8s T%-3ld N%-3ld I%-3ld H%-3ld threads %d  float %.1e  double %.1e  8 bits %.1e%s%s\n",
          kernels->isa, long(k.T), long(k.N), long(k.I), long(k.H), k.threads, e32, e64, e8, how,
          failed ? "  FAILED" : "");
    }
  return failures;
}

int main() {
  std::atomic<int> failures = check_all("");
  hold_up_threads(20);
  const int faults = faults_of_team(std::chrono::seconds(5));
  std::printf("a team that is held up: %d faults\n", faults);
  failures += faults;
  failures += check_all("  held up");
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i)
    callers.emplace_back([&] { failures += check_all("  held up, one of three callers"); });
  for (std::thread& caller : callers) caller.join();
  return failures > 0;
}
