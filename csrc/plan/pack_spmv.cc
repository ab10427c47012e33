// Packing for spmv.
#include "plan/pack_spmv.h"

#include <algorithm>
#include <cstring>

#include "kernels/qspmv/qspmv.h"

namespace sparsert {
namespace {

// Fills bits, offsets and values: slice by slice the masks first, which say where each value goes.
Status PackBits(const Csr& w, int32_t lanes, PackedSpmv* packed) {
  const size_t cols = static_cast<size_t>(w.cols);
  const size_t slices = static_cast<size_t>(packed->slices.slices);
  const int mask_bytes = SpmvMaskBytes(lanes);
  SRT_RETURN_IF_ERROR(packed->bits.resize(slices * cols * static_cast<size_t>(mask_bytes)));
  SRT_RETURN_IF_ERROR(packed->offsets.resize(slices));
  // A vector is loaded from the last value on.
  SRT_RETURN_IF_ERROR(packed->values.resize(w.nnz() + static_cast<size_t>(lanes)));
  Array<uint32_t> masks(packed->values.allocator());
  Array<uint64_t> places(packed->values.allocator());
  SRT_RETURN_IF_ERROR(masks.resize(cols));
  SRT_RETURN_IF_ERROR(places.resize(cols));
  uint64_t used = 0;
  for (size_t slice = 0; slice < slices; ++slice) {
    const int64_t begin = static_cast<int64_t>(slice) * lanes;
    const int64_t end = std::min<int64_t>(begin + lanes, w.rows);
    std::fill(masks.begin(), masks.end(), 0u);
    for (int64_t row = begin; row < end; ++row) {
      for (uint32_t i = w.row_ptr[row]; i < w.row_ptr[row + 1]; ++i) {
        masks[w.col_idx[i]] |= 1u << (row - begin);
      }
    }
    packed->offsets[slice] = used;
    uint8_t* bits = packed->bits.data() + slice * cols * static_cast<size_t>(mask_bytes);
    for (size_t k = 0; k < cols; ++k) {
      places[k] = used;
      used += static_cast<uint64_t>(__builtin_popcount(masks[k]));
      if (mask_bytes == 2) {
        const auto mask = static_cast<uint16_t>(masks[k]);
        memcpy(bits + 2 * k, &mask, sizeof(mask));
      } else {
        bits[k] = static_cast<uint8_t>(masks[k]);
      }
    }
    for (int64_t row = begin; row < end; ++row) {
      for (uint32_t i = w.row_ptr[row]; i < w.row_ptr[row + 1]; ++i) {
        packed->values[places[w.col_idx[i]]++] = w.values[i];
      }
    }
  }
  return Status::Ok();
}

// The columns that any of a block's rows uses, one after the other.
class BlockColumns {
 public:
  // `next`: [rows of W], where each row has come to.
  BlockColumns(const Csr& w, const uint32_t* rows, int32_t count, uint32_t* next)
      : w_(w), rows_(rows), count_(count), next_(next) {}

  // Goes to the next column below `end`; false: there is none.
  bool Advance(uint64_t end) {
    col_ = end;
    for (int32_t r = 0; r < count_; ++r) {
      const uint32_t row = rows_[r];
      if (row < w_.rows && next_[row] < w_.row_ptr[row + 1]) {
        col_ = std::min<uint64_t>(col_, w_.col_idx[next_[row]]);
      }
    }
    return col_ < end;
  }
  uint64_t col() const { return col_; }

  // Passes the column; its weights go to values[row of the block], where there are any.
  void Take(float* values) {
    for (int32_t r = 0; r < count_; ++r) {
      const uint32_t row = rows_[r];
      if (row >= w_.rows) continue;
      const uint32_t at = next_[row];
      if (at == w_.row_ptr[row + 1] || w_.col_idx[at] != col_) continue;
      if (values != nullptr) values[r] = w_.values[at];
      ++next_[row];
    }
  }

 private:
  const Csr& w_;
  const uint32_t* rows_;
  int32_t count_;
  uint32_t* next_;
  uint64_t col_ = 0;
};

// How many columns each block of rows uses.
Status CountColumns(const Csr& w, int32_t block_rows, const Array<uint32_t>& row_of,
                    Array<uint32_t>* widths) {
  Array<uint32_t> next(row_of.allocator());
  SRT_RETURN_IF_ERROR(next.resize(static_cast<size_t>(w.rows)));
  std::copy(w.row_ptr.begin(), w.row_ptr.begin() + w.rows, next.begin());
  for (size_t i = 0; i < widths->size(); ++i) {
    BlockColumns columns(w, row_of.data() + i * static_cast<size_t>(block_rows), block_rows,
                         next.data());
    for (; columns.Advance(static_cast<uint64_t>(w.cols)); ++(*widths)[i]) columns.Take(nullptr);
  }
  return Status::Ok();
}

// The bytes of a row that are not 0, one after the other.
class RowBytes {
 public:
  RowBytes() = default;
  RowBytes(const Csr& w, int64_t row) : w_(&w) {
    if (row >= w.rows) return;
    at_ = w.row_ptr[row];
    end_ = w.row_ptr[row + 1];
    Settle();
  }

