// Shape inference: checks the inputs' shapes, then visits the nodes in order.
#include "graph/infer_shapes.h"

#include <cinttypes>

#include "graph/infer_rules.h"

namespace sparsert {
namespace {

struct Arity {
  size_t min_inputs;  // these must be present
  size_t max_inputs;
  size_t max_outputs;
};

constexpr size_t kMany = 0xffff;

Arity OpArity(Op op) {
  switch (op) {
    case Op::kConv:
    case Op::kLinear:
      return {2, 4, 1};
    case Op::kConvTranspose:
      return {2, 3, 1};
    case Op::kBatchNormalization:
    case Op::kRange:
    case Op::kWhere:
      return {3, 3, 1};
    case Op::kMaxPool:
      return {1, 1, 2};
    case Op::kUnary:
    case Op::kAveragePool:
    case Op::kGlobalAveragePool:
    case Op::kGlobalMaxPool:
    case Op::kFlatten:
    case Op::kTranspose:
    case Op::kIdentity:
    case Op::kSoftmax:
    case Op::kLogSoftmax:
    case Op::kCast:
    case Op::kShape:
    case Op::kSize:
    case Op::kConstantOfShape:
      return {1, 1, 1};
    case Op::kPRelu:
    case Op::kBinary:
    case Op::kReshape:
    case Op::kUnsqueeze:
    case Op::kExpand:
    case Op::kGather:
    case Op::kMatMul:
    case Op::kRMSNormalization:
      return {2, 2, 1};
    case Op::kLayerNormalization:
      return {2, 3, 1};
    case Op::kAttention:
      return {3, 4, 1};
    case Op::kRecurrent:
      return {2, 9, 3};
    case Op::kQuantizePacked:
    case Op::kDequantizePacked:
    case Op::kQMaxPool:
    case Op::kQAveragePool:
      return {1, 1, 1};
    case Op::kQConv:
      return {3, 5, 1};
    case Op::kQDepthwise:
      return {3, 4, 1};
    case Op::kQuantizeDynamic:
      return {1, 1, 2};
    case Op::kQConvDynamic:
      return {4, 6, 1};
    case Op::kQAdd:
    case Op::kQLookup:
      return {2, 2, 1};
    case Op::kQElementwise:
      return {2, 4, 1};
    case Op::kQAttention:
      return {4, 5, 1};
    case Op::kConcat:
      return {1, kMany, 1};
    case Op::kArgMax:
    case Op::kArgMin:
    case Op::kBitCast:
      return {1, 1, 1};
    case Op::kTopK:
      return {2, 2, 2};
    case Op::kGatherElements:
    case Op::kGatherND:
    case Op::kCumSum:
    case Op::kCumProd:
    case Op::kTile:
      return {2, 2, 1};
    case Op::kScatterElements:
    case Op::kScatterND:
    case Op::kOneHot:
      return {3, 3, 1};
    case Op::kTrilu:
      return {1, 2, 1};
    case Op::kGridSample:
      return {2, 2, 1};
    case Op::kRoiAlign:
      return {3, 3, 1};
    case Op::kDeformColumns:
      return {2, 3, 1};
    case Op::kSplit:
      return {1, 2, kMany};
    case Op::kSlice:
      return {3, 5, 1};
    case Op::kSqueeze:
    case Op::kReduce:
    case Op::kCompare:
      return {1, 2, 1};
    case Op::kPad:
      return {2, 4, 1};
    case Op::kResize:
      return {1, 4, 1};
  }
  return {0, 0, 0};
}

Status InferNode(const Inference& inf) {
  switch (inf.node.op) {
    case Op::kConv:
      return InferConv(inf);
    case Op::kConvTranspose:
      return InferConvTranspose(inf);
    case Op::kLinear:
      return InferLinear(inf);
    case Op::kBatchNormalization:
      return InferBatchNormalization(inf);
    case Op::kUnary:
      return InferUnary(inf);
    case Op::kPRelu:
      return InferPRelu(inf);
    case Op::kBinary:
      return InferBinary(inf);
    case Op::kMaxPool:
    case Op::kAveragePool:
      return InferPool(inf);
    case Op::kGlobalAveragePool:
    case Op::kGlobalMaxPool:
      return InferGlobalPool(inf);
    case Op::kConcat:
      return InferConcat(inf);
    case Op::kSplit:
      return InferSplit(inf);
    case Op::kSlice:
      return InferSlice(inf);
    case Op::kReshape:
      return InferReshape(inf);
    case Op::kFlatten:
      return InferFlatten(inf);
    case Op::kSqueeze:
      return InferSqueeze(inf);
    case Op::kUnsqueeze:
      return InferUnsqueeze(inf);
    case Op::kTranspose:
      return InferTranspose(inf);
    case Op::kExpand:
      return InferExpand(inf);
    case Op::kIdentity:
      return InferIdentity(inf);
    case Op::kGather:
      return InferGather(inf);
    case Op::kPad:
      return InferPad(inf);
    case Op::kResize:
      return InferResize(inf);
    case Op::kReduce:
      return InferReduce(inf);
    case Op::kSoftmax:
    case Op::kLogSoftmax:
      return InferSoftmax(inf);
    case Op::kCast:
      return InferCast(inf);
    case Op::kShape:
      return InferShapeOp(inf);
    case Op::kSize:
      return InferSize(inf);
    case Op::kConstantOfShape:
      return InferConstantOfShape(inf);
    case Op::kRange:
      return InferRange(inf);
    case Op::kMatMul:
      return InferMatMul(inf);
    case Op::kLayerNormalization:
    case Op::kRMSNormalization:
      return InferNorm(inf);
    case Op::kQuantizePacked:
      return InferQuantizePacked(inf);
    case Op::kDequantizePacked:
      return InferDequantizePacked(inf);
    case Op::kQuantizeDynamic:
      return InferQuantizeDynamic(inf);
    case Op::kQConv:
    case Op::kQDepthwise:
    case Op::kQConvDynamic:
      return InferQuantisedConv(inf);
    case Op::kQAdd:
      return InferQuantisedAdd(inf);
    case Op::kQMaxPool:
    case Op::kQAveragePool:
      return InferQuantisedPool(inf);
    case Op::kQLookup:
      return InferLookup(inf);
    case Op::kQElementwise:
      return InferQuantisedElementwise(inf);
    case Op::kQAttention:
      return InferQuantisedAttention(inf);
    case Op::kAttention:
      return InferAttention(inf);
    case Op::kRecurrent:
      return InferRecurrent(inf);
    case Op::kWhere:
      return InferWhere(inf);
    case Op::kCompare:
      return InferCompare(inf);
    case Op::kArgMax:
    case Op::kArgMin:
      return InferArgReduce(inf);
    case Op::kTopK:
      return InferTopK(inf);
    case Op::kGatherElements:
      return InferGatherElements(inf);
    case Op::kGatherND:
      return InferGatherNd(inf);
    case Op::kScatterElements:
      return InferScatterElements(inf);
    case Op::kScatterND:
      return InferScatterNd(inf);
    case Op::kOneHot:
      return InferOneHot(inf);
    case Op::kCumSum:
    case Op::kCumProd:
      return InferCumulate(inf);
    case Op::kTrilu:
      return InferTrilu(inf);
    case Op::kTile:
      return InferTile(inf);
    case Op::kBitCast:
      return InferBitCast(inf);
    case Op::kGridSample:
      return InferGridSample(inf);
    case Op::kRoiAlign:
      return InferRoiAlign(inf);
    case Op::kDeformColumns:
      return InferDeformColumns(inf);
  }
  return NodeError(inf.node, StatusCode::kUnsupported, "op number %u is unknown",
                   static_cast<unsigned>(inf.node.op));
}

// Counts, presence and order of the operands, so that the rules may index freely.
Status CheckOperands(const Inference& inf) {
  const Node& node = inf.node;
  const Arity arity = OpArity(node.op);
  // All inputs of a Concat are required.
  const size_t required = node.op == Op::kConcat ? node.inputs.size : arity.min_inputs;
  for (size_t i = 0; i < node.inputs.size || i < arity.min_inputs; ++i) {
    const uint32_t tensor = node.Input(i);
    if (tensor == kNoTensor) {
      if (i >= required && i >= arity.min_inputs) continue;
      return NodeError(node, StatusCode::kModelFormat, "input %zu is missing", i);
    }
    if (i >= arity.max_inputs) {
      return NodeError(node, StatusCode::kModelFormat, "has %zu inputs, at most %zu are allowed",
                       node.inputs.size, arity.max_inputs);
    }
    if (tensor >= inf.table.facts.size()) {
      return NodeError(node, StatusCode::kModelFormat, "input %zu is not a tensor", i);
    }
    if (!inf.In(i).has_shape) {
      return NodeError(node, StatusCode::kModelFormat, "input '%s' is used before it is computed",
                       NameText(inf.InTensor(i).name).text);
    }
  }
  if (node.outputs.empty() || node.outputs.size > arity.max_outputs) {
    return NodeError(node, StatusCode::kUnsupported, "has %zu outputs, expected %s",
                     node.outputs.size, arity.max_outputs == 1 ? "one" : "at least one");
  }
  for (const uint32_t tensor : node.outputs) {
    if (tensor == kNoTensor) continue;
    if (tensor >= inf.table.facts.size()) {
      return NodeError(node, StatusCode::kModelFormat, "an output is not a tensor");
    }
    if (inf.table.facts[tensor].has_shape) {
      return NodeError(node, StatusCode::kModelFormat, "output '%s' already has a value",
                       NameText(inf.graph.tensors[tensor].name).text);
    }
  }
  const Attr* act = node.FindAttr(AttrKey::k_act);
  if (act != nullptr && (act->i < 0 || act->i >= kUnaryFns)) {
    return NodeError(node, StatusCode::kModelFormat, "activation %" PRId64 " is unknown", act->i);
  }
  return Status::Ok();
}

// `values`: of an integer type.
int64_t ReadInteger(const uint8_t* values, DType dtype, size_t i) {
  const uint8_t* at = values + i * DTypeSize(dtype);
  int64_t wide = 0;
  memcpy(&wide, at, DTypeSize(dtype));  // little-endian
  switch (dtype) {
    case DType::kI8:
      return static_cast<int8_t>(wide);
    case DType::kI16:
      return static_cast<int16_t>(wide);
    case DType::kI32:
      return static_cast<int32_t>(wide);
    case DType::kBool:
      return wide != 0;
    default:
      return wide;
  }
}

Status SetConstant(const Graph& graph, size_t index, ShapeTable* table) {
  const Tensor& tensor = graph.tensors[index];
  TensorFacts& facts = table->facts[index];
  facts.dtype = tensor.dtype;
  facts.shape.rank = tensor.rank;
  bool valid = tensor.rank <= kMaxRank;
  for (int d = 0; valid && d < tensor.rank; ++d) facts.shape.dims[d] = tensor.dims[d];
  if (!valid || !ShapeWithinLimits(facts.shape)) {
    return Status::Error(StatusCode::kModelFormat, "constant '%s' has an invalid shape",
                         NameText(tensor.name).text);
  }
  facts.has_shape = true;
  const int64_t n = facts.shape.elements();
  if (!IsIntegerDType(tensor.dtype) || tensor.data.encoding != Encoding::kDense ||
      n > kMaxKnownValues) {
    return Status::Ok();
  }
  const size_t first = table->values.size();
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    const int64_t value = ReadInteger(tensor.data.values, tensor.dtype, i);
    if (tensor.dtype == DType::kU64 && value < 0) return Status::Ok();  // beyond int64
    SRT_RETURN_IF_ERROR(table->values.push_back(value));
  }
  facts.values_first = first;
  facts.is_known = true;
  return Status::Ok();
}

// Makes the value of a graph input known, if it is of a type and size that can be.
Status SetInputValue(uint32_t index, const void* value, ShapeTable* table) {
  TensorFacts& facts = table->facts[index];
  const int64_t n = facts.shape.elements();
  const bool is_float = facts.dtype == DType::kF32;
  if ((!is_float && !IsIntegerDType(facts.dtype)) || n > kMaxKnownValues) return Status::Ok();
  const uint8_t* bytes = static_cast<const uint8_t*>(value);
  const size_t first = table->values.size();
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    int64_t slot = 0;
    if (is_float) {
      float number = 0.0f;
      memcpy(&number, bytes + i * sizeof(number), sizeof(number));
      slot = FloatToSlot(number);
    } else {
      slot = ReadInteger(bytes, facts.dtype, i);
      if (facts.dtype == DType::kU64 && slot < 0) return Status::Ok();  // beyond int64
    }
    SRT_RETURN_IF_ERROR(table->values.push_back(slot));
  }
  facts.values_first = first;
  facts.is_known = true;
  return Status::Ok();
}

