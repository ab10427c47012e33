// The model's constants as plans need them: decoded once, packed once, shared by all plans.
#pragma once

#include "base/bump.h"
#include "formats/decode.h"
#include "graph/graph.h"
#include "plan/matrix_stats.h"
#include "plan/pack_dense.h"
#include "plan/pack_spmm.h"
#include "plan/pack_spmv.h"
#include "plan/pack_winograd.h"

namespace sparsert {

// A transposed convolution as one of stride 1: its rows are (phase of the output, output channel),
// and output element q of a phase reads input elements q - before, ..., q - before + taps - 1.
// Phases read some of these only; their weights for the others are 0. Index 0 is the height.
struct OutputPhases {
  int32_t kernel[2] = {0, 0};  // zeros: none
  int32_t stride[2] = {0, 0};
  int32_t pad[2] = {0, 0};
  int32_t before[2] = {0, 0};
  int32_t taps[2] = {0, 0};

  bool used() const { return kernel[0] != 0; }
  int32_t phases() const { return stride[0] * stride[1]; }
  bool operator==(const OutputPhases& o) const {
    for (int d = 0; d < 2; ++d) {
      if (kernel[d] != o.kernel[d] || stride[d] != o.stride[d] || pad[d] != o.pad[d]) return false;
    }
    return true;
  }
};

// What a packing depends on besides the weights themselves.
struct PackKey {
  uint32_t tensor = kNoTensor;
  int32_t groups = 1;
  int32_t taps = 1;
  bool transposed = false;    // weights of a ConvTranspose: [C][M / g][taps]
  OutputPhases phases;        // transposed, one group: not by taps of the transposed window
  bool vector = false;        // spmv
  bool bytes = false;         // i8 weights by groups of four channels: a "float" is four of them
  bool depthwise = false;     // bytes: of each row one of four, in groups of four rows
  int32_t row_taps = 0;       // bytes: of a kernel's row, if four of a channel are grouped; else 0
  uint32_t bias = kNoTensor;  // spmv keeps the bias in lane order
  int format = 0;             // SpmmFormat or SpmvFormat
  bool direct = false;
  int32_t block_depth = 0;
  int32_t pair_rows = 0;     // of a panel of SpmmFormat::kCsr2 or kCsr4
  int32_t stack_width = 0;   // columns of a kernel fed by stacks; 0: no stacks
  int32_t stack_rows = 0;    // see StackRows()
  int32_t lanes = 0;         // spmv
  bool perm_pairs = false;   // see PackSpmv
  int32_t panel_rows = 0;    // winograd: of a panel; 0 for the other kernels
  int32_t group_panels = 0;  // winograd

  // Whether the window that K-rows stand for is a transposed convolution's.
  bool by_transposed_taps() const { return transposed && !phases.used(); }

  bool operator==(const PackKey& o) const {
    return tensor == o.tensor && groups == o.groups && taps == o.taps &&
           transposed == o.transposed && phases == o.phases && vector == o.vector &&
           bytes == o.bytes && depthwise == o.depthwise && row_taps == o.row_taps &&
           bias == o.bias && format == o.format && direct == o.direct &&
           block_depth == o.block_depth && pair_rows == o.pair_rows &&
           stack_width == o.stack_width && stack_rows == o.stack_rows && lanes == o.lanes &&
           perm_pairs == o.perm_pairs && panel_rows == o.panel_rows &&
           group_panels == o.group_panels;
  }
};

class Weights {
 public:
  // `shared`: nullptr, or the weights of all levels, which everything comes from that has not its
  // `own` bit set ([tensors]: the tensors that differ between levels). Both outlive these.
  Weights(const Graph* graph, const Allocator* allocator, Weights* shared = nullptr,
          const bool* own = nullptr)
      : graph_(graph),
        allocator_(allocator),
        shared_(shared),
        own_(own),
        dense_(allocator),
        nonzeros_(allocator),
        stats_(allocator),
        csr_(allocator) {}
  ~Weights();
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  // The file is a read-only mapping: what was packed of it may leave memory.
  void SetMappedFile(const void* bytes, size_t size) {
    mapped_ = true;
    file_ = {static_cast<const char*>(bytes), size};
  }

  // Decoded constants take no more bytes than that together; 0: as many as there are.
  void LimitTo(uint64_t bytes) {
    limit_ = bytes;
    if (shared_ != nullptr) shared_->LimitTo(bytes);
  }

