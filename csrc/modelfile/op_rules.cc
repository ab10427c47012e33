// The rules of the opset as tables, and the checks of attribute values and geometry.
#include "modelfile/op_rules.h"

#include <initializer_list>

namespace sparsert {
namespace {

template <typename... Keys>
constexpr uint32_t Bits(Keys... keys) {
  return (0u | ... | (1u << static_cast<uint32_t>(keys)));
}

template <typename... Keys>
constexpr uint64_t Attrs(Keys... keys) {
  return (uint64_t{0} | ... | (uint64_t{1} << static_cast<uint32_t>(keys)));
}

using K = AttrKey;

constexpr uint64_t kAct = Attrs(K::k_act, K::k_act_alpha, K::k_act_beta);
constexpr uint64_t kWindow = Attrs(K::k_strides, K::k_pads, K::k_dilations, K::k_auto_pad);
constexpr uint32_t kWeights = Bits(1, 2);
constexpr uint64_t kFn = Attrs(K::k_fn);

constexpr OpRule kRules[] = {
    {Op::kConv, 2, 4, 1, 1, kWeights, kAct | kWindow | Attrs(K::k_group), 0},
    {Op::kConvTranspose, 2, 3, 1, 1, kWeights,
     kAct | kWindow | Attrs(K::k_group, K::k_output_padding, K::k_output_shape), 0},
    {Op::kLinear, 2, 4, 1, 1, kWeights, kAct, 0},
    {Op::kBatchNormalization, 3, 3, 1, 1, kWeights, kAct, 0},
    {Op::kUnary, 1, 1, 1, 1, 0, Attrs(K::k_fn, K::k_alpha, K::k_beta), kFn},
    {Op::kPRelu, 2, 2, 1, 1, Bits(1), 0, 0},
    {Op::kBinary, 2, 2, 1, 1, 0, kAct | kFn, kFn},
    {Op::kMaxPool, 1, 1, 1, 2, 0,
     kWindow | Attrs(K::k_kernel_shape, K::k_ceil_mode, K::k_storage_order),
     Attrs(K::k_kernel_shape)},
    {Op::kAveragePool, 1, 1, 1, 1, 0,
     kWindow | Attrs(K::k_kernel_shape, K::k_ceil_mode, K::k_count_include_pad),
     Attrs(K::k_kernel_shape)},
    {Op::kGlobalAveragePool, 1, 1, 1, 1, 0, 0, 0},
    {Op::kGlobalMaxPool, 1, 1, 1, 1, 0, 0, 0},
    {Op::kConcat, 1, kVariadic, 1, 1, 0, Attrs(K::k_axis), Attrs(K::k_axis)},
    {Op::kSplit, 1, 2, 1, kVariadic, 0, Attrs(K::k_axis, K::k_num_outputs), 0},
    {Op::kSlice, 3, 5, 1, 1, 0, 0, 0},
    {Op::kReshape, 2, 2, 1, 1, 0, Attrs(K::k_allowzero), 0},
    {Op::kFlatten, 1, 1, 1, 1, 0, Attrs(K::k_axis), 0},
    {Op::kSqueeze, 1, 2, 1, 1, 0, 0, 0},
    {Op::kUnsqueeze, 2, 2, 1, 1, 0, 0, 0},
    {Op::kTranspose, 1, 1, 1, 1, 0, Attrs(K::k_perm), 0},
    {Op::kExpand, 2, 2, 1, 1, 0, 0, 0},
    {Op::kIdentity, 1, 1, 1, 1, 0, 0, 0},
    {Op::kGather, 2, 2, 1, 1, 0, Attrs(K::k_axis), 0},
    {Op::kPad, 2, 4, 1, 1, 0, Attrs(K::k_mode), 0},
    {Op::kResize, 1, 4, 1, 1, 0,
     Attrs(K::k_mode, K::k_coordinate_transformation_mode, K::k_nearest_mode, K::k_axes,
           K::k_keep_aspect_ratio_policy, K::k_antialias, K::k_exclude_outside, K::k_cubic_coeff_a,
           K::k_extrapolation_value),
     0},
    {Op::kReduce, 1, 2, 1, 1, 0, Attrs(K::k_fn, K::k_keepdims, K::k_noop_with_empty_axes), kFn},
    {Op::kSoftmax, 1, 1, 1, 1, 0, Attrs(K::k_axis), 0},
    {Op::kLogSoftmax, 1, 1, 1, 1, 0, Attrs(K::k_axis), 0},
    {Op::kCast, 1, 1, 1, 1, 0, Attrs(K::k_to), Attrs(K::k_to)},
    {Op::kShape, 1, 1, 1, 1, 0, Attrs(K::k_start, K::k_end), 0},
    {Op::kSize, 1, 1, 1, 1, 0, 0, 0},
    {Op::kConstantOfShape, 1, 1, 1, 1, 0, Attrs(K::k_value, K::k_to), 0},
    {Op::kRange, 3, 3, 1, 1, 0, 0, 0},
    {Op::kMatMul, 2, 2, 1, 1, 0, Attrs(K::k_alpha, K::k_trans_a, K::k_trans_b), 0},
    {Op::kLayerNormalization, 2, 3, 1, 1, 0, Attrs(K::k_axis, K::k_epsilon), 0},
    {Op::kWhere, 3, 3, 1, 1, 0, 0, 0},
    {Op::kCompare, 1, 2, 1, 1, 0, kFn, kFn},
    {Op::kAttention, 3, 4, 1, 1, 0, Attrs(K::k_alpha, K::k_heads, K::k_kv_heads, K::k_zero_nan), 0},
    {Op::kRMSNormalization, 2, 2, 1, 1, 0, Attrs(K::k_axis, K::k_epsilon), 0},
    {Op::kArgMax, 1, 1, 1, 1, 0, Attrs(K::k_axis, K::k_keepdims, K::k_select_last_index), 0},
    {Op::kArgMin, 1, 1, 1, 1, 0, Attrs(K::k_axis, K::k_keepdims, K::k_select_last_index), 0},
    {Op::kTopK, 2, 2, 1, 2, 0, Attrs(K::k_axis, K::k_largest, K::k_sorted), 0},
    {Op::kGatherElements, 2, 2, 1, 1, 0, Attrs(K::k_axis), 0},
    {Op::kGatherND, 2, 2, 1, 1, 0, Attrs(K::k_batch_dims), 0},
    {Op::kScatterElements, 3, 3, 1, 1, 0, Attrs(K::k_axis, K::k_reduction), 0},
    {Op::kScatterND, 3, 3, 1, 1, 0, Attrs(K::k_reduction), 0},
    {Op::kOneHot, 3, 3, 1, 1, 0, Attrs(K::k_axis), 0},
    {Op::kCumSum, 2, 2, 1, 1, 0, Attrs(K::k_exclusive, K::k_reverse), 0},
    {Op::kCumProd, 2, 2, 1, 1, 0, Attrs(K::k_exclusive, K::k_reverse), 0},
    {Op::kTrilu, 1, 2, 1, 1, 0, Attrs(K::k_upper), 0},
    {Op::kTile, 2, 2, 1, 1, 0, 0, 0},
    {Op::kBitCast, 1, 1, 1, 1, 0, Attrs(K::k_to), Attrs(K::k_to)},
    {Op::kRecurrent, 2, 9, 1, 3, Bits(1, 2, 3, 7, 8),
     Attrs(K::k_cell, K::k_activations, K::k_clip, K::k_reverse, K::k_input_forget),
     Attrs(K::k_cell, K::k_activations)},
    {Op::kGridSample, 2, 2, 1, 1, 0, Attrs(K::k_mode, K::k_padding_mode, K::k_align_corners), 0},
    {Op::kRoiAlign, 3, 3, 1, 1, 0,
     Attrs(K::k_mode, K::k_coordinate_transformation_mode, K::k_output_shape, K::k_sampling_ratio,
           K::k_spatial_scale),
     Attrs(K::k_output_shape)},
    {Op::kDeformColumns, 2, 3, 1, 1, 0,
     Attrs(K::k_kernel_shape, K::k_strides, K::k_pads, K::k_dilations, K::k_group),
     Attrs(K::k_kernel_shape)},
    {Op::kQuantizePacked, 1, 1, 1, 1, 0, Attrs(K::k_alpha, K::k_quant),
     Attrs(K::k_alpha, K::k_quant)},
    {Op::kDequantizePacked, 1, 1, 1, 1, 0, Attrs(K::k_alpha, K::k_quant, K::k_channels),
     Attrs(K::k_alpha, K::k_quant, K::k_channels)},
    {Op::kQConv, 3, 5, 1, 1, Bits(1, 2, 3),
     kAct | kWindow | Attrs(K::k_group, K::k_to, K::k_quant, K::k_alpha, K::k_beta),
     Attrs(K::k_to, K::k_quant)},
    {Op::kQDepthwise, 3, 4, 1, 1, Bits(1, 2, 3),
     kAct | kWindow | Attrs(K::k_group, K::k_to, K::k_quant), Attrs(K::k_to, K::k_quant)},
    {Op::kQAdd, 2, 2, 1, 1, 0, Attrs(K::k_alpha, K::k_beta, K::k_quant),
     Attrs(K::k_alpha, K::k_beta, K::k_quant)},
    {Op::kQMaxPool, 1, 1, 1, 1, 0, kWindow | Attrs(K::k_kernel_shape, K::k_ceil_mode),
     Attrs(K::k_kernel_shape)},
    {Op::kQAveragePool, 1, 1, 1, 1, 0,
     kWindow |
         Attrs(K::k_kernel_shape, K::k_ceil_mode, K::k_count_include_pad, K::k_alpha, K::k_quant),
     Attrs(K::k_alpha, K::k_quant)},
    {Op::kQLookup, 2, 2, 1, 1, Bits(1), 0, 0},
    {Op::kQElementwise, 2, 4, 1, 1, Bits(1, 2), kAct | Attrs(K::k_to, K::k_quant, K::k_channels),
     Attrs(K::k_to, K::k_quant, K::k_channels)},
    {Op::kQAttention, 4, 5, 1, 1, Bits(3), Attrs(K::k_to, K::k_quant, K::k_heads),
     Attrs(K::k_to, K::k_quant, K::k_heads)},
    {Op::kQuantizeDynamic, 1, 1, 2, 2, 0, 0, 0},
    {Op::kQConvDynamic, 4, 6, 1, 1, Bits(1, 2, 4), kAct | kWindow | Attrs(K::k_group), 0},
};

constexpr int64_t kMaxWindowValue = int64_t{1} << 30;

struct Limits {
  int64_t low;
  int64_t high;
};

template <typename Enum>
constexpr Limits EnumLimits() {
  return {0, static_cast<int64_t>(Enum::kCount) - 1};
}

// The values an int attribute, or each of an ints attribute, may have.
Limits LimitsOf(Op op, AttrKey key) {
  switch (key) {
    case K::k_act:
      return {0, kUnaryFns - 1};
    case K::k_fn:
      if (op == Op::kBinary) return EnumLimits<BinaryFn>();
      if (op == Op::kReduce) return EnumLimits<ReduceFn>();
      if (op == Op::kCompare) return EnumLimits<CompareFn>();
      return {1, kUnaryFns - 1};
    case K::k_cell:
      return EnumLimits<Cell>();
    case K::k_activations:
      return {1, static_cast<int64_t>(UnaryFn::kCount) - 1};
    case K::k_auto_pad:
      return EnumLimits<AutoPad>();
    case K::k_mode:
      if (op == Op::kRoiAlign) return EnumLimits<RoiMode>();
      return op == Op::kPad ? EnumLimits<PadMode>() : EnumLimits<ResizeMode>();
    case K::k_coordinate_transformation_mode:
      if (op == Op::kRoiAlign) return EnumLimits<RoiCoordinates>();
      return EnumLimits<CoordinateMode>();
    case K::k_padding_mode:
      return EnumLimits<GridPadding>();
    case K::k_sampling_ratio:
      return {0, 4096};
    case K::k_nearest_mode:
      return EnumLimits<NearestMode>();
    case K::k_keep_aspect_ratio_policy:
      return {0, 2};
    case K::k_quant:
      return {0, 255};
    case K::k_channels:
      return {1, kMaxWindowValue};
    case K::k_strides:
    case K::k_dilations:
    case K::k_group:
    case K::k_heads:
    case K::k_kv_heads:
    case K::k_kernel_shape:
    case K::k_output_shape:
      return {1, kMaxWindowValue};
    case K::k_pads:
    case K::k_output_padding:
      return {0, kMaxWindowValue};
    case K::k_num_outputs:
      return {1, kVariadic};
    case K::k_axis:
    case K::k_axes:
      return {-kMaxRank, kMaxRank};
    case K::k_perm:
    case K::k_batch_dims:
      return {0, kMaxRank - 1};
    case K::k_reduction:
      return EnumLimits<ScatterReduction>();
    case K::k_ceil_mode:
    case K::k_count_include_pad:
    case K::k_allowzero:
    case K::k_keepdims:
    case K::k_noop_with_empty_axes:
    case K::k_trans_a:
    case K::k_zero_nan:
    case K::k_trans_b:
    case K::k_largest:
    case K::k_sorted:
    case K::k_exclusive:
    case K::k_reverse:
    case K::k_input_forget:
    case K::k_upper:
    case K::k_select_last_index:
    case K::k_align_corners:
    case K::k_storage_order:
    case K::k_antialias:
    case K::k_exclude_outside:
      return {0, 1};
    default:
      return {INT64_MIN, INT64_MAX};
  }
}

void CheckPerm(const Attr& attr, const char* where, Problems* problems) {
  uint32_t seen = 0;
  for (int64_t axis : attr.ints) seen |= 1u << axis;
  if (seen != (1u << attr.ints.size) - 1) {
    problems->Add("%s: perm is not a permutation", where);
  }
}

bool IsMatrix(const Tensor& tensor, DType dtype, int min_rank, int max_rank) {
  if (tensor.dtype != dtype || tensor.rank < min_rank || tensor.rank > max_rank) return false;
  for (int i = 0; i < tensor.rank; ++i) {
    if (tensor.dims[i] < 1) return false;
  }
  return true;
}

bool IsFloatMatrix(const Tensor& tensor, int min_rank, int max_rank) {
  return IsMatrix(tensor, DType::kF32, min_rank, max_rank);
}

void CheckVector(const Graph& graph, const Node& node, size_t input, int64_t length,
                 const char* where, Problems* problems) {
  const uint32_t index = node.Input(input);
  if (index == kNoTensor) return;
  const Tensor& tensor = graph.tensors[index];
  if (!IsFloatMatrix(tensor, 1, 1) || (length >= 0 && tensor.dims[0] != length)) {
    problems->Add("%s: input %zu must be an f32 vector%s", where, input,
                  length >= 0 ? " with one element per output channel" : "");
  }
}

void CheckLength(const Node& node, AttrKey key, size_t expected, const char* where,
                 Problems* problems) {
  const Attr* attr = node.FindAttr(key);
  if (attr != nullptr && attr->ints.size != expected) {
    problems->Add("%s: %s has %zu values, expected %zu", where, AttrName(key), attr->ints.size,
                  expected);
  }
}

void CheckWindow(const Node& node, size_t spatial_rank, const char* where, Problems* problems) {
  CheckLength(node, K::k_strides, spatial_rank, where, problems);
  CheckLength(node, K::k_dilations, spatial_rank, where, problems);
  CheckLength(node, K::k_pads, 2 * spatial_rank, where, problems);
  CheckLength(node, K::k_output_padding, spatial_rank, where, problems);
  CheckLength(node, K::k_output_shape, spatial_rank, where, problems);
}

void CheckConvolution(const Graph& graph, const Node& node, const char* where, Problems* problems) {
  const Tensor& weights = graph.tensors[node.inputs[1]];
  if (!IsFloatMatrix(weights, 3, 4)) {
    problems->Add("%s: weights must be f32 of rank 3 or 4 without empty dims", where);
    return;
  }
  CheckWindow(node, weights.rank - 2u, where, problems);
  const int64_t group = node.IntAttr(K::k_group, 1);
  if (weights.dims[0] % group != 0) {
    problems->Add("%s: %lld channels in %lld groups", where,
                  static_cast<long long>(weights.dims[0]), static_cast<long long>(group));
    return;
  }
  const bool transposed = node.op == Op::kConvTranspose;
  const int64_t channels = transposed ? weights.dims[1] * group : weights.dims[0];
  CheckVector(graph, node, 2, channels, where, problems);
}

// Numbers of the quant attribute: zero points, and at each of `bounds` the lowest and the highest
// byte.
void CheckQuant(const Node& node, size_t expected, std::initializer_list<size_t> bounds,
                const char* where, Problems* problems) {
  CheckLength(node, K::k_quant, expected, where, problems);
  const Span<int64_t> quant = node.IntsAttr(K::k_quant);
  if (quant.size != expected) return;
  for (const size_t at : bounds) {
    if (at >= expected || quant[at] <= quant[at + 1]) continue;
    problems->Add("%s: quant bounds bytes by %lld and %lld", where,
                  static_cast<long long>(quant[at]), static_cast<long long>(quant[at + 1]));
  }
}

// Says whether the result is of floats; else it must be of bytes.
bool CheckFloatOrBytes(const Node& node, const char* where, Problems* problems) {
  const auto to = static_cast<DType>(node.IntAttr(K::k_to, 0));
  if (to != DType::kF32 && to != DType::kU32) problems->Add("%s: to is neither f32 nor u32", where);
  return to == DType::kF32;
}

void CheckQuantisedConvolution(const Graph& graph, const Node& node, const char* where,
                               Problems* problems) {
  const Tensor& weights = graph.tensors[node.inputs[1]];
  if (!IsMatrix(weights, DType::kI8, 3, 4)) {
    problems->Add("%s: weights must be i8 of rank 3 or 4 without empty dims", where);
    return;
  }
  CheckWindow(node, weights.rank - 2u, where, problems);
  CheckVector(graph, node, 2, weights.dims[0], where, problems);
  const bool at_run = node.op == Op::kQConvDynamic;
  const bool is_float = at_run || CheckFloatOrBytes(node, where, problems);
  const uint32_t start = node.Input(at_run ? 4 : 3);
  if (start != kNoTensor) {
    const DType dtype = is_float ? DType::kF32 : DType::kI32;
    const Tensor& t = graph.tensors[start];
    if (!IsMatrix(t, dtype, 1, 1) || t.dims[0] != weights.dims[0]) {
      problems->Add("%s: the bias must have one element per output channel, %s", where,
                    dtype == DType::kF32 ? "f32" : "i32");
    }
  }
  if (at_run) return;
  if (is_float) {
    CheckQuant(node, 1, {}, where, problems);
  } else if (node.Input(4) == kNoTensor) {
    CheckQuant(node, 4, {2}, where, problems);
  } else {
    CheckQuant(node, 8, {2, 6}, where, problems);
  }
}

}  // namespace

const OpRule* FindOpRule(Op op) {
  for (const OpRule& rule : kRules) {
    if (rule.op == op) return &rule;
  }
  return nullptr;
}

const char* AttrName(AttrKey key) {
  switch (key) {
#define SRT_ATTR(number, name) \
  case AttrKey::k_##name:      \
    return #name;
#include "graph/attrs.inc"
#undef SRT_ATTR
  }
  return nullptr;
}

uint32_t AttrTypes(AttrKey key) {
  switch (key) {
    case K::k_act_alpha:
    case K::k_act_beta:
    case K::k_alpha:
    case K::k_beta:
    case K::k_epsilon:
    case K::k_clip:
    case K::k_cubic_coeff_a:
    case K::k_extrapolation_value:
    case K::k_spatial_scale:
      return Bits(AttrType::kFloat);
    case K::k_strides:
    case K::k_pads:
    case K::k_dilations:
    case K::k_output_padding:
    case K::k_output_shape:
    case K::k_kernel_shape:
    case K::k_perm:
    case K::k_axes:
    case K::k_activations:
    case K::k_quant:
      return Bits(AttrType::kInts);
    case K::k_value:
      return Bits(AttrType::kInt, AttrType::kFloat);
    default:
      return AttrName(key) != nullptr ? Bits(AttrType::kInt) : 0;
  }
}

void CheckAttrValue(Op op, const Attr& attr, const char* where, Problems* problems) {
  const char* name = AttrName(attr.key);
  if (attr.type == static_cast<uint8_t>(AttrType::kFloat)) {
    if (attr.f != attr.f && attr.key != K::k_value) problems->Add("%s: %s is NaN", where, name);
    return;
  }
  const Limits limits = LimitsOf(op, attr.key);
  if (attr.type == static_cast<uint8_t>(AttrType::kInt)) {
    const bool known = attr.key != K::k_to ||
                       (attr.i > 0 && attr.i < 256 && DTypeSize(static_cast<DType>(attr.i)) != 0);
    if (!known || attr.i < limits.low || attr.i > limits.high) {
      problems->Add("%s: %s is %lld", where, name, static_cast<long long>(attr.i));
    }
    return;
  }
  for (int64_t value : attr.ints) {
    if (value < limits.low || value > limits.high) {
      problems->Add("%s: %s holds %lld", where, name, static_cast<long long>(value));
      return;
    }
  }
  if (attr.key == K::k_perm) CheckPerm(attr, where, problems);
}

void CheckGeometry(const Graph& graph, const Node& node, const char* where, Problems* problems) {
  switch (node.op) {
    case Op::kConv:
    case Op::kConvTranspose:
      CheckConvolution(graph, node, where, problems);
      break;
    case Op::kLinear: {
      const Tensor& weights = graph.tensors[node.inputs[1]];
      if (!IsFloatMatrix(weights, 2, 2)) {
        problems->Add("%s: weights must be f32 of rank 2 without empty dims", where);
      } else {
        CheckVector(graph, node, 2, weights.dims[0], where, problems);
      }
      break;
    }
    case Op::kBatchNormalization: {
      CheckVector(graph, node, 1, -1, where, problems);
      const Tensor& scale = graph.tensors[node.inputs[1]];
      CheckVector(graph, node, 2, scale.rank == 1 ? scale.dims[0] : -1, where, problems);
      break;
    }
    case Op::kPRelu:
      if (graph.tensors[node.inputs[1]].dtype != DType::kF32) {
        problems->Add("%s: the slope must be f32", where);
      }
      break;
    case Op::kQuantizePacked:
      CheckQuant(node, 3, {1}, where, problems);
      break;
    case Op::kDequantizePacked:
      CheckQuant(node, 1, {}, where, problems);
      break;
    case Op::kQAdd:
      CheckQuant(node, 5, {3}, where, problems);
      break;
    case Op::kQConv:
    case Op::kQDepthwise:
    case Op::kQConvDynamic:
      CheckQuantisedConvolution(graph, node, where, problems);
      break;
    case Op::kQElementwise: {
      CheckVector(graph, node, 1, 3, where, problems);
      CheckVector(graph, node, 2, node.IntAttr(K::k_channels, 0), where, problems);
      const bool is_float = CheckFloatOrBytes(node, where, problems);
      CheckQuant(node, is_float ? 2 : 5, {3}, where, problems);
      break;
    }
    case Op::kQAttention: {
      const Tensor& steps = graph.tensors[node.inputs[3]];
      if (!IsFloatMatrix(steps, 2, 2) || steps.dims[0] != 5 || steps.dims[1] != 5) {
        problems->Add("%s: the steps must be f32 [5, 5]", where);
      }
      CheckFloatOrBytes(node, where, problems);
      CheckQuant(node, 3, {}, where, problems);
      break;
    }
    case Op::kQLookup: {
      const Tensor& table = graph.tensors[node.inputs[1]];
      if (table.dtype != DType::kU8 || table.rank != 1 || table.dims[0] != 256) {
        problems->Add("%s: the table must be 256 u8", where);
      }
      break;
    }
    case Op::kQAveragePool:
      CheckQuant(node, 4, {2}, where, problems);
      if (node.IntsAttr(K::k_kernel_shape).empty()) break;  // global
      [[fallthrough]];
    case Op::kQMaxPool:
    case Op::kMaxPool:
    case Op::kAveragePool: {
      const size_t spatial_rank = node.IntsAttr(K::k_kernel_shape).size;
      if (spatial_rank < 1 || spatial_rank > 2) {
        problems->Add("%s: kernel_shape has %zu values, expected 1 or 2", where, spatial_rank);
      } else {
        CheckWindow(node, spatial_rank, where, problems);
      }
      break;
    }
    case Op::kRoiAlign:
      CheckLength(node, K::k_output_shape, 2, where, problems);
      break;
    case Op::kDeformColumns:
      CheckLength(node, K::k_kernel_shape, 2, where, problems);
      CheckWindow(node, 2, where, problems);
      break;
    default:
      break;
  }
}

}  // namespace sparsert