  bool done() const { return at_ == end_; }
  uint64_t column() const { return uint64_t{w_->col_idx[at_]} * 4 + byte_; }
  int8_t value() const { return bytes_[byte_]; }
  void Pass() {
    ++byte_;
    Settle();
  }

 private:
  void Settle() {
    for (; at_ < end_; ++at_, byte_ = 0) {
      memcpy(bytes_, &w_->values[at_], sizeof(bytes_));
      for (; byte_ < 4; ++byte_) {
        if (bytes_[byte_] != 0) return;
      }
    }
  }

  const Csr* w_ = nullptr;
  uint32_t at_ = 0;
  uint32_t end_ = 0;
  uint32_t byte_ = 0;
  int8_t bytes_[4] = {};
};

uint64_t NonZeroBytes(const Csr& w) {
  uint64_t count = 0;
  for (float group : w.values) {
    int8_t bytes[4];
    memcpy(bytes, &group, sizeof(bytes));
    for (int8_t byte : bytes) count += byte != 0;
  }
  return count;
}

// The weights of a row of floats, or its groups of four bytes, one after the other.
class RowFloats {
 public:
  RowFloats() = default;
  RowFloats(const Csr& w, int64_t row) : w_(&w) {
    if (row >= w.rows) return;
    at_ = w.row_ptr[row];
    end_ = w.row_ptr[row + 1];
  }

  bool done() const { return at_ == end_; }
  uint64_t column() const { return w_->col_idx[at_]; }
  float value() const { return w_->values[at_]; }
  void Pass() { ++at_; }

