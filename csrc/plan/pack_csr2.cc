// Rows are matched greedily: of all pairs that are alike in length, the one with the most columns
// in common first. Random rows have few columns in common on average; among the hundreds of
// partners that a row may choose from, some have many.
#include "plan/pack_csr2.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace sparsert {
namespace {

// A row looks for its partner among so many rows of the next smaller lengths.
constexpr int kPartners = 64;
// A zero that fills up the shorter row costs a multiply-add; a shared column saves a load.
constexpr int kZeroCost = 3;
constexpr int kShareGain = 2;
constexpr int kMaxZeros = 4;
constexpr int kLowestScore = -kZeroCost * kMaxZeros;
// In panels as small as these, the loop over a few shared columns costs more than it saves.
constexpr int kSmallPanel = 4;
constexpr int kFewShared = 4;

}  // namespace

Status Csr2Packer::Reserve(int32_t block_depth, int panel_rows) {
  words_ = (block_depth + 63) / 64;
  SRT_RETURN_IF_ERROR(bits_.resize(static_cast<size_t>(words_) * panel_rows));
  const size_t candidates = static_cast<size_t>(panel_rows) * kPartners;
  SRT_RETURN_IF_ERROR(candidates_.reserve(candidates));
  return sorted_.resize(candidates);
}

// Fills pairs_ for rows [0, rows): row[0] is the longer one, `both` the columns in common.
void Csr2Packer::MatchRows(int rows, int panel_rows) {
  uint16_t order[kCsr4PanelRows];
  for (int r = 0; r < rows; ++r) order[r] = static_cast<uint16_t>(r);
  std::sort(order, order + rows, [&](uint16_t a, uint16_t b) {
    return count_[a] != count_[b] ? count_[a] > count_[b] : a < b;
  });
  auto shared = [&](int a, int b) {
    const uint64_t* bits_a = bits_.data() + static_cast<size_t>(a) * words_;
    const uint64_t* bits_b = bits_.data() + static_cast<size_t>(b) * words_;
    int sum = 0;
    for (int i = 0; i < words_; ++i) sum += __builtin_popcountll(bits_a[i] & bits_b[i]);
    return sum;
  };

  candidates_.clear();
  int highest = kLowestScore;
  for (int i = 0; i < rows; ++i) {
    const int a = order[i];
    for (int j = i + 1; j < rows && j <= i + kPartners; ++j) {
      const int b = order[j];
      const int zeros = count_[a] - count_[b];
      if (zeros > kMaxZeros) break;
      const int score = std::min(kShareGain * shared(a, b), INT16_MAX) - kZeroCost * zeros;
      highest = std::max(highest, score);
      candidates_.push_unchecked(
          {static_cast<uint16_t>(a), static_cast<uint16_t>(b), static_cast<int16_t>(score)});
    }
  }
  // Best first: a counting sort where scores are few, as they nearly always are.
  Candidate* sorted = sorted_.data();
  constexpr int kBuckets = 1024;
  if (highest - kLowestScore < kBuckets) {
    uint32_t end[kBuckets + 1] = {};
    for (const Candidate& c : candidates_) ++end[highest - c.score + 1];
    for (int i = 1; i <= kBuckets; ++i) end[i] += end[i - 1];
    for (const Candidate& c : candidates_) sorted[end[highest - c.score]++] = c;
  } else {
    // In the same order among equals, without the memory that std::stable_sort allocates.
    int place[kCsr4PanelRows];
    for (int i = 0; i < rows; ++i) place[order[i]] = i;
    std::copy(candidates_.begin(), candidates_.end(), sorted);
    std::sort(sorted, sorted + candidates_.size(), [&](const Candidate& x, const Candidate& y) {
      if (x.score != y.score) return x.score > y.score;
      return x.a != y.a ? place[x.a] < place[y.a] : place[x.b] < place[y.b];
    });
  }

  bool taken[kCsr4PanelRows] = {};
  int pairs = 0;
  auto add = [&](int a, int b) {
    taken[a] = taken[b] = true;
    pairs_[pairs].row[0] = static_cast<uint16_t>(a);
    pairs_[pairs].row[1] = static_cast<uint16_t>(b);
    const int both = shared(a, b);
    const bool shares = panel_rows > kSmallPanel || both >= kFewShared;
    pairs_[pairs].both = static_cast<uint16_t>(shares ? both : 0);
    pairs_[pairs].single = static_cast<uint16_t>(count_[a] - pairs_[pairs].both);
    ++pairs;
  };
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (!taken[sorted[i].a] && !taken[sorted[i].b]) add(sorted[i].a, sorted[i].b);
  }
  // Those left over: in order of length; the last may stay alone.
  int waiting = -1;
  for (int i = 0; i < rows; ++i) {
    const int r = order[i];
    if (taken[r]) continue;
    if (waiting < 0) {
      waiting = r;
    } else {
      add(waiting, r);
      waiting = -1;
    }
  }
  if (waiting >= 0) {
    pairs_[pairs] = {{static_cast<uint16_t>(waiting), kNoRow}, 0, count_[waiting]};
    ++pairs;
  }
  // Successive pairs run their loops equally often.
  std::sort(pairs_, pairs_ + pairs, [](const Csr2Pair& a, const Csr2Pair& b) {
    if (a.both != b.both) return a.both > b.both;
    return a.single != b.single ? a.single > b.single : a.row[0] < b.row[0];
  });
}

