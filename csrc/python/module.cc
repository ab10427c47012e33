// The Python module _core: sparsert.h for NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

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

namespace py = pybind11;

namespace {

// _core.NativeError(code, text); sparsert.runtime turns it into an exception of sparsert.errors.
PyObject* native_error = nullptr;

[[noreturn]] void Throw(const srt_error& error) {
  py::tuple args = py::make_tuple(error.code, std::string(error.text));
  PyErr_SetObject(native_error, args.ptr());
  throw py::error_already_set();
}

py::str Text(const char* data, size_t size) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(data, static_cast<Py_ssize_t>(size), "replace"));
}

py::tuple ShapeTuple(const srt_shape& shape) {
  py::tuple dims(shape.rank);
  for (int d = 0; d < shape.rank; ++d) dims[d] = shape.dims[d];
  return dims;
}

class Budget {
 public:
  explicit Budget(int cores) {
    srt_error error = {};
    if (srt_budget_make(cores, nullptr, &budget_, &error) != SRT_OK) Throw(error);
  }
  ~Budget() { srt_budget_free(budget_); }
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  srt_budget* get() const { return budget_; }
  int cores() const { return srt_budget_cores(budget_); }
  void set_cores(int cores) { srt_budget_set_cores(budget_, cores); }
  int busy() const { return srt_budget_busy(budget_); }
  int peak() const { return srt_budget_peak(budget_); }
  void AfterFork() { srt_budget_after_fork(budget_); }

 private:
  srt_budget* budget_ = nullptr;
};

class Model {
 public:
  Model(const py::buffer& file, int threads, const std::string& isa, int tune,
        std::shared_ptr<Budget> budget, bool allow_empty, bool mapped)
      : view_(file.request()), budget_(std::move(budget)) {
    srt_options options = SRT_OPTIONS_INIT;
    options.threads = threads;
    options.isa = isa.empty() ? nullptr : isa.c_str();
    options.tune = tune;
    options.allow_empty = allow_empty ? 1 : 0;
    options.budget = budget_ == nullptr ? nullptr : budget_->get();
    options.is_mapped = mapped ? 1 : 0;
    srt_error error = {};
    int code = 0;
    {
      py::gil_scoped_release release;
      code = srt_model_load(view_.ptr, static_cast<size_t>(view_.size * view_.itemsize), &options,
                            &model_, &error);
    }
    if (code != SRT_OK) Throw(error);
  }
  ~Model() { srt_model_free(model_); }
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  srt_model* get() const { return model_; }
  std::string isa() const { return srt_model_isa(model_); }
  int threads() const { return srt_model_threads(model_); }
  uint64_t weight_bytes() const { return srt_model_weight_bytes(model_); }

  py::list Tensors(bool inputs) const {
    py::list list;
    const int count = inputs ? srt_model_input_count(model_) : srt_model_output_count(model_);
    for (int i = 0; i < count; ++i) {
      srt_tensor_info info;
      if (inputs) {
        srt_model_input(model_, i, &info);
      } else {
        srt_model_output(model_, i, &info);
      }
      py::object shape = py::none();
      if (info.shape.rank >= 0) {
        py::tuple dims(info.shape.rank);
        for (int d = 0; d < info.shape.rank; ++d) {
          if (info.shape.dims[d] >= 0) {
            dims[d] = info.shape.dims[d];
            continue;
          }
          const char* name = "";
          size_t size = 0;
          srt_model_symbol(model_, static_cast<int32_t>(-info.shape.dims[d] - 1), &name, &size);
          dims[d] = Text(name, size);
        }
        shape = dims;
      }
      list.append(py::make_tuple(Text(info.name, info.name_bytes), info.dtype, shape));
    }
    return list;
  }

  // Indices of the inputs whose values a plan depends on.
  py::list PlanInputs() const {
    py::list list;
    for (int i = 0; i < srt_model_input_count(model_); ++i) {
      if (srt_model_needs_value(model_, i) != 0) list.append(i);
    }
    return list;
  }

  py::list Levels() const {
    py::list list;
    for (int i = 0; i < srt_model_level_count(model_); ++i) {
      srt_level_info info;
      if (srt_model_level_info(model_, i, &info) != SRT_OK) {
        Throw({SRT_OUT_OF_MEMORY, "the zeros of a level cannot be counted"});
      }
      py::dict d;
      d["weights"] = info.weights;
      d["nonzeros"] = info.nonzeros;
      d["file_bytes"] = info.file_bytes;
      d["packed_bytes"] = info.packed_bytes;
      list.append(d);
    }
    return list;
  }

  py::list LevelNames() const {
    py::list list;
    for (int i = 0; i < srt_model_level_count(model_); ++i) {
      const char* name = "";
      size_t size = 0;
      srt_model_level_name(model_, i, &name, &size);
      list.append(Text(name, size));
    }
    return list;
  }

