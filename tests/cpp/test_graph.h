// Hand-built graphs for the tests of csrc/graph, with checks of what shape inference says of them.
#pragma once

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>

#include "graph/resolve.h"

namespace sparsert {

using Ints = std::initializer_list<int64_t>;

inline int failures = 0;
inline int checks = 0;

inline void* Allocate(void*, size_t bytes, size_t alignment) {
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}
inline void Release(void*, void* memory, size_t) { std::free(memory); }
constexpr Allocator kAllocator = {Allocate, Release, nullptr};

inline void Must(const Status& status) {
  if (status.ok()) return;
  fprintf(stderr, "test set-up failed: %s\n", status.text());
  std::exit(2);
}

inline Shape MakeShape(Ints dims) {
  Shape shape;
  for (const int64_t d : dims) shape.dims[shape.rank++] = d;
  return shape;
}

// Builds a graph node by node; pools have fixed sizes so that spans stay valid.
class TestGraph {
 public:
  TestGraph(const char* file, int line)
      : graph(&kAllocator), table(&kAllocator), file_(file), line_(line) {}

  // An input with `shape`, declared with `declared` dims (nothing: rank unknown).
  uint32_t Input(Ints shape, DType dtype = DType::kF32) {
    input_shapes_[n_inputs_] = MakeShape(shape);
    const uint32_t id = Activation(dtype);
    input_ids_[n_inputs_++] = id;
    return id;
  }
  uint32_t Declared(Ints shape, Ints declared) {
    const uint32_t id = Input(shape);
    graph.tensors[id].rank = static_cast<uint8_t>(declared.size());
    graph.tensors[id].dims = Keep(declared);
    return id;
  }
  // A float constant; its values are zero and it is stored as a bitmask, as pruned weights are.
  uint32_t Weights(Ints shape) {
    const uint32_t id = Constant(shape, DType::kF32);
    graph.tensors[id].data.encoding = Encoding::kBitmask;
    return id;
  }
  uint32_t IntsTensor(Ints values, Ints shape, DType dtype = DType::kI64) {
    const uint32_t id = Constant(shape, dtype);
    uint8_t* at = bytes_ + n_bytes_;
    graph.tensors[id].data.values = at;
    for (const int64_t v : values) {
      memcpy(bytes_ + n_bytes_, &v, DTypeSize(dtype));
      n_bytes_ += DTypeSize(dtype);
    }
    return id;
  }
  uint32_t IntVector(Ints values, DType dtype = DType::kI64) {
    return IntsTensor(values, {static_cast<int64_t>(values.size())}, dtype);
  }
  uint32_t Scalar(int64_t value, DType dtype = DType::kI64) {
    return IntsTensor({value}, {}, dtype);
  }
  uint32_t Floats(std::initializer_list<float> values) {
    const uint32_t id = Constant({static_cast<int64_t>(values.size())}, DType::kF32);
    n_bytes_ = (n_bytes_ + 7) & ~size_t{7};
    graph.tensors[id].data.values = bytes_ + n_bytes_;
    for (const float v : values) {
      memcpy(bytes_ + n_bytes_, &v, sizeof(v));
      n_bytes_ += sizeof(v);
    }
    return id;
  }

  TestGraph& Begin(Op op) {
    node_ = Node();
    node_.op = op;
    node_.name = {"n0", 2};
    first_io_ = n_io_;
    first_attr_ = n_attrs_;
    return *this;
  }
  TestGraph& In(uint32_t id) {
    io_[n_io_++] = id;
    return *this;
  }
  TestGraph& Skip() { return In(kNoTensor); }
  TestGraph& Attribute(AttrKey key, Ints values) {
    Attr& attr = attrs_[n_attrs_++];
    attr.key = key;
    attr.type = 2;
    attr.ints = {Keep(values), values.size()};
    return *this;
  }
  TestGraph& Attribute(AttrKey key, int64_t value) {
    Attr& attr = attrs_[n_attrs_++];
    attr.key = key;
    attr.type = 0;
    attr.i = value;
    return *this;
  }
  TestGraph& FloatAttribute(AttrKey key, float value) {
    Attr& attr = attrs_[n_attrs_++];
    attr.key = key;
    attr.type = 1;
    attr.f = value;
    return *this;
  }
  TestGraph& Fn(BinaryFn fn) { return Attribute(AttrKey::k_fn, static_cast<int64_t>(fn)); }
  TestGraph& Fn(UnaryFn fn) { return Attribute(AttrKey::k_fn, static_cast<int64_t>(fn)); }
  TestGraph& Fn(ReduceFn fn) { return Attribute(AttrKey::k_fn, static_cast<int64_t>(fn)); }
  // Ends the node; returns its first output, the others follow.
  uint32_t Out(size_t n = 1, DType declared = DType::kUndefined) {
    node_.inputs = {io_ + first_io_, n_io_ - first_io_};
    const uint32_t first = static_cast<uint32_t>(graph.tensors.size());
    for (size_t i = 0; i < n; ++i) {
      const uint32_t id = Activation(declared);
      io_[n_io_++] = id;
      last_ = id;
    }
    node_.outputs = {io_ + n_io_ - n, n};
    node_.attrs = {attrs_ + first_attr_, n_attrs_ - first_attr_};
    Must(graph.nodes.push_back(node_));
    return first;
  }