// Two pairs, or one and two rows that are not there, as the next group.
void Csr2Packer::AddGroup(const Csr2Pair& a, const Csr2Pair* b) {
  Csr4Group& group = groups_[group_count_++];
  const bool two = b != nullptr;
  group = {{a.row[0], a.row[1], two ? b->row[0] : kNoRow, two ? b->row[1] : kNoRow}, a.both, 0};
  if (two) group.both = std::min(a.both, b->both);
  for (const uint16_t row : group.row) {
    if (row == kNoRow) continue;
    group.single = std::max(group.single, static_cast<uint16_t>(count_[row] - group.both));
  }
}

// Fills groups_ from pairs_, of which those of equal lengths lie side by side.
void Csr2Packer::MatchPairs(int pairs) {
  group_count_ = 0;
  uint16_t left[kCsr4PanelRows / 2];
  int lefts = 0;
  for (int i = 0; i < pairs; ++i) {
    const Csr2Pair& a = pairs_[i];
    const bool equal =
        i + 1 < pairs && a.both == pairs_[i + 1].both && a.single == pairs_[i + 1].single;
    if (equal) {
      AddGroup(a, &pairs_[++i]);
    } else {
      left[lefts++] = static_cast<uint16_t>(i);
    }
  }
  // The others: each with the one that costs least.
  for (int i = 0; i < lefts; ++i) {
    if (left[i] == kNoRow) continue;
    const Csr2Pair& a = pairs_[left[i]];
    int best = -1;
    int least = 0;
    for (int j = i + 1; j < lefts; ++j) {
      if (left[j] == kNoRow) continue;
      const Csr2Pair& b = pairs_[left[j]];
      const int unshared = std::abs(a.both - b.both);
      const int zeros = 2 * std::abs(a.both + a.single - b.both - b.single);
      const int cost = kShareGain * unshared + kZeroCost * zeros;
      if (best >= 0 && cost >= least) continue;
      best = j;
      least = cost;
    }
    AddGroup(a, best < 0 ? nullptr : &pairs_[left[best]]);
    if (best >= 0) left[best] = kNoRow;
  }
  std::sort(groups_, groups_ + group_count_, [](const Csr4Group& a, const Csr4Group& b) {
    if (a.both != b.both) return a.both > b.both;
    return a.single != b.single ? a.single > b.single : a.row[0] < b.row[0];
  });
}

Status Csr2Packer::AppendPanel(const PackEntry* entries, const uint32_t* row_end, int rows,
                               int panel_rows, uint32_t k_begin, uint32_t k_end, uint32_t* next,
                               PackedSpmm* packed) {
  std::memset(bits_.data(), 0, static_cast<size_t>(rows) * words_ * sizeof(uint64_t));
  for (int r = 0; r < rows; ++r) {
    begin_[r] = next[r];
    uint32_t i = next[r];
    uint64_t* bits = bits_.data() + static_cast<size_t>(r) * words_;
    for (; i < row_end[r] && entries[i].k < k_end; ++i) {
      const uint32_t k = entries[i].k - k_begin;
      bits[k / 64] |= uint64_t{1} << (k % 64);
    }
    count_[r] = static_cast<uint16_t>(i - next[r]);
    next[r] = i;
  }
  MatchRows(rows, panel_rows);
  return packed->format == SpmmFormat::kCsr4
             ? AppendGroups(entries, rows, panel_rows, k_begin, packed)
             : AppendPairs(entries, rows, panel_rows, k_begin, packed);
}

