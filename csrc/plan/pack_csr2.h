// Packing of kCsr2: which rows of a panel go together, and in which order.
#pragma once

#include "plan/pack_spmm.h"

namespace sparsert {

class Csr2Packer {
 public:
  explicit Csr2Packer(const Allocator* allocator)
      : bits_(allocator), candidates_(allocator), sorted_(allocator) {}

  // Before the first panel: room for blocks of up to `block_depth` K-rows.
  Status Reserve(int32_t block_depth);

  // Appends the pairs of one panel of `rows` of `panel_rows` rows, of one block: K-rows [k_begin,
  // k_end). `entries`: of all rows.
  // `next`, `row_end` [rows]: where the entries of each row begin (moved to the end of this block)
  // and where the row ends.
  Status AppendPanel(const PackEntry* entries, const uint32_t* row_end, int rows, int panel_rows,
                     uint32_t k_begin, uint32_t k_end, uint32_t* next, PackedSpmm* packed);

 private:
  struct Candidate {
    uint16_t a, b;
    int16_t score;
  };

  void MatchRows(int rows, int panel_rows);

  Array<uint64_t> bits_;  // [kCsr2PanelRows][words_] which K-rows of the block a row uses
  Array<Candidate> candidates_;
  Array<Candidate> sorted_;
  int words_ = 0;
  uint16_t count_[kCsr2PanelRows] = {};  // non-zeros of each row
  Csr2Pair pairs_[kCsr2PanelRows / 2] = {};
};

}  // namespace sparsert
