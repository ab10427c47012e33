// Weights: decoding and packing on demand.
#include "plan/weights.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "base/cpu.h"
#include "base/platform.h"
#include "plan/stacks.h"

namespace sparsert {
namespace {

// What may stay of a mapped file: pages that leave and are needed again take time to come back.
constexpr size_t kForgetBytes = 4 << 20;
constexpr size_t kForgetFileBytes = 16 << 20;

}  // namespace

Weights::~Weights() {
  while (packings_ != nullptr) {
    Packing* next = packings_->next;
    Free(packings_);
    packings_ = next;
  }
  while (row_tables_ != nullptr) {
    RowTable* next = row_tables_->next;
    row_tables_->~RowTable();
    allocator_->release(allocator_->context, row_tables_, sizeof(RowTable));
    row_tables_ = next;
  }
  for (const DenseCopy& copy : dense_) {
    allocator_->release(allocator_->context, copy.data, copy.bytes);
  }
}

void Weights::Free(Packing* packing) {
  packing->~Packing();
  allocator_->release(allocator_->context, packing, sizeof(Packing));
}

Status Weights::CheckDecoded(uint32_t tensor, uint64_t bytes) const {
  uint64_t sum = bytes;
  for (const DenseCopy& copy : dense_) sum += copy.bytes;
  if (limit_ == 0 || sum <= limit_) return Status::Ok();
  const StrView name = graph_->tensors[tensor].name;
  return Status::Error(StatusCode::kOutOfMemory,
                       "constant '%.*s' has %llu bytes once decoded, after %llu of others",
                       SRT_STR(name), static_cast<unsigned long long>(bytes),
                       static_cast<unsigned long long>(sum - bytes));
}

Status Weights::Dense(uint32_t tensor, const void** data) {
  if (IsShared(tensor)) return shared_->Dense(tensor, data);
  const Tensor& t = graph_->tensors[tensor];
  const bool is_float = t.dtype == DType::kF32;
  if (t.data.is_plain() && (!is_float || t.data.value_dtype == DType::kF32)) {
    *data = t.data.values;
    return Status::Ok();
  }
  for (const DenseCopy& copy : dense_) {
    if (copy.tensor == tensor) {
      *data = copy.data;
      return Status::Ok();
    }
  }
  const size_t bytes = static_cast<size_t>(t.data.rows) * t.data.cols * sizeof(float);
  const size_t allocated = bytes == 0 ? sizeof(float) : bytes;
  SRT_RETURN_IF_ERROR(CheckDecoded(tensor, allocated));
  void* memory = allocator_->allocate(allocator_->context, allocated, kCacheLine);
  if (memory == nullptr) return Status::OutOfMemory("constant", allocated);
  Status status = DecodeDense(t.data, static_cast<float*>(memory));
  if (t.dtype == DType::kI8) {  // in place, each byte before the float that stood there
    for (size_t i = 0; i < bytes / sizeof(float); ++i) {
      const float value = static_cast<const float*>(memory)[i];
      static_cast<int8_t*>(memory)[i] = static_cast<int8_t>(value);
    }
  }
  if (status.ok()) status = dense_.push_back({tensor, memory, allocated});
  if (!status.ok()) {
    allocator_->release(allocator_->context, memory, allocated);
    return status;
  }
  *data = memory;
  return Status::Ok();
}

Status Weights::DenseUncached(uint32_t tensor, Array<float>* scratch, const float** data) {
  const Tensor& t = graph_->tensors[tensor];
  if (t.data.is_plain() && t.data.value_dtype == DType::kF32) {
    *data = reinterpret_cast<const float*>(t.data.values);
    return Status::Ok();
  }
  const size_t elements = static_cast<size_t>(t.data.rows) * t.data.cols;
  SRT_RETURN_IF_ERROR(CheckDecoded(tensor, elements * sizeof(float)));
  SRT_RETURN_IF_ERROR(scratch->resize(elements));
  SRT_RETURN_IF_ERROR(DecodeDense(t.data, scratch->data()));
  *data = scratch->data();
  return Status::Ok();
}

Status Weights::NonZeros(uint32_t tensor, uint64_t* nnz) {
  if (IsShared(tensor)) return shared_->NonZeros(tensor, nnz);
  if (nonzeros_.empty()) {
    SRT_RETURN_IF_ERROR(nonzeros_.resize(graph_->tensors.size()));
    for (int64_t& n : nonzeros_) n = -1;
  }
  if (nonzeros_[tensor] < 0) {
    uint64_t counted = 0;
    SRT_RETURN_IF_ERROR(CountNonZeros(graph_->tensors[tensor].data, &counted));
    nonzeros_[tensor] = static_cast<int64_t>(counted);
    Forget(tensor);
  }
  *nnz = static_cast<uint64_t>(nonzeros_[tensor]);
  return Status::Ok();
}

Status Weights::IsFull(const PackKey& key, bool* full) {
  const EncodedTensor& data = graph_->tensors[key.tensor].data;
  *full = false;
  if (key.transposed || key.bytes || data.encoding != Encoding::kDense) return Status::Ok();
  uint64_t nnz = 0;
  SRT_RETURN_IF_ERROR(NonZeros(key.tensor, &nnz));
  *full = static_cast<double>(nnz) >=
          kFullDensity * static_cast<double>(data.rows) * static_cast<double>(data.cols);
  return Status::Ok();
}

void Weights::Forget(uint32_t tensor) {
  if (!mapped_) return;
  read_bytes_ += static_cast<size_t>(graph_->tensors[tensor].data.stored_bytes);
  if (read_bytes_ < kForgetBytes) return;
  read_bytes_ = 0;
  ForgetPages(file_.data, file_.size);
}

Status Weights::RowStarts(uint32_t tensor, Span<uint32_t>* starts) {
  if (IsShared(tensor)) return shared_->RowStarts(tensor, starts);
  for (const RowTable* table = row_tables_; table != nullptr; table = table->next) {
    if (table->tensor != tensor) continue;
    *starts = table->starts.span();
    return Status::Ok();
  }
  Array<uint32_t> found(allocator_);
  SRT_RETURN_IF_ERROR(FindRowStarts(graph_->tensors[tensor].data, &found));
  void* memory = allocator_->allocate(allocator_->context, sizeof(RowTable), kCacheLine);
  if (memory == nullptr) return Status::OutOfMemory("rows of a table", sizeof(RowTable));
  auto* table = new (memory) RowTable(allocator_);
  table->tensor = tensor;
  table->starts = std::move(found);
  table->next = row_tables_;
  row_tables_ = table;
  *starts = table->starts.span();
  return Status::Ok();
}

Status Weights::AsCsr(const PackKey& key, const Csr** csr) {
  PackKey wanted;  // only what the matrix itself depends on
  wanted.tensor = key.tensor;
  wanted.transposed = key.transposed;
  wanted.phases = key.phases;
  wanted.bytes = key.bytes;
  wanted.depthwise = key.depthwise;
  wanted.row_taps = key.row_taps;
  wanted.groups = key.transposed ? key.groups : 1;
  wanted.taps = key.transposed || key.bytes ? key.taps : 1;
  if (!(csr_key_ == wanted)) {
    csr_key_ = PackKey();
    SRT_RETURN_IF_ERROR(key.bytes           ? GroupBytes(key, &csr_)
                        : key.phases.used() ? RearrangePhases(key, &csr_)
                        : key.transposed    ? RearrangeTransposed(key, &csr_)
                                            : DecodeCsr(graph_->tensors[key.tensor].data, &csr_));
    csr_key_ = wanted;
  }
  *csr = &csr_;
  return Status::Ok();
}

Status Weights::Stats(const PackKey& key, MatrixStats* stats) {
  if (IsShared(key)) return shared_->Stats(key, stats);
  for (const StatsEntry& entry : stats_) {
    if (entry.key == key) {
      *stats = entry.stats;
      return Status::Ok();
    }
  }
  bool full = false;
  SRT_RETURN_IF_ERROR(IsFull(key, &full));
  if (full) {
    const EncodedTensor& data = graph_->tensors[key.tensor].data;
    uint64_t nnz = 0;
    SRT_RETURN_IF_ERROR(NonZeros(key.tensor, &nnz));
    *stats = FullStats(data.rows, data.cols, key.groups, nnz);
  } else {
    const Csr* csr = nullptr;
    SRT_RETURN_IF_ERROR(AsCsr(key, &csr));
    SRT_RETURN_IF_ERROR(ComputeStats(*csr, key.groups, stats));
  }
  return stats_.push_back({key, *stats});
}

void Weights::EndPlanning() {
  if (shared_ != nullptr) shared_->EndPlanning();
  // Matrices too small to be forgotten one by one are many in a large model.
  if (mapped_ && file_.size >= kForgetFileBytes) ForgetPages(file_.data, file_.size);
  csr_key_ = PackKey();
  csr_.row_ptr.reset();
  csr_.col_idx.reset();
  csr_.values.reset();
}

// [C][M / g][taps] becomes [M][C / g][taps]: channel c belongs to group c / (C / g).
Status Weights::RearrangeTransposed(const PackKey& key, Csr* csr) {
  const Tensor& t = graph_->tensors[key.tensor];
  Array<float> scratch(allocator_);
  const float* w = nullptr;
  SRT_RETURN_IF_ERROR(DenseUncached(key.tensor, &scratch, &w));
  const int64_t channels = t.data.rows;
  const int64_t taps = key.taps;
  const int64_t group_in = channels / key.groups;
  const int64_t group_out = t.data.cols / taps;
  csr->rows = group_out * key.groups;
  csr->cols = group_in * taps;
  csr->row_ptr.clear();
  csr->col_idx.clear();
  csr->values.clear();
  SRT_RETURN_IF_ERROR(csr->row_ptr.push_back(0));
  for (int64_t row = 0; row < csr->rows; ++row) {
    const int64_t group = row / group_out;
    for (int64_t c = 0; c < group_in; ++c) {
      const float* from = w + ((group * group_in + c) * group_out + row % group_out) * taps;
      for (int64_t tap = 0; tap < taps; ++tap) {
        if (from[tap] == 0.0f) continue;
        SRT_RETURN_IF_ERROR(csr->col_idx.push_back(static_cast<uint32_t>(c * taps + tap)));
        SRT_RETURN_IF_ERROR(csr->values.push_back(from[tap]));
      }
    }
    SRT_RETURN_IF_ERROR(csr->row_ptr.push_back(static_cast<uint32_t>(csr->values.size())));
  }
  return Status::Ok();
}

// [C][M][kernel] becomes [phases][M][C][taps].
Status Weights::RearrangePhases(const PackKey& key, Csr* csr) {
  const Tensor& t = graph_->tensors[key.tensor];
  Array<float> scratch(allocator_);
  const float* w = nullptr;
  SRT_RETURN_IF_ERROR(DenseUncached(key.tensor, &scratch, &w));
  const OutputPhases& p = key.phases;
  const int64_t channels = t.data.rows;
  const int64_t kernel = static_cast<int64_t>(p.kernel[0]) * p.kernel[1];
  const int64_t taps = static_cast<int64_t>(p.taps[0]) * p.taps[1];
  const int64_t rows = t.data.cols / kernel;  // of one phase
  csr->rows = rows * p.phases();
  csr->cols = channels * taps;
  csr->row_ptr.clear();
  csr->col_idx.clear();
  csr->values.clear();
  SRT_RETURN_IF_ERROR(csr->row_ptr.push_back(0));
  Array<int64_t> at(allocator_);  // [taps] the element of the kernel that a tap is, or -1
  SRT_RETURN_IF_ERROR(at.resize(static_cast<size_t>(taps)));
  for (int32_t phase = 0; phase < p.phases(); ++phase) {
    const int32_t in_stride[2] = {phase / p.stride[1], phase % p.stride[1]};
    for (int32_t tap = 0; tap < taps; ++tap) {
      const int32_t of_window[2] = {tap / p.taps[1], tap % p.taps[1]};
      int64_t k[2];
      bool inside = true;
      for (int d = 0; d < 2; ++d) {
        k[d] = in_stride[d] + p.pad[d] - p.stride[d] * (of_window[d] - p.before[d]);
        inside = inside && k[d] >= 0 && k[d] < p.kernel[d];
      }
      at[static_cast<size_t>(tap)] = inside ? k[0] * p.kernel[1] + k[1] : -1;
    }
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t c = 0; c < channels; ++c) {
        const float* from = w + (c * rows + row) * kernel;
        for (int64_t tap = 0; tap < taps; ++tap) {
          const int64_t k = at[static_cast<size_t>(tap)];
          if (k < 0 || from[k] == 0.0f) continue;
          SRT_RETURN_IF_ERROR(csr->col_idx.push_back(static_cast<uint32_t>(c * taps + tap)));
          SRT_RETURN_IF_ERROR(csr->values.push_back(from[k]));
        }
      }
      SRT_RETURN_IF_ERROR(csr->row_ptr.push_back(static_cast<uint32_t>(csr->values.size())));
    }
  }
  return Status::Ok();
}