 private:
  const Csr* w_ = nullptr;
  uint32_t at_ = 0;
  uint32_t end_ = 0;
};

// Blocks of rows of about equal width share a slice; ties keep their order. The width of rows of
// `bytes` is the number of those that are not 0.
Status SortRows(const Csr& w, int32_t block_rows, bool bytes, PackedSpmv* packed) {
  Array<uint32_t>& row_of = packed->row_of;
  const size_t blocks = row_of.size() / static_cast<size_t>(block_rows);
  Array<uint32_t> widths(row_of.allocator());
  Array<uint32_t> order(row_of.allocator());
  SRT_RETURN_IF_ERROR(widths.resize(blocks));
  SRT_RETURN_IF_ERROR(order.resize(blocks));
  if (bytes) {
    for (size_t row = 0; row < blocks; ++row) {
      for (RowBytes b(w, static_cast<int64_t>(row)); !b.done(); b.Pass()) ++widths[row];
    }
  } else {
    SRT_RETURN_IF_ERROR(CountColumns(w, block_rows, row_of, &widths));
  }
  for (size_t i = 0; i < blocks; ++i) order[i] = static_cast<uint32_t>(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return widths[a] != widths[b] ? widths[a] > widths[b] : a < b;
  });
  const auto rows = static_cast<uint32_t>(block_rows);
  for (uint32_t i = 0; i < row_of.size(); ++i) row_of[i] = order[i / rows] * rows + i % rows;
  return Status::Ok();
}

// The least column that any of the rows has yet to pass; UINT64_MAX: all are done.
template <typename Row>
uint64_t FirstColumn(const Array<Row>& rows) {
  uint64_t first = UINT64_MAX;
  for (const Row& row : rows) {
    if (!row.done()) first = std::min(first, row.column());
  }
  return first;
}

constexpr uint64_t kLineFloats = 16;

// Vectors of perm, of floats or groups of four bytes: a multiple of kPermVectors.
Status PermuteFloats(uint64_t last_stretch, Array<RowFloats>* rows, PackedSpmv* packed) {
  const size_t lanes = rows->size();
  const bool pairs = kMaxSpmvGroup > 1 && packed->slices.perm_pairs;
  const uint64_t stretch = pairs ? kPermPairFloats : kPermFloats;
  for (uint64_t first = FirstColumn(*rows); first != UINT64_MAX; first = FirstColumn(*rows)) {
    const size_t at = packed->values.size();
    const size_t place_floats = kPermVectors * lanes / 4;
    SRT_RETURN_IF_ERROR(packed->values.resize(at + place_floats + kPermVectors * lanes));
    auto* places = reinterpret_cast<uint8_t*>(packed->values.data() + at);
    float* weights = packed->values.data() + at + place_floats;
    for (size_t i = 0; i < kPermVectors * lanes; ++i) {
      if (i % (pairs ? kPermPair * lanes : lanes) == 0) {
        first = FirstColumn(*rows);
        if (pairs) first -= first % kLineFloats;
        first = first == UINT64_MAX ? 0 : std::min(first, last_stretch);
        SRT_RETURN_IF_ERROR(packed->widths.push_back(static_cast<uint32_t>(first)));
      }
      RowFloats& row = (*rows)[i % lanes];
      if (row.done() || row.column() - first >= stretch) continue;
      places[i] = PermPlace(static_cast<int>(row.column() - first));
      weights[i] = row.value();
      row.Pass();
    }
  }
  return Status::Ok();
}

// The same of single bytes.
Status PermuteBytes(uint64_t last_stretch, Array<RowBytes>* rows, PackedSpmv* packed) {
  const bool pairs = kMaxSpmvGroup > 1 && packed->slices.perm_pairs;
  for (uint64_t first = FirstColumn(*rows); first != UINT64_MAX; first = FirstColumn(*rows)) {
    first /= 4;
    if (pairs) first -= first % kLineFloats;
    const uint64_t stretch = std::min(first, last_stretch);
    SRT_RETURN_IF_ERROR(packed->widths.push_back(static_cast<uint32_t>(stretch)));
    for (int n = 0; n < (pairs ? kPermPair : 1); ++n) {
      const size_t at = packed->values.size();
      SRT_RETURN_IF_ERROR(packed->values.resize(at + 2 * rows->size()));
      auto* places = reinterpret_cast<uint8_t*>(packed->values.data() + at);
      uint8_t* weights = places + 4 * rows->size();
      for (size_t i = 0; i < 4 * rows->size(); ++i) {
        RowBytes& row = (*rows)[i / 4];
        if (row.done() || row.column() - 4 * stretch >= 4 * kPermGroups) continue;
        places[i] = static_cast<uint8_t>(row.column() - 4 * stretch);
        weights[i] = static_cast<uint8_t>(row.value());
        row.Pass();
      }
    }
  }
  return Status::Ok();
}

// Fills widths, offsets and values of perm; `stretch`: of x.
template <typename Row, typename Permute>
Status PackPerm(const Csr& w, int32_t lanes, int64_t stretch, Permute permute, PackedSpmv* packed) {
  const auto slices = static_cast<size_t>(packed->slices.slices);
  const auto last_stretch = static_cast<uint64_t>(std::max<int64_t>(0, w.cols - stretch));
  SRT_RETURN_IF_ERROR(packed->offsets.resize(slices + 1));
  Array<Row> rows(packed->values.allocator());
  SRT_RETURN_IF_ERROR(rows.resize(static_cast<size_t>(lanes)));
  for (size_t slice = 0; slice < slices; ++slice) {
    for (size_t l = 0; l < rows.size(); ++l) {
      rows[l] = Row(w, packed->row_of[slice * rows.size() + l]);
    }
    SRT_RETURN_IF_ERROR(permute(last_stretch, &rows, packed));
    const auto vectors = static_cast<uint64_t>(packed->slices.perm_pairs ? kPermPair : 1);
    packed->offsets[slice + 1] = packed->widths.size() * vectors;
  }
  return Status::Ok();
}

// Fills widths, wholes, offsets, ids and values of sell and bsr.
Status PackColumns(const Csr& w, int32_t lanes, int32_t block_rows, PackedSpmv* packed) {
  PackedSlices& m = packed->slices;
  const int32_t parts = lanes / block_rows;
  m.col_blocks = static_cast<int32_t>((w.cols + kSpmvColBlock - 1) / kSpmvColBlock);
  if (m.col_blocks < 1) m.col_blocks = 1;
  const size_t slices = static_cast<size_t>(m.col_blocks) * m.slices;
  SRT_RETURN_IF_ERROR(packed->widths.resize(slices));
  SRT_RETURN_IF_ERROR(packed->wholes.resize(slices));
  SRT_RETURN_IF_ERROR(packed->offsets.resize(slices));
  Array<uint32_t> next(packed->values.allocator());
  SRT_RETURN_IF_ERROR(next.resize(static_cast<size_t>(w.rows)));
  std::copy(w.row_ptr.begin(), w.row_ptr.begin() + w.rows, next.begin());
  uint64_t used = 0;
  for (int32_t block = 0; block < m.col_blocks; ++block) {
    const uint64_t begin = block * static_cast<uint64_t>(kSpmvColBlock);
    const uint64_t end = begin + kSpmvColBlock;
    for (int32_t slice = 0; slice < m.slices; ++slice) {
      const uint32_t* rows = packed->row_of.data() + static_cast<size_t>(slice) * lanes;
      uint32_t width = 0;
      uint32_t whole = UINT32_MAX;
      for (int32_t part = 0; part < parts; ++part) {
        const uint32_t* of = rows + part * block_rows;
        if (of[0] >= w.rows) continue;
        BlockColumns columns(w, of, block_rows, next.data());
        uint32_t count = 0;
        for (; columns.Advance(end); ++count) {
          if (count == width) {
            ++width;
            SRT_RETURN_IF_ERROR(packed->ids.resize((used + width) * static_cast<size_t>(parts)));
            SRT_RETURN_IF_ERROR(packed->values.resize((used + width) * static_cast<size_t>(lanes)));
          }
          const uint64_t at = used + count;
          packed->ids[at * static_cast<size_t>(parts) + static_cast<size_t>(part)] =
              static_cast<uint16_t>(columns.col() - begin);
          columns.Take(packed->values.data() + at * static_cast<size_t>(lanes) + part * block_rows);
        }
        whole = std::min(whole, count);
      }
      const size_t at = static_cast<size_t>(block) * m.slices + slice;
      packed->widths[at] = width;
      packed->wholes[at] = whole;
      packed->offsets[at] = used;
      used += width;
    }
  }
  return Status::Ok();
}

}  // namespace