// `value`: nullptr unless it is known. `symbol_sizes`: one per symbol, -1 until an input gives it a
// size; nullptr: the declared shape is not looked at.
Status SetInput(const Graph& graph, uint32_t index, const Shape& shape,
                Array<int64_t>* symbol_sizes, const void* value, bool allow_empty,
                ShapeTable* table) {
  const Tensor& tensor = graph.tensors[index];
  const NameText name(tensor.name);
  if (!ShapeWithinLimits(shape)) {
    return Status::Error(
        StatusCode::kShape, "input '%s' has an invalid shape %s", name.text,
        shape.rank > kMaxRank ? "of more than 8 dimensions" : ShapeText(shape).text);
  }
  // A file that declares an input empty means it; a run with an empty batch hardly does. Further
  // dimensions may be empty: the tokens before the first one have no keys.
  const bool declared =
      allow_empty || (tensor.rank == shape.rank && shape.rank > 0 && tensor.dims[0] == 0);
  if (shape.rank > 0 && shape.dims[0] == 0 && value == nullptr && !declared) {
    return Status::Error(StatusCode::kShape, "input '%s' has a batch of size 0: %s", name.text,
                         ShapeText(shape).text);
  }
  if (tensor.rank != kUnknownRank && symbol_sizes != nullptr) {
    if (shape.rank != tensor.rank) {
      return Status::Error(StatusCode::kShape, "input '%s' has shape %s, expected rank %d",
                           name.text, ShapeText(shape).text, static_cast<int>(tensor.rank));
    }
    for (int d = 0; d < shape.rank; ++d) {
      const int64_t declared = tensor.dims[d];
      if (declared >= 0) {
        if (shape.dims[d] == declared) continue;
        return Status::Error(StatusCode::kShape,
                             "input '%s' has shape %s, expected %" PRId64 " in dimension %d",
                             name.text, ShapeText(shape).text, declared, d);
      }
      const uint64_t symbol = static_cast<uint64_t>(-(declared + 1));
      if (symbol >= symbol_sizes->size()) continue;  // an anonymous dimension
      int64_t& size = (*symbol_sizes)[symbol];
      if (size >= 0 && size != shape.dims[d]) {
        return Status::Error(
            StatusCode::kShape,
            "input '%s' has shape %s, but dimension %d ('%s') is %" PRId64 " elsewhere", name.text,
            ShapeText(shape).text, d, NameText(graph.symbols[symbol]).text, size);
      }
      size = shape.dims[d];
    }
  }
  TensorFacts& facts = table->facts[index];
  if (facts.has_shape) {
    return Status::Error(StatusCode::kModelFormat, "input '%s' is a constant or appears twice",
                         name.text);
  }
  facts.has_shape = true;
  facts.dtype = tensor.dtype;
  facts.shape = shape;
  return value == nullptr ? Status::Ok() : SetInputValue(index, value, table);
}

}  // namespace

