// Packs a CSR matrix into the formats of the spmm kernels.
#pragma once

#include "base/array.h"
#include "formats/decode.h"
#include "kernels/spmm/spmm.h"

namespace sparsert {

// All groups of one layer's weights in one format; owns what the PackedMatrix views point to.
struct PackedSpmm {
  explicit PackedSpmm(const Allocator* a)
      : groups(a),
        counts(a),
        ids(a),
        values(a),
        id_offsets(a),
        value_offsets(a),
        channels(a),
        runs(a),
        run_offsets(a) {}

  SpmmFormat format = SpmmFormat::kDense;
  bool direct = false;
  int32_t block_depth = 0;
  Array<PackedMatrix> groups;
  Array<uint16_t> counts;
  Array<uint16_t> ids;
  Array<float> values;
  Array<uint32_t> id_offsets;
  Array<uint32_t> value_offsets;
  Array<uint32_t> channels;
  Array<FeedRun> runs;
  Array<uint32_t> run_offsets;

  size_t bytes() const {
    return counts.size_bytes() + ids.size_bytes() + values.size_bytes() + id_offsets.size_bytes() +
           value_offsets.size_bytes() + channels.size_bytes() + runs.size_bytes() +
           run_offsets.size_bytes();
  }
};

// (packed K-row, value) of one row of W; a row's entries are sorted by K-row.
struct PackEntry {
  uint32_t k;
  float value;
};

// `weights`: [groups * rows][channels * taps], columns ordered (channel, tap). `direct` keeps every
// K-row in its place (taps must be 1); else K-rows without a non-zero are dropped and the others
// ordered by block of channels, then tap, then channel. `pair_rows`: of a panel of kCsr2, even and
// at most kCsr2PanelRows, or of kCsr4, a multiple of four and at most kCsr4PanelRows; the other
// formats' panels have their own sizes. Blocks of kCsr4 are cut to kCsr4BlockDepth.
Status PackSpmm(const Csr& weights, int32_t groups, int32_t taps, SpmmFormat format, bool direct,
                int32_t block_depth, int32_t pair_rows, PackedSpmm* packed);

// The order of K-rows that are fed by taps, as above. `place_of`: of each column of W,
// kDroppedColumn for those without a non-zero; the others get their packed K-row. Records runs and
// channels.
constexpr uint32_t kDroppedColumn = 0xffffffffu;
Status OrderTaps(int32_t taps, PackedSpmm* packed, PackedMatrix* m, Array<uint32_t>* place_of);

// Panel bounds that cut one group's work into `splits` parts of about equal stored weights:
// `bounds` [splits + 1].
void SplitPanels(const PackedMatrix& m, SpmmFormat format, int32_t splits, int32_t* bounds);

}  // namespace sparsert