Status Csr2Packer::AppendGroups(const PackEntry* entries, int rows, int panel_rows,
                                uint32_t k_begin, PackedSpmm* packed) {
  MatchPairs((rows + 1) / 2);
  size_t columns = 0;  // of four values each
  for (int g = 0; g < group_count_; ++g) columns += groups_[g].both + groups_[g].single;
  constexpr size_t kCounts = sizeof(Csr4Group) / sizeof(uint16_t);
  const size_t counts_of_panel = static_cast<size_t>(panel_rows / 4) * kCounts;
  SRT_RETURN_IF_ERROR(packed->counts.reserve_more(counts_of_panel));
  SRT_RETURN_IF_ERROR(packed->ids.reserve_more(2 * columns));
  SRT_RETURN_IF_ERROR(packed->values.reserve_more(4 * columns));
  uint16_t* counts = packed->counts.extend_unchecked(counts_of_panel);
  std::memset(counts, 0, counts_of_panel * sizeof(uint16_t));
  std::memcpy(counts, groups_, static_cast<size_t>(group_count_) * sizeof(Csr4Group));
  for (int g = 0; g < group_count_; ++g) {
    const Csr4Group& group = groups_[g];
    const size_t ids = group.both + 2u * group.single;
    const size_t values = 4u * (group.both + group.single);
    uint16_t* id_pairs = packed->ids.extend_unchecked(ids);
    float* both_value = packed->values.extend_unchecked(values);
    std::fill_n(id_pairs, ids, uint16_t{0});
    std::fill_n(both_value, values, 0.0f);
    auto* both_id = reinterpret_cast<uint8_t*>(id_pairs);
    uint8_t* id = both_id + 2u * group.both;
    float* value = both_value + 4u * group.both;
    auto place = [k_begin](const PackEntry& e) { return static_cast<uint8_t>(e.k - k_begin); };
    for (int pair = 0; pair < 2; ++pair) {
      const uint16_t* row = group.row + 2 * pair;
      const auto first = [&](int i) {
        return row[i] == kNoRow ? entries : entries + begin_[row[i]];
      };
      const PackEntry* a = first(0);
      const PackEntry* a_end = row[0] == kNoRow ? a : a + count_[row[0]];
      const PackEntry* b = first(1);
      const PackEntry* b_end = row[1] == kNoRow ? b : b + count_[row[1]];
      int shared = 0;
      int at_a = 2 * pair;  // in `id` and `value`
      int at_b = 2 * pair + 1;
      while (a != a_end || b != b_end) {
        const bool same = a != a_end && b != b_end && a->k == b->k;
        if (same && shared < group.both) {
          both_id[2 * shared + pair] = place(*a);
          both_value[4 * shared + 2 * pair] = a++->value;
          both_value[4 * shared + 2 * pair + 1] = b++->value;
          ++shared;
        } else if (b == b_end || (a != a_end && a->k <= b->k)) {
          id[at_a] = place(*a);
          value[at_a] = a++->value;
          at_a += 4;
        } else {
          id[at_b] = place(*b);
          value[at_b] = b++->value;
          at_b += 4;
        }
      }
    }
  }
  return Status::Ok();
}

Status Csr2Packer::AppendPairs(const PackEntry* entries, int rows, int panel_rows, uint32_t k_begin,
                               PackedSpmm* packed) {
  const int pairs = (rows + 1) / 2;
  size_t values = 0;
  for (int p = 0; p < pairs; ++p) values += 2u * (pairs_[p].both + pairs_[p].single);
  SRT_RETURN_IF_ERROR(packed->counts.reserve_more(2 * panel_rows));
  SRT_RETURN_IF_ERROR(packed->ids.reserve_more(values));
  SRT_RETURN_IF_ERROR(packed->values.reserve_more(values));
  static_assert(sizeof(Csr2Pair) == 4 * sizeof(uint16_t), "counts are read as Csr2Pair");
  uint16_t* counts = packed->counts.extend_unchecked(2 * panel_rows);
  std::memset(counts, 0, 2u * panel_rows * sizeof(uint16_t));
  std::memcpy(counts, pairs_, pairs * sizeof(Csr2Pair));
  for (int p = 0; p < pairs; ++p) {
    const Csr2Pair& pair = pairs_[p];
    const PackEntry* a = entries + begin_[pair.row[0]];
    const PackEntry* a_end = a + count_[pair.row[0]];
    const bool has_b = pair.row[1] != kNoRow;
    const PackEntry* b = has_b ? entries + begin_[pair.row[1]] : a;
    const PackEntry* b_end = has_b ? b + count_[pair.row[1]] : b;
    uint16_t* both_id = packed->ids.extend_unchecked(pair.both);
    float* both_value = packed->values.extend_unchecked(2u * pair.both);
    uint16_t* id = packed->ids.extend_unchecked(2u * pair.single);
    float* value = packed->values.extend_unchecked(2u * pair.single);
    auto place = [k_begin](const PackEntry& e) { return static_cast<uint16_t>(e.k - k_begin); };
    int ones_a = 0;
    int ones_b = 0;
    while (a != a_end || b != b_end) {
      const bool shares = pair.both != 0;
      if (b == b_end || (a != a_end && (a->k < b->k || (!shares && a->k == b->k)))) {
        id[2 * ones_a] = place(*a);
        value[2 * ones_a++] = a++->value;
      } else if (a == a_end || b->k < a->k) {
        id[2 * ones_b + 1] = place(*b);
        value[2 * ones_b++ + 1] = b++->value;
      } else {
        *both_id++ = place(*a);
        *both_value++ = a++->value;
        *both_value++ = b++->value;
      }
    }
    for (; ones_b < ones_a; ++ones_b) {
      id[2 * ones_b + 1] = id[2 * ones_b];
      value[2 * ones_b + 1] = 0.0f;
    }
  }
  return Status::Ok();
}

}  // namespace sparsert
