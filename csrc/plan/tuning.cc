// Tuning blobs: fingerprint, checks, writer.
#include "plan/tuning.h"

#include <cmath>
#include <cstring>

#include "modelfile/crc32.h"

namespace sparsert {
namespace {

constexpr char kMagic[] = "SRTTUNE\n";
constexpr size_t kMagicBytes = 8;
constexpr uint32_t kVersion = 1;
constexpr size_t kCheckedFrom = kMagicBytes + 8;
constexpr size_t kHeaderBytes = kCheckedFrom + 12;
constexpr size_t kEntryBytes = 8;
constexpr size_t kNameBytes = 40;
constexpr size_t kRecordBytes = kNameBytes + 16;

// Bytes in the order of the machines that this runs on, little-endian.
template <typename T>
T Load(const uint8_t* from) {
  T value;
  memcpy(&value, from, sizeof(value));
  return value;
}

// Counts all bytes and writes those that fit.
class Sink {
 public:
  Sink(void* buffer, size_t size) : buffer_(static_cast<uint8_t*>(buffer)), size_(size) {}

  void Bytes(const void* from, size_t bytes) {
    if (used_ + bytes <= size_) memcpy(buffer_ + used_, from, bytes);
    used_ += bytes;
  }
  template <typename T>
  void Put(T value) {
    Bytes(&value, sizeof(value));
  }
  size_t used() const { return used_; }

