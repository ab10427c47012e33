// A loaded model for Python, and the cores that models share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "include/sparsert.h"

namespace sparsert {
namespace python {

namespace py = pybind11;

// _core.NativeError(code, text); sparsert.runtime turns it into an exception of sparsert.errors.
inline PyObject* native_error = nullptr;

[[noreturn]] inline void Throw(const srt_error& error) {
  py::tuple args = py::make_tuple(error.code, std::string(error.text));
  PyErr_SetObject(native_error, args.ptr());
  throw py::error_already_set();
}

inline py::str Text(const char* data, size_t size) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(data, static_cast<Py_ssize_t>(size), "replace"));
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
  // These wait for plans that are being made.
  uint64_t weight_bytes() const {
    py::gil_scoped_release release;
    return srt_model_weight_bytes(model_);
  }

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
      int32_t code = SRT_OK;
      {
        py::gil_scoped_release release;
        code = srt_model_level_info(model_, i, &info);
      }
      if (code != SRT_OK) {
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
    int32_t code = SRT_OK;
    {
      py::gil_scoped_release release;
      code = srt_model_set_level(model_, name.c_str(), &error);
    }
    if (code != SRT_OK) Throw(error);
  }

  void DropLevel(const std::string& name) {
    srt_error error = {};
    int32_t code = SRT_OK;
    {
      py::gil_scoped_release release;
      code = srt_model_drop_level(model_, name.c_str(), &error);
    }
    if (code != SRT_OK) Throw(error);
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

}  // namespace python
}  // namespace sparsert
