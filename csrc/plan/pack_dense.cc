// Packing without CSR in between, which would take two to three times the memory of the weights.
#include "plan/pack_dense.h"

#include <algorithm>

#include "base/platform.h"

namespace sparsert {
namespace {

// Pages leave memory in pieces of at least this.
constexpr int64_t kForgetBytes = 4 << 20;

}  // namespace

void DenseRows::Forget(int64_t end) {
  if (!mapped_ || end <= forgotten_) return;
  const int64_t row_bytes = tensor_.cols * static_cast<int64_t>(DTypeSize(tensor_.value_dtype));
  ForgetPages(tensor_.values + forgotten_ * row_bytes,
              static_cast<size_t>((end - forgotten_) * row_bytes));
  forgotten_ = end;
}

Status DenseRows::Get(int64_t first, int64_t count, const float** rows) {
  const size_t at = static_cast<size_t>(first * tensor_.cols);
  if ((first - forgotten_) * tensor_.cols * static_cast<int64_t>(sizeof(float)) >= kForgetBytes) {
    Forget(first);
  }
  if (tensor_.is_plain() && tensor_.value_dtype == DType::kF32) {
    *rows = reinterpret_cast<const float*>(tensor_.values) + at;
    return Status::Ok();
  }
  const size_t n = static_cast<size_t>(count * tensor_.cols);
  if (decoded_.size() < n) SRT_RETURN_IF_ERROR(decoded_.resize(n));
  SRT_RETURN_IF_ERROR(DecodeDenseRows(tensor_, first, count, decoded_.data()));
  *rows = decoded_.data();
  return Status::Ok();
}

Status PackDenseSpmm(DenseRows* weights, int32_t groups, int32_t taps, SpmmFormat format,
                     bool direct, int32_t block_depth, PackedSpmm* packed) {
  const int64_t rows = weights->rows() / groups;
  const int64_t cols = weights->cols();
  const int32_t mr = SpmmPanelRows(format);
  packed->format = format;
  packed->direct = direct;
  packed->block_depth = block_depth;
  SRT_RETURN_IF_ERROR(packed->groups.resize(groups));
  PackedMatrix m;
  m.rows = static_cast<int32_t>(rows);
  m.depth = static_cast<int32_t>(cols);
  m.block_depth = block_depth;
  m.panel_rows = mr;
  m.panels = static_cast<int32_t>((rows + mr - 1) / mr);
  m.blocks = static_cast<int32_t>((cols + block_depth - 1) / block_depth);
  // Blocks are filled up to whole squares.
  const bool squares = SpmmHasSquares(format);
  const int64_t unit = squares ? kSquareRows : 1;
  const int64_t filled = (block_depth + unit - 1) / unit * unit;
  const int64_t last = cols - (m.blocks - 1) * static_cast<int64_t>(block_depth);
  const int64_t group_floats = static_cast<int64_t>(m.panels) * mr *
                               ((m.blocks - 1) * filled + (last + unit - 1) / unit * unit);
  if (group_floats * groups > static_cast<int64_t>(UINT32_MAX)) {
    return Status::Error(StatusCode::kUnsupported, "a layer holds over 2^32 weights");
  }

  // Groups are ordered alike: the first one's order serves all.
  Array<uint32_t> column_of(packed->groups.allocator());  // of each packed K-row
  SRT_RETURN_IF_ERROR(column_of.resize(static_cast<size_t>(cols)));
  if (direct) {
    for (int64_t k = 0; k < cols; ++k) column_of[k] = static_cast<uint32_t>(k);
  } else {
    Array<uint32_t> place(packed->groups.allocator());
    SRT_RETURN_IF_ERROR(place.resize(static_cast<size_t>(cols)));
    SRT_RETURN_IF_ERROR(OrderTaps(taps, packed, &m, &place));
    for (int64_t k = 0; k < cols; ++k) column_of[place[k]] = static_cast<uint32_t>(k);
  }

  SRT_RETURN_IF_ERROR(packed->values.reserve(static_cast<size_t>(group_floats * groups)));
  float* const values = packed->values.extend_unchecked(static_cast<size_t>(group_floats * groups));
  const size_t offsets = static_cast<size_t>(m.blocks) * m.panels;
  SRT_RETURN_IF_ERROR(packed->value_offsets.resize(offsets * groups));
  SRT_RETURN_IF_ERROR(packed->id_offsets.resize(offsets * groups));
  for (int32_t g = 0; g < groups; ++g) {
    for (int32_t p = 0; p < m.panels; ++p) {
      const int64_t first = static_cast<int64_t>(p) * mr;
      const int64_t count = std::min<int64_t>(mr, rows - first);
      const float* from = nullptr;
      SRT_RETURN_IF_ERROR(weights->Get(g * rows + first, count, &from));
      for (int32_t b = 0; b < m.blocks; ++b) {
        const int64_t begin = static_cast<int64_t>(b) * block_depth;
        const int64_t depth = std::min<int64_t>(block_depth, cols - begin);
        const int64_t stored = (depth + unit - 1) / unit * unit;
        const int64_t at = g * group_floats + (b * filled * m.panels + p * stored) * mr;
        packed->value_offsets[g * offsets + static_cast<size_t>(b) * m.panels + p] =
            static_cast<uint32_t>(at);
        float* to = values + at;
        const uint32_t* column = column_of.data() + begin;
        for (int64_t r = 0; r < mr; ++r) {
          const float* row = from + r * cols;
          if (squares) {
            for (int64_t k = 0; k < stored; ++k) {
              to[(k / unit * mr + r) * unit + k % unit] =
                  r < count && k < depth ? row[column[k]] : 0.0f;
            }
            continue;
          }
          for (int64_t k = 0; k < depth; ++k) to[k * mr + r] = r < count ? row[column[k]] : 0.0f;
        }
      }
    }
  }
  for (int32_t g = 0; g < groups; ++g) {
    PackedMatrix& group = packed->groups[g];
    group = m;
    group.counts = packed->counts.data();
    group.ids = packed->ids.data();
    group.values = packed->values.data();
    group.id_offsets = packed->id_offsets.data() + g * offsets;
    group.value_offsets = packed->value_offsets.data() + g * offsets;
    group.channels = packed->channels.data();
    group.runs = packed->runs.data();
    group.run_offsets = packed->run_offsets.data();
  }
  return Status::Ok();
}

Status PackDenseSpmv(DenseRows* weights, const float* bias, int32_t lanes, PackedSpmv* packed) {
  const int64_t rows = weights->rows();
  const int64_t cols = weights->cols();
  packed->format = SpmvFormat::kDense;
  PackedSlices& m = packed->slices;
  m.rows = static_cast<int32_t>(rows);
  m.cols = static_cast<int32_t>(cols);
  m.slices = static_cast<int32_t>((rows + lanes - 1) / lanes);
  m.col_blocks = 1;
  const int64_t padded_rows = static_cast<int64_t>(m.slices) * lanes;
  SRT_RETURN_IF_ERROR(packed->row_of.resize(static_cast<size_t>(padded_rows)));
  for (int64_t i = 0; i < padded_rows; ++i) packed->row_of[i] = static_cast<uint32_t>(i);
  if (bias != nullptr) {
    SRT_RETURN_IF_ERROR(packed->bias.resize(static_cast<size_t>(padded_rows)));
    std::copy(bias, bias + rows, packed->bias.data());
  }
  SRT_RETURN_IF_ERROR(packed->values.reserve(static_cast<size_t>(padded_rows * cols)));
  float* to = packed->values.extend_unchecked(static_cast<size_t>(padded_rows * cols));
  constexpr int64_t kChunk = 128;  // columns, of which what is written stays in L1
  for (int64_t first = 0; first < rows; first += lanes, to += lanes * cols) {
    const int64_t count = std::min<int64_t>(lanes, rows - first);
    const float* from = nullptr;
    SRT_RETURN_IF_ERROR(weights->Get(first, count, &from));
    for (int64_t begin = 0; begin < cols; begin += kChunk) {
      const int64_t end = std::min(cols, begin + kChunk);
      for (int64_t r = 0; r < lanes; ++r) {
        const float* row = from + r * cols;
        for (int64_t k = begin; k < end; ++k) to[k * lanes + r] = r < count ? row[k] : 0.0f;
      }
    }
  }
  packed->SetViews();
  return Status::Ok();
}

}  // namespace sparsert