// [M][taps][C] signed bytes become [M][ceil(C / 4)][taps] of four bytes. Depthwise [M][taps][1]
// become ceil(M / 4) groups of four rows that read the same packed plane, each its own byte of it.
// With row_taps, four successive taps of a kernel's row are grouped instead: [M][C][taps].
Status Weights::GroupBytes(const PackKey& key, Csr* csr) {
  const EncodedTensor& data = graph_->tensors[key.tensor].data;
  // A row at a time: as floats, the whole matrix would take four times as much as its bytes.
  const bool dense = data.encoding == Encoding::kDense;
  DenseRows rows(data, dense && mapped_, allocator_);
  Csr encoded(allocator_);
  Array<float> expanded(allocator_);
  if (!dense) {
    SRT_RETURN_IF_ERROR(DecodeCsr(data, &encoded));
    SRT_RETURN_IF_ERROR(expanded.resize(static_cast<size_t>(data.cols)));
    Forget(key.tensor);
  }
  uint64_t nonzeros = 0;
  SRT_RETURN_IF_ERROR(NonZeros(key.tensor, &nonzeros));
  const int64_t taps = key.taps;
  const int64_t row_taps = key.row_taps;
  const int64_t row_groups = (row_taps + 3) / 4;
  const int64_t channels = data.cols / (row_taps == 0 ? taps : taps / row_groups * row_taps);
  const int64_t quads = row_taps == 0 ? (channels + 3) / 4 : channels;
  csr->rows = key.depthwise ? (data.rows + 3) / 4 * 4 : data.rows;
  csr->cols = quads * taps;
  csr->row_ptr.clear();
  csr->col_idx.clear();
  csr->values.clear();
  const auto most = std::min(nonzeros, static_cast<uint64_t>(data.rows * csr->cols));
  SRT_RETURN_IF_ERROR(csr->col_idx.reserve(static_cast<size_t>(most)));
  SRT_RETURN_IF_ERROR(csr->values.reserve(static_cast<size_t>(most)));
  SRT_RETURN_IF_ERROR(csr->row_ptr.push_back(0));
  for (int64_t row = 0; row < csr->rows; ++row) {
    const float* w = expanded.data();
    if (row < data.rows && dense) {
      SRT_RETURN_IF_ERROR(rows.Get(row, 1, &w));
    } else if (row < data.rows) {
      std::fill(expanded.begin(), expanded.end(), 0.0f);
      for (uint32_t i = encoded.row_ptr[row]; i < encoded.row_ptr[row + 1]; ++i) {
        expanded[encoded.col_idx[i]] = encoded.values[i];
      }
    }
    for (int64_t q = 0; row < data.rows && q < quads; ++q) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        const float* of = w + tap * channels;
        int8_t bytes[4] = {};
        if (key.depthwise) {
          bytes[row % 4] = static_cast<int8_t>(of[0]);
        } else if (row_taps != 0) {
          const int64_t begin = tap % row_groups * 4;
          for (int64_t t = begin; t < row_taps && t < begin + 4; ++t) {
            const int64_t at = (tap / row_groups * row_taps + t) * channels + q;
            bytes[t % 4] = static_cast<int8_t>(w[at]);
          }
        } else {
          for (int64_t c = 4 * q; c < channels && c < 4 * q + 4; ++c) {
            bytes[c % 4] = static_cast<int8_t>(of[c]);
          }
        }
        uint32_t bits;
        float value;
        memcpy(&bits, bytes, sizeof(bits));
        memcpy(&value, bytes, sizeof(value));
        if (bits == 0) continue;
        SRT_RETURN_IF_ERROR(csr->col_idx.push_back(static_cast<uint32_t>(q * taps + tap)));
        SRT_RETURN_IF_ERROR(csr->values.push_back(value));
      }
    }
    SRT_RETURN_IF_ERROR(csr->row_ptr.push_back(static_cast<uint32_t>(csr->values.size())));
  }
  return Status::Ok();
}