  int level() const { return srt_model_level(model_); }

  void SetLevel(const std::string& name) {
    srt_error error = {};
    if (srt_model_set_level(model_, name.c_str(), &error) != SRT_OK) Throw(error);
  }

  void DropLevel(const std::string& name) {
    srt_error error = {};
    if (srt_model_drop_level(model_, name.c_str(), &error) != SRT_OK) Throw(error);
  }

  void AfterFork() {
    srt_error error = {};
    if (srt_model_after_fork(model_, &error) != SRT_OK) Throw(error);
  }

 private:
  py::buffer_info view_;  // holds the file's bytes
  std::shared_ptr<Budget> budget_;
  srt_model* model_ = nullptr;
};

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
    if (bytes_ >= sparsert::kHugePageBytes / 2) {
      constexpr size_t kPage = sparsert::kHugePageBytes;
      const size_t whole = (bytes_ + kPage - 1) / kPage * kPage;
      if (posix_memalign(&arena, kPage, whole) != 0) return nullptr;
      sparsert::PreferHugePages(arena, whole);
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
    const auto element_bytes =
        static_cast<py::ssize_t>(sparsert::DTypeSize(static_cast<sparsert::DType>(info.dtype)));
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

// Runs the plan of the last run again. A small network takes a few microseconds, and so do a dozen
// lines of Python: feeds that need no conversion go from the caller's dict straight to the plan.
class Repeat {
 public:
  // `translate(code, text)` makes the exception of a run that fails.
  Repeat(std::vector<py::str> names, std::vector<py::dtype> dtypes, py::object translate)
      : names_(std::move(names)), dtypes_(std::move(dtypes)), translate_(std::move(translate)) {}

  void set_plan(std::shared_ptr<Plan> plan) { plan_ = std::move(plan); }

  // function(feeds): the outputs as a list; None if there is no plan yet or the feeds are not a
  // dict of aligned C-contiguous arrays of just its shapes and the model's dtypes (or, for one
  // input, such an array).
  static py::object Function(std::shared_ptr<Repeat> repeat) {
    static PyMethodDef method = {"run", &Repeat::Call, METH_O, "Runs the last plan again."};
    auto* owned = new std::shared_ptr<Repeat>(std::move(repeat));
    const py::capsule self(owned, [](void* p) { delete static_cast<std::shared_ptr<Repeat>*>(p); });
    return py::reinterpret_steal<py::object>(PyCFunction_New(&method, self.ptr()));
  }

 private:
  static constexpr size_t kMaxArrays = 8;

  static PyObject* Call(PyObject* self, PyObject* feeds) {
    auto* repeat = static_cast<std::shared_ptr<Repeat>*>(PyCapsule_GetPointer(self, nullptr));
    return repeat == nullptr ? nullptr : (*repeat)->Run(feeds);
  }

  PyObject* Run(PyObject* feeds) {
    // Another thread may set another plan meanwhile.
    const std::shared_ptr<Plan> plan = plan_;
    const void* in[kMaxArrays];
    void* out[kMaxArrays];
    if (plan == nullptr || names_.size() > kMaxArrays || plan->output_count() > kMaxArrays) {
      Py_RETURN_NONE;
    }
    // The arrays of a dict that another thread changes stay alive.
    py::object held[kMaxArrays];
    if (PyDict_CheckExact(feeds) && PyDict_Size(feeds) == static_cast<Py_ssize_t>(names_.size())) {
      for (size_t i = 0; i < names_.size(); ++i) {
        PyObject* feed = PyDict_GetItemWithError(feeds, names_[i].ptr());
        if (feed == nullptr && PyErr_Occurred() != nullptr) return nullptr;
        if (feed == nullptr || !Fits(*plan, i, feed)) Py_RETURN_NONE;
        held[i] = py::reinterpret_borrow<py::object>(feed);
        in[i] = py::detail::array_proxy(feed)->data;
      }
    } else if (names_.size() == 1 && Fits(*plan, 0, feeds)) {
      in[0] = py::detail::array_proxy(feeds)->data;
    } else {
      Py_RETURN_NONE;
    }
    PyObject* outputs = PyList_New(static_cast<Py_ssize_t>(plan->output_count()));
    if (outputs == nullptr) return nullptr;
    for (size_t i = 0; i < plan->output_count(); ++i) {
      PyObject* array = plan->NewOutput(i);
      if (array == nullptr) {
        Py_DECREF(outputs);
        return nullptr;
      }
      PyList_SET_ITEM(outputs, static_cast<Py_ssize_t>(i), array);
      out[i] = py::detail::array_proxy(array)->data;
    }
    PyThreadState* thread = PyEval_SaveThread();
    srt_error error;
    const int32_t code = plan->RunBuffers(in, out, nullptr, &error);
    PyEval_RestoreThread(thread);
    if (code != SRT_OK) {
      Py_DECREF(outputs);
      PyObject* failure = PyObject_CallFunction(translate_.ptr(), "is", code, error.text);
      if (failure != nullptr) {
        PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(failure)), failure);
        Py_DECREF(failure);
      }
      return nullptr;
    }
    return outputs;
  }

  bool Fits(const Plan& plan, size_t index, PyObject* feed) const {
    const auto& api = py::detail::npy_api::get();
    if (Py_TYPE(feed) != api.PyArray_Type_) return false;
    const auto* array = py::detail::array_proxy(feed);
    constexpr int kFlags =
        py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    const std::vector<int64_t>& shape = plan.input_shapes()[index];
    if (array->descr != dtypes_[index].ptr() || (array->flags & kFlags) != kFlags ||
        array->nd != static_cast<int>(shape.size())) {
      return false;
    }
    for (size_t d = 0; d < shape.size(); ++d) {
      if (array->dimensions[d] != shape[d] || shape[d] == 0) return false;
    }
    return true;
  }

  std::vector<py::str> names_;
  std::vector<py::dtype> dtypes_;
  py::object translate_;
  std::shared_ptr<Plan> plan_;
};

