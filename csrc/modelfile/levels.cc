// Checks the levels of a file, and makes the graph of one.
#include "modelfile/levels.h"

#include <cmath>
#include <cstring>

namespace sparsert {
namespace {

constexpr uint32_t kMaxLevels = 64;
constexpr size_t kPatchFields = 4;
static_assert(sizeof(LevelPatch) == kPatchFields * sizeof(uint32_t), "as it lies in the file");

int Popcount(uint32_t byte) {
  int count = 0;
  for (; byte != 0; byte &= byte - 1) ++count;
  return count;
}

bool Bit(const uint8_t* bits, uint64_t i) { return (bits[i / 8] >> (i % 8) & 1) != 0; }

bool IsVector(const Tensor& t, DType dtype, uint64_t size) {
  return t.is_constant && t.dtype == dtype && t.data.value_dtype == dtype && t.rank == 1 &&
         t.data.encoding == Encoding::kDense && static_cast<uint64_t>(t.dims[0]) == size;
}

bool SameDims(const Tensor& a, const Tensor& b) {
  return a.rank == b.rank && memcmp(a.dims, b.dims, a.rank * sizeof(int64_t)) == 0;
}

// How many units of a tensor there are without any bits.
uint64_t Units(const Tensor& tensor, uint32_t unit) { return tensor.data.stored_values / unit; }

class LevelReader {
 public:
  LevelReader(Graph* graph, Problems* problems)
      : graph_(graph),
        problems_(problems),
        units_(graph->tensors.allocator()),
        roles_(graph->tensors.allocator()) {}

  Status Read(uint32_t first, uint32_t count);

 private:
  bool IsConstant(uint32_t index) const {
    return index < graph_->tensors.size() && graph_->tensors[index].is_constant;
  }
  // The table of one level as it lies in the file.
  bool ReadTable(uint32_t index, uint32_t first);
  void CheckTensor(const LevelPatch& patch, size_t p);
  void CheckPatch(size_t level, size_t p);
  void CheckBits(const Tensor& keep, size_t level, size_t p);
  void CheckUses();
  void Bad(size_t level, size_t p, const char* what) {
    problems_->Add("level %zu '%.*s', entry %zu: %s", level, SRT_STR(graph_->levels[level].name), p,
                   what);
  }

  Graph* graph_;
  Problems* problems_;
  enum Role : uint8_t { kUsual, kReplaced, kPatched };

