// Packing without CSR: the same as through CSR, from f32 and f16, in memory and from a mapped file.
#include "plan/pack_dense.h"

#include <fcntl.h>

#include <algorithm>

#include "product_harness.h"

namespace sparsert {
namespace test {
namespace {

// Bytes in a read-only mapping of a file that has no name any more.
class MappedFile {
 public:
  explicit MappedFile(const std::vector<uint8_t>& bytes) : size_(bytes.size()) {
    char path[] = "pack_dense_test.XXXXXX";
    const int file = mkstemp(path);
    if (file < 0 || write(file, bytes.data(), size_) != static_cast<ssize_t>(size_)) std::abort();
    unlink(path);
    data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
    if (data_ == MAP_FAILED) std::abort();
    close(file);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() { munmap(data_, size_); }

  const uint8_t* data() const { return static_cast<const uint8_t*>(data_); }

 private:
  size_t size_;
  void* data_;
};

// Multiples of 1/4, none of them 0: f16 holds them exactly.
std::vector<uint8_t> RandomWeights(int64_t count, DType dtype, std::vector<float>* values,
                                   Random* random) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count) * DTypeSize(dtype));
  for (int64_t i = 0; i < count; ++i) {
    // Powers of 2 from 1/4 to 2, of either sign.
    const int exponent = static_cast<int>(random->Int(-2, 1));
    const bool minus = random->Int(0, 1) == 1;
    const float value = std::ldexp(minus ? -1.0f : 1.0f, exponent);
    values->push_back(value);
    if (dtype == DType::kF32) {
      memcpy(bytes.data() + 4 * i, &value, 4);
    } else {
      const auto half = static_cast<uint16_t>((minus ? 0x8000 : 0) | (15 + exponent) << 10);
      memcpy(bytes.data() + 2 * i, &half, 2);
    }
  }
  return bytes;
}

EncodedTensor Encoded(const uint8_t* bytes, DType dtype, int64_t rows, int64_t cols) {
  EncodedTensor t;
  t.value_dtype = dtype;
  t.rows = rows;
  t.cols = cols;
  t.stored_values = static_cast<uint64_t>(rows * cols);
  t.values = bytes;
  return t;
}

template <typename T>
void ExpectSame(const Array<T>& a, const Array<T>& b, const char* what) {
  Expect(a.size() == b.size() && (a.empty() || memcmp(a.data(), b.data(), a.size_bytes()) == 0),
         what);
}

void TestSpmm(const EncodedTensor& tensor, bool mapped, const Csr& csr, int32_t groups,
              int32_t taps, SpmmFormat format, bool direct, int32_t block_depth) {
  PackedSpmm want(DefaultAllocator());
  Must(PackSpmm(csr, groups, taps, format, direct, block_depth, 0, &want));
  PackedSpmm got(DefaultAllocator());
  {
    DenseRows rows(tensor, mapped, DefaultAllocator());
    Must(PackDenseSpmm(&rows, groups, taps, format, direct, block_depth, &got));
  }
  Expect(got.groups.size() == want.groups.size(), "groups");
  for (int32_t g = 0; g < groups; ++g) {
    const PackedMatrix& a = got.groups[g];
    const PackedMatrix& b = want.groups[g];
    Expect(a.rows == b.rows && a.depth == b.depth && a.blocks == b.blocks &&
               a.block_depth == b.block_depth && a.panels == b.panels &&
               a.panel_rows == b.panel_rows,
           "matrix");
    for (int32_t block = 0; block < b.blocks; ++block) {
      const int32_t depth = std::min(b.block_depth, b.depth - block * b.block_depth);
      const int32_t unit = SpmmHasSquares(format) ? kSquareRows : 1;
      const int32_t stored = (depth + unit - 1) / unit * unit;
      for (int32_t p = 0; p < b.panels; ++p) {
        const size_t at = static_cast<size_t>(block) * b.panels + p;
        Expect(memcmp(a.values + a.value_offsets[at], b.values + b.value_offsets[at],
                      sizeof(float) * stored * b.panel_rows) == 0,
               "values");
      }
      if (direct) continue;
      const int32_t k = block * b.block_depth;
      Expect(memcmp(a.channels + k, b.channels + k, sizeof(uint32_t) * depth) == 0, "channels");
      const uint32_t first = b.run_offsets[block];
      Expect(a.run_offsets[block + 1] - a.run_offsets[block] == b.run_offsets[block + 1] - first,
             "runs of a block");
      for (uint32_t i = first; i < b.run_offsets[block + 1]; ++i) {
        const FeedRun& run = a.runs[a.run_offsets[block] + (i - first)];
        Expect(run.tap == b.runs[i].tap && run.count == b.runs[i].count, "run");
      }
    }
  }
}

void TestSpmv(const EncodedTensor& tensor, bool mapped, const Csr& csr, int32_t lanes,
              const float* bias) {
  PackedSpmv want(DefaultAllocator());
  Must(PackSpmv(csr, bias, SpmvFormat::kDense, lanes, &want));
  PackedSpmv got(DefaultAllocator());
  {
    DenseRows rows(tensor, mapped, DefaultAllocator());
    Must(PackDenseSpmv(&rows, bias, lanes, &got));
  }
  ExpectSame(got.values, want.values, "values");
  ExpectSame(got.bias, want.bias, "bias");
  ExpectSame(got.row_of, want.row_of, "rows");
  Expect(got.slices.rows == want.slices.rows && got.slices.cols == want.slices.cols &&
             got.slices.slices == want.slices.slices &&
             (got.slices.bias == nullptr) == (bias == nullptr),
         "slices");
}

void TestMatrix(int64_t rows, int64_t channels, int32_t taps, int32_t groups, DType dtype,
                bool mapped, Random* random) {
  const int64_t cols = channels * taps;
  context = std::to_string(rows) + " rows, " + std::to_string(channels) + " channels, " +
            std::to_string(taps) + " taps, " + std::to_string(groups) + " groups, dtype " +
            std::to_string(static_cast<int>(dtype)) + (mapped ? ", mapped" : "");
  std::vector<float> values;
  const std::vector<uint8_t> bytes = RandomWeights(rows * groups * cols, dtype, &values, random);
  const MappedFile file(bytes);
  const EncodedTensor tensor =
      Encoded(mapped ? file.data() : bytes.data(), dtype, rows * groups, cols);
  Csr csr(DefaultAllocator());
  FillCsr(values, rows * groups, cols, &csr);
  for (const SpmmFormat format : {SpmmFormat::kDense, SpmmFormat::kDense8, SpmmFormat::kDense16}) {
    for (const int32_t block_depth : {1, 5, 64, 4096}) {
      TestSpmm(tensor, mapped, csr, groups, taps, format, false, block_depth);
      if (taps == 1) TestSpmm(tensor, mapped, csr, groups, taps, format, true, block_depth);
    }
  }
  std::vector<float> bias(static_cast<size_t>(rows * groups));
  for (float& b : bias) b = Quarter(random, 4);
  for (const int32_t lanes : {4, 8, 16}) {
    TestSpmv(tensor, mapped, csr, lanes, nullptr);
    TestSpmv(tensor, mapped, csr, lanes, bias.data());
  }
  Expect(memcmp(tensor.values, bytes.data(), bytes.size()) == 0, "the constant is still there");
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert;        // NOLINT
  using namespace sparsert::test;  // NOLINT
  Random random(41);
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    for (const bool mapped : {false, true}) {
      for (const int64_t rows : {1, 3, 4, 7, 8, 17, 33}) {
        for (const int64_t channels : {1, 2, 7, 130}) {
          for (const int32_t taps : {1, 3, 9}) {
            TestMatrix(rows, channels, taps, static_cast<int32_t>(random.Int(1, 2)), dtype, mapped,
                       &random);
          }
        }
      }
      TestMatrix(70, 40000, 1, 1, dtype, mapped, &random);  // pages leave while it is packed
    }
  }
  return Finish("pack_dense_test");
}
