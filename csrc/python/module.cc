// The Python module _core: sparsert.h for NumPy arrays.
#include <memory>
#include <string>
#include <vector>

#include "include/sparsert.h"
#include "python/model.h"
#include "python/plan.h"
#include "python/repeat.h"

namespace sparsert {
namespace python {
namespace {

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
      .def_property_readonly("plan_bytes", &Plan::plan_bytes)
      .def("run", &Plan::Run, py::arg("inputs"), py::arg("timed") = false)
      .def("after_fork", &Plan::AfterFork)
      .def_property_readonly("nodes", &Plan::Nodes);
}

}  // namespace python
}  // namespace sparsert
