#include "team.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <vector>

#include "helper_threads.h"
#include "platform.h"
#include "torch_threads.h"

// Tests may hold up a thread between phases, before it claims one, and with a phase in progress.
#ifdef LSTM_TEAM_TEST_POINT
void LSTM_TEAM_TEST_POINT();
#else
#define LSTM_TEAM_TEST_POINT()
#endif

namespace lstm_kernels::cpu {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int kSpins = 3000;
// Pauses, about a microsecond, for which a thread that is at work keeps its own part to itself; and
// how often others look afterwards.
constexpr int kPatience = 32, kLookEvery = 16;
// From the start of one call to that of the next: then it pays to wake others for a short one.
constexpr microseconds kSoon(500);
// The caller was held up where it waited for longer than this, and than an eighth of the call: a
// helper that was asleep makes it wait for less.
constexpr microseconds kHeldUp(300);
// Helpers may cost this much more time than they save. Then calls are done alone for a while, the
// longer the more was lost. What helpers have saved before counts up to the second limit.
constexpr milliseconds kMostDebt(5), kMostSavings(5), kLongestAlone(320);
constexpr int kAlonePerLost = 16;
// So rarely a region is opened only to see whether torch's threads are there. Its end leaves them
// spinning.
constexpr milliseconds kProbeEvery(1000);

// A helper that has had its core for this long offers it to other threads: less than the slices of
// the usual schedulers.
constexpr microseconds kTurn(1000);
thread_local int64_t turn_began = 0;

uint64_t load(const uint64_t& count) { return __atomic_load_n(&count, __ATOMIC_ACQUIRE); }
template <class T>
T glance(const T& value) {
  return __atomic_load_n(&value, __ATOMIC_RELAXED);
}

int64_t now() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}
int64_t nanoseconds(std::chrono::nanoseconds time) { return time.count(); }

// How long a call took, and its caller's share.
struct Took {
  int64_t call_ns, phases;
  Worked caller;

  bool held_up() const { return caller.waited_ns > std::max(nanoseconds(kHeldUp), call_ns / 8); }
  // How much longer the caller alone would have taken, by the phases that it did.
  int64_t saved_ns() const {
    if (caller.phases == 0) return 0;
    const double worked = double(call_ns - caller.waited_ns);
    return int64_t(worked * double(phases) / double(caller.phases)) - call_ns;
  }
};

enum class Outcome { kRan, kWaits, kFinished };

// Does the next phase of a part, if it may begin and nobody has. A helper may come when the call is
// over, and the parts are those of another one: it finds this one's finished.
Outcome attempt(const Parts& all, uint64_t start, int q) {
  Part& part = all.parts[q];
  uint64_t finished = load(part.finished);
  const uint64_t phase = finished - start;
  if (phase >= Part::kFinished) return Outcome::kFinished;
  if (int64_t(phase) <= glance(part.in_step))
    for (int j = glance(part.first), last = glance(part.last); j < last; ++j)
      if (load(all.parts[j].finished) - start < phase) return Outcome::kWaits;
  LSTM_TEAM_TEST_POINT();
  if (glance(part.claimed) != finished ||
      !__atomic_compare_exchange_n(&part.claimed, &finished, finished + 1, false, __ATOMIC_ACQUIRE,
                                   __ATOMIC_RELAXED))
    return Outcome::kWaits;
  LSTM_TEAM_TEST_POINT();
  const bool last = all.run_phase(all.context, q);
  __atomic_store_n(&part.finished, last ? start + Part::kFinished : finished + 1, __ATOMIC_RELEASE);
  return Outcome::kRan;
}

// Whether to take a phase of another thread's part after `spins` pauses: at once where the thread
// is not at work; otherwise it has a moment.
bool may_take(const Part& part, int spins) {
  if (!glance(part.present)) return true;
  return spins >= kPatience && spins % kLookEvery == 0;
}

// Who helps a call. Torch's threads, where they are awake; our own ones otherwise. Where the caller
// was held up by our own, torch's may have the cores: a probe shows. Where calls take longer than
// alone all the same, the cores are busy with something else, and the caller goes on alone for a
// while.
class Team {
 public:
  void run(const Parts& parts, int helpers) {
    std::unique_lock<std::mutex> at_work(busy_, std::try_to_lock);
    const int64_t begin = now();
    if (!at_work || begin < alone_until_.load()) return void(work(parts, 0));
    const bool torch = (probe_ && torch_threads_usable()) || torch_threads_awake(helpers);
    const Worked caller = torch ? run_on_torch_threads(parts, helpers) : own_.run(parts, helpers);
    const int64_t end = now();
    torch_last_.store(torch);
    learn(begin, {end - begin, phases_of(torch ? parts : own_.parts()), caller});
  }
  bool alone() const { return now() < alone_until_.load(); }
  bool awake() const { return own_.awake() || (torch_last_.load() && torch_threads_awake(1)); }

