// Rows of a panel are paired by their numbers of non-zeros: the shorter one is filled up.
#include "plan/pack_any4.h"

#include <cstring>
#include <utility>

#if !defined(SRT_ARM)  // see kHasAny4

namespace sparsert {
namespace {

// The bytes of a row that are not zero, one by one.
class RowBytes {
 public:
  RowBytes(const PackEntry* begin, const PackEntry* end, uint32_t k_begin)
      : at_(begin), end_(end), k_begin_(k_begin) {}

  // False behind the last one.
  bool Next(uint16_t* id, uint8_t* weight) {
    for (; at_ != end_; ++at_, byte_ = 0) {
      uint8_t bytes[4];
      std::memcpy(bytes, &at_->value, sizeof(bytes));
      while (byte_ < 4 && bytes[byte_] == 0) ++byte_;
      if (byte_ == 4) continue;
      *id = static_cast<uint16_t>(4 * (at_->k - k_begin_) + byte_);
      *weight = bytes[byte_++];
      return true;
    }
    return false;
  }

 private:
  const PackEntry* at_;
  const PackEntry* end_;
  uint32_t k_begin_;
  uint32_t byte_ = 0;
};

}  // namespace

Status AppendAny4Panel(const PackEntry* entries, const uint32_t* row_end, int rows,
                       uint32_t k_begin, uint32_t k_end, uint32_t* next, PackedSpmm* packed) {
  RowBytes bytes[4] = {
      {entries, entries, 0}, {entries, entries, 0}, {entries, entries, 0}, {entries, entries, 0}};
  uint32_t count[4] = {};
  int order[4] = {0, 1, 2, 3};
  for (int r = 0; r < rows; ++r) {
    const uint32_t begin = next[r];
    while (next[r] < row_end[r] && entries[next[r]].k < k_end) ++next[r];
    bytes[r] = RowBytes(entries + begin, entries + next[r], k_begin);
    RowBytes counted = bytes[r];
    uint16_t id;
    uint8_t weight;
    while (counted.Next(&id, &weight)) ++count[r];
  }
  for (int r = 1; r < rows; ++r) {  // the longest first
    for (int i = r; i > 0 && count[order[i]] > count[order[i - 1]]; --i) {
      std::swap(order[i], order[i - 1]);
    }
  }
  Csr2Pair pairs[2];
  size_t fours = 0;
  for (int p = 0; p < 2; ++p) {
    const int* row = order + 2 * p;
    const auto longest = static_cast<uint16_t>((count[row[0]] + 3) / 4);
    const auto row_of = [&](int i) {
      return 2 * p + i < rows ? static_cast<uint16_t>(row[i]) : kNoRow;
    };
    pairs[p] = {{row_of(0), row_of(1)}, 0, longest};
    fours += 2u * longest;
  }
  constexpr size_t kCounts = 2 * (sizeof(Csr2Pair) / sizeof(uint16_t));
  SRT_RETURN_IF_ERROR(packed->counts.reserve_more(kCounts));
  SRT_RETURN_IF_ERROR(packed->ids.reserve_more(4 * fours));
  SRT_RETURN_IF_ERROR(packed->values.reserve_more(fours));
  std::memcpy(packed->counts.extend_unchecked(kCounts), pairs, sizeof(pairs));
  for (int p = 0; p < 2; ++p) {
    uint16_t last[2] = {};  // a weight of zero reads what was read before
    for (int n = 0; n < pairs[p].single; ++n) {
      for (int i = 0; i < 2; ++i) {
        uint8_t weights[4] = {};
        for (uint8_t& weight : weights) {
          bytes[order[2 * p + i]].Next(&last[i], &weight);
          packed->ids.push_unchecked(last[i]);
        }
        float value;
        std::memcpy(&value, weights, sizeof(value));
        packed->values.push_unchecked(value);
      }
    }
  }
  return Status::Ok();
}

}  // namespace sparsert

#endif
