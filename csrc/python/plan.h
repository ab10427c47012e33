// A model ready for input shapes, for Python.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "base/platform.h"
#include "base/tensor_desc.h"
#include "include/sparsert.h"
#include "python/model.h"

namespace sparsert {
namespace python {

inline py::tuple ShapeTuple(const srt_shape& shape) {
  py::tuple dims(shape.rank);
  for (int d = 0; d < shape.rank; ++d) dims[d] = shape.dims[d];
  return dims;
}

// Arenas not in use by a run; each run takes one or makes one.
class Arenas {
 public:
  explicit Arenas(size_t bytes) : bytes_((bytes + 63) / 64 * 64 + 64) {}
  ~Arenas() {
    for (void* arena : free_) std::free(arena);
  }

  void* Take() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        void* arena = free_.back();
        free_.pop_back();
        return arena;
      }
    }
    void* arena = nullptr;
    // Half a huge page or more becomes whole ones.
    if (bytes_ >= kHugePageBytes / 2) {
      constexpr size_t kPage = kHugePageBytes;
      const size_t whole = (bytes_ + kPage - 1) / kPage * kPage;
      if (posix_memalign(&arena, kPage, whole) != 0) return nullptr;
      PreferHugePages(arena, whole);
    } else if (posix_memalign(&arena, 64, bytes_) != 0) {
      return nullptr;
    }
    // Kernels read, but do not use, what lies between rows. Bytes of former pointers or integers
    // are denormal numbers there, which slow every multiplication down.
    std::memset(arena, 0, bytes_);
    return arena;
  }

  // In the child of a fork: the lock may be held by a thread that does not exist here.
  void AfterFork() { new (&mutex_) std::mutex(); }

  void Return(void* arena) {
    std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(arena);
  }

 private:
  size_t bytes_;
  std::mutex mutex_;
  std::vector<void*> free_;
};

