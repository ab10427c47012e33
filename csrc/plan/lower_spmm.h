// Lowers one product of packed weights and rows of columns to the spmm kernel that suits it.
#pragma once

#include "plan/choose_candidate.h"
#include "plan/choose_spmm.h"

namespace sparsert {

struct SpmmOperands {
  PackKey key;  // tensor, groups, taps, transposed
  Window window;
  int64_t batch = 1;
  int64_t columns = 0;
  bool may_be_direct = false;
  bool phased = false;     // x holds the phases of its planes
  size_t split_bytes = 0;  // packed weights of a row split at most; 0: any number
  int64_t x_image = 0, x_group = 0, x_row = 0;
  int64_t r_image = 0, r_group = 0, r_row = 0;
  int64_t y_image = 0, y_group = 0, y_row = 0;
  IoRef x, r, y;
  // The tiles of those that lie in some (see tile_planes.cc); Y does if the winner has such tiles.
  const Tiling* tiling = nullptr;
  bool x_in_tiles = false, r_in_tiles = false, y_in_tiles = false;
  bool may_tile = false;  // X or Y might have lain in tiles: threads share these
  uint32_t bias = kNoTensor;
  const float* bias_values = nullptr;  // instead of the tensor: of every row
  Activation act;
  // Of bytes (key.bytes): all but product and start, which the layer fills in.
  const QspmmArgs* quantised = nullptr;
  const int64_t* row_start = nullptr;    // [groups * rows] sums start from, but for byte_offset
  const int64_t* row_weights = nullptr;  // [groups * rows] sums of the row's weights
  IoRef params;                          // scale and zero point of x, where only a run knows them
};

// One product and the ways to compute it.
class SpmmLayer {
 public:
  SpmmLayer(PlanBuilder* b, const SpmmOperands& operands) : b_(b), o_(operands) {}

  // Ranks the formats: candidates 0 and on.
  Status Rank();
  int count() const { return count_; }
  Candidate CandidateOf(int n) const;
  double StoredOf(int n) const;  // weights that its packing holds

  // Ranks the formats and enters them; candidate n gets the number first_number + n. `extra_ns`:
  // what each takes besides its kernel.
  Status Enter(int first_number, double extra_ns, Contest* contest);

  // Whether candidate n computes tiles that a tensor may lie in.
  bool HasTiles(int n) const;
  const Tiling& TilingOf(int n) const { return choices_[n].tiling; }

  // Packs candidate n; `part` reads and writes the given buffers.
  Status Prepare(int n, TrialBuffer x, TrialBuffer r, TrialBuffer y, Trial::Part* part,
                 PackKey* key);

  // Appends the step of candidate n.
  Status Lower(int n);

  // Floats that the product reads and writes.
  size_t x_floats() const;
  size_t r_floats() const;
  size_t y_floats() const;
  const MatrixStats& stats() const { return stats_; }

 private:
  void ShareKept();
  // Whether tiles may be stacks.
  bool MayStack() const;
  // What of a packing depends on the choice.
  void SetKey(const SpmmChoice& choice, PackKey* key) const;
  // `whole`: what the kernel takes, which holds `args`.
  Status FillArgs(const SpmmChoice& choice, SpmmArgs** args, const void** whole, PackKey* key);
  size_t ScratchOf(const SpmmChoice& choice, const void* whole) const;
  Status NewArgs(const SpmmChoice& choice, SpmmArgs** args, const void** whole);

  PlanBuilder* b_;
  const SpmmOperands& o_;
  MatrixStats stats_;
  SpmmChoice choices_[kMaxSpmmChoices];
  int count_ = 0;
  bool y_in_tiles_ = false;
};

// Says so where the chosen format is the forced one. Bytes, for one, have fewer formats.
void ExplainForced(PlanBuilder* b);

// Appends the step that makes `rows` (see QspmmRows) of the params of a product of bytes.
Status AddRowScales(PlanBuilder* b, const SpmmOperands& operands, int64_t count, int byte_offset,
                    IoRef* rows);

// Chooses and appends.
Status LowerSpmm(PlanBuilder* b, const SpmmOperands& operands);

}  // namespace sparsert
