// Checks row_ptr, index streams, bit masks and the padding of blocks.
#include "formats/validate.h"

#include <cstring>

namespace sparsert {
namespace {

constexpr uint8_t kSkip = 255;

Status Bad(const char* what, uint64_t where) {
  return Status::Error(StatusCode::kModelFormat, "%s %llu", what,
                       static_cast<unsigned long long>(where));
}

inline int Popcount(uint64_t word) {
#if defined(__GNUC__)
  return __builtin_popcountll(word);
#else
  int count = 0;
  for (; word != 0; word &= word - 1) ++count;
  return count;
#endif
}

Status ValidateBitmask(const EncodedTensor& tensor) {
  const uint64_t elems = static_cast<uint64_t>(tensor.rows) * static_cast<uint64_t>(tensor.cols);
  const uint64_t words = (elems + 63) / 64;
  uint64_t stored = 0;
  uint64_t last = 0;
  for (uint64_t w = 0; w < words; ++w) {
    memcpy(&last, tensor.bits + 8 * w, 8);
    stored += static_cast<uint64_t>(Popcount(last));
  }
  if (elems % 64 != 0 && (last >> (elems % 64)) != 0) {
    return Bad("the bit mask has bits set past element", elems);
  }
  if (stored != tensor.stored_values) return Bad("number of bits set in the mask:", stored);
  return Status::Ok();
}

// Bytes of one block-row are those up to its last block, so a row without blocks has none.
Status ValidateDeltas(const EncodedTensor& tensor, uint64_t brows, uint64_t bcols) {
  const uint8_t* at = tensor.index;
  const uint8_t* end = tensor.index + tensor.index_bytes;
  for (uint64_t row = 0; row < brows; ++row) {
    uint32_t left = tensor.row_ptr[row + 1] - tensor.row_ptr[row];
    uint64_t passed = 0;  // columns up to and including the last block
    while (left != 0) {
      if (at == end) return Bad("the index stream ends within block-row", row);
      const uint8_t byte = *at++;
      passed += byte == kSkip ? kSkip : byte + 1u;
      left -= byte != kSkip;
    }
    if (passed > bcols) return Bad("a block-column is out of range in block-row", row);
  }
  if (at != end) return Bad("bytes left in the index stream:", static_cast<uint64_t>(end - at));
  return Status::Ok();
}

template <typename T>
Status ValidateColumns(const EncodedTensor& tensor, uint64_t brows, uint64_t bcols) {
  const T* columns = reinterpret_cast<const T*>(tensor.index);
  for (uint64_t row = 0; row < brows; ++row) {
    const uint32_t first = tensor.row_ptr[row];
    const uint32_t last = tensor.row_ptr[row + 1];
    if (first == last) continue;
    bool increasing = true;
    for (uint32_t b = first + 1; b < last; ++b) increasing &= columns[b - 1] < columns[b];
    if (!increasing) return Bad("block-columns do not increase in block-row", row);
    if (columns[last - 1] >= bcols) return Bad("a block-column is out of range in block-row", row);
  }
  return Status::Ok();
}

bool AllZero(const uint8_t* bytes, uint64_t count) {
  uint8_t any = 0;
  for (uint64_t i = 0; i < count; ++i) any |= bytes[i];
  return any == 0;
}

// Values of the last block-row (n x 1) or of a row's last block (1 x n) past the matrix's edge.
Status ValidateEdges(const EncodedTensor& tensor, uint64_t brows, uint64_t bcols) {
  const uint64_t value_bytes = DTypeSize(tensor.value_dtype);
  const uint64_t block_elems = static_cast<uint64_t>(tensor.block_rows) * tensor.block_cols;
  const uint64_t rows_in = static_cast<uint64_t>(tensor.rows) - (brows - 1) * tensor.block_rows;
  const uint64_t cols_in = static_cast<uint64_t>(tensor.cols) - (bcols - 1) * tensor.block_cols;
  if (rows_in < tensor.block_rows) {
    for (uint64_t b = tensor.row_ptr[brows - 1]; b < tensor.row_ptr[brows]; ++b) {
      if (!AllZero(tensor.values + (b * block_elems + rows_in) * value_bytes,
                   (block_elems - rows_in) * value_bytes)) {
        return Bad("values past the last row in block", b);
      }
    }
  }
  if (cols_in < tensor.block_cols) {
    const uint8_t* at = tensor.index;
    for (uint64_t row = 0; row < brows; ++row) {
      if (tensor.row_ptr[row + 1] == tensor.row_ptr[row]) continue;
      const uint64_t b = tensor.row_ptr[row + 1] - 1u;
      uint64_t column = 0;
      if (tensor.index_kind == IndexKind::kDelta8) {
        uint64_t passed = 0;
        for (uint32_t left = tensor.row_ptr[row + 1] - tensor.row_ptr[row]; left != 0; ++at) {
          passed += *at == kSkip ? kSkip : *at + 1u;
          left -= *at != kSkip;
        }
        column = passed - 1;
      } else if (tensor.index_kind == IndexKind::kU16) {
        column = reinterpret_cast<const uint16_t*>(tensor.index)[b];
      } else {
        column = reinterpret_cast<const uint32_t*>(tensor.index)[b];
      }
      if (column == bcols - 1 && !AllZero(tensor.values + (b * block_elems + cols_in) * value_bytes,
                                          (block_elems - cols_in) * value_bytes)) {
        return Bad("values past the last column in block", b);
      }
    }
  }
  return Status::Ok();
}

Status ValidateBlocks(const EncodedTensor& tensor) {
  const uint64_t brows =
      (static_cast<uint64_t>(tensor.rows) + tensor.block_rows - 1) / tensor.block_rows;
  const uint64_t bcols =
      (static_cast<uint64_t>(tensor.cols) + tensor.block_cols - 1) / tensor.block_cols;
  const uint64_t blocks =
      tensor.stored_values / (static_cast<uint64_t>(tensor.block_rows) * tensor.block_cols);
  if (tensor.row_ptr[0] != 0) return Bad("row_ptr starts at", tensor.row_ptr[0]);
  for (uint64_t row = 0; row < brows; ++row) {
    if (tensor.row_ptr[row + 1] < tensor.row_ptr[row]) return Bad("row_ptr falls at", row + 1);
    if (tensor.row_ptr[row + 1] - tensor.row_ptr[row] > bcols) {
      return Bad("more blocks than columns in block-row", row);
    }
  }
  if (tensor.row_ptr[brows] != blocks) return Bad("row_ptr ends at", tensor.row_ptr[brows]);
  const uint8_t* row_ptr_end = reinterpret_cast<const uint8_t*>(tensor.row_ptr + brows + 1);
  const uint8_t* index_end = tensor.index + tensor.index_bytes;
  if (!AllZero(row_ptr_end, static_cast<uint64_t>(tensor.index - row_ptr_end)) ||
      !AllZero(index_end, static_cast<uint64_t>(tensor.values - index_end))) {
    return Status::Error(StatusCode::kModelFormat, "padding is not zero");
  }
  switch (tensor.index_kind) {
    case IndexKind::kDelta8:
      SRT_RETURN_IF_ERROR(ValidateDeltas(tensor, brows, bcols));
      break;
    case IndexKind::kU16:
      SRT_RETURN_IF_ERROR(ValidateColumns<uint16_t>(tensor, brows, bcols));
      break;
    case IndexKind::kU32:
      SRT_RETURN_IF_ERROR(ValidateColumns<uint32_t>(tensor, brows, bcols));
      break;
  }
  return ValidateEdges(tensor, brows, bcols);
}

}  // namespace

Status ValidateStreams(const EncodedTensor& tensor) {
  switch (tensor.encoding) {
    case Encoding::kDense:
      return Status::Ok();
    case Encoding::kBitmask:
      return ValidateBitmask(tensor);
    case Encoding::kBlock:
      return ValidateBlocks(tensor);
  }
  return Status::Error(StatusCode::kModelFormat, "unknown encoding");
}

}  // namespace sparsert
