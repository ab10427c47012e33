// PlanBuilder: what the lowering of every op uses to append steps to a plan.
#pragma once

#include <new>

#include "kernels/dwconv/dwconv.h"
#include "kernels/spmm/spmm.h"
#include "plan/build_taps.h"
#include "plan/measure.h"
#include "plan/place_concats.h"
#include "plan/plan.h"
#include "plan/tuning.h"

namespace sparsert {

struct SpmmOperands;

// What tune="auto" may spend on measuring, packing included.
constexpr double kTuneNs = 0.7e9;

// Whether a Conv over few planes has a step that copies no tiles, and the index of the pool that it
// computes too.
struct PlanesConv {
  static constexpr uint32_t kNoPool = UINT32_MAX;
  enum class Kind : uint8_t { kNone, kRowconv, kStem, kWstem };
  Kind kind = Kind::kNone;
  uint32_t pool = kNoPool;
  Window window;
};

// A Linear whose product the Recurrent behind it makes by itself, a few steps at a time.
struct Projection {
  uint32_t recurrent = kNoTensor;  // index of that node
  IoRef x;                         // plain
  KernelFn run = nullptr;
  const SpmmArgs* args = nullptr;
  size_t scratch_bytes = 0;
  int64_t steps = 0;  // at a time
  int64_t row = 0;    // floats between rows of columns
  int64_t width = 0;  // elements of an input
  double predicted_ns = 0.0;
};

// A step over planes that may as well run a few rows of them at a time.
struct PlaneStep {
  uint32_t step = 0;
  const DwconvArgs* depthwise = nullptr;  // or:
  const SpmmArgs* product = nullptr;
  int lanes = 0;
  int64_t height = 0, width = 0;  // of the product's planes
  bool squares = false;           // the product is of them: its columns are not rows
};

// A step to be inserted: it moves rows that are still needed to a buffer's beginning.
struct MovedRows {
  uint32_t before = 0;  // the step that writes behind them
  Step step;
};

class PlanBuilder {
 public:
  PlanBuilder(const Graph& graph, const PlanOptions& options, Weights* weights, Plan* plan)
      : graph(graph),
        options(options),
        weights(weights),
        plan(plan),
        bench(weights->allocator()),
        work_(plan->steps.allocator()),
        buffers_(plan->steps.allocator()),
        output_of_(plan->steps.allocator()),
        last_use_(plan->steps.allocator()),
        only_reshaped_(plan->steps.allocator()),
        concat_parts_(plan->steps.allocator()),
        feature_major_(plan->steps.allocator()),
        is_packed_(plan->steps.allocator()),
        is_tileable_(plan->steps.allocator()),
        tilings_(plan->steps.allocator()),
        taps_(plan->steps.allocator()),
        plane_steps_(plan->steps.allocator()) {}

  const Graph& graph;
  const PlanOptions& options;
  Weights* const weights;
  Plan* const plan;

  Status Build();

  // --- Tensors ---
  const TensorFacts& facts(uint32_t tensor) const { return plan->facts.facts[tensor]; }
  const TensorDesc& desc(uint32_t tensor) const { return plan->places[tensor].desc; }
  IoRef ref(uint32_t tensor) const {
    return tensor == kNoTensor ? IoRef() : plan->places[tensor].ref;
  }
  bool is_feature_major(uint32_t tensor) const { return feature_major_[tensor]; }
  const ConcatPart& concat_part(uint32_t tensor) const { return concat_parts_[tensor]; }
  bool is_constant(uint32_t tensor) const { return graph.tensors[tensor].is_constant; }

  // Plain bytes of a tensor whose value is known now (constant or shape arithmetic).
  Status ConstantData(uint32_t tensor, const void** data);

  // The same of floats; nullptr if there is no tensor.
  Status ConstantFloats(uint32_t tensor, const float** data) {
    const void* bytes = nullptr;
    if (tensor != kNoTensor) SRT_RETURN_IF_ERROR(ConstantData(tensor, &bytes));
    *data = static_cast<const float*>(bytes);
    return Status::Ok();
  }

  // A buffer that lives for the current node's steps only.
  Status Temporary(size_t bytes, IoRef* ref);

  // `view` takes the bytes of `of`, row-major: shared memory where both allow it, else a copy.
  Status View(uint32_t view, uint32_t of);

  // The layout that a tensor has in memory of its own.
  TensorDesc OwnLayout(uint32_t tensor, bool plain) const;

  // A row-major image of the tensor: itself, or a temporary copy.
  Status Plain(uint32_t tensor, IoRef* ref);