class Plan {
 public:
  Plan(std::shared_ptr<Model> model, const std::vector<std::vector<int64_t>>& shapes,
       std::vector<py::dtype> output_dtypes, const std::string& tuning, const py::list& values)
      : model_(std::move(model)), output_dtypes_(std::move(output_dtypes)), input_shapes_(shapes) {
    std::vector<srt_shape> c(shapes.size());
    for (size_t i = 0; i < shapes.size(); ++i) {
      c[i] = srt_shape();
      if (shapes[i].size() > SRT_MAX_RANK) {
        srt_error error = {SRT_SHAPE, "an input has more than 8 dimensions"};
        Throw(error);
      }
      c[i].rank = static_cast<int32_t>(shapes[i].size());
      for (size_t d = 0; d < shapes[i].size(); ++d) c[i].dims[d] = shapes[i][d];
    }
    std::vector<const void*> known(values.size(), nullptr);
    std::vector<size_t> known_bytes(values.size(), 0);
    for (size_t i = 0; i < values.size(); ++i) {
      known[i] = ValueData(values[i], i, shapes, &known_bytes[i]);
    }
    srt_error error = {};
    int code = 0;
    {
      py::gil_scoped_release release;
      code = srt_plan_make_valued(model_->get(), c.data(), static_cast<int32_t>(c.size()),
                                  known.empty() ? nullptr : known.data(), known_bytes.data(),
                                  tuning.data(), tuning.size(), &plan_, &error);
    }
    if (code != SRT_OK) Throw(error);
    arenas_ = std::make_unique<Arenas>(srt_plan_arena_bytes(plan_));
    for (const std::vector<int64_t>& shape : shapes) {
      input_sizes_.push_back(
          std::accumulate(shape.begin(), shape.end(), py::ssize_t{1}, std::multiplies<>()));
    }
    for (int i = 0; i < srt_model_output_count(model_->get()); ++i) {
      srt_shape shape;
      srt_plan_output_shape(plan_, i, &shape);
      output_shapes_.emplace_back(shape.dims, shape.dims + shape.rank);
    }
    if (output_shapes_.size() != output_dtypes_.size()) {
      srt_error mismatch = {SRT_INVALID_ARGUMENT, "one dtype per graph output is needed"};
      Throw(mismatch);
    }
  }
  ~Plan() { srt_plan_free(plan_); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void AfterFork() { arenas_->AfterFork(); }

  uint64_t arena_bytes() const { return srt_plan_arena_bytes(plan_); }
  uint64_t plan_bytes() const { return srt_plan_memory_bytes(plan_); }

  py::bytes tuning() const {
    std::string blob(srt_plan_tuning(plan_, nullptr, 0), '\0');
    srt_plan_tuning(plan_, blob.data(), blob.size());
    return blob;
  }

  // (slices, images of one); (1, 0) for a batch that is not cut.
  py::tuple slices() const {
    int64_t images = 0;
    const int32_t count = srt_plan_slices(plan_, &images);
    return py::make_tuple(count, images);
  }

  // `inputs`: C-contiguous arrays of the plan's shapes and the model's dtypes. Returns new arrays,
  // or the time of each step in nanoseconds when `timed`.
  py::list Run(const py::list& inputs, bool timed) {
    if (inputs.size() != input_sizes_.size()) {
      throw py::value_error("one array per graph input is needed");
    }
    std::vector<const void*> in(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const py::handle input = inputs[i];
      if (!py::isinstance<py::array>(input)) throw py::type_error("inputs must be NumPy arrays");
      const auto array = py::reinterpret_borrow<py::array>(input);
      if (array.size() != input_sizes_[i] || (array.flags() & py::array::c_style) == 0) {
        throw py::value_error("an input is not a C-contiguous array of the plan's shape");
      }
      in[i] = array.data();
    }
    py::list outputs;
    std::vector<void*> out(output_dtypes_.size());
    for (size_t i = 0; i < out.size(); ++i) {
      py::array array(output_dtypes_[i], output_shapes_[i]);
      out[i] = array.mutable_data();
      outputs.append(std::move(array));
    }
    std::vector<uint64_t> step_ns(timed ? srt_plan_step_count(plan_) : 0);
    srt_error error;
    int32_t code = SRT_OK;
    {
      py::gil_scoped_release release;
      code = RunBuffers(in.data(), out.data(), timed ? step_ns.data() : nullptr, &error);
    }
    if (code != SRT_OK) Throw(error);
    if (!timed) return outputs;
    py::list times;
    for (const uint64_t ns : step_ns) times.append(ns);
    return times;
  }

  const std::vector<std::vector<int64_t>>& input_shapes() const { return input_shapes_; }
  size_t output_count() const { return output_dtypes_.size(); }

  // A new array for output `index`; nullptr with a Python error.
  PyObject* NewOutput(size_t index) const {
    const auto& api = py::detail::npy_api::get();
    const std::vector<py::ssize_t>& shape = output_shapes_[index];
    // The call takes one reference to the dtype.
    return api.PyArray_NewFromDescr_(api.PyArray_Type_, output_dtypes_[index].inc_ref().ptr(),
                                     static_cast<int>(shape.size()), shape.data(), nullptr, nullptr,
                                     0, nullptr);
  }

  // A status code; `error` is written if it is not SRT_OK. The GIL need not be held.
  int32_t RunBuffers(const void* const* in, void* const* out, uint64_t* step_ns, srt_error* error) {
    void* arena = arenas_->Take();
    if (arena == nullptr) {
      *error = {SRT_OUT_OF_MEMORY, "out of memory: the arena of a run"};
      return SRT_OUT_OF_MEMORY;
    }
    const int32_t code = srt_plan_run_unchecked(plan_, arena, in, out, step_ns, error);
    arenas_->Return(arena);
    return code;
  }

  py::list Nodes() const {
    py::list nodes;
    for (int i = 0; i < srt_plan_node_count(plan_); ++i) {
      srt_node_info n;
      srt_plan_node(plan_, i, &n);
      py::dict d;
      d["name"] = Text(n.name, n.name_bytes);
      d["op"] = n.op;
      d["output_shape"] = ShapeTuple(n.output_shape);
      d["weights"] = n.weights;
      d["nonzeros"] = n.nonzeros;
      d["storage_bytes"] = n.storage_bytes;
      d["packed_bytes"] = n.packed_bytes;
      d["storage_format"] = n.storage_format;
      d["compute_format"] = n.compute_format;
      d["kernel"] = n.kernel;
      d["isa"] = n.isa;
      d["reason"] = n.reason;
      d["predicted_ns"] = n.predicted_ns;
      d["measured_ns"] = n.measured_ns;
      d["first_step"] = n.first_step;
      d["step_count"] = n.step_count;
      d["candidates"] = Candidates(i);
      nodes.append(d);
    }
    return nodes;
  }

 private:
  // The bytes of input `i`, whose value is given; nullptr for None.
  const void* ValueData(const py::handle& value, size_t i,
                        const std::vector<std::vector<int64_t>>& shapes, size_t* bytes) const {
    if (value.is_none()) return nullptr;
    if (i >= shapes.size() || !py::isinstance<py::array>(value)) {
      throw py::value_error("values are arrays or None, one per graph input");
    }
    const auto array = py::reinterpret_borrow<py::array>(value);
    srt_tensor_info info;
    srt_model_input(model_->get(), static_cast<int32_t>(i), &info);
    const auto element_bytes = static_cast<py::ssize_t>(DTypeSize(static_cast<DType>(info.dtype)));
    const py::ssize_t size =
        std::accumulate(shapes[i].begin(), shapes[i].end(), py::ssize_t{1}, std::multiplies<>());
    if (array.size() != size || array.itemsize() != element_bytes ||
        (array.flags() & py::array::c_style) == 0) {
      throw py::value_error("a value is not a C-contiguous array of its input's shape and dtype");
    }
    *bytes = static_cast<size_t>(array.nbytes());
    return array.data();
  }

  py::list Candidates(int32_t node) const {
    py::list list;
    for (int32_t i = 0; i < srt_plan_candidate_count(plan_, node); ++i) {
      srt_candidate c;
      srt_plan_candidate(plan_, node, i, &c);
      py::dict d;
      d["format"] = c.format;
      d["kernel"] = c.kernel;
      d["predicted_ns"] = c.predicted_ns;
      d["measured_ns"] = c.measured_ns;
      d["tiles"] = c.tiles;
      d["tile_columns"] = c.tile_columns;
      d["block_depth"] = c.block_depth;
      list.append(d);
    }
    return list;
  }

  std::shared_ptr<Model> model_;
  std::vector<py::dtype> output_dtypes_;
  std::vector<py::ssize_t> input_sizes_;  // elements
  std::vector<std::vector<int64_t>> input_shapes_;
  std::vector<std::vector<py::ssize_t>> output_shapes_;
  srt_plan* plan_ = nullptr;
  std::unique_ptr<Arenas> arenas_;
};

}  // namespace python
}  // namespace sparsert