  Status Infer() {
    graph.inputs = {input_ids_, n_inputs_};
    graph.outputs = {&last_, last_ == kNoTensor ? size_t{0} : size_t{1}};
    return InferShapes(graph, {input_shapes_, n_inputs_}, &table);
  }

  void ExpectShape(uint32_t id, Ints dims, DType dtype = DType::kF32) {
    if (!InferOnce()) return;
    ++checks;
    const TensorFacts& facts = table.facts[id];
    if (facts.has_shape && facts.dtype == dtype && SameShape(facts.shape, MakeShape(dims))) return;
    Fail("%s %s, expected %s %s", DTypeName(facts.dtype), ShapeText(facts.shape).text,
         DTypeName(dtype), ShapeText(MakeShape(dims)).text);
  }
  void ExpectKnown(uint32_t id, Ints values, Ints dims, DType dtype = DType::kI64) {
    ExpectShape(id, dims, dtype);
    if (!status_.ok()) return;
    ++checks;
    if (!table.facts[id].is_known) return Fail("not known");
    const Span<int64_t> known = table.Known(id);
    bool same = known.size == values.size();
    for (size_t i = 0; same && i < known.size; ++i) same = known[i] == values.begin()[i];
    if (!same) {
      Fail("known values %s, expected %s", ShapeText(known.data, known.size).text,
           ShapeText(values.begin(), values.size()).text);
    }
  }
  void ExpectUnknown(uint32_t id) {
    if (!InferOnce()) return;
    ++checks;
    if (table.facts[id].is_known) Fail("is known");
  }
  void ExpectError(StatusCode code, const char* text) {
    status_ = Infer();
    ++checks;
    if (status_.code() == code && strstr(status_.text(), text) != nullptr) return;
    Fail("status %d '%s', expected %d with '%s'", static_cast<int>(status_.code()), status_.text(),
         static_cast<int>(code), text);
  }
  void ExpectWindow(uint32_t id, const Window& expected) {
    if (!InferOnce()) return;
    ++checks;
    for (const Node& node : graph.nodes) {
      if (node.outputs[0] != id) continue;
      const NodeView view(graph, table, node);
      Window window;
      const bool transposed = node.op == Op::kConvTranspose;
      Span<int64_t> kernel = node.IntsAttr(AttrKey::k_kernel_shape);
      if (node.inputs.size > 1) {
        kernel = {view.InShape(1).dims + 2, static_cast<size_t>(view.InShape(1).rank - 2)};
      }
      Must(transposed ? ResolveTransposedWindow(node, view.InShape(0), kernel, &window)
                      : ResolveWindow(node, view.InShape(0), kernel, &window));
      for (int d = 0; d < 2; ++d) {
        if (window.pad_begin[d] != expected.pad_begin[d] ||
            window.pad_end[d] != expected.pad_end[d] || window.out[d] != expected.out[d]) {
          Fail("axis %d: pads %" PRId64 " %" PRId64 " out %" PRId64, d, window.pad_begin[d],
               window.pad_end[d], window.out[d]);
        }
      }
    }
  }

  Graph graph;
  ShapeTable table;

 private:
  bool InferOnce() {
    if (!inferred_) {
      inferred_ = true;
      ++checks;
      status_ = Infer();
      if (!status_.ok()) Fail("%s", status_.text());
    }
    return status_.ok();
  }
  __attribute__((format(printf, 2, 3))) void Fail(const char* format, ...) {
    ++failures;
    fprintf(stderr, "%s:%d: ", file_, line_);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
  }
  const int64_t* Keep(Ints values) {
    int64_t* first = ints_ + n_ints_;
    for (const int64_t v : values) ints_[n_ints_++] = v;
    return first;
  }
  uint32_t Activation(DType dtype) {
    Tensor tensor;
    tensor.name = {"tensor", 6};
    tensor.dtype = dtype;
    tensor.rank = kUnknownRank;
    Must(graph.tensors.push_back(tensor));
    return static_cast<uint32_t>(graph.tensors.size() - 1);
  }
  uint32_t Constant(Ints shape, DType dtype) {
    const uint32_t id = Activation(dtype);
    Tensor& tensor = graph.tensors[id];
    tensor.is_constant = true;
    tensor.rank = static_cast<uint8_t>(shape.size());
    tensor.dims = Keep(shape);
    tensor.data.value_dtype = dtype;
    return id;
  }

  const char* file_;
  int line_;
  Status status_;
  bool inferred_ = false;
  Node node_;
  uint32_t io_[512];
  size_t n_io_ = 0;
  size_t first_io_ = 0;
  Attr attrs_[64];
  size_t n_attrs_ = 0;
  size_t first_attr_ = 0;
  int64_t ints_[512];
  size_t n_ints_ = 0;
  alignas(64) uint8_t bytes_[4096];
  size_t n_bytes_ = 0;
  Shape input_shapes_[8];
  uint32_t input_ids_[8];
  size_t n_inputs_ = 0;
  uint32_t last_ = kNoTensor;
};

// Prints the counts; the exit status of a test program.
inline int Summary() {
  printf("%d checks, %d failures\n", checks, failures);
  return failures == 0 ? 0 : 1;
}

// A graph whose failed checks name the line it was made on.
#define TEST_GRAPH(name) TestGraph name(__FILE__, __LINE__)

}  // namespace sparsert