  // The constant's plain bytes in its own dtype: a view of the file where that is possible.
  Status Dense(uint32_t tensor, const void** data);
  // Its numbers as floats (f32 and i8), never a cached copy: `scratch` holds it when it must be
  // decoded.
  Status DenseUncached(uint32_t tensor, Array<float>* scratch, const float** data);

  Status NonZeros(uint32_t tensor, uint64_t* nnz);

  // Where the rows of an encoded matrix begin (FindRowStarts); no elements where it needs no table.
  Status RowStarts(uint32_t tensor, Span<uint32_t>* starts);

  Status Stats(const PackKey& key, MatrixStats* stats);
  // The weights of a layer as CSR [rows][channels * taps], transposed convolutions rearranged. The
  // last one asked for is kept, since a layer is packed in several ways in a row.
  Status AsCsr(const PackKey& key, const Csr** csr);

  Status Spmm(const PackKey& key, const PackedSpmm** packed);
  Status Spmv(const PackKey& key, const PackedSpmv** packed);
  Status Winograd(const PackKey& key, const PackedWinograd** packed);
  // A tensor has been read or packed: the file's copy is needed no longer. Leaves pages of a few
  // megabytes in memory at most.
  void Forget(uint32_t tensor);
  // Frees what only planning needs.
  void EndPlanning();
  // The block depth of a packing for spmm that a plan keeps, of the same matrix in the format of
  // `key` and about as deep as it says; 0: there is none.
  int32_t KeptDepth(const PackKey& key) const;
  // A plan's steps use the packing: it stays until the model goes.
  void Keep(const PackKey& key);
  // Forgets a packing that lost a measured choice, unless a plan keeps it.
  void Drop(const PackKey& key);

  size_t PackedBytes(const PackKey& key) const;
  // The packing leaves all caches.
  void FlushPacked(const PackKey& key) const;

  // Bytes of everything decoded and packed, without what is shared.
  size_t resident_bytes() const;
  const Allocator* allocator() const { return allocator_; }

 private:
  struct Packing {
    explicit Packing(const Allocator* a) : spmm(a), spmv(a), winograd(a) {}
    PackKey key;
    PackedSpmm spmm;
    PackedSpmv spmv;
    PackedWinograd winograd;
    bool kept = false;
    Packing* next = nullptr;
  };
  struct DenseCopy {
    uint32_t tensor;
    void* data;
    size_t bytes;
  };

  struct RowTable {
    explicit RowTable(const Allocator* a) : starts(a) {}
    uint32_t tensor = kNoTensor;
    Array<uint32_t> starts;
    RowTable* next = nullptr;
  };

  struct StatsEntry {
    PackKey key;
    MatrixStats stats;
  };

  bool IsShared(uint32_t tensor) const { return shared_ != nullptr && !own_[tensor]; }
  // Not of a key that is not in use.
  bool IsShared(const PackKey& key) const {
    return key.tensor != kNoTensor && IsShared(key.tensor) &&
           (key.bias == kNoTensor || IsShared(key.bias));
  }
  // Whether the weights lie row by row in the file with hardly any zeros between them: then they
  // are packed without CSR.
  Status IsFull(const PackKey& key, bool* full);
  Status RearrangeTransposed(const PackKey& key, Csr* csr);
  Status GroupBytes(const PackKey& key, Csr* csr);
  Status RearrangePhases(const PackKey& key, Csr* csr);
  // kOutOfMemory if so many bytes of a decoded constant are too many.
  Status CheckDecoded(uint32_t tensor, uint64_t bytes) const;
  Packing* Find(const PackKey& key) const;
  // `pack` fills a Packing that is not there yet.
  template <typename Pack>
  Status FindOrPack(const PackKey& key, Pack pack, Packing** packing);
  Status PackForSpmm(const PackKey& key, PackedSpmm* packed);
  Status PackForSpmv(const PackKey& key, PackedSpmv* packed);
  Status PackForWinograd(const PackKey& key, PackedWinograd* packed);
  void Free(Packing* packing);

  const Graph* graph_;
  const Allocator* allocator_;
  Weights* shared_;
  const bool* own_;
  Array<DenseCopy> dense_;
  uint64_t limit_ = 0;
  Array<int64_t> nonzeros_;  // [tensors], -1 = not counted yet
  Array<StatsEntry> stats_;
  Csr csr_;
  PackKey csr_key_;
  Packing* packings_ = nullptr;
  RowTable* row_tables_ = nullptr;
  bool mapped_ = false;
  size_t read_bytes_ = 0;  // of the mapped file, since pages were forgotten last
  Span<char> file_;
};

}  // namespace sparsert