  Array<uint64_t> units_;  // [patches] that the level before keeps
  Array<Role> roles_;      // [tensors]
};

bool LevelReader::ReadTable(uint32_t index, uint32_t first) {
  const Tensor& table = graph_->tensors[index];
  const uint32_t level = index - first;
  if (!table.is_constant || table.dtype != DType::kU32 || table.rank != 2 ||
      table.dims[1] != static_cast<int64_t>(kPatchFields)) {
    problems_->Add("level %u is tensor %u, which is no u32 constant [n, %zu]", level, index,
                   kPatchFields);
    return false;
  }
  if (table.name.size == 0) problems_->Add("level %u has no name", level);
  for (const Level& other : graph_->levels) {
    if (other.name == table.name) {
      problems_->Add("two levels are named '%.*s'", SRT_STR(table.name));
    }
  }
  Level read;
  read.name = table.name;
  read.patches = {reinterpret_cast<const LevelPatch*>(table.data.values),
                  static_cast<size_t>(table.dims[0])};
  return graph_->levels.push_back(read).ok();
}

// What all levels say of a tensor alike.
void LevelReader::CheckTensor(const LevelPatch& patch, size_t p) {
  if (!IsConstant(patch.tensor)) return Bad(0, p, "its tensor is no constant");
  const Tensor& tensor = graph_->tensors[patch.tensor];
  const uint32_t block = uint32_t{tensor.data.block_rows} * tensor.data.block_cols;
  if (patch.unit > 1 && patch.unit != block) return Bad(0, p, "a unit is neither value nor block");
  if (patch.unit != 0 && tensor.dtype != DType::kF32 && tensor.dtype != DType::kI8) {
    return Bad(0, p, "only f32 and i8 tensors have bits or scales");
  }
  if (patch.keep != kNoTensor || patch.scale != kNoTensor) {
    return Bad(0, p, "the first level has bits or scales");
  }
  if (roles_[patch.tensor] != kUsual) return Bad(0, p, "its tensor is there twice");
  roles_[patch.tensor] = patch.unit == 0 ? kReplaced : kPatched;
  if (patch.unit != 0) units_[p] = Units(tensor, patch.unit);
}

void LevelReader::CheckBits(const Tensor& keep, size_t level, size_t p) {
  const uint64_t bytes = (units_[p] + 7) / 8;
  if (!IsVector(keep, DType::kU8, bytes)) {
    return Bad(level, p, "its bits are not as many as units are left");
  }
  uint64_t kept = 0;
  for (uint64_t i = 0; i < bytes; ++i) kept += static_cast<uint64_t>(Popcount(keep.data.values[i]));
  if (units_[p] % 8 != 0 && (keep.data.values[bytes - 1] >> (units_[p] % 8)) != 0) {
    return Bad(level, p, "bits are set past the last unit");
  }
  units_[p] = kept;
}

void LevelReader::CheckPatch(size_t level, size_t p) {
  const LevelPatch& first = graph_->levels[0].patches[p];
  const LevelPatch& patch = graph_->levels[level].patches[p];
  if (patch.tensor != first.tensor || patch.unit != first.unit) {
    return Bad(level, p, "its tensor or unit is not that of the first level");
  }
  const Tensor& tensor = graph_->tensors[patch.tensor];
  if ((patch.keep != kNoTensor && !IsConstant(patch.keep)) ||
      (patch.scale != kNoTensor && !IsConstant(patch.scale))) {
    return Bad(level, p, "it names a tensor that is no constant");
  }
  if (patch.unit == 0) {
    if (patch.scale != kNoTensor) return Bad(level, p, "a tensor of its own has scales");
    if (patch.keep == kNoTensor) return;
    const Tensor& own = graph_->tensors[patch.keep];
    if (own.dtype != tensor.dtype || !SameDims(own, tensor) ||
        (own.dtype != DType::kF32 && own.data.encoding != Encoding::kDense)) {
      Bad(level, p, "its own tensor has another dtype, shape or encoding");
    }
    return;
  }
  if (patch.keep != kNoTensor) CheckBits(graph_->tensors[patch.keep], level, p);
  if (patch.scale == kNoTensor) return;
  const Tensor& scale = graph_->tensors[patch.scale];
  if (tensor.dtype != DType::kF32 ||
      !IsVector(scale, DType::kF32, static_cast<uint64_t>(tensor.data.rows))) {
    return Bad(level, p, "its scales are not one f32 for each row of f32 weights");
  }
  const auto* values = reinterpret_cast<const float*>(scale.data.values);
  for (int64_t row = 0; row < tensor.data.rows; ++row) {
    if (!std::isfinite(values[row])) return Bad(level, p, "a scale is not finite");
  }
}

// Other inputs may be read as they lie in the file.
void LevelReader::CheckUses() {
  const auto check = [this](uint32_t tensor) {
    if (tensor != kNoTensor && roles_[tensor] == kPatched) {
      problems_->Add("tensor %u '%.*s' has bits or scales of levels and is not only weights",
                     tensor, SRT_STR(graph_->tensors[tensor].name));
    }
  };
  for (const Node& node : graph_->nodes) {
    for (size_t i = 0; i < node.inputs.size; ++i) {
      if (!IsWeight(node.op, i)) check(node.inputs[i]);
    }
  }
  for (uint32_t output : graph_->outputs) check(output);
}

Status LevelReader::Read(uint32_t first, uint32_t count) {
  const size_t tensors = graph_->tensors.size();
  if (first > tensors || count > tensors - first || count > kMaxLevels) {
    problems_->Add("%u levels from tensor %u of %zu, expected %u at most", count, first, tensors,
                   kMaxLevels);
    return Status::Ok();
  }
  SRT_RETURN_IF_ERROR(graph_->levels.reserve(count));
  for (uint32_t k = 0; k < count; ++k) {
    if (!ReadTable(first + k, first)) return Status::Ok();
    if (graph_->levels[k].patches.size != graph_->levels[0].patches.size) {
      problems_->Add("level %u has %zu entries, the first one %zu", k,
                     graph_->levels[k].patches.size, graph_->levels[0].patches.size);
      return Status::Ok();
    }
  }
  const size_t patches = graph_->levels[0].patches.size;
  if (patches > tensors) {
    problems_->Add("level 0 has %zu entries for %zu tensors", patches, tensors);
    return Status::Ok();
  }
  SRT_RETURN_IF_ERROR(units_.resize(patches));
  SRT_RETURN_IF_ERROR(roles_.resize(tensors));
  for (size_t p = 0; p < patches; ++p) CheckTensor(graph_->levels[0].patches[p], p);
  for (size_t k = 0; k < count && !problems_->any(); ++k) {
    for (size_t p = 0; p < patches; ++p) CheckPatch(k, p);
  }
  if (!problems_->any()) CheckUses();
  return Status::Ok();
}

// Writes which units of a tensor a level keeps: one bit for each.
void KeepUnits(const Graph& graph, size_t level, size_t p, uint64_t units, uint8_t* kept) {
  bool is_first = true;
  for (size_t k = 1; k <= level; ++k) {
    const uint32_t keep = graph.levels[k].patches[p].keep;
    if (keep == kNoTensor) continue;
    const uint8_t* bits = graph.tensors[keep].data.values;
    if (is_first) {
      memcpy(kept, bits, static_cast<size_t>((units + 7) / 8));
      is_first = false;
      continue;
    }
    uint64_t next = 0;  // of the units that were kept so far
    for (uint64_t i = 0; i < units; ++i) {
      if (!Bit(kept, i) || Bit(bits, next++)) continue;
      kept[i / 8] &= static_cast<uint8_t>(~(1u << (i % 8)));
    }
  }
}

}  // namespace

Status ReadLevels(uint32_t first, uint32_t count, Graph* graph, Problems* problems) {
  return LevelReader(graph, problems).Read(first, count);
}

Status MakeLevelGraph(const Graph& graph, size_t level, Array<uint8_t>* keeps, Graph* out) {
  SRT_RETURN_IF_ERROR(out->tensors.append(graph.tensors.data(), graph.tensors.size()));
  SRT_RETURN_IF_ERROR(out->nodes.append(graph.nodes.data(), graph.nodes.size()));
  SRT_RETURN_IF_ERROR(out->symbols.append(graph.symbols.data(), graph.symbols.size()));
  out->inputs = graph.inputs;
  out->outputs = graph.outputs;
  out->metadata = graph.metadata;
  const Span<LevelPatch> patches = graph.levels[level].patches;
  const auto has_bits = [&graph, level](size_t p) {
    for (size_t k = 1; k <= level; ++k) {
      const LevelPatch& patch = graph.levels[k].patches[p];
      if (patch.unit != 0 && patch.keep != kNoTensor) return true;
    }
    return false;
  };
  uint64_t bytes = 0;
  for (size_t p = 0; p < patches.size; ++p) {
    if (has_bits(p)) bytes += Units(graph.tensors[patches[p].tensor], patches[p].unit) / 8 + 1;
  }
  keeps->clear();
  SRT_RETURN_IF_ERROR(keeps->resize(static_cast<size_t>(bytes)));
  uint8_t* kept = keeps->data();
  for (size_t p = 0; p < patches.size; ++p) {
    const LevelPatch& patch = patches[p];
    Tensor& tensor = out->tensors[patch.tensor];
    if (patch.unit == 0) {
      if (patch.keep != kNoTensor) tensor.data = graph.tensors[patch.keep].data;
      continue;
    }
    if (has_bits(p)) {
      const uint64_t units = Units(graph.tensors[patch.tensor], patch.unit);
      KeepUnits(graph, level, p, units, kept);
      tensor.data.keep = kept;
      tensor.data.keep_shift = 0;
      while (patch.unit >> tensor.data.keep_shift > 1) ++tensor.data.keep_shift;
      kept += units / 8 + 1;
    }
    if (patch.scale != kNoTensor) {
      tensor.data.row_scale =
          reinterpret_cast<const float*>(graph.tensors[patch.scale].data.values);
    }
  }
  return Status::Ok();
}

uint64_t LevelBytes(const Graph& graph, size_t level) {
  const auto own = [&graph](size_t k) {
    uint64_t bytes = 0;
    for (const LevelPatch& patch : graph.levels[k].patches) {
      if (patch.keep != kNoTensor) bytes += graph.tensors[patch.keep].data.stored_bytes;
      if (patch.scale != kNoTensor) bytes += graph.tensors[patch.scale].data.stored_bytes;
    }
    return bytes;
  };
  if (level != 0) return own(level);
  uint64_t bytes = 0;
  for (const Tensor& tensor : graph.tensors) bytes += tensor.data.stored_bytes;
  for (size_t k = 1; k < graph.levels.size(); ++k) bytes -= own(k);
  return bytes;
}

}  // namespace sparsert