  // Row-major memory for a node's output: its own, or a temporary that FinishPlain() copies there.
  Status PlainOutput(uint32_t tensor, IoRef* ref);
  Status FinishPlain(uint32_t tensor, const IoRef& ref);

  // --- Steps ---
  template <typename Args>
  Status NewArgs(Args** args) {
    *args = plan->memory.Allocate<Args>(1);
    if (*args == nullptr) return Status::OutOfMemory("step arguments", sizeof(Args));
    new (*args) Args();
    return Status::Ok();
  }

  // `work`: about how many nanoseconds the whole step takes on one thread; small steps are not
  // shared among threads.
  Status AddStep(const Kernel& kernel, const void* args, Span<IoRef> io, int64_t items,
                 size_t scratch_bytes, double work_ns);

  // Copies `from` into `to` element by element through their strides (same shape, same dtype).
  Status AddCopy(const TensorDesc& from_desc, IoRef from, const TensorDesc& to_desc, IoRef to);

  Status Taps(const Window& window, bool transposed, bool phased, const Tiling& tiling,
              TapTable* table);

  // How a tensor lies in tiles of columns; nullptr: it does not.
  const Tiling* TilingOf(uint32_t t) const {
    return kHasTiledPlanes && t != kNoTensor && tilings_[t].tiles != 0 ? &tilings_[t] : nullptr;
  }
  // Which operands of the current node, a convolution, lie in tiles of columns.
  void PlaceTiles(SpmmOperands* o) const;
  // The step of the current node, whose output may, writes such tiles.
  void TileOutput();

  // Says that the last step is one over planes.
  Status NotePlaneStep(PlaneStep step);

  void AddToReason(uint32_t node_index, const char* format, ...);
  NodePlan& info() { return plan->nodes[node_index]; }
  Status Fail(StatusCode code, const char* what) const;  // names the current node
  Status FailForMemory(const Status& status) const;      // and the limit

  // --- Tuning ---
  TuningReader tuning;
  uint32_t tuning_node = 0;  // of `tuning`, what the graph's first node is
  TrialBench bench;
  double weight_elements = 0.0;  // of the whole model
  // What is left of it.
  double tune_ns_left = kTuneNs;
  // What the current node may spend of it: more, the more work it is of what is left to lower.
  double TuneBudget() const;

  uint32_t node_index = 0;
  const Node* node = nullptr;
  PlanesConv planes_conv;  // of the current node
  // Index of the QElementwise that the step of the current node, a QConv, computes too.
  static constexpr uint32_t kNoNode = UINT32_MAX;
  uint32_t then = kNoNode;
  Projection projection;  // of the last Linear that has been lowered to one

 private:
  // A stretch of the arena, of one tensor or of several that are views or parts of one.
  struct Buffer {
    size_t bytes = 0;
    uint32_t first = 0;  // node index of the first write
    uint32_t last = 0;   // node index of the last use
    size_t offset = 0;
  };
  struct TapsEntry {
    Window window;
    bool transposed;
    bool phased;
    Tiling tiling;
    TapTable table;
  };

  // Whether the model's weights stay in L2 from run to run.
  Status StaysInCache(bool* is_small);
  Status EstimateWork();
  Status PlaceInputs();
  Status FindLastUses();
  // Sets is_tileable_.
  Status FindTileable();
  // Sets output_tiling_.
  Status ChooseOutputTiling();
  // Adds what those that read a tensor are predicted to take with the tiling, in ns. *agree: each
  // of them nearly as little as with its own.
  Status AskReaders(uint32_t t, const Tiling& tiling, double* ns, bool* agree);
  Status PlaceConstant(uint32_t t);
  Status PlaceOutputsOf(const Node& n);
  uint32_t OverwritableInput(const Node& n) const;
  bool UsedLater(const IoRef& arena) const;
  Status PlacePart(uint32_t t);
  // The layout that the output of a Transpose has as a view of its input. False: it has to move.
  bool TransposedView(const Node& n, TensorDesc* desc) const;
  // The same for a reshape of tensors that are not row-major.
  bool ReshapedView(const Node& n, TensorDesc* desc) const;
  // Whether the inputs of a Concat already lie side by side, in order.
  bool IsJoined(const Node& n) const;
  Status LowerNode();
  // Sets planes_conv.
  Status ChoosePlanesConv();
  Status ChooseRowconv(const Window& window);
  Status ChooseStem(const Window& window);
  Status ChooseWstem(const Window& window);
  // Sets `then`.
  void ChooseThen();
  // Whether the current node, a Linear, is to become a Projection.
  bool IsProjection() const;
  bool FindPool(uint32_t y, uint32_t* pool, Window* window) const;
  // Whether one node alone reads an output of the current one that needs no memory of its own.
  bool HasOneReader(uint32_t y, uint32_t* reader) const;
  Status WriteGraphOutputs();
  // Says which layers SPARSERT_FORMAT does not reach.
  void ExplainFormat();
  // Lets steps over large planes take turns.
  Status ShareBands();
  // nullptr: a step may take turns; "": it is not of those that ever do.
  const char* WhyNoTurns(const PlaneStep& step) const;
  // nullptr: what one step writes is nothing but the input of the other, and large; "": they are
  // not neighbours.
  const char* WhyNotPassedOn(const PlaneStep& from, const PlaneStep& to) const;
  Status TakeTurns(const PlaneStep* steps, int count, int64_t rows, Array<MovedRows>* moves);
  // For what step k passes on.
  Status AddMove(const PlaneStep* steps, int count, int64_t rows, int k, Array<MovedRows>* moves);
  Status InsertMoves(const Array<MovedRows>& moves);
  Status AssignArena();
  Status NewBuffer(size_t bytes, IoRef* ref);
  // The matrix that the node's kernel reads in a form of its own; kNoTensor: there is none.
  uint32_t WeightsOf(const Node& n) const;
  void Describe(const Node& n);