Status PackSpmv(const Csr& w, const float* bias, SpmvFormat format, int32_t lanes,
                PackedSpmv* packed, bool bytes, bool perm_pairs) {
  packed->format = format;
  PackedSlices& m = packed->slices;
  m.rows = static_cast<int32_t>(w.rows);
  m.cols = static_cast<int32_t>(w.cols);
  m.slices = static_cast<int32_t>((w.rows + lanes - 1) / lanes);
  const size_t padded_rows = static_cast<size_t>(m.slices) * lanes;

  SRT_RETURN_IF_ERROR(packed->row_of.resize(padded_rows));
  for (size_t i = 0; i < padded_rows; ++i) packed->row_of[i] = static_cast<uint32_t>(i);
  const int32_t block_rows = SpmvBlockRows(format);
  m.whole_groups =
      bytes && format == SpmvFormat::kPerm && PermStoresGroups(w.nnz(), NonZeroBytes(w));
  const bool perm_bytes = bytes && !m.whole_groups;
  m.perm_pairs = perm_pairs;
  if (format == SpmvFormat::kPerm) {
    SRT_RETURN_IF_ERROR(SortRows(w, 1, perm_bytes, packed));
  } else if (block_rows != 0 && block_rows < lanes) {
    SRT_RETURN_IF_ERROR(SortRows(w, block_rows, false, packed));
  }
  if (bias != nullptr) {
    SRT_RETURN_IF_ERROR(packed->bias.resize(padded_rows));
    for (size_t i = 0; i < padded_rows; ++i) {
      const uint32_t row = packed->row_of[i];
      packed->bias[i] = row < w.rows ? bias[row] : 0.0f;
    }
  }

  m.col_blocks = 1;
  if (format == SpmvFormat::kBits) {
    SRT_RETURN_IF_ERROR(PackBits(w, lanes, packed));
  } else if (format == SpmvFormat::kPerm) {
    SRT_RETURN_IF_ERROR(
        perm_bytes ? PackPerm<RowBytes>(w, lanes, kPermGroups, &PermuteBytes, packed)
                   : PackPerm<RowFloats>(w, lanes, perm_pairs ? kPermPairFloats : kPermFloats,
                                         &PermuteFloats, packed));
  } else if (format == SpmvFormat::kDense) {
    SRT_RETURN_IF_ERROR(packed->values.resize(padded_rows * w.cols));
    for (int64_t row = 0; row < w.rows; ++row) {
      float* slice = packed->values.data() + row / lanes * lanes * w.cols + row % lanes;
      for (uint32_t i = w.row_ptr[row]; i < w.row_ptr[row + 1]; ++i) {
        slice[static_cast<int64_t>(w.col_idx[i]) * lanes] = w.values[i];
      }
    }
  } else {
    SRT_RETURN_IF_ERROR(PackColumns(w, lanes, block_rows, packed));
  }

  packed->SetViews();
  return Status::Ok();
}

}  // namespace sparsert