Weights::Packing* Weights::Find(const PackKey& key) const {
  for (Packing* p = packings_; p != nullptr; p = p->next) {
    if (p->key == key) return p;
  }
  return nullptr;
}

template <typename Pack>
Status Weights::FindOrPack(const PackKey& key, Pack pack, Packing** packing) {
  *packing = Find(key);
  if (*packing != nullptr) return Status::Ok();
  void* memory = allocator_->allocate(allocator_->context, sizeof(Packing), kCacheLine);
  if (memory == nullptr) return Status::OutOfMemory("packed weights", sizeof(Packing));
  auto* made = new (memory) Packing(allocator_);
  made->key = key;
  const Status status = pack(made);
  if (!status.ok()) {
    Free(made);
    return status;
  }
  made->next = packings_;
  packings_ = made;
  *packing = made;
  return Status::Ok();
}

Status Weights::Spmm(const PackKey& key, const PackedSpmm** packed) {
  if (IsShared(key)) return shared_->Spmm(key, packed);
  Packing* packing = nullptr;
  const auto pack = [&](Packing* made) { return PackForSpmm(key, &made->spmm); };
  SRT_RETURN_IF_ERROR(FindOrPack(key, pack, &packing));
  *packed = &packing->spmm;
  return Status::Ok();
}