  Stage stage_;
  Array<double> work_;      // [graph.nodes] about how many multiply-adds; 0: no choice to make
  double work_left_ = 0.0;  // of the current node and those behind it
  Array<Buffer> buffers_;
  Array<uint32_t> output_of_;  // [tensors] graph output index, kNoTensor for others
  Array<uint32_t> last_use_;  // [tensors] index of the last node that reads it; graph outputs: none
  Array<bool> only_reshaped_;       // [tensors] nothing but reshapes reads it
  Array<ConcatPart> concat_parts_;  // [tensors]
  Array<bool> feature_major_;       // [tensors]
  Array<bool> is_packed_;           // [tensors] holds packed bytes: planes, as floats have them
  Array<bool> is_tileable_;         // [tensors] may lie in tiles of columns (see tile_planes.cc)
  Array<Tiling> tilings_;           // [tensors] of those that do
  Tiling output_tiling_;            // the current node's, if its step computes such tiles
  Array<TapsEntry> taps_;
  Array<PlaneStep> plane_steps_;
};

// One function per group of ops, in lower_<group>.cc.
Status LowerConv(PlanBuilder* b);         // Conv, ConvTranspose
Status LowerRowconv(PlanBuilder* b);      // Conv, as chosen in b->planes_conv
Status LowerStem(PlanBuilder* b);         // the same
Status LowerWstem(PlanBuilder* b);        // the same
Status LowerLinear(PlanBuilder* b);       // Linear
Status LowerColumns(PlanBuilder* b);      // Linear with a feature-major operand
Status LowerElementwise(PlanBuilder* b);  // Unary, Binary, PRelu, BatchNormalization, Cast, ...
Status LowerPool(PlanBuilder* b);         // MaxPool, AveragePool, Global*
Status LowerReduce(PlanBuilder* b);       // Reduce, Softmax, LogSoftmax
Status LowerMovement(PlanBuilder* b);     // everything that only moves data
Status LowerResize(PlanBuilder* b);
Status LowerMatMul(PlanBuilder* b);
Status LowerAttention(PlanBuilder* b);
Status LowerQattention(PlanBuilder* b);
Status LowerRecurrent(PlanBuilder* b);
Status LowerProjection(PlanBuilder* b);  // Linear before a Recurrent
Status LowerQuantised(PlanBuilder* b);   // QConv and all other ops on packed bytes
Status LowerNorm(PlanBuilder* b);        // LayerNormalization, RMSNormalization
Status LowerSample(PlanBuilder* b);      // GridSample, RoiAlign, DeformColumns
Status LowerIndex(PlanBuilder* b);       // ops that find, pick or scatter elements; Cum*, Trilu

// Whether a Gather picks rows of a constant that stays encoded: one that no other node needs
// decoded.
bool IsLookup(const Graph& graph, const Node& node);
Status LowerLookup(PlanBuilder* b);

// y = act(W x + bias + r) for `batch` plain vectors; used by Linear and by convolutions over
// single elements. The tensors are the node's.
struct LinearOperands {
  uint32_t w = kNoTensor;
  uint32_t bias = kNoTensor;
  int64_t batch = 0;
  IoRef x, r, y;
  bool has_residual = false;
  Activation act;
};
Status LowerMatrix(PlanBuilder* b, const LinearOperands& operands);

Activation FusedActivation(const Node& node);

}  // namespace sparsert