 private:
  uint8_t* buffer_;
  size_t size_;
  size_t used_ = 0;
};

// FNV-1a.
class Hash {
 public:
  void Add(uint64_t value) {
    for (int i = 0; i < 8; ++i) {
      hash_ = (hash_ ^ (value >> (8 * i) & 255u)) * 0x100000001b3u;
    }
  }
  void Add(const Shape& shape) {
    Add(static_cast<uint64_t>(shape.rank));
    for (int d = 0; d < shape.rank; ++d) Add(static_cast<uint64_t>(shape.dims[d]));
  }
  uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

// Stacks are told from other tiles by the sign.
int32_t DepthOf(const Candidate& c) { return c.stacked ? -c.block_depth : c.block_depth; }

bool Matches(const uint8_t* record, const Candidate& candidate) {
  char name[kNameBytes] = "";
  const size_t length = strlen(candidate.kernel);
  if (length >= kNameBytes) return false;
  memcpy(name, candidate.kernel, length);
  return memcmp(record, name, kNameBytes) == 0 &&
         Load<int32_t>(record + kNameBytes) == candidate.tiles &&
         Load<int32_t>(record + kNameBytes + 4) == DepthOf(candidate);
}

double MeasuredNs(const uint8_t* record) { return Load<double>(record + kNameBytes + 8); }

}  // namespace

uint64_t TuningFingerprint(const Graph& graph, Span<Shape> input_shapes,
                           const PlanOptions& options) {
  Hash hash;
  hash.Add(static_cast<uint64_t>(options.isa));
  hash.Add(static_cast<uint64_t>(options.threads));
  hash.Add(static_cast<uint64_t>(options.tune));
  hash.Add(static_cast<uint64_t>(options.format));
  hash.Add(static_cast<uint64_t>(options.cpu.l1d_bytes));
  hash.Add(static_cast<uint64_t>(options.cpu.l2_bytes));
  hash.Add(static_cast<uint64_t>(options.cpu.fma_per_cycle * 16.0));
  for (const Shape& shape : input_shapes) hash.Add(shape);
  for (const Node& node : graph.nodes) hash.Add(static_cast<uint64_t>(node.op));
  for (const Tensor& tensor : graph.tensors) {
    if (!tensor.is_constant) continue;
    hash.Add(static_cast<uint64_t>(tensor.data.rows));
    hash.Add(static_cast<uint64_t>(tensor.data.cols));
    hash.Add(tensor.data.stored_values);
    hash.Add(tensor.data.stored_bytes);
  }
  return hash.value();
}

void TuningReader::Open(Span<uint8_t> blob, uint64_t fingerprint, size_t nodes) {
  entries_ = {};
  if (blob.size < kHeaderBytes || memcmp(blob.data, kMagic, kMagicBytes) != 0) return;
  const uint8_t* data = blob.data;
  if (Load<uint32_t>(data + kMagicBytes) != kVersion ||
      Load<uint32_t>(data + kMagicBytes + 4) !=
          Crc32(data + kCheckedFrom, blob.size - kCheckedFrom) ||
      Load<uint64_t>(data + kCheckedFrom) != fingerprint) {
    return;
  }
  const uint32_t entries = Load<uint32_t>(data + kCheckedFrom + 8);
  size_t at = kHeaderBytes;
  uint64_t next_node = 0;
  for (uint32_t i = 0; i < entries; ++i) {
    if (blob.size - at < kEntryBytes) return;
    const uint32_t node = Load<uint32_t>(data + at);
    const uint32_t records = Load<uint32_t>(data + at + 4);
    at += kEntryBytes;
    if (node < next_node || node >= nodes || records > kMaxCandidates ||
        blob.size - at < records * kRecordBytes) {
      return;
    }
    next_node = uint64_t{node} + 1;
    for (uint32_t r = 0; r < records; ++r, at += kRecordBytes) {
      const double ns = MeasuredNs(data + at);
      if (!std::isfinite(ns) || ns <= 0.0) return;
    }
  }
  if (at == blob.size) entries_ = {data + kHeaderBytes, blob.size - kHeaderBytes};
}

bool TuningReader::Apply(uint32_t node, Candidate* list, int count, int* chosen) const {
  for (size_t at = 0; at < entries_.size;) {
    const uint32_t entry = Load<uint32_t>(entries_.data + at);
    const uint32_t records = Load<uint32_t>(entries_.data + at + 4);
    const uint8_t* record = entries_.data + at + kEntryBytes;
    at += kEntryBytes + records * kRecordBytes;
    if (entry != node) continue;
    int place[kMaxCandidates];
    for (uint32_t r = 0; r < records; ++r) {
      place[r] = 0;
      while (place[r] < count && !Matches(record + r * kRecordBytes, list[place[r]])) ++place[r];
      if (place[r] == count) return false;
    }
    for (uint32_t r = 0; r < records; ++r) {
      list[place[r]].measured_ns = MeasuredNs(record + r * kRecordBytes);
    }
    *chosen = records == 0 ? 0 : place[0];
    return true;
  }
  return false;
}

size_t WriteTuning(const Plan& plan, void* buffer, size_t size) {
  Sink sink(buffer, size);
  sink.Bytes(kMagic, kMagicBytes);
  sink.Put<uint32_t>(kVersion);
  sink.Put<uint32_t>(0);  // checksum
  sink.Put<uint64_t>(plan.tuning_fingerprint);
  sink.Put<uint32_t>(0);  // entries
  uint32_t entries = 0;
  bool any = false;
  for (size_t n = 0; n < plan.nodes.size(); ++n) {
    const Span<Candidate> list = plan.CandidatesOf(n);
    if (list.empty()) continue;
    uint32_t records = 0;
    for (const Candidate& c : list) records += c.measured_ns > 0.0;
    ++entries;
    any |= records != 0;
    sink.Put<uint32_t>(static_cast<uint32_t>(n));
    sink.Put<uint32_t>(records);
    for (const Candidate& c : list) {
      if (c.measured_ns <= 0.0) continue;
      char name[kNameBytes] = "";
      strncpy(name, c.kernel, kNameBytes - 1);
      sink.Bytes(name, kNameBytes);
      sink.Put<int32_t>(c.tiles);
      sink.Put<int32_t>(DepthOf(c));
      sink.Put<double>(c.measured_ns);
    }
  }
  if (!any) return 0;
  if (sink.used() <= size) {
    auto* bytes = static_cast<uint8_t*>(buffer);
    memcpy(bytes + kCheckedFrom + 8, &entries, sizeof(entries));
    const uint32_t crc = Crc32(bytes + kCheckedFrom, sink.used() - kCheckedFrom);
    memcpy(bytes + kMagicBytes + 4, &crc, sizeof(crc));
  }
  return sink.used();
}

}  // namespace sparsert