Status Weights::PackForSpmm(const PackKey& key, PackedSpmm* packed) {
  const auto format = static_cast<SpmmFormat>(key.format);
  bool full = false;
  SRT_RETURN_IF_ERROR(IsFull(key, &full));
  if (full && SpmmIsDense(format)) {
    DenseRows rows(graph_->tensors[key.tensor].data, mapped_, allocator_);
    SRT_RETURN_IF_ERROR(
        PackDenseSpmm(&rows, key.groups, key.taps, format, key.direct, key.block_depth, packed));
  } else {
    const Csr* csr = nullptr;
    SRT_RETURN_IF_ERROR(AsCsr(key, &csr));
    SRT_RETURN_IF_ERROR(PackSpmm(*csr, key.groups, key.taps, format, key.direct, key.block_depth,
                                 key.pair_rows, packed));
  }
  if (kHasStacks && key.stack_width != 0) {
    SRT_RETURN_IF_ERROR(StackIds(key.taps, key.stack_width, key.stack_rows, packed));
  }
  if (key.depthwise) {  // the last group has the rows that are left, whose planes alone exist
    Array<PackedMatrix>& groups = packed->groups;
    const auto before = static_cast<int64_t>(groups.size() - 1) * 4;
    groups[groups.size() - 1].rows =
        static_cast<int32_t>(graph_->tensors[key.tensor].data.rows - before);
  }
  return Status::Ok();
}

