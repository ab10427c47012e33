// Levels of a model: which one plans are made for, and what of them is in memory.
#include "modelfile/levels.h"

#include <cstring>

#include "capi/checks.h"

using sparsert::kNoTensor;
using sparsert::MutexLock;
using sparsert::Node;
using sparsert::NullArgument;
using sparsert::Status;
using sparsert::StatusCode;

void FreeLevel(srt_model* model, size_t index) {
  srt_level*& level = model->levels[index];
  if (level != nullptr) Unmake(model->allocator, level);
  level = nullptr;
}

Status UseLevel(srt_model* model, size_t index, srt_level** level) {
  *level = model->levels[index];
  if (*level == nullptr) {
    *level =
        Make<srt_level>(model->allocator, &model->allocator, &model->weights, model->own.data());
    if (*level == nullptr) return Status::OutOfMemory("level", sizeof(srt_level));
    const Status made =
        sparsert::MakeLevelGraph(model->graph, index, &(*level)->keeps, &(*level)->graph);
    if (!made.ok()) {
      Unmake(model->allocator, *level);
      return made;
    }
    model->levels[index] = *level;
  }
  (*level)->dropped = false;
  return Status::Ok();
}

void EndPlan(srt_model* model, srt_level* level) {
  if (--level->plans > 0 || !level->dropped) return;
  for (size_t i = 0; i < model->levels.size(); ++i) {
    if (model->levels[i] == level) FreeLevel(model, i);
  }
}

uint64_t PackedBytes(const srt_level& level) {
  return level.weights.resident_bytes() + level.keeps.size_bytes();
}

namespace {

Status FindLevel(const srt_model* model, const char* name, int32_t* index) {
  if (name == nullptr) return NullArgument("name");
  const sparsert::StrView wanted = {name, strlen(name)};
  char known[300] = "";
  size_t used = 0;
  for (size_t i = 0; i < model->graph.levels.size(); ++i) {
    const sparsert::StrView& other = model->graph.levels[i].name;
    *index = static_cast<int32_t>(i);
    if (other == wanted) return Status::Ok();
    if (used >= sizeof(known)) continue;
    used += static_cast<size_t>(
        snprintf(known + used, sizeof(known) - used, "%s%.*s", i == 0 ? "" : ", ", SRT_STR(other)));
  }
  return Status::Error(StatusCode::kInvalidArgument, "there is no level '%s'; the model's: %s",
                       name, known[0] == '\0' ? "none" : known);
}

// Of the layers' weights.
Status CountLevel(srt_level* level, srt_level_info* info) {
  for (const Node& node : level->graph.nodes) {
    for (size_t i = 0; i < node.inputs.size; ++i) {
      const uint32_t tensor = node.inputs[i];
      if (!sparsert::IsWeight(node.op, i) || tensor == kNoTensor) continue;
      const sparsert::EncodedTensor& data = level->graph.tensors[tensor].data;
      uint64_t nonzeros = 0;
      SRT_RETURN_IF_ERROR(level->weights.NonZeros(tensor, &nonzeros));
      info->weights += static_cast<uint64_t>(data.rows) * static_cast<uint64_t>(data.cols);
      info->nonzeros += nonzeros;
    }
  }
  return Status::Ok();
}

}  // namespace

extern "C" {

int32_t srt_model_level_count(const srt_model* model) {
  return static_cast<int32_t>(model->graph.levels.size());
}

int32_t srt_model_level_name(const srt_model* model, int32_t index, const char** name,
                             size_t* name_bytes) {
  if (index < 0 || index >= srt_model_level_count(model)) return SRT_INVALID_ARGUMENT;
  *name = model->graph.levels[static_cast<size_t>(index)].name.data;
  *name_bytes = model->graph.levels[static_cast<size_t>(index)].name.size;
  return SRT_OK;
}

int32_t srt_model_level_info(const srt_model* model, int32_t index, srt_level_info* info) {
  if (index < 0 || index >= srt_model_level_count(model)) return SRT_INVALID_ARGUMENT;
  auto* m = const_cast<srt_model*>(model);
  const auto i = static_cast<size_t>(index);
  *info = srt_level_info();
  info->file_bytes = sparsert::LevelBytes(model->graph, i);
  MutexLock lock(&m->planning);
  srt_level* level = m->levels[i];
  const bool unused = level == nullptr;
  const bool dropped = !unused && level->dropped;
  if (!unused) info->packed_bytes = PackedBytes(*level);
  Status status = UseLevel(m, i, &level);
  if (!status.ok()) return static_cast<int32_t>(status.code());
  status = CountLevel(level, info);
  level->dropped = dropped;
  if (unused) FreeLevel(m, i);
  return static_cast<int32_t>(status.code());
}

int32_t srt_model_level(const srt_model* model) {
  auto* m = const_cast<srt_model*>(model);
  MutexLock lock(&m->planning);
  return m->level;
}

int32_t srt_model_set_level(srt_model* model, const char* name, srt_error* error) {
  if (model == nullptr) return Report(NullArgument("model"), error);
  int32_t index = 0;
  const Status status = FindLevel(model, name, &index);
  if (!status.ok()) return Report(status, error);
  MutexLock lock(&model->planning);
  model->level = index;
  return SRT_OK;
}

int32_t srt_model_drop_level(srt_model* model, const char* name, srt_error* error) {
  if (model == nullptr) return Report(NullArgument("model"), error);
  int32_t index = 0;
  const Status status = FindLevel(model, name, &index);
  if (!status.ok()) return Report(status, error);
  MutexLock lock(&model->planning);
  srt_level* level = model->levels[static_cast<size_t>(index)];
  if (level == nullptr) return SRT_OK;
  level->dropped = true;
  if (level->plans == 0) FreeLevel(model, static_cast<size_t>(index));
  return SRT_OK;
}

}  // extern "C"
