// Packing for spmm: orders K, cuts it into blocks, then writes panel after panel.
#include "plan/pack_spmm.h"

#include <algorithm>
#include <cstring>

namespace sparsert {
namespace {

// Where each column of W goes: its packed K-row, or kDropped.
constexpr uint32_t kDropped = 0xffffffffu;

// Orders the K-rows of one group and records runs and channels (by taps), or keeps them (direct).
Status OrderDepth(const Csr& w, int64_t row_begin, int64_t row_end, int32_t taps, bool direct,
                  int32_t block_depth, PackedSpmm* packed, PackedMatrix* m, uint32_t* place) {
  const int64_t depth = w.cols;
  if (direct) {
    for (int64_t k = 0; k < depth; ++k) place[k] = static_cast<uint32_t>(k);
    m->depth = static_cast<int32_t>(depth);
    m->blocks = static_cast<int32_t>((depth + block_depth - 1) / block_depth);
    return Status::Ok();
  }
  for (int64_t k = 0; k < depth; ++k) place[k] = kDropped;
  for (uint32_t i = w.row_ptr[row_begin]; i < w.row_ptr[row_end]; ++i) place[w.col_idx[i]] = 0;

  // Fill blocks in (channel, tap) order, then sort within a block by tap.
  uint32_t next = 0;
  int64_t k = 0;
  SRT_RETURN_IF_ERROR(packed->run_offsets.push_back(static_cast<uint32_t>(packed->runs.size())));
  while (k < depth) {
    int64_t end = k;
    int32_t used = 0;
    for (; end < depth && used < block_depth; ++end) used += place[end] != kDropped;
    if (used == 0) break;
    for (int32_t tap = 0; tap < taps; ++tap) {
      FeedRun run = {static_cast<uint16_t>(tap), 0};
      const int64_t first = k + (tap - k % taps + taps) % taps;
      for (int64_t i = first; i < end; i += taps) {
        if (place[i] == kDropped) continue;
        place[i] = next++;
        SRT_RETURN_IF_ERROR(packed->channels.push_back(static_cast<uint32_t>(i / taps)));
        ++run.count;
      }
      if (run.count != 0) SRT_RETURN_IF_ERROR(packed->runs.push_back(run));
    }
    SRT_RETURN_IF_ERROR(packed->run_offsets.push_back(static_cast<uint32_t>(packed->runs.size())));
    k = end;
  }
  m->depth = static_cast<int32_t>(next);
  m->blocks = static_cast<int32_t>((next + block_depth - 1) / block_depth);
  if (m->blocks == 0) {  // an empty block keeps the kernels' walk uniform
    m->blocks = 1;
    SRT_RETURN_IF_ERROR(packed->run_offsets.push_back(static_cast<uint32_t>(packed->runs.size())));
  }
  return Status::Ok();
}

// One panel's non-zeros within one block, as pattern and values per K-row.
struct PanelColumns {
  uint8_t* pattern;  // [block_depth] bit r: row r is non-zero
  float* values;     // [block_depth][8]
};

Status AppendPanel(const PanelColumns& panel, int32_t depth, SpmmFormat format,
                   PackedSpmm* packed) {
  const int mr = SpmmPanelRows(format);
  switch (format) {
    case SpmmFormat::kDense:
      for (int32_t k = 0; k < depth; ++k) {
        SRT_RETURN_IF_ERROR(packed->values.append(panel.values + k * 8, mr));
      }
      return Status::Ok();
    case SpmmFormat::kBsr4:
    case SpmmFormat::kBsr8: {
      uint16_t count = 0;
      for (int32_t k = 0; k < depth; ++k) {
        if (panel.pattern[k] == 0) continue;
        SRT_RETURN_IF_ERROR(packed->ids.push_back(static_cast<uint16_t>(k)));
        SRT_RETURN_IF_ERROR(packed->values.append(panel.values + k * 8, mr));
        ++count;
      }
      return packed->counts.push_back(count);
    }
    case SpmmFormat::kPat4: {
      uint16_t first[kPatterns + 2] = {};
      for (int32_t k = 0; k < depth; ++k) ++first[panel.pattern[k]];
      SRT_RETURN_IF_ERROR(packed->counts.append(first + 1, kPatterns));
      for (int pattern = 1; pattern <= kPatterns; ++pattern) {
        if (first[pattern] == 0) continue;
        for (int32_t k = 0; k < depth; ++k) {
          if (panel.pattern[k] != pattern) continue;
          SRT_RETURN_IF_ERROR(packed->ids.push_back(static_cast<uint16_t>(k)));
          for (int r = 0; r < 4; ++r) {
            if (pattern >> r & 1) {
              SRT_RETURN_IF_ERROR(packed->values.push_back(panel.values[k * 8 + r]));
            }
          }
        }
      }
      return Status::Ok();
    }
    default:
      return Status::Error(StatusCode::kInternal, "unknown spmm format");
  }
}

// (packed K-row, value) of one row of W, sorted by K-row.
struct Entry {
  uint32_t k;
  float value;
};

// One 64-row panel of one block: rows by falling number of non-zeros, so that successive rows run
// their loops equally often. `next`: where each row's entries of this block begin, moved to its
// end.
Status AppendCsrPanel(const Csr& weights, const Array<Entry>& entries, int64_t row_begin,
                      int64_t first_row, int64_t rows, uint32_t k_begin, uint32_t k_end,
                      Array<uint32_t>* next, PackedSpmm* packed) {
  const uint32_t first = weights.row_ptr[row_begin];
  uint32_t end_of[kCsrPanelRows];
  uint16_t order[kCsrPanelRows];
  uint16_t count[kCsrPanelRows] = {};
  const int n = static_cast<int>(std::min<int64_t>(kCsrPanelRows, rows - first_row));
  for (int r = 0; r < n; ++r) {
    const int64_t row = first_row + r;
    const uint32_t end = weights.row_ptr[row_begin + row + 1] - first;
    uint32_t i = (*next)[row];
    while (i < end && entries[i].k < k_end) ++i;
    end_of[r] = i;
    count[r] = static_cast<uint16_t>(i - (*next)[row]);
    order[r] = static_cast<uint16_t>(r);
  }
  std::sort(order, order + n, [&](uint16_t a, uint16_t b) {
    return count[a] != count[b] ? count[a] > count[b] : a < b;
  });
  for (int at = 0; at < kCsrPanelRows; ++at) {
    const uint16_t pair[2] = {at < n ? order[at] : uint16_t{0},
                              at < n ? count[order[at]] : uint16_t{0}};
    SRT_RETURN_IF_ERROR(packed->counts.append(pair, 2));
    if (at >= n) continue;
    const int64_t row = first_row + order[at];
    for (uint32_t i = (*next)[row]; i < end_of[order[at]]; ++i) {
      SRT_RETURN_IF_ERROR(packed->ids.push_back(static_cast<uint16_t>(entries[i].k - k_begin)));
      SRT_RETURN_IF_ERROR(packed->values.push_back(entries[i].value));
    }
  }
  for (int r = 0; r < n; ++r) (*next)[first_row + r] = end_of[r];
  return Status::Ok();
}

}  // namespace

Status PackSpmm(const Csr& weights, int32_t groups, int32_t taps, SpmmFormat format, bool direct,
                int32_t block_depth, PackedSpmm* packed) {
  const Allocator* allocator = packed->groups.allocator();
  packed->format = format;
  packed->direct = direct;
  packed->block_depth = block_depth;
  const int mr = SpmmPanelRows(format);
  const int64_t rows = weights.rows / groups;
  SRT_RETURN_IF_ERROR(packed->groups.resize(groups));
  SRT_RETURN_IF_ERROR(packed->values.reserve(weights.nnz() + 64));
  Array<uint32_t> place(allocator);
  SRT_RETURN_IF_ERROR(place.resize(weights.cols));
  Array<Entry> entries(allocator);
  Array<uint32_t> row_next(allocator);
  Array<uint8_t> pattern(allocator);
  Array<float> values(allocator);
  SRT_RETURN_IF_ERROR(row_next.resize(rows + 1));
  SRT_RETURN_IF_ERROR(pattern.resize(block_depth));
  SRT_RETURN_IF_ERROR(values.resize(static_cast<size_t>(block_depth) * 8));

  // Views are set at the end, since the arrays move while they grow; until then offsets.
  struct Start {
    size_t counts, offsets, channels, run_offsets;
  };
  Array<Start> starts(allocator);

  for (int32_t g = 0; g < groups; ++g) {
    PackedMatrix& m = packed->groups[g];
    m.rows = static_cast<int32_t>(rows);
    m.block_depth = block_depth;
    m.panel_rows = mr;
    m.panels = static_cast<int32_t>((rows + mr - 1) / mr);
    SRT_RETURN_IF_ERROR(starts.push_back({packed->counts.size(), packed->id_offsets.size(),
                                          packed->channels.size(), packed->run_offsets.size()}));
    const int64_t row_begin = g * rows;
    SRT_RETURN_IF_ERROR(OrderDepth(weights, row_begin, row_begin + rows, taps, direct, block_depth,
                                   packed, &m, place.data()));

    // Rows in packed K order.
    const uint32_t first = weights.row_ptr[row_begin];
    SRT_RETURN_IF_ERROR(entries.resize(weights.row_ptr[row_begin + rows] - first));
    for (int64_t r = 0; r < rows; ++r) {
      const uint32_t begin = weights.row_ptr[row_begin + r];
      const uint32_t end = weights.row_ptr[row_begin + r + 1];
      for (uint32_t i = begin; i < end; ++i) {
        entries[i - first] = {place[weights.col_idx[i]], weights.values[i]};
      }
      if (!direct) {
        std::sort(entries.data() + (begin - first), entries.data() + (end - first),
                  [](const Entry& a, const Entry& b) { return a.k < b.k; });
      }
      row_next[r] = begin - first;
    }

    for (int32_t b = 0; b < m.blocks; ++b) {
      const uint32_t k_begin = static_cast<uint32_t>(b) * block_depth;
      const int32_t depth =
          std::max(0, std::min(block_depth, m.depth - static_cast<int32_t>(k_begin)));
      for (int32_t p = 0; p < m.panels; ++p) {
        if (packed->ids.size() > UINT32_MAX || packed->values.size() > UINT32_MAX) {
          return Status::Error(StatusCode::kUnsupported, "a layer holds over 2^32 weights");
        }
        SRT_RETURN_IF_ERROR(
            packed->id_offsets.push_back(static_cast<uint32_t>(packed->ids.size())));
        SRT_RETURN_IF_ERROR(
            packed->value_offsets.push_back(static_cast<uint32_t>(packed->values.size())));
        if (format == SpmmFormat::kCsr) {
          SRT_RETURN_IF_ERROR(
              AppendCsrPanel(weights, entries, row_begin, static_cast<int64_t>(p) * mr, rows,
                             k_begin, k_begin + static_cast<uint32_t>(depth), &row_next, packed));
          continue;
        }
        std::memset(pattern.data(), 0, pattern.size());
        std::memset(static_cast<void*>(values.data()), 0, values.size_bytes());
        for (int r = 0; r < mr && p * mr + r < rows; ++r) {
          const int64_t row = static_cast<int64_t>(p) * mr + r;
          const uint32_t end = weights.row_ptr[row_begin + row + 1] - first;
          uint32_t i = row_next[row];
          for (; i < end && entries[i].k < k_begin + depth; ++i) {
            const uint32_t k = entries[i].k - k_begin;
            pattern[k] |= static_cast<uint8_t>(1u << r);
            values[k * 8 + r] = entries[i].value;
          }
          row_next[row] = i;
        }
        SRT_RETURN_IF_ERROR(AppendPanel({pattern.data(), values.data()}, depth, format, packed));
      }
    }
  }

  for (int32_t g = 0; g < groups; ++g) {
    PackedMatrix& m = packed->groups[g];
    const Start& s = starts[g];
    m.counts = packed->counts.data() + s.counts;
    m.ids = packed->ids.data();
    m.values = packed->values.data();
    m.id_offsets = packed->id_offsets.data() + s.offsets;
    m.value_offsets = packed->value_offsets.data() + s.offsets;
    m.channels = packed->channels.data() + s.channels;
    m.runs = packed->runs.data();
    m.run_offsets = packed->run_offsets.data() + s.run_offsets;
  }
  return Status::Ok();
}

void SplitPanels(const PackedMatrix& m, SpmmFormat format, int32_t splits, int32_t* bounds) {
  // Stored weights per panel, summed over the blocks, plus a constant for a panel's own cost.
  auto cost = [&](int32_t panel) {
    uint64_t stored = 16;
    for (int32_t b = 0; b < m.blocks; ++b) {
      const size_t at = static_cast<size_t>(b) * m.panels + panel;
      if (format == SpmmFormat::kDense) {
        stored += static_cast<uint64_t>(m.panel_rows) * m.block_depth;
      } else if (format == SpmmFormat::kPat4) {
        for (int i = 0; i < kPatterns; ++i) {
          stored += static_cast<uint64_t>(m.counts[at * kPatterns + i]) *
                    __builtin_popcount(static_cast<unsigned>(i) + 1);
        }
      } else if (format == SpmmFormat::kCsr) {
        for (int r = 0; r < kCsrPanelRows; ++r) {
          stored += m.counts[(at * kCsrPanelRows + r) * 2 + 1];
        }
      } else {
        stored += static_cast<uint64_t>(m.counts[at]) * m.panel_rows;
      }
    }
    return stored;
  };
  uint64_t total = 0;
  for (int32_t p = 0; p < m.panels; ++p) total += cost(p);
  uint64_t sum = 0;
  int32_t split = 0;
  bounds[0] = 0;
  for (int32_t p = 0; p < m.panels && split + 1 < splits; ++p) {
    sum += cost(p);
    while (split + 1 < splits && sum * splits >= total * (split + 1)) bounds[++split] = p + 1;
  }
  while (split < splits) bounds[++split] = m.panels;
}

}  // namespace sparsert
