// The short way of a run that repeats the last one, for Python.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "include/sparsert.h"
#include "python/plan.h"

namespace sparsert {
namespace python {

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

}  // namespace python
}  // namespace sparsert