std::vector<std::string> Isas() {
  std::vector<std::string> names;
  for (int i = 0; srt_isa_name(i) != nullptr; ++i) names.emplace_back(srt_isa_name(i));
  return names;
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The native core of sparsert; use sparsert.load() instead.";
  native_error = PyErr_NewException("sparsert.runtime._core.NativeError", nullptr, nullptr);
  m.add_object("NativeError", py::reinterpret_borrow<py::object>(native_error));
  m.attr("__version__") = SPARSERT_VERSION;
  m.attr("abi_version") = srt_abi_version();
  m.def("isas", &Isas, "Instruction sets that this build and machine can run.");
  m.def("usable_cores", &srt_usable_cores, "Cores that this process may keep busy.");

  py::class_<Budget, std::shared_ptr<Budget>>(m, "Budget")
      .def(py::init<int>(), py::arg("cores"))
      .def_property("cores", &Budget::cores, &Budget::set_cores)
      .def_property_readonly("busy", &Budget::busy)
      .def_property_readonly("peak", &Budget::peak)
      .def("after_fork", &Budget::AfterFork);

  py::class_<Model, std::shared_ptr<Model>>(m, "Model")
      .def(py::init<const py::buffer&, int, const std::string&, int, std::shared_ptr<Budget>, bool,
                    bool>(),
           py::arg("file"), py::arg("threads"), py::arg("isa"), py::arg("tune"),
           py::arg("budget") = nullptr, py::arg("allow_empty") = false, py::arg("mapped") = false)
      .def_property_readonly("inputs", [](const Model& model) { return model.Tensors(true); })
      .def_property_readonly("outputs", [](const Model& model) { return model.Tensors(false); })
      .def_property_readonly("plan_inputs", &Model::PlanInputs)
      .def_property_readonly("isa", &Model::isa)
      .def_property_readonly("threads", &Model::threads)
      .def_property_readonly("weight_bytes", &Model::weight_bytes)
      .def_property_readonly("level_names", &Model::LevelNames)
      .def_property_readonly("level", &Model::level)
      .def_property_readonly("levels", &Model::Levels)
      .def("set_level", &Model::SetLevel, py::arg("name"))
      .def("drop_level", &Model::DropLevel, py::arg("name"))
      .def("after_fork", &Model::AfterFork);

  py::class_<Repeat, std::shared_ptr<Repeat>>(m, "Repeat")
      .def(py::init<std::vector<py::str>, std::vector<py::dtype>, py::object>(), py::arg("names"),
           py::arg("dtypes"), py::arg("translate"))
      .def("set_plan", &Repeat::set_plan)
      .def_property_readonly("function", &Repeat::Function);

  py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan")
      .def(py::init<std::shared_ptr<Model>, const std::vector<std::vector<int64_t>>&,
                    std::vector<py::dtype>, const std::string&, const py::list&>(),
           py::arg("model"), py::arg("shapes"), py::arg("output_dtypes"), py::arg("tuning") = "",
           py::arg("values") = py::list())
      .def_property_readonly("tuning", &Plan::tuning)
      .def_property_readonly("slices", &Plan::slices)
      .def_property_readonly("arena_bytes", &Plan::arena_bytes)
      .def("run", &Plan::Run, py::arg("inputs"), py::arg("timed") = false)
      .def("after_fork", &Plan::AfterFork)
      .def_property_readonly("nodes", &Plan::Nodes);
}
