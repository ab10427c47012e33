// Lookup: arguments, selection and the kernel itself.
#include "kernels/lookup/lookup.h"

#include <cstring>

#include "base/fault.h"
#include "base/half.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/lookup/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/lookup/kernels.inc"
};

namespace {

constexpr uint8_t kSkip = 255;

struct SingleValues {
  const float* data;
  float operator[](size_t i) const { return data[i]; }
};

struct HalfValues {
  const uint16_t* data;
  float operator[](size_t i) const { return HalfToFloat(data[i]); }
};

// The bits of elements [row * cols, (row + 1) * cols) of the mask, 64 at a time.
template <typename Values>
void ExpandBits(const TableRows& table, Values values, int64_t row, float* out) {
  const auto first = static_cast<uint64_t>(row * table.cols);
  const uint64_t end = first + static_cast<uint64_t>(table.cols);
  size_t value = table.starts[row];
  for (uint64_t base = first / 64 * 64; base < end; base += 64) {
    uint64_t word;
    memcpy(&word, table.bits + base / 8, sizeof(word));
    if (base < first) word = word >> (first - base) << (first - base);
    if (end - base < 64) word &= (uint64_t{1} << (end - base)) - 1;
    for (; word != 0; word &= word - 1) {
      const uint64_t at = base + static_cast<uint64_t>(__builtin_ctzll(word)) - first;
      out[at] = values[value++];
    }
  }
}

// Calls emit(block, block-column) for the blocks of a block-row.
template <typename Emit>
void ForEachBlock(const TableRows& table, int64_t brow, const Emit& emit) {
  const uint32_t first = table.row_ptr[brow];
  const uint32_t end = table.row_ptr[brow + 1];
  if (table.column_bytes == 1) {
    const uint8_t* at = table.columns + table.starts[brow];
    size_t passed = 0;
    for (uint32_t b = first; b < end; ++b) {
      for (; *at == kSkip; ++at) passed += kSkip;
      passed += *at++ + size_t{1};
      emit(b, passed - 1);
    }
  } else if (table.column_bytes == 2) {
    const auto* columns = reinterpret_cast<const uint16_t*>(table.columns);
    for (uint32_t b = first; b < end; ++b) emit(b, size_t{columns[b]});
  } else {
    const auto* columns = reinterpret_cast<const uint32_t*>(table.columns);
    for (uint32_t b = first; b < end; ++b) emit(b, size_t{columns[b]});
  }
}

template <typename Values>
void ExpandBlocks(const TableRows& table, Values values, int64_t row, float* out) {
  const auto tall = static_cast<size_t>(table.block_rows);
  const auto wide = static_cast<size_t>(table.block_cols);
  const size_t inside = static_cast<size_t>(row) % tall;
  ForEachBlock(table, row / table.block_rows, [&](uint32_t block, size_t column) {
    if (wide == 1) {
      out[column] = values[block * tall + inside];
      return;
    }
    const size_t first = column * wide;
    const size_t left = static_cast<size_t>(table.cols) - first;
    for (size_t c = 0; c < (left < wide ? left : wide); ++c) {
      out[first + c] = values[block * wide + c];
    }
  });
}

template <typename Values>
void ExpandRow(const TableRows& table, Values values, int64_t row, float* out) {
  const auto cols = static_cast<size_t>(table.cols);
  if (row >= 0 && table.kind == TableRows::kDense) {
    for (size_t c = 0; c < cols; ++c) out[c] = values[static_cast<size_t>(row) * cols + c];
    return;
  }
  memset(static_cast<void*>(out), 0, cols * sizeof(float));
  if (row < 0) return;
  if (table.kind == TableRows::kBitmask) {
    ExpandBits(table, values, row, out);
  } else {
    ExpandBlocks(table, values, row, out);
  }
}

template <typename Values>
void Lookup(const LookupArgs& args, Values values, void* const* io, int64_t begin, int64_t end,
            float* scratch) {
  const TableRows& table = args.table;
  const auto row_at = [&](int64_t at) {
    if (args.indices != nullptr) return args.indices[at];
    const int64_t index = args.index_bytes == 4
                              ? static_cast<int64_t>(static_cast<const int32_t*>(io[1])[at])
                              : static_cast<const int64_t*>(io[1])[at];
    const int64_t row = index < 0 ? index + table.rows : index;
    if (row >= 0 && row < table.rows) return row;
    ReportIndex(io[2], index, table.rows, -table.rows);
    return int64_t{-1};
  };
  const int64_t y_row = args.loop.row_strides[0];
  const int64_t index_step = args.loop.row_strides[1];
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    float* y = static_cast<float*>(io[0]) + offsets[0];
    if (args.y_step == 1) {
      for (int64_t i = 0; i < n; ++i) {
        ExpandRow(table, values, row_at(offsets[1] + i * index_step), y + i * y_row);
      }
      return;
    }
    for (int64_t first = 0; first < n; first += kLookupGroup) {
      const int64_t count = n - first < kLookupGroup ? n - first : kLookupGroup;
      for (int64_t i = 0; i < count; ++i) {
        ExpandRow(table, values, row_at(offsets[1] + (first + i) * index_step),
                  scratch + i * table.cols);
      }
      for (int64_t c = 0; c < table.cols; ++c) {
        float* to = y + c * args.y_step + first * y_row;
        for (int64_t i = 0; i < count; ++i) to[i * y_row] = scratch[i * table.cols + c];
      }
    }
  });
}

}  // namespace

void lookup_rows_f32_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                            void* scratch) {
  const LookupArgs& args = *static_cast<const LookupArgs*>(args_block);
  const void* values = args.table.values;
  auto* rows = static_cast<float*>(scratch);
  if (args.table.is_half) {
    Lookup(args, HalfValues{static_cast<const uint16_t*>(values)}, io, begin, end, rows);
  } else {
    Lookup(args, SingleValues{static_cast<const float*>(values)}, io, begin, end, rows);
  }
}

LookupArgs MakeLookupArgs(const TableRows& table, const int64_t* known, const TensorDesc& indices,
                          const TensorDesc& y) {
  LookupArgs args;
  args.table = table;
  args.indices = known;
  args.index_bytes = static_cast<int>(DTypeSize(indices.dtype));
  args.y_step = y.strides[y.shape.rank - 1];
  const TensorDesc positions = known == nullptr ? indices : PlainDesc(DType::kI64, indices.shape);
  args.loop = MakeLoop<2>(indices.shape, {y.strides, positions.strides}, false);
  SetChunk(&args.loop, kLookupGroup);
  return args;
}

int64_t LookupItems(const LookupArgs& args) { return LoopItems(args.loop); }

size_t LookupScratch(const LookupArgs& args) {
  if (args.y_step == 1) return 0;
  return static_cast<size_t>(args.table.cols) * kLookupGroup * sizeof(float);
}

bool SelectLookup(const LookupArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
