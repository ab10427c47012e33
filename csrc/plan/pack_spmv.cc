// Packing for spmv.
#include "plan/pack_spmv.h"

#include <algorithm>

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

}  // namespace

Status PackSpmv(const Csr& w, const float* bias, SpmvFormat format, int32_t lanes,
                PackedSpmv* packed) {
  packed->format = format;
  PackedSlices& m = packed->slices;
  m.rows = static_cast<int32_t>(w.rows);
  m.cols = static_cast<int32_t>(w.cols);
  m.slices = static_cast<int32_t>((w.rows + lanes - 1) / lanes);
  const size_t padded_rows = static_cast<size_t>(m.slices) * lanes;

  SRT_RETURN_IF_ERROR(packed->row_of.resize(padded_rows));
  for (size_t i = 0; i < padded_rows; ++i) packed->row_of[i] = static_cast<uint32_t>(i);
  auto row_nnz = [&](uint32_t row) {
    return row < w.rows ? w.row_ptr[row + 1] - w.row_ptr[row] : 0u;
  };
  if (format == SpmvFormat::kSell) {
    // Rows of about equal length share a slice; ties keep their order.
    std::sort(packed->row_of.begin(), packed->row_of.end(), [&](uint32_t a, uint32_t b) {
      const uint32_t na = row_nnz(a);
      const uint32_t nb = row_nnz(b);
      return na != nb ? na > nb : a < b;
    });
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
  } else if (format == SpmvFormat::kDense) {
    SRT_RETURN_IF_ERROR(packed->values.resize(padded_rows * w.cols));
    for (int64_t row = 0; row < w.rows; ++row) {
      float* slice = packed->values.data() + row / lanes * lanes * w.cols + row % lanes;
      for (uint32_t i = w.row_ptr[row]; i < w.row_ptr[row + 1]; ++i) {
        slice[static_cast<int64_t>(w.col_idx[i]) * lanes] = w.values[i];
      }
    }
  } else {
    m.col_blocks = static_cast<int32_t>((w.cols + kSpmvColBlock - 1) / kSpmvColBlock);
    if (m.col_blocks < 1) m.col_blocks = 1;
    const size_t slices = static_cast<size_t>(m.col_blocks) * m.slices;
    SRT_RETURN_IF_ERROR(packed->widths.resize(slices));
    SRT_RETURN_IF_ERROR(packed->wholes.resize(slices));
    SRT_RETURN_IF_ERROR(packed->offsets.resize(slices));
    Array<uint32_t> next(packed->values.allocator());
    SRT_RETURN_IF_ERROR(next.resize(w.rows + 1));
    for (int64_t row = 0; row < w.rows; ++row) next[row] = w.row_ptr[row];
    uint64_t used = 0;
    for (int32_t block = 0; block < m.col_blocks; ++block) {
      const uint64_t col_end = (block + 1) * static_cast<uint64_t>(kSpmvColBlock);
      for (int32_t slice = 0; slice < m.slices; ++slice) {
        const uint32_t* rows = packed->row_of.data() + static_cast<size_t>(slice) * lanes;
        uint32_t width = 0;
        uint32_t whole = UINT32_MAX;
        for (int32_t l = 0; l < lanes; ++l) {
          if (rows[l] >= w.rows) continue;
          uint32_t end = next[rows[l]];
          while (end < w.row_ptr[rows[l] + 1] && w.col_idx[end] < col_end) ++end;
          width = std::max(width, end - next[rows[l]]);
          whole = std::min(whole, end - next[rows[l]]);
        }
        const size_t at = static_cast<size_t>(block) * m.slices + slice;
        packed->widths[at] = width;
        packed->wholes[at] = whole;
        packed->offsets[at] = used;
        used += width;
        SRT_RETURN_IF_ERROR(packed->ids.resize(used * lanes));
        SRT_RETURN_IF_ERROR(packed->values.resize(used * lanes));
        for (int32_t l = 0; l < lanes; ++l) {
          if (rows[l] >= w.rows) continue;
          size_t to = packed->offsets[at] * lanes + l;
          uint32_t& i = next[rows[l]];
          for (; i < w.row_ptr[rows[l] + 1] && w.col_idx[i] < col_end; ++i, to += lanes) {
            packed->ids[to] = static_cast<uint16_t>(w.col_idx[i] - (col_end - kSpmvColBlock));
            packed->values[to] = w.values[i];
          }
        }
      }
    }
  }

  m.row_of = packed->row_of.data();
  m.bias = bias == nullptr ? nullptr : packed->bias.data();
  m.widths = packed->widths.data();
  m.wholes = packed->wholes.data();
  m.offsets = packed->offsets.data();
  m.ids = packed->ids.data();
  m.bits = packed->bits.data();
  m.values = packed->values.data();
  return Status::Ok();
}

}  // namespace sparsert