Status Inference::SetOutput(size_t i, DType dtype, const Shape& shape) const {
  if (!ShapeWithinLimits(shape)) {
    return NodeError(node, StatusCode::kShape, "output shape %s is too large",
                     ShapeText(shape).text);
  }
  const uint32_t tensor = node.outputs[i];
  if (tensor == kNoTensor) return Status::Ok();
  TensorFacts& facts = out_table->facts[tensor];
  facts.has_shape = true;
  facts.dtype = dtype;
  facts.shape = shape;
  return Status::Ok();
}

Status InferShapes(const Graph& graph, Span<Shape> input_shapes, ShapeTable* table,
                   bool as_declared, Span<const void*> input_values, bool allow_empty) {
  table->facts.clear();
  table->values.clear();
  SRT_RETURN_IF_ERROR(table->facts.resize(graph.tensors.size()));
  for (size_t i = 0; i < graph.tensors.size(); ++i) {
    if (graph.tensors[i].is_constant) SRT_RETURN_IF_ERROR(SetConstant(graph, i, table));
  }

  if (input_shapes.size != graph.inputs.size) {
    return Status::Error(StatusCode::kInvalidArgument, "got %zu inputs, the model has %zu",
                         input_shapes.size, graph.inputs.size);
  }
  Array<int64_t> symbol_sizes(table->facts.allocator());
  SRT_RETURN_IF_ERROR(symbol_sizes.resize(graph.symbols.size()));
  for (int64_t& size : symbol_sizes) size = -1;
  for (size_t i = 0; i < graph.inputs.size; ++i) {
    SRT_RETURN_IF_ERROR(
        SetInput(graph, graph.inputs[i], input_shapes[i], as_declared ? &symbol_sizes : nullptr,
                 input_values.empty() ? nullptr : input_values[i], allow_empty, table));
  }

  for (const Node& node : graph.nodes) {
    const Inference inf(graph, table, node);
    SRT_RETURN_IF_ERROR(CheckOperands(inf));
    SRT_RETURN_IF_ERROR(InferNode(inf));
    SRT_RETURN_IF_ERROR(FoldNode(inf));
  }

  for (const uint32_t output : graph.outputs) {
    if (!table->facts[output].has_shape) {
      return Status::Error(StatusCode::kModelFormat, "output '%s' is not computed by any node",
                           NameText(graph.tensors[output].name).text);
    }
  }
  return Status::Ok();
}

}  // namespace sparsert