 private:
  static int64_t phases_of(const Parts& parts) {
    uint64_t phases = 0;
    for (int q = 0; q < parts.count; ++q) phases += glance(parts.parts[q].claimed) - parts.start;
    return int64_t(phases);
  }
  void learn(int64_t begin, const Took& took) {
    const int64_t end = begin + took.call_ns;
    probe_ = false;
    if (took.held_up() && !torch_last_ && begin > probe_from_) {
      probe_ = torch_threads_suspected();
      probe_from_ = now() + nanoseconds(kProbeEvery);
      if (probe_) return;
    }
    saved_ = std::min(saved_ + took.saved_ns(), nanoseconds(kMostSavings));
    if (saved_ < -nanoseconds(kMostDebt)) {
      alone_until_.store(end + std::min(kAlonePerLost * -saved_, nanoseconds(kLongestAlone)));
      saved_ = 0;
    }
  }

  std::mutex busy_;
  HelperThreads own_;
  std::atomic<int64_t> alone_until_ = 0;
  std::atomic<bool> torch_last_ = false;
  int64_t saved_ = 0, probe_from_ = 0;
  bool probe_ = false;
};

// A forked child has none of its parent's threads, so it begins with a new team. A team is
// never destroyed, because its helpers look at it until the process ends.
std::atomic<Team*> current = nullptr;

[[maybe_unused]] const bool prepared_for_forks = [] {
  after_fork_in_child([] {
    current.store(nullptr);
    forget_torch_threads();
  });
  return true;
}();

Team& team() {
  Team* there = current.load();
  if (there) return *there;
  Team* made = new Team;
  if (current.compare_exchange_strong(there, made)) return *made;
  delete made;
  return *there;
}

// Whether this call comes soon after the one before, so that more can be expected.
bool follows_soon() {
  static std::atomic<int64_t> before = 0;
  const int64_t time = now();
  return time - before.exchange(time, std::memory_order_relaxed) < nanoseconds(kSoon);
}

}  // namespace

void wait_once(int spins) {
  if (spins < kSpins)
    pause();
  else
    yield();
}

void begin_turn() { turn_began = now(); }

Worked work(const Parts& all, int own, bool takes_turns) {
  Worked done;
  const uint64_t start = load(all.start);
  const int count = glance(all.count);
  if (own >= count) return done;
  Part& mine = all.parts[own];
  int64_t waits_since = 0;
  for (int spins = 0;;) {
    if (!glance(mine.present)) __atomic_store_n(&mine.present, 1, __ATOMIC_RELAXED);
    LSTM_TEAM_TEST_POINT();
    if (takes_turns && now() - turn_began >= nanoseconds(kTurn)) {
      yield();
      begin_turn();
    }
    Outcome outcome = attempt(all, start, own);
    bool finished = outcome == Outcome::kFinished;
    for (int i = 1; i < count && outcome != Outcome::kRan; ++i) {
      const int q = (own + i) % count;
      Part& part = all.parts[q];
      if (load(part.finished) - start >= Part::kFinished) continue;
      finished = false;
      if (!may_take(part, spins)) continue;
      outcome = attempt(all, start, q);
      if (outcome == Outcome::kRan) __atomic_store_n(&part.present, 0, __ATOMIC_RELAXED);
    }
    if (outcome == Outcome::kRan || finished) {
      if (spins > kSpins) done.waited_ns += now() - waits_since;
      if (finished) return done;
      ++done.phases, spins = 0;
      continue;
    }
    if (spins == kSpins) waits_since = now();
    wait_once(spins++);
  }
}

Threads usable_threads(int wanted) {
  if (wanted <= 1 || team().alone()) return {1, false};
  static std::atomic<int64_t> calls = 0;
  static std::atomic<int> cores = 1;
  if (calls.fetch_add(1, std::memory_order_relaxed) % 64 == 0)  // others may change them
    cores.store(Cores::of_this_thread().count());
  return {std::min({wanted, cores.load(), kMostThreads}), follows_soon() || team().awake()};
}

void run_parts(const Parts& parts, int threads) {
  const int helpers = std::min(threads, parts.count) - 1;
  if (helpers > 0)
    team().run(parts, helpers);
  else
    work(parts, 0);
}

void run_each(int count, void (*body)(void*, int), void* context) {
  if (count <= 1) return body(context, 0);
  struct Each {
    void (*body)(void*, int);
    void* context;
  } each{body, context};
  std::vector<Part> parts(static_cast<size_t>(count));
  for (int q = 0; q < count; ++q) parts[size_t(q)] = {0, 0, q == 0, q, q + 1, 0};
  auto run_phase = [](void* of, int q) {
    static_cast<Each*>(of)->body(static_cast<Each*>(of)->context, q);
    return true;
  };
  run_parts({parts.data(), count, run_phase, &each}, count);
}

}  // namespace lstm_kernels::cpu
