// What the tests of products of bytes share, those of qspmm and of qspmv.
#pragma once

#include "kernels/qspmm/qspmm.h"
#include "product_harness.h"

namespace sparsert {
namespace test {

struct Problem {
  int32_t batch = 1;
  int32_t groups = 1;
  int64_t rows = 1;      // of one group
  int64_t channels = 1;  // of one group
  bool direct = false;
  Window window;
  int64_t columns = 1;
  int32_t block_depth = 1;
  int32_t splits = 1;
  bool by_rows = false;
  bool by_blocks = false;  // of squares alone
  bool f32_output = false;
  bool has_bias = false;
  bool has_residual = false;
  bool guard_at_end = true;
  double density = 0.5;
  Sparsity sparsity = Sparsity::kRandom;
  Activation act;
};

inline int64_t Quads(int64_t n) { return (n + 3) / 4; }

inline uint8_t SomeByte(Random* random) {  // the ends often
  const int64_t sort = random->Int(0, 9);
  if (sort == 0) return 0;
  if (sort == 1) return 255;
  return static_cast<uint8_t>(random->Int(0, 255));
}

inline int8_t SomeWeight(Random* random) {
  const int64_t sort = random->Int(0, 9);
  if (sort == 0) return -128;
  if (sort == 1) return 127;
  return static_cast<int8_t>(random->Int(-128, 127));
}

// [groups * rows][channels * taps] signed bytes; the columns of `sparsity` are (channel, tap).
inline std::vector<int8_t> RandomBytes(const Problem& p, int64_t taps, Random* random) {
  const std::vector<float> mask =
      RandomMatrix(p.groups * p.rows, p.channels * taps, p.density, p.sparsity, random);
  std::vector<int8_t> w(mask.size());
  for (size_t i = 0; i < w.size(); ++i) w[i] = mask[i] == 0.0f ? int8_t{0} : SomeWeight(random);
  return w;
}

// Groups of four channels become the columns of a CSR matrix of (channels / 4, tap).
inline void FillQuads(const std::vector<int8_t>& w, int64_t rows, int64_t channels, int64_t taps,
                      Csr* csr) {
  csr->rows = rows;
  csr->cols = Quads(channels) * taps;
  Must(csr->row_ptr.push_back(0));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t q = 0; q < Quads(channels); ++q) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        int8_t quad[4] = {};
        for (int64_t c = 4 * q; c < std::min(channels, 4 * q + 4); ++c) {
          quad[c % 4] = w[static_cast<size_t>((r * channels + c) * taps + tap)];
        }
        uint32_t bits;
        std::memcpy(&bits, quad, sizeof(bits));
        if (bits == 0) continue;
        float value;
        std::memcpy(&value, quad, sizeof(value));
        Must(csr->col_idx.push_back(static_cast<uint32_t>(q * taps + tap)));
        Must(csr->values.push_back(value));
      }
    }
    Must(csr->row_ptr.push_back(static_cast<uint32_t>(csr->values.size())));
  }
}

inline uint8_t* Bytes(Guarded* floats) { return reinterpret_cast<uint8_t*>(floats->data()); }

inline float Clamp(float a, int low, int high) {
  return std::min(std::max(a, static_cast<float>(low)), static_cast<float>(high));
}

// Lets a product take the zero point, starts and scales of its rows from memory that
// QspmmRowScales has filled; with a scale of X that is exact, `scale` stays what it is.
inline void TakeRowsAtRun(const std::vector<int32_t>& weights, const std::vector<float>& scale,
                          int byte_offset, int x_zero, QspmmArgs* q, Guarded* rows) {
  constexpr float kStep = 0.25f;
  std::vector<float> row_scale(scale);
  for (float& s : row_scale) s /= kStep;
  float params[2] = {kStep, static_cast<float>(x_zero)};
  QspmmRowScalesArgs args;
  args.rows = static_cast<int64_t>(scale.size());
  args.weights = weights.data();
  args.row_scale = row_scale.data();
  args.byte_offset = byte_offset;
  Run(QspmmRowScales(), &args, {params, rows->data()}, 1, 0);
  q->at_run = true;
  q->fill = static_cast<uint8_t>(x_zero + 1);
  q->start = nullptr;
  q->scale = nullptr;
}

// A problem whose sizes, blocking, splits, fusions and sparsity follow from `number`.
inline Problem SomeProblem(int number, int64_t columns, Random* random) {
  static const int64_t kRows[] = {1, 3, 4, 5, 8, 9, 17, 2, 7, 33, 65, 130};
  static const int64_t kChannels[] = {1, 3, 4, 5, 8, 17, 35, 130};
  static const int32_t kBlocks[] = {1, 3, 32, 4096};
  static const double kDensities[] = {1.0, 0.5, 0.1, 0.9, 0.25};
  static const Sparsity kSorts[] = {
      Sparsity::kRandom,       Sparsity::kRowPanels, Sparsity::kRandom, Sparsity::kEmptyRows,
      Sparsity::kEmptyColumns, Sparsity::kRandom,    Sparsity::kOne,    Sparsity::kNone};
  Problem p;
  p.rows = kRows[random->Int(0, 11)];
  p.channels = kChannels[random->Int(0, 7)];
  p.block_depth = kBlocks[number % 4];
  p.density = kDensities[random->Int(0, 4)];
  p.sparsity = kSorts[random->Int(0, 7)];
  p.batch = static_cast<int32_t>(random->Int(1, 2));
  p.groups = static_cast<int32_t>(number % 3 == 0 ? random->Int(2, 3) : 1);
  p.splits = static_cast<int32_t>(random->Int(1, 4));
  p.f32_output = random->Int(0, 2) == 0;
  p.has_bias = random->Int(0, 1) == 1;
  p.has_residual = random->Int(0, 2) == 0;
  p.guard_at_end = random->Int(0, 1) == 1;
  p.act = SomeActivation(number);
  p.direct = random->Int(0, 1) == 0;
  p.by_rows = random->Int(0, 1) == 1;
  p.by_blocks = random->Int(0, 1) == 1;
  if (p.direct) {
    p.columns = columns;
    p.window.in[1] = p.window.out[1] = columns;
  } else {
    p.rows = std::min<int64_t>(p.rows, 33);
    p.channels = std::min<int64_t>(p.channels, 17);
    p.window = RandomWindow(random, false, std::max<int64_t>(1, columns / 2));
    p.columns = p.window.out[0] * p.window.out[1];
  }
  return p;
}

}  // namespace test
}  // namespace sparsert
