// Prints what one core can do: "<isa> <GFLOP/s>" of independent f32 multiply-adds for each
// instruction set of this CPU, and "read <GB/s>" of a sum over memory far larger than the caches.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr int kSums = 12;  // hide the latency of the multiply-adds; 16 registers hold them
constexpr int64_t kSteps = 1 << 20;

// `floats`: per vector. The operands stay in registers; the compiler contracts a * b + c.
#define SRT_PEAK(name, floats, attributes)                                                       \
  attributes double Peak_##name() {                                                              \
    typedef float V __attribute__((vector_size(floats * 4)));                                    \
    V sums[kSums] = {};                                                                          \
    V a = {}, b = {};                                                                            \
    a += 0.5f;                                                                                   \
    b += 0.25f;                                                                                  \
    double best = 1e9;                                                                           \
    for (int run = 0; run < 20; ++run) {                                                         \
      const double begin = Seconds();                                                            \
      for (int64_t i = 0; i < kSteps; ++i) {                                                     \
        _Pragma("GCC unroll 12") for (int s = 0; s < kSums; ++s) sums[s] = a * sums[s] + b;      \
      }                                                                                          \
      const double took = Seconds() - begin;                                                     \
      best = took < best ? took : best;                                                          \
    }                                                                                            \
    V total = {};                                                                                \
    for (int s = 0; s < kSums; ++s) total += sums[s];                                            \
    volatile float sink = total[0];                                                              \
    (void)sink;                                                                                  \
    return 2.0 * kSums * floats * static_cast<double>(kSteps) / best * 1e-9;                     \
  }

// Four floats at a time, as the scalar kernels; without a multiply-add instruction two operations.
SRT_PEAK(scalar, 4, )
#if defined(__x86_64__)
SRT_PEAK(avx2, 8, __attribute__((target("avx2,fma"))))
SRT_PEAK(avx512, 16, __attribute__((target("avx512f,fma,prefer-vector-width=512"))))
#elif defined(__aarch64__)
SRT_PEAK(neon, 4, )
#endif

double ReadGigabytes() {
  std::vector<uint64_t> memory((size_t{256} << 20) / sizeof(uint64_t), 1);
  double best = 1e9;
  for (int run = 0; run < 5; ++run) {
    const double begin = Seconds();
    uint64_t sums[8] = {};
    for (size_t i = 0; i < memory.size(); i += 8) {
      for (size_t s = 0; s < 8; ++s) sums[s] += memory[i + s];
    }
    const double took = Seconds() - begin;
    volatile uint64_t sink =
        sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];
    (void)sink;
    best = took < best ? took : best;
  }
  return static_cast<double>(memory.size() * sizeof(uint64_t)) / best * 1e-9;
}

}  // namespace

int main() {
  std::printf("scalar %.2f\n", Peak_scalar());
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    std::printf("avx2 %.2f\n", Peak_avx2());
  }
  if (__builtin_cpu_supports("avx512f")) std::printf("avx512 %.2f\n", Peak_avx512());
#elif defined(__aarch64__)
  std::printf("neon %.2f\n", Peak_neon());
#endif
  std::printf("read %.2f\n", ReadGigabytes());
  return 0;
}
