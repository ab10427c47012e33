// Resolves axes, slices, pads, permutations, splits and resize sizes of a node.
#include "graph/resolve.h"

#include <cinttypes>
#include <cmath>

namespace sparsert {
namespace {

int64_t Clamp(int64_t v, int64_t low, int64_t high) {
  return v < low ? low : (v > high ? high : v);
}

// Reads input `i` (axes) into `axes`, normalised, without repeats; all axes in order when absent.
Status ReadAxes(const NodeView& view, size_t i, int axes[kMaxRank], size_t* n) {
  const int rank = view.InShape(0).rank;
  if (!view.Has(i)) {
    for (int d = 0; d < rank; ++d) axes[d] = d;
    *n = static_cast<size_t>(rank);
    return Status::Ok();
  }
  Span<int64_t> values;
  SRT_RETURN_IF_ERROR(view.KnownInts(i, "axes", &values));
  bool seen[kMaxRank] = {};
  for (size_t k = 0; k < values.size; ++k) {
    int axis = 0;
    SRT_RETURN_IF_ERROR(NormalizeAxis(view.node, values[k], rank, &axis));
    if (seen[axis]) {
      return NodeError(view.node, StatusCode::kShape, "axes %s name axis %d twice",
                       ShapeText(values.data, values.size).text, axis);
    }
    seen[axis] = true;
    axes[k] = axis;
  }
  *n = values.size;
  return Status::Ok();
}

Status WrongCount(const NodeView& view, const char* what, size_t got, size_t expected) {
  return NodeError(view.node, StatusCode::kShape, "%s has %zu values, expected %zu", what, got,
                   expected);
}

}  // namespace

Status NormalizeAxis(const Node& node, int64_t axis, int rank, int* normalized) {
  if (axis < -rank || axis >= rank) {
    return NodeError(node, StatusCode::kShape,
                     "axis %" PRId64 " is out of range for a tensor of rank %d", axis, rank);
  }
  *normalized = static_cast<int>(axis < 0 ? axis + rank : axis);
  return Status::Ok();
}

Status ResolveSlice(const NodeView& view, SliceRange* range) {
  const Shape& x = view.InShape(0);
  *range = SliceRange();
  range->out = x;
  for (int d = 0; d < kMaxRank; ++d) range->step[d] = 1;
  Span<int64_t> starts;
  Span<int64_t> ends;
  Span<int64_t> steps;
  SRT_RETURN_IF_ERROR(view.KnownInts(1, "starts", &starts));
  SRT_RETURN_IF_ERROR(view.KnownInts(2, "ends", &ends));
  int axes[kMaxRank];
  size_t n = 0;
  SRT_RETURN_IF_ERROR(ReadAxes(view, 3, axes, &n));
  if (!view.Has(3) && starts.size < n) n = starts.size;
  if (view.Has(4)) {
    SRT_RETURN_IF_ERROR(view.KnownInts(4, "steps", &steps));
    if (steps.size != n) return WrongCount(view, "steps", steps.size, n);
  }
  if (starts.size != n) return WrongCount(view, "starts", starts.size, n);
  if (ends.size != n) return WrongCount(view, "ends", ends.size, n);
  for (size_t k = 0; k < n; ++k) {
    const int d = axes[k];
    const int64_t dim = x.dims[d];
    if (!steps.empty() && steps[k] == 0) {
      return NodeError(view.node, StatusCode::kShape, "the step along axis %d is 0", d);
    }
    const int64_t step = steps.empty() ? 1 : Clamp(steps[k], -kMaxElements, kMaxElements);
    int64_t start = starts[k] < 0 ? starts[k] + dim : starts[k];
    int64_t end = ends[k] < 0 ? ends[k] + dim : ends[k];
    int64_t length;
    if (step > 0) {
      start = Clamp(start, 0, dim);
      end = Clamp(end, 0, dim);
      length = end > start ? (end - start + step - 1) / step : 0;
    } else {
      start = Clamp(start, 0, dim - 1);
      // INT_MAX means "no end" in either direction, as in ONNX Runtime.
      const bool open = ends[k] == INT32_MAX || ends[k] == INT64_MAX;
      end = open ? -1 : Clamp(end, -1, dim - 1);
      length = start > end ? (start - end - step - 1) / -step : 0;
    }
    if (dim == 0 || length <= 0) {
      start = 0;
      length = 0;
    }
    range->start[d] = start;
    range->step[d] = step;
    range->out.dims[d] = length;
  }
  return Status::Ok();
}

Status ResolvePad(const NodeView& view, PadRange* range) {
  const Shape& x = view.InShape(0);
  *range = PadRange();
  range->out = x;
  const int64_t mode = view.node.IntAttr(AttrKey::k_mode, 0);
  if (mode < 0 || mode >= static_cast<int64_t>(PadMode::kCount)) {
    return NodeError(view.node, StatusCode::kModelFormat, "unknown mode %" PRId64, mode);
  }
  Span<int64_t> pads;
  SRT_RETURN_IF_ERROR(view.KnownInts(1, "pads", &pads));
  int axes[kMaxRank];
  size_t n = 0;
  SRT_RETURN_IF_ERROR(ReadAxes(view, 3, axes, &n));
  if (pads.size != 2 * n) return WrongCount(view, "pads", pads.size, 2 * n);
  for (size_t k = 0; k < n; ++k) {
    const int d = axes[k];
    const int64_t begin = pads[k];
    const int64_t end = pads[n + k];
    if (begin < -kMaxElements || begin > kMaxElements || end < -kMaxElements ||
        end > kMaxElements) {
      return NodeError(view.node, StatusCode::kShape, "pads %s are too large",
                       ShapeText(pads.data, pads.size).text);
    }
    // What is left of the input once negative pads have cropped it.
    const int64_t kept = x.dims[d] + (begin < 0 ? begin : 0) + (end < 0 ? end : 0);
    const int64_t more = begin > end ? begin : end;
    const bool is_constant = static_cast<PadMode>(mode) == PadMode::kConstant;
    if (x.dims[d] + begin + end < 0 || (!is_constant && kept < 0)) {
      return NodeError(view.node, StatusCode::kShape, "pads %s crop more than dimension %d of %s",
                       ShapeText(pads.data, pads.size).text, d, view.Describe(0).text);
    }
    const bool fits = is_constant || more <= 0 ||
                      (static_cast<PadMode>(mode) == PadMode::kReflect ? more < kept : kept > 0);
    if (!fits) {
      return NodeError(view.node, StatusCode::kShape,
                       "pads %s need more elements than dimension %d of %s has",
                       ShapeText(pads.data, pads.size).text, d, view.Describe(0).text);
    }
    range->begin[d] = begin;
    range->end[d] = end;
    range->out.dims[d] = x.dims[d] + begin + end;
  }
  return Status::Ok();
}

Status ResolvePermutation(const NodeView& view, int perm[kMaxRank]) {
  const int rank = view.InShape(0).rank;
  const Span<int64_t> values = view.node.IntsAttr(AttrKey::k_perm);
  if (values.empty()) {
    for (int d = 0; d < rank; ++d) perm[d] = rank - 1 - d;
    return Status::Ok();
  }
  bool seen[kMaxRank] = {};
  bool valid = values.size == static_cast<size_t>(rank);
  for (int d = 0; valid && d < rank; ++d) {
    const int64_t p = values[static_cast<size_t>(d)];
    valid = p >= 0 && p < rank && !seen[p];
    if (valid) seen[p] = true;
    perm[d] = static_cast<int>(valid ? p : 0);
  }
  if (!valid) {
    return NodeError(view.node, StatusCode::kShape,
                     "perm %s is not a permutation of the axes of %s",
                     ShapeText(values.data, values.size).text, view.Describe(0).text);
  }
  return Status::Ok();
}

Status ResolveReducedAxes(const NodeView& view, bool reduced[kMaxRank]) {
  for (int d = 0; d < kMaxRank; ++d) reduced[d] = false;
  int axes[kMaxRank];
  size_t n = 0;
  SRT_RETURN_IF_ERROR(ReadAxes(view, 1, axes, &n));
  const bool empty = !view.Has(1) || n == 0;
  if (empty) {
    const bool all = view.node.IntAttr(AttrKey::k_noop_with_empty_axes, 0) == 0;
    for (int d = 0; d < view.InShape(0).rank; ++d) reduced[d] = all;
    return Status::Ok();
  }
  for (size_t k = 0; k < n; ++k) reduced[axes[k]] = true;
  return Status::Ok();
}

Status ResolveSplitAxis(const NodeView& view, int* axis) {
  return NormalizeAxis(view.node, view.node.IntAttr(AttrKey::k_axis, 0), view.InShape(0).rank,
                       axis);
}

Status ResolveSplitSize(const NodeView& view, int axis, size_t output, int64_t* size) {
  const int64_t dim = view.InShape(0).dims[axis];
  const size_t n = view.node.outputs.size;
  if (view.Has(1)) {
    Span<int64_t> sizes;
    SRT_RETURN_IF_ERROR(view.KnownInts(1, "split", &sizes));
    if (sizes.size != n) return WrongCount(view, "split", sizes.size, n);
    *size = sizes[output];
    if (*size < 0 || *size > dim) {
      return NodeError(view.node, StatusCode::kShape, "split %s does not fit axis %d of %s",
                       ShapeText(sizes.data, sizes.size).text, axis, view.Describe(0).text);
    }
    return Status::Ok();
  }
  const int64_t count = view.node.IntAttr(AttrKey::k_num_outputs, static_cast<int64_t>(n));
  if (count < 1 || static_cast<size_t>(count) != n) {
    return NodeError(view.node, StatusCode::kShape,
                     "num_outputs is %" PRId64 ", but the node has %zu outputs", count, n);
  }
  const int64_t chunk = dim / count + (dim % count != 0 ? 1 : 0);
  const int64_t before_last = chunk * (count - 1);
  *size = output + 1 == n ? dim - before_last : chunk;
  if (before_last > dim) {
    return NodeError(view.node, StatusCode::kShape, "cannot split axis %d of %s into %zu parts",
                     axis, view.Describe(0).text, n);
  }
  return Status::Ok();
}

Status ResolveResize(const NodeView& view, ResizeRange* range) {
  const Shape& x = view.InShape(0);
  *range = ResizeRange();
  range->out = x;
  for (int d = 0; d < kMaxRank; ++d) range->scale[d] = range->end[d] = 1.0f;

  int axes[kMaxRank];
  size_t n = static_cast<size_t>(x.rank);
  const Span<int64_t> axes_attr = view.node.IntsAttr(AttrKey::k_axes);
  for (int d = 0; d < x.rank; ++d) axes[d] = d;
  if (!axes_attr.empty()) {
    bool seen[kMaxRank] = {};
    n = axes_attr.size;
    for (size_t k = 0; k < n; ++k) {
      int axis = 0;
      SRT_RETURN_IF_ERROR(NormalizeAxis(view.node, axes_attr[k], x.rank, &axis));
      if (seen[axis]) {
        return NodeError(view.node, StatusCode::kShape, "axes %s name axis %d twice",
                         ShapeText(axes_attr.data, n).text, axis);
      }
      seen[axis] = true;
      axes[k] = axis;
    }
  }

  const bool is_crop = view.node.IntAttr(AttrKey::k_coordinate_transformation_mode, 0) ==
                       static_cast<int64_t>(CoordinateMode::kTfCropAndResize);
  if (is_crop) {
    float roi[2 * kMaxRank];
    size_t count = 0;
    if (!view.Has(1)) return NodeError(view.node, StatusCode::kShape, "a crop needs its roi");
    SRT_RETURN_IF_ERROR(view.KnownFloats(1, "roi", roi, &count, 2 * kMaxRank));
    if (count != 2 * n) return WrongCount(view, "roi", count, 2 * n);
    for (size_t k = 0; k < n; ++k) {
      range->begin[axes[k]] = roi[k];
      range->end[axes[k]] = roi[n + k];
    }
  }

  // ONNX before opset 13 marks the one that is not used by an empty tensor.
  const bool has_scales = view.Has(2) && view.InShape(2).elements() != 0;
  const bool has_sizes = view.Has(3) && view.InShape(3).elements() != 0;
  if (has_scales == has_sizes) {
    return NodeError(view.node, StatusCode::kShape, "needs either scales or sizes, has %s",
                     has_scales ? "both" : "neither");
  }
  if (is_crop && has_scales) {
    return NodeError(view.node, StatusCode::kUnsupported, "a crop needs sizes instead of scales");
  }
  if (has_scales) {
    float scales[kMaxRank];
    size_t count = 0;
    SRT_RETURN_IF_ERROR(view.KnownFloats(2, "scales", scales, &count));
    if (count != n) return WrongCount(view, "scales", count, n);
    for (size_t k = 0; k < n; ++k) {
      const int d = axes[k];
      // Rounded to float like ONNX Runtime: 10 * 0.7f is 7, not 6.99...
      const float size = scales[k] * static_cast<float>(x.dims[d]);
      const bool is_empty = x.dims[d] == 0;  // and stays so
      if (!(scales[k] > 0.0f) || (!(size >= 1.0f) && !is_empty) ||
          !(size <= static_cast<float>(kMaxElements))) {
        return NodeError(view.node, StatusCode::kShape,
                         "scale %g gives no valid size for dimension %d of %s",
                         static_cast<double>(scales[k]), d, view.Describe(0).text);
      }
      range->scale[d] = scales[k];
      range->out.dims[d] = static_cast<int64_t>(size);
    }
    return Status::Ok();
  }

  Span<int64_t> sizes;
  SRT_RETURN_IF_ERROR(view.KnownInts(3, "sizes", &sizes));
  if (sizes.size != n) return WrongCount(view, "sizes", sizes.size, n);
  const int64_t policy = view.node.IntAttr(AttrKey::k_keep_aspect_ratio_policy, 0);
  if (policy < 0 || policy > 2) {
    return NodeError(view.node, StatusCode::kModelFormat,
                     "unknown keep_aspect_ratio_policy %" PRId64, policy);
  }
  float common = 0.0f;
  for (size_t k = 0; k < n; ++k) {
    const bool is_empty = x.dims[axes[k]] == 0;
    if (sizes[k] < (is_empty ? 0 : 1) || sizes[k] > (is_empty ? 0 : kMaxElements)) {
      return NodeError(view.node, StatusCode::kShape,
                       "sizes %s must be positive, and 0 where input %s is empty",
                       ShapeText(sizes.data, n).text, view.Describe(0).text);
    }
    if (is_empty) continue;
    const float scale = static_cast<float>(sizes[k]) / static_cast<float>(x.dims[axes[k]]);
    if (common == 0.0f || (policy == 1 ? scale < common : scale > common)) common = scale;
  }
  for (size_t k = 0; k < n; ++k) {
    const int d = axes[k];
    const float in = static_cast<float>(x.dims[d]);
    range->out.dims[d] = sizes[k];
    if (x.dims[d] == 0) continue;
    range->scale[d] = static_cast<float>(sizes[k]) / in;
    if (policy == 0) continue;
    const float rounded = std::floor(common * in + 0.5f);
    if (!(rounded >= 1.0f) || !(rounded <= static_cast<float>(kMaxElements))) {
      return NodeError(view.node, StatusCode::kShape,
                       "sizes %s give no valid size for dimension %d of %s",
                       ShapeText(sizes.data, n).text, d, view.Describe(0).text);
    }
    range->out.dims[d] = static_cast<int64_t>(rounded);
    range->scale[d] = common;
  }
  return Status::Ok();
}

Status ResolveMatMul(const NodeView& view, MatMulSizes* sizes) {
  const Shape& a = view.InShape(0);
  const Shape& b = view.InShape(1);
  const bool trans_a = view.node.IntAttr(AttrKey::k_trans_a, 0) != 0;
  const bool trans_b = view.node.IntAttr(AttrKey::k_trans_b, 0) != 0;
  if (a.rank < (trans_a ? 2 : 1) || b.rank < (trans_b ? 2 : 1)) {
    return NodeError(view.node, StatusCode::kShape, "inputs %s and %s have too few dimensions",
                     view.Describe(0).text, view.Describe(1).text);
  }
  *sizes = MatMulSizes();
  Shape a_batch;
  Shape b_batch;
  for (int d = 0; d + 2 < a.rank; ++d) a_batch.dims[a_batch.rank++] = a.dims[d];
  for (int d = 0; d + 2 < b.rank; ++d) b_batch.dims[b_batch.rank++] = b.dims[d];
  if (a.rank > 1) sizes->m = a.dims[a.rank - (trans_a ? 1 : 2)];
  if (b.rank > 1) sizes->n = b.dims[b.rank - (trans_b ? 2 : 1)];
  sizes->k = a.dims[a.rank - (trans_a ? 2 : 1)];
  const int64_t rows = b.dims[b.rank == 1 ? 0 : b.rank - (trans_b ? 1 : 2)];
  if (rows != sizes->k || !BroadcastShapes(a_batch, b_batch, &sizes->batch)) {
    return NodeError(view.node, StatusCode::kShape, "inputs %s and %s cannot be multiplied",
                     view.Describe(0).text, view.Describe(1).text);
  }
  sizes->out = sizes->batch;
  if (a.rank > 1) sizes->out.dims[sizes->out.rank++] = sizes->m;
  if (b.rank > 1) sizes->out.dims[sizes->out.rank++] = sizes->n;
  return Status::Ok();
}

namespace {

// An operand of Attention as [batch, heads, tokens, size]. False: it is none.
bool HeadsOf(const Shape& x, int64_t heads, Shape* split) {
  split->rank = 4;
  if (heads == 0) {
    *split = x;
    return x.rank == 4;
  }
  if (x.rank != 3 || x.dims[2] % heads != 0) return false;
  const int64_t dims[] = {x.dims[0], heads, x.dims[1], x.dims[2] / heads};
  for (int d = 0; d < 4; ++d) split->dims[d] = dims[d];
  return true;
}

}  // namespace

Status ResolveAttention(const NodeView& view, AttentionSizes* sizes) {
  const int64_t heads = view.node.IntAttr(AttrKey::k_heads, 0);
  const int64_t kv_heads = view.node.IntAttr(AttrKey::k_kv_heads, heads);
  SRT_RETURN_IF_ERROR(view.RequireNonEmpty(1, 1));
  SRT_RETURN_IF_ERROR(view.RequireNonEmpty(2, 1));
  Shape q;
  Shape k;
  Shape v;
  if (!HeadsOf(view.InShape(0), heads, &q) || !HeadsOf(view.InShape(1), kv_heads, &k) ||
      !HeadsOf(view.InShape(2), kv_heads, &v) || q.dims[0] != k.dims[0] || q.dims[0] != v.dims[0] ||
      k.dims[1] != v.dims[1] || k.dims[1] < 1 || q.dims[1] % k.dims[1] != 0 ||
      k.dims[2] != v.dims[2] || q.dims[3] != k.dims[3] || k.dims[2] < 1) {
    return NodeError(view.node, StatusCode::kShape,
                     "inputs %s, %s and %s are no queries, keys and values", view.Describe(0).text,
                     view.Describe(1).text, view.Describe(2).text);
  }
  sizes->scores.rank = 4;
  const int64_t dims[] = {q.dims[0], q.dims[1], q.dims[2], k.dims[2]};
  for (int d = 0; d < 4; ++d) sizes->scores.dims[d] = dims[d];
  sizes->kv_heads = k.dims[1];
  sizes->size = q.dims[3];
  sizes->value_size = v.dims[3];
  if (view.Has(3)) {
    Shape together;
    if (!BroadcastShapes(view.InShape(3), sizes->scores, &together) ||
        !SameShape(together, sizes->scores)) {
      return NodeError(view.node, StatusCode::kShape, "mask %s does not broadcast to scores %s",
                       view.Describe(3).text, ShapeText(sizes->scores).text);
    }
  }
  sizes->out = view.InShape(0);
  sizes->out.dims[sizes->out.rank - 1] =
      sizes->value_size * (heads == 0 ? 1 : sizes->scores.dims[1]);
  return Status::Ok();
}

Status ResolveNormAxis(const NodeView& view, int* first) {
  return NormalizeAxis(view.node, view.node.IntAttr(AttrKey::k_axis, -1), view.InShape(0).rank,
                       first);
}

bool BroadcastShapes(const Shape& a, const Shape& b, Shape* out) {
  out->rank = a.rank > b.rank ? a.rank : b.rank;
  for (int i = 0; i < out->rank; ++i) {
    const int da = a.rank - 1 - i;
    const int db = b.rank - 1 - i;
    const int64_t x = da >= 0 ? a.dims[da] : 1;
    const int64_t y = db >= 0 ? b.dims[db] : 1;
    if (x != y && x != 1 && y != 1) return false;
    out->dims[out->rank - 1 - i] = x == 1 ? y : x;
  }
  return true;
}

}  // namespace sparsert