Status Weights::Spmv(const PackKey& key, const PackedSpmv** packed) {
  if (IsShared(key)) return shared_->Spmv(key, packed);
  Packing* packing = nullptr;
  const auto pack = [&](Packing* made) { return PackForSpmv(key, &made->spmv); };
  SRT_RETURN_IF_ERROR(FindOrPack(key, pack, &packing));
  *packed = &packing->spmv;
  return Status::Ok();
}

Status Weights::PackForSpmv(const PackKey& key, PackedSpmv* packed) {
  const auto format = static_cast<SpmvFormat>(key.format);
  const void* data = nullptr;
  if (key.bias != kNoTensor) SRT_RETURN_IF_ERROR(Dense(key.bias, &data));
  const auto* bias = static_cast<const float*>(data);
  bool full = false;
  SRT_RETURN_IF_ERROR(IsFull(key, &full));
  if (full && format == SpmvFormat::kDense) {
    DenseRows rows(graph_->tensors[key.tensor].data, mapped_, allocator_);
    return PackDenseSpmv(&rows, bias, key.lanes, packed);
  }
  const Csr* csr = nullptr;
  SRT_RETURN_IF_ERROR(AsCsr(key, &csr));
  return PackSpmv(*csr, bias, format, key.lanes, packed, key.bytes, key.perm_pairs);
}

