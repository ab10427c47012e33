// Packing for spmm: orders K, cuts it into blocks, then writes panel after panel.
#include "plan/pack_spmm.h"

#include <algorithm>
#include <cstring>

#include "plan/pack_any4.h"
#include "plan/pack_csr2.h"

namespace sparsert {
namespace {

// Of the bits: a value may be four weights of a byte each.
bool IsZero(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits == 0;
}

// One panel's non-zeros within one block, as pattern and values per K-row.
struct PanelColumns {
  uint16_t* pattern;  // [block_depth] bit r: row r is non-zero
  float* values;      // [block_depth][kSquareRows]
};

// A panel's square of 16 K-rows from `k` on as it lies in tile registers: row after row.
void SquareOf(const PanelColumns& panel, int32_t k, int32_t depth, float* square) {
  for (int r = 0; r < kSquareRows; ++r) {
    for (int i = 0; i < kSquareRows; ++i) {
      square[r * kSquareRows + i] = k + i < depth ? panel.values[(k + i) * kSquareRows + r] : 0.0f;
    }
  }
}

// The masks of all squares, then the bytes that are not 0, square after square, row after row.
void AppendBits(const PanelColumns& panel, int32_t depth, PackedSpmm* packed) {
  const int32_t squares = (depth + kSquareRows - 1) / kSquareRows;
  constexpr int kMaskFloats = kSquareRows * sizeof(uint64_t) / sizeof(float);
  const size_t masks_at = packed->values.size();
  packed->values.extend_unchecked(static_cast<size_t>(squares) * kMaskFloats);
  uint8_t quad[4] = {};
  int used = 0;
  auto append = [&](uint8_t byte) {
    quad[used++] = byte;
    if (used < 4) return;
    float value;
    std::memcpy(&value, quad, sizeof(value));
    packed->values.push_unchecked(value);
    used = 0;
  };
  for (int32_t s = 0; s < squares; ++s) {
    float square[kSquareRows * kSquareRows];
    SquareOf(panel, s * kSquareRows, depth, square);
    const auto* bytes = reinterpret_cast<const uint8_t*>(square);
    uint64_t masks[kSquareRows] = {};
    for (int i = 0; i < kSquareRows * 64; ++i) {
      if (bytes[i] == 0) continue;
      masks[i / 64] |= uint64_t{1} << (i % 64);
      append(bytes[i]);
    }
    std::memcpy(packed->values.data() + masks_at + static_cast<size_t>(s) * kMaskFloats, masks,
                sizeof(masks));
  }
  while (used != 0) append(0);
  while (packed->values.size() % kSquareRows != 0) packed->values.push_unchecked(0.0f);
}

// Room for the panel was made by the caller.
void AppendPanel(const PanelColumns& panel, int32_t depth, SpmmFormat format, PackedSpmm* packed) {
  const int mr = SpmmPanelRows(format);
  switch (format) {
    case SpmmFormat::kBsr4:
    case SpmmFormat::kBsr8: {
      uint16_t count = 0;
      for (int32_t k = 0; k < depth; ++k) {
        if (panel.pattern[k] == 0) continue;
        packed->ids.push_unchecked(static_cast<uint16_t>(k));
        for (int r = 0; r < mr; ++r) {
          packed->values.push_unchecked(panel.values[k * kSquareRows + r]);
        }
        ++count;
      }
      packed->counts.push_unchecked(count);
      return;
    }
    case SpmmFormat::kPat4: {
      // Counting sort of the columns by pattern.
      uint16_t count[kPatterns + 1] = {};
      for (int32_t k = 0; k < depth; ++k) ++count[panel.pattern[k]];
      uint32_t id_at[kPatterns + 1];
      uint32_t value_at[kPatterns + 1];
      uint32_t ids = 0;
      uint32_t values = 0;
      for (int pattern = 1; pattern <= kPatterns; ++pattern) {
        packed->counts.push_unchecked(count[pattern]);
        id_at[pattern] = ids;
        value_at[pattern] = values;
        ids += count[pattern];
        values += count[pattern] * static_cast<uint32_t>(__builtin_popcount(pattern));
      }
      uint16_t* id = packed->ids.extend_unchecked(ids);
      float* value = packed->values.extend_unchecked(values);
      for (int32_t k = 0; k < depth; ++k) {
        const int pattern = panel.pattern[k];
        if (pattern == 0) continue;
        id[id_at[pattern]++] = static_cast<uint16_t>(k);
        for (int r = 0; r < 4; ++r) {
          if (pattern >> r & 1) value[value_at[pattern]++] = panel.values[k * kSquareRows + r];
        }
      }
      return;
    }
    case SpmmFormat::kDense16:
      for (int32_t k = 0; k < depth; k += kSquareRows) {
        SquareOf(panel, k, depth, packed->values.extend_unchecked(kSquareRows * kSquareRows));
      }
      return;
    case SpmmFormat::kBits16:
      return AppendBits(panel, depth, packed);
    default: {  // dense
      float* value = packed->values.extend_unchecked(static_cast<size_t>(depth) * mr);
      for (int32_t k = 0; k < depth; ++k) {
        for (int r = 0; r < mr; ++r) value[k * mr + r] = panel.values[k * kSquareRows + r];
      }
      return;
    }
  }
}

// One 64-row panel of one block: rows by falling number of non-zeros, so that successive rows run
// their loops equally often. `next`: where each row's entries of this block begin, moved to its
// end.
Status AppendCsrPanel(const PackEntry* entries, const uint32_t* row_end, int rows, uint32_t k_begin,
                      uint32_t k_end, uint32_t* next, PackedSpmm* packed) {
  uint16_t order[kCsrPanelRows];
  uint16_t count[kCsrPanelRows] = {};
  size_t total = 0;
  for (int r = 0; r < rows; ++r) {
    uint32_t i = next[r];
    while (i < row_end[r] && entries[i].k < k_end) ++i;
    count[r] = static_cast<uint16_t>(i - next[r]);
    order[r] = static_cast<uint16_t>(r);
    total += count[r];
  }
  std::sort(order, order + rows, [&](uint16_t a, uint16_t b) {
    return count[a] != count[b] ? count[a] > count[b] : a < b;
  });
  SRT_RETURN_IF_ERROR(packed->counts.reserve_more(2 * kCsrPanelRows));
  SRT_RETURN_IF_ERROR(packed->ids.reserve_more(total));
  SRT_RETURN_IF_ERROR(packed->values.reserve_more(total));
  for (int at = 0; at < kCsrPanelRows; ++at) {
    const uint16_t row = at < rows ? order[at] : uint16_t{0};
    packed->counts.push_unchecked(row);
    packed->counts.push_unchecked(at < rows ? count[row] : uint16_t{0});
    if (at >= rows) continue;
    for (const uint32_t end = next[row] + count[row]; next[row] < end; ++next[row]) {
      packed->ids.push_unchecked(static_cast<uint16_t>(entries[next[row]].k - k_begin));
      packed->values.push_unchecked(entries[next[row]].value);
    }
  }
  return Status::Ok();
}

}  // namespace

Status OrderTaps(int32_t taps, PackedSpmm* packed, PackedMatrix* m, Array<uint32_t>* place_of) {
  if (taps - 1 > UINT16_MAX) {
    return Status::Error(StatusCode::kUnsupported, "a kernel of %d taps is too large", taps);
  }
  // Fill blocks in (channel, tap) order, then sort within a block by tap.
  Array<uint32_t>& place = *place_of;
  const auto depth = static_cast<int64_t>(place.size());
  uint32_t next = 0;
  int64_t k = 0;
  SRT_RETURN_IF_ERROR(packed->run_offsets.push_back(static_cast<uint32_t>(packed->runs.size())));
  while (k < depth) {
    int64_t end = k;
    int32_t used = 0;
    for (; end < depth && used < m->block_depth; ++end) used += place[end] != kDroppedColumn;
    if (used == 0) break;
    for (int32_t tap = 0; tap < taps; ++tap) {
      FeedRun run = {static_cast<uint16_t>(tap), 0};
      const int64_t first = k + (tap - k % taps + taps) % taps;
      for (int64_t i = first; i < end; i += taps) {
        if (place[i] == kDroppedColumn) continue;
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
  m->blocks = static_cast<int32_t>((next + m->block_depth - 1) / m->block_depth);
  if (m->blocks == 0) {  // an empty block keeps the kernels' walk uniform
    m->blocks = 1;
    SRT_RETURN_IF_ERROR(packed->run_offsets.push_back(static_cast<uint32_t>(packed->runs.size())));
  }
  return Status::Ok();
}

Status PackSpmm(const Csr& weights, int32_t groups, int32_t taps, SpmmFormat format, bool direct,
                int32_t block_depth, int32_t pair_rows, PackedSpmm* packed) {
  // Ids and counts of a block have 16 bits.
  if (block_depth > UINT16_MAX) {
    return Status::Error(StatusCode::kInternal, "a block of %d weights is too deep", block_depth);
  }
  const Allocator* allocator = packed->groups.allocator();
  packed->format = format;
  packed->direct = direct;
  if (format == SpmmFormat::kCsr4) block_depth = std::min(block_depth, kCsr4BlockDepth);
  if (kHasAny4 && format == SpmmFormat::kAny4) block_depth = std::min(block_depth, kAny4BlockDepth);
  packed->block_depth = block_depth;
  const bool paired = format == SpmmFormat::kCsr2 || format == SpmmFormat::kCsr4;
  const int mr = paired ? pair_rows : SpmmPanelRows(format);
  const int64_t rows = weights.rows / groups;
  SRT_RETURN_IF_ERROR(packed->groups.resize(groups));
  Array<uint32_t> place(allocator);
  SRT_RETURN_IF_ERROR(place.resize(weights.cols));
  Array<PackEntry> entries(allocator);
  Array<uint32_t> row_next(allocator);
  Array<uint32_t> row_end(allocator);
  Array<uint32_t> column_of(allocator);
  Array<float> row_values(allocator);
  Array<uint16_t> pattern(allocator);
  Array<float> values(allocator);
  SRT_RETURN_IF_ERROR(row_next.resize(rows + 1));
  SRT_RETURN_IF_ERROR(row_end.resize(rows + 1));
  SRT_RETURN_IF_ERROR(column_of.resize(weights.cols));
  SRT_RETURN_IF_ERROR(row_values.resize(weights.cols));
  Csr2Packer csr2(allocator);
  if (paired) SRT_RETURN_IF_ERROR(csr2.Reserve(block_depth, mr));
  SRT_RETURN_IF_ERROR(pattern.resize(block_depth));
  SRT_RETURN_IF_ERROR(values.resize(static_cast<size_t>(block_depth) * kSquareRows));

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
    if (direct) {
      for (int64_t k = 0; k < weights.cols; ++k) place[k] = static_cast<uint32_t>(k);
      m.depth = static_cast<int32_t>(weights.cols);
      m.blocks = static_cast<int32_t>((weights.cols + block_depth - 1) / block_depth);
    } else {
      for (uint32_t& p : place) p = kDroppedColumn;
      for (uint32_t i = weights.row_ptr[row_begin]; i < weights.row_ptr[row_begin + rows]; ++i) {
        place[weights.col_idx[i]] = 0;
      }
      SRT_RETURN_IF_ERROR(OrderTaps(taps, packed, &m, &place));
    }

    // Rows in packed K order: each row is spread over its columns, then read in that order.
    for (int64_t k = 0; k < weights.cols; ++k) {
      if (place[k] != kDroppedColumn) column_of[place[k]] = static_cast<uint32_t>(k);
    }
    const uint32_t first = weights.row_ptr[row_begin];
    SRT_RETURN_IF_ERROR(entries.resize(weights.row_ptr[row_begin + rows] - first + 1));
    for (int64_t r = 0; r < rows; ++r) {
      const uint32_t begin = weights.row_ptr[row_begin + r];
      const uint32_t end = weights.row_ptr[row_begin + r + 1];
      row_next[r] = begin - first;
      row_end[r] = end - first;
      if (direct) {
        for (uint32_t i = begin; i < end; ++i) {
          entries[i - first] = {weights.col_idx[i], weights.values[i]};
        }
        continue;
      }
      for (uint32_t i = begin; i < end; ++i) row_values[weights.col_idx[i]] = weights.values[i];
      PackEntry* to = entries.data() + (begin - first);
      for (int32_t k = 0; k < m.depth; ++k) {
        const float value = row_values[column_of[k]];
        *to = {static_cast<uint32_t>(k), value};  // overwritten when it was a zero
        to += !IsZero(value);
      }
      for (uint32_t i = begin; i < end; ++i) row_values[weights.col_idx[i]] = 0.0f;
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
        const int64_t row = static_cast<int64_t>(p) * mr;
        const int panel_rows = static_cast<int>(std::min<int64_t>(mr, rows - row));
        const uint32_t k_end = k_begin + static_cast<uint32_t>(depth);
        if (format == SpmmFormat::kCsr) {
          SRT_RETURN_IF_ERROR(AppendCsrPanel(entries.data(), row_end.data() + row, panel_rows,
                                             k_begin, k_end, row_next.data() + row, packed));
          continue;
        }
        if (kHasAny4 && format == SpmmFormat::kAny4) {
          SRT_RETURN_IF_ERROR(AppendAny4Panel(entries.data(), row_end.data() + row, panel_rows,
                                              k_begin, k_end, row_next.data() + row, packed));
          continue;
        }
        if (paired) {
          SRT_RETURN_IF_ERROR(csr2.AppendPanel(entries.data(), row_end.data() + row, panel_rows, mr,
                                               k_begin, k_end, row_next.data() + row, packed));
          continue;
        }
        std::memset(pattern.data(), 0, pattern.size_bytes());
        std::memset(static_cast<void*>(values.data()), 0, values.size_bytes());
        for (int r = 0; r < panel_rows; ++r) {
          const uint32_t end = row_end[row + r];
          uint32_t i = row_next[row + r];
          for (; i < end && entries[i].k < k_end; ++i) {
            const uint32_t k = entries[i].k - k_begin;
            pattern[k] |= static_cast<uint16_t>(1u << r);
            values[k * kSquareRows + r] = entries[i].value;
          }
          row_next[row + r] = i;
        }
        SRT_RETURN_IF_ERROR(packed->counts.reserve_more(kPatterns));
        SRT_RETURN_IF_ERROR(packed->ids.reserve_more(depth));
        size_t room = static_cast<size_t>(depth) * mr;
        if (SpmmHasSquares(format)) {  // which are filled up and may have masks
          room = static_cast<size_t>(depth + kSquareRows) * mr * 2;
        }
        SRT_RETURN_IF_ERROR(packed->values.reserve_more(room));
        AppendPanel({pattern.data(), values.data()}, depth, format, packed);
      }
    }
  }

  // Vectors are read from any byte on.
  if (format == SpmmFormat::kBits16) {
    SRT_RETURN_IF_ERROR(packed->values.reserve_more(kSquareRows));
    std::fill_n(packed->values.extend_unchecked(kSquareRows), kSquareRows, 0.0f);
  }
  // These stay as long as the model does.
  SRT_RETURN_IF_ERROR(packed->counts.shrink());
  SRT_RETURN_IF_ERROR(packed->ids.shrink());
  SRT_RETURN_IF_ERROR(packed->values.shrink());
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
      if (SpmmIsDense(format) || SpmmHasSquares(format)) {  // squares cost what dense ones do
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
      } else if (format == SpmmFormat::kCsr2 || format == SpmmFormat::kAny4) {
        const auto* pair = reinterpret_cast<const Csr2Pair*>(m.counts) + at * (m.panel_rows / 2);
        for (int r = 0; r < m.panel_rows / 2; ++r) stored += 2u * (pair[r].both + pair[r].single);
      } else if (format == SpmmFormat::kCsr4) {
        const auto* group = reinterpret_cast<const Csr4Group*>(m.counts) + at * (m.panel_rows / 4);
        for (int r = 0; r < m.panel_rows / 4; ++r) stored += 4u * (group[r].both + group[r].single);
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
