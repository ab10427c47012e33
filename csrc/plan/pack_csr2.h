// Packing of kCsr2 and kCsr4: which rows of a panel go together, and in which order.
#pragma once

#include "plan/pack_spmm.h"

namespace sparsert {

class Csr2Packer {
 public:
  explicit Csr2Packer(const Allocator* allocator)
      : bits_(allocator), candidates_(allocator), sorted_(allocator) {}

  // Before the first panel: room for blocks of up to `block_depth` K-rows, panels of `panel_rows`.
  Status Reserve(int32_t block_depth, int panel_rows);

  // Appends the pairs, or groups of them, of one panel of `rows` of `panel_rows` rows, of one
  // block: K-rows [k_begin, k_end). `entries`: of all rows.
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
  void AddGroup(const Csr2Pair& a, const Csr2Pair* b);
  void MatchPairs(int pairs);
  Status AppendPairs(const PackEntry* entries, int rows, int panel_rows, uint32_t k_begin,
                     PackedSpmm* packed);
  Status AppendGroups(const PackEntry* entries, int rows, int panel_rows, uint32_t k_begin,
                      PackedSpmm* packed);

  Array<uint64_t> bits_;  // [panel_rows][words_] which K-rows of the block a row uses
  Array<Candidate> candidates_;
  Array<Candidate> sorted_;
  int words_ = 0;
  uint32_t begin_[kCsr4PanelRows] = {};  // of each row's entries
  uint16_t count_[kCsr4PanelRows] = {};  // non-zeros of each row
  Csr2Pair pairs_[kCsr4PanelRows / 2] = {};
  Csr4Group groups_[kCsr4PanelRows / 4] = {};
  int group_count_ = 0;
};

}  // namespace sparsert