Status Weights::Winograd(const PackKey& key, const PackedWinograd** packed) {
  if (IsShared(key)) return shared_->Winograd(key, packed);
  Packing* packing = nullptr;
  const auto pack = [&](Packing* made) { return PackForWinograd(key, &made->winograd); };
  SRT_RETURN_IF_ERROR(FindOrPack(key, pack, &packing));
  *packed = &packing->winograd;
  return Status::Ok();
}

Status Weights::PackForWinograd(const PackKey& key, PackedWinograd* packed) {
  const Tensor& t = graph_->tensors[key.tensor];
  Array<float> scratch(allocator_);
  const float* filters = nullptr;
  SRT_RETURN_IF_ERROR(DenseUncached(key.tensor, &scratch, &filters));
  WinogradWeights shape;
  shape.rows = static_cast<int32_t>(t.dims[0]);
  shape.depth = static_cast<int32_t>(t.dims[1]);
  shape.panel_rows = key.panel_rows;
  shape.group_panels = key.group_panels;
  shape.block_depth = key.block_depth;
  return PackWinograd(filters, shape, packed);
}

int32_t Weights::KeptDepth(const PackKey& key) const {
  if (IsShared(key)) return shared_->KeptDepth(key);
  int32_t best = 0;
  double best_ratio = 2.0;  // slabs of half or twice the best size cost a few per cent
  for (const Packing* p = packings_; p != nullptr; p = p->next) {
    PackKey same = p->key;
    same.block_depth = key.block_depth;
    same.pair_rows = key.pair_rows;
    if (!p->kept || !(same == key)) continue;
    const double ratio = static_cast<double>(std::max(p->key.block_depth, key.block_depth)) /
                         std::min(p->key.block_depth, key.block_depth);
    if (ratio > best_ratio) continue;
    best_ratio = ratio;
    best = p->key.block_depth;
  }
  return best;
}

void Weights::Keep(const PackKey& key) {
  if (IsShared(key)) return shared_->Keep(key);
  Packing* packing = Find(key);
  if (packing != nullptr) packing->kept = true;
}

void Weights::Drop(const PackKey& key) {
  if (IsShared(key)) return shared_->Drop(key);
  for (Packing** link = &packings_; *link != nullptr; link = &(*link)->next) {
    if (!((*link)->key == key) || (*link)->kept) continue;
    Packing* dropped = *link;
    *link = dropped->next;
    Free(dropped);
    return;
  }
}

size_t Weights::PackedBytes(const PackKey& key) const {
  if (IsShared(key)) return shared_->PackedBytes(key);
  const Packing* p = Find(key);
  return p == nullptr ? 0 : p->spmm.bytes() + p->spmv.bytes() + p->winograd.bytes();
}

void Weights::FlushPacked(const PackKey& key) const {
  if (IsShared(key)) return shared_->FlushPacked(key);
  const Packing* p = Find(key);
  if (p == nullptr) return;
  const auto flush = [](const auto& array) { FlushCaches(array.data(), array.size_bytes()); };
  flush(p->spmm.counts);
  flush(p->spmm.ids);
  flush(p->spmm.values);
  flush(p->spmv.ids);
  flush(p->spmv.bits);
  flush(p->spmv.values);
  flush(p->winograd.values);
}

size_t Weights::resident_bytes() const {
  size_t bytes = 0;
  for (const DenseCopy& copy : dense_) bytes += copy.bytes;
  for (const RowTable* t = row_tables_; t != nullptr; t = t->next) bytes += t->starts.size_bytes();
  for (const Packing* p = packings_; p != nullptr; p = p->next) {
    bytes += p->spmm.bytes() + p->spmv.bytes() + p->winograd.bytes();
  }
  return bytes;
}

}  // namespace sparsert
