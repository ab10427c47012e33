// Checks the records of a .sprt file and fills a Graph. Header, checksum and sections come before
// (sections.h), the streams of weights after (formats/validate.h).
#include "modelfile/reader.h"

#include <cstring>

#include "base/platform.h"
#include "formats/validate.h"
#include "modelfile/levels.h"
#include "modelfile/op_rules.h"
#include "modelfile/problems.h"
#include "modelfile/sections.h"

namespace sparsert {
namespace {

bool IsSparseBytes(const Tensor& tensor) {
  return tensor.is_constant && tensor.dtype == DType::kI8 &&
         tensor.data.encoding != Encoding::kDense;
}

constexpr uint64_t kMaxElements = uint64_t{1} << 40;
constexpr size_t kMaxShownName = 60;

unsigned long long Ull(uint64_t n) { return static_cast<unsigned long long>(n); }

Status Wrong(const char* text) { return Status::Error(StatusCode::kModelFormat, "%s", text); }

class Reader {
 public:
  Reader(const uint8_t* bytes, size_t size, bool is_mapped, const Allocator* allocator,
         Graph* graph)
      : bytes_(bytes), size_(size), is_mapped_(is_mapped), allocator_(allocator), graph_(graph) {}

  Status Read() {
    SRT_RETURN_IF_ERROR(SplitFile(bytes_, size_, is_mapped_, &file_));
    SRT_RETURN_IF_ERROR(ReadSymbols());
    SRT_RETURN_IF_ERROR(ReadTensors());
    SRT_RETURN_IF_ERROR(problems_.ToStatus());
    SRT_RETURN_IF_ERROR(ReadGraphIo());
    SRT_RETURN_IF_ERROR(problems_.ToStatus());
    SRT_RETURN_IF_ERROR(ReadNodes());
    SRT_RETURN_IF_ERROR(problems_.ToStatus());
    if (file_.level_count != 0) {
      SRT_RETURN_IF_ERROR(ReadLevels(file_.levels_first, file_.level_count, graph_, &problems_));
      SRT_RETURN_IF_ERROR(problems_.ToStatus());
    }
    graph_->metadata = file_.metadata;
    if (is_mapped_) ForgetPages(bytes_, size_);
    return Status::Ok();
  }

 private:
  template <typename T>
  unsigned long long RecordOffset(Section section, size_t index) const {
    return Ull(file_.entry(section).offset + index * sizeof(T));
  }

  Status ReadSymbols();
  Status ReadTensors();
  Status ReadGraphIo();
  Status ReadNodes();
  bool ReadString(uint32_t offset, uint32_t length, StrView* out) const;
  bool ReadDims(const TensorRecord& record, const char* where, Tensor* tensor);
  void ReadConstant(const TensorRecord& record, const char* where, Tensor* tensor);
  bool SplitConstant(const TensorRecord& record, EncodedTensor* data, uint64_t* needed) const;
  void ReadAttrs(const NodeRecord& record, const OpRule& rule, const char* where);
  bool ReadAttr(const AttrRecord& record, const OpRule& rule, const char* where, Attr* attr);
  void CheckNodeIo(const Node& node, const OpRule& rule, const char* where, uint8_t* ready);
  Status CheckNames(Span<uint32_t> io, const char* kind);

  const uint8_t* bytes_;
  size_t size_;
  bool is_mapped_;
  const Allocator* allocator_;
  Graph* graph_;
  Problems problems_;
  FileSections file_;
  uint64_t data_end_ = 0;  // end of the last constant's bytes in section data
};

// The whole section is valid UTF-8, so a name is too when it does not start or end inside a
// character.
bool Reader::ReadString(uint32_t offset, uint32_t length, StrView* out) const {
  if (offset > file_.strings.size || length > file_.strings.size - offset) return false;
  const size_t end = size_t{offset} + length;
  const auto inside = [this](size_t i) {
    return i < file_.strings.size && (file_.strings.data[i] & 0xc0) == 0x80;
  };
  if (inside(offset) || inside(end)) return false;
  *out = {reinterpret_cast<const char*>(file_.strings.data) + offset, length};
  return true;
}

Status Reader::ReadSymbols() {
  SRT_RETURN_IF_ERROR(graph_->symbols.resize(file_.symbols.size));
  for (size_t i = 0; i < file_.symbols.size; ++i) {
    const SymbolRecord& record = file_.symbols[i];
    if (!ReadString(record.str_off, record.str_len, &graph_->symbols[i])) {
      problems_.Add("symbol %zu at %llu: its name is outside the strings", i,
                    RecordOffset<SymbolRecord>(Section::kSymbols, i));
    }
  }
  return Status::Ok();
}

Status Reader::ReadTensors() {
  if (file_.tensors.size >= kNoTensor) return Wrong("too many tensors");
  SRT_RETURN_IF_ERROR(graph_->tensors.resize(file_.tensors.size));
  for (size_t i = 0; i < file_.tensors.size; ++i) {
    const TensorRecord& record = file_.tensors[i];
    Tensor tensor;
    const bool named = ReadString(record.name_off, record.name_len, &tensor.name);
    char where[160];
    snprintf(where, sizeof(where), "tensor %zu '%.*s' at %llu", i,
             static_cast<int>(tensor.name.size < kMaxShownName ? tensor.name.size : kMaxShownName),
             tensor.name.data, RecordOffset<TensorRecord>(Section::kTensors, i));
    if (!named) problems_.Add("%s: its name is outside the strings", where);
    tensor.dtype = static_cast<DType>(record.dtype);
    tensor.is_constant = record.kind == 1;
    if (record.kind > 1 || record.reserved != 0 || record.reserved2 != 0 ||
        record.quant != kNoTensor) {
      problems_.Add("%s: an invalid kind or reserved field", where);
    } else if (record.dtype != 0 && DTypeSize(tensor.dtype) == 0) {
      problems_.Add("%s: unknown dtype %u", where, unsigned{record.dtype});
    } else if (ReadDims(record, where, &tensor)) {
      if (tensor.is_constant) {
        ReadConstant(record, where, &tensor);
      } else if ((record.data_offset | record.data_bytes | record.nnz | record.index_bytes) != 0 ||
                 (record.encoding | record.block_rows | record.block_cols | record.value_dtype |
                  record.index_kind) != 0) {
        problems_.Add("%s: an activation has data", where);
      }
    }
    graph_->tensors[i] = tensor;
  }
  const uint64_t data_bytes = file_.data.size;
  if (!problems_.any() && data_end_ != data_bytes) {
    problems_.Add("constants use %llu bytes of the %llu in section data", Ull(data_end_),
                  Ull(data_bytes));
  }
  return Status::Ok();
}

bool Reader::ReadDims(const TensorRecord& record, const char* where, Tensor* tensor) {
  tensor->rank = record.rank;
  if (record.rank == kUnknownRank && record.kind == 0) {
    tensor->dims = file_.dims.data;
    return true;
  }
  if (record.rank > kMaxRank || record.dims_first > file_.dims.size ||
      record.rank > file_.dims.size - record.dims_first) {
    problems_.Add("%s: rank %u with dims from %u of %zu", where, unsigned{record.rank},
                  record.dims_first, file_.dims.size);
    return false;
  }
  tensor->dims = file_.dims.data + record.dims_first;
  uint64_t elems = 1;
  for (uint32_t i = 0; i < record.rank; ++i) {
    const int64_t dim = tensor->dims[i];
    if (dim < 0) {
      if (record.kind == 1 || static_cast<uint64_t>(-(dim + 1)) >= file_.symbols.size) {
        problems_.Add("%s: dim %u is %lld, not a size or one of %zu symbols", where, i,
                      static_cast<long long>(dim), file_.symbols.size);
        return false;
      }
      continue;
    }
    const uint64_t size = dim == 0 ? 1 : static_cast<uint64_t>(dim);
    if (size > kMaxElements / elems) {
      problems_.Add("%s: more than 2^40 elements", where);
      return false;
    }
    elems *= size;
  }
  return true;
}

// Sets the pointers of `data` relative to section data's start, and the size of the encoding, from
// fields that were checked to be small enough for 64-bit sums. False: a field contradicts.
bool Reader::SplitConstant(const TensorRecord& record, EncodedTensor* data,
                           uint64_t* needed) const {
  const uint64_t value_bytes = DTypeSize(data->value_dtype);
  const uint64_t elems = static_cast<uint64_t>(data->rows) * static_cast<uint64_t>(data->cols);
  const uint8_t* start = file_.data.data + record.data_offset;
  uint64_t values_at = 0;
  if (data->encoding == Encoding::kBlock) {
    const uint64_t block = uint64_t{data->block_rows} * data->block_cols;
    const bool known_block = (data->block_rows == 1 || data->block_cols == 1) && block >= 1 &&
                             block <= 16 && (block & (block - 1)) == 0;
    if (!known_block || record.index_kind > static_cast<uint8_t>(IndexKind::kU32)) return false;
    const uint64_t brows =
        (static_cast<uint64_t>(data->rows) + data->block_rows - 1) / data->block_rows;
    const uint64_t blocks = data->stored_values / block;
    if (blocks * block != data->stored_values || blocks >= kNoTensor) return false;
    const uint64_t index_at = AlignUp(4 * (brows + 1), 8);
    const uint64_t wide = data->index_kind == IndexKind::kU16 ? 2 : 4;
    if (data->index_kind != IndexKind::kDelta8 && data->index_bytes != blocks * wide) return false;
    values_at = index_at + AlignUp(data->index_bytes, 8);
    data->row_ptr = reinterpret_cast<const uint32_t*>(start);
    data->index = start + index_at;
  } else {
    if (data->block_rows != 1 || data->block_cols != 1 || record.index_kind != 0 ||
        record.index_bytes != 0) {
      return false;
    }
    if (data->encoding == Encoding::kBitmask) {
      values_at = AlignUp((elems + 7) / 8, 8);
      data->bits = start;
    } else if (data->stored_values != elems) {
      return false;
    }
  }
  data->values = start + values_at;
  *needed = values_at + data->stored_values * value_bytes;
  return true;
}

void Reader::ReadConstant(const TensorRecord& record, const char* where, Tensor* tensor) {
  EncodedTensor data;
  data.encoding = static_cast<Encoding>(record.encoding);
  data.value_dtype = static_cast<DType>(record.value_dtype);
  data.index_kind = static_cast<IndexKind>(record.index_kind);
  data.block_rows = record.block_rows;
  data.block_cols = record.block_cols;
  data.rows = tensor->rank >= 2 ? tensor->dims[0] : 1;
  data.cols = 1;
  for (int i = tensor->rank >= 2 ? 1 : 0; i < tensor->rank; ++i) data.cols *= tensor->dims[i];
  data.stored_values = record.nnz;
  data.stored_bytes = record.data_bytes;
  data.index_bytes = record.index_bytes;

  const bool is_f32 = tensor->dtype == DType::kF32;
  const bool narrow = is_f32 && data.value_dtype == DType::kF16;
  if (tensor->dtype == DType::kUndefined || (data.value_dtype != tensor->dtype && !narrow)) {
    problems_.Add("%s: dtype %u with values of dtype %u", where, unsigned{record.dtype},
                  unsigned{record.value_dtype});
    return;
  }
  const uint64_t section_bytes = file_.data.size;
  const uint64_t expected = AlignUp(data_end_, kAlignment);
  if (record.data_offset != expected || expected > section_bytes ||
      record.data_bytes > section_bytes - expected) {
    problems_.Add("%s: data at %llu with %llu bytes, expected at %llu and within %llu", where,
                  Ull(record.data_offset), Ull(record.data_bytes), Ull(expected),
                  Ull(section_bytes));
    return;
  }
  data_end_ = record.data_offset + record.data_bytes;
  const bool is_sparse = record.encoding != static_cast<uint8_t>(Encoding::kDense);
  if (record.encoding > static_cast<uint8_t>(Encoding::kBlock) ||
      (is_sparse && ((!is_f32 && tensor->dtype != DType::kI8) || tensor->rank < 2 ||
                     data.rows == 0 || data.cols == 0))) {
    problems_.Add("%s: encoding %u does not fit its dtype and shape", where,
                  unsigned{record.encoding});
    return;
  }
  // With these bounds no sum or product below exceeds 2^63.
  uint64_t needed = 0;
  if (record.nnz > kMaxElements * 16 || record.index_bytes > kMaxElements ||
      !SplitConstant(record, &data, &needed)) {
    problems_.Add("%s: stored values, blocks or index of encoding %u contradict each other", where,
                  unsigned{record.encoding});
    return;
  }
  if (needed != record.data_bytes) {
    problems_.Add("%s: %llu bytes of data, its shape and encoding need %llu", where,
                  Ull(record.data_bytes), Ull(needed));
    return;
  }
  if (tensor->dtype == DType::kBool) {
    for (uint64_t i = 0; i < needed; ++i) {
      if (data.values[i] > 1) {
        problems_.Add("%s: a bool is neither 0 nor 1", where);
        return;
      }
    }
  }
  const Status streams = ValidateStreams(data);
  if (!streams.ok()) {
    problems_.Add("%s: %s", where, streams.text());
    return;
  }
  tensor->data = data;
}

Status Reader::ReadGraphIo() {
  if (file_.graph_io.size < 2) return Wrong("section graph_io is too short");
  const uint64_t n_inputs = file_.graph_io[0];
  const uint64_t n_outputs = file_.graph_io[1];
  if (2 + n_inputs + n_outputs != file_.graph_io.size) {
    return Status::Error(StatusCode::kModelFormat,
                         "section graph_io holds %zu numbers, its counts need %llu",
                         file_.graph_io.size, Ull(2 + n_inputs + n_outputs));
  }
  if (n_outputs == 0) return Wrong("the graph has no outputs");
  for (size_t i = 2; i < file_.graph_io.size; ++i) {
    if (file_.graph_io[i] >= file_.tensors.size) {
      problems_.Add("graph_io names tensor %u of %zu", file_.graph_io[i], file_.tensors.size);
    }
  }
  SRT_RETURN_IF_ERROR(problems_.ToStatus());
  graph_->inputs = {file_.graph_io.data + 2, static_cast<size_t>(n_inputs)};
  graph_->outputs = {file_.graph_io.data + 2 + n_inputs, static_cast<size_t>(n_outputs)};
  for (uint32_t index : graph_->inputs) {
    const Tensor& tensor = graph_->tensors[index];
    if (tensor.is_constant || tensor.dtype == DType::kUndefined) {
      problems_.Add("input %u of the graph needs a dtype and no values", index);
    }
  }
  SRT_RETURN_IF_ERROR(CheckNames(graph_->inputs, "input"));
  return CheckNames(graph_->outputs, "output");
}

// Names must be there and differ: a set with open addressing keeps this linear.
Status Reader::CheckNames(Span<uint32_t> io, const char* kind) {
  size_t slots = 16;
  while (slots < 2 * io.size) slots *= 2;
  Array<uint32_t> table(allocator_);  // tensor index + 1, 0 = free
  SRT_RETURN_IF_ERROR(table.resize(slots));
  for (uint32_t index : io) {
    const StrView& name = graph_->tensors[index].name;
    if (name.size == 0) {
      problems_.Add("an %s of the graph (tensor %u) has no name", kind, index);
      continue;
    }
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < name.size && i < 4096; ++i) {
      hash = (hash ^ static_cast<uint8_t>(name.data[i])) * 16777619u;
    }
    size_t slot = hash & (slots - 1);
    while (table[slot] != 0 && !(graph_->tensors[table[slot] - 1].name == name)) {
      slot = (slot + 1) & (slots - 1);
    }
    if (table[slot] != 0) {
      problems_.Add("two %ss of the graph are named '%.*s'", kind,
                    static_cast<int>(name.size < kMaxShownName ? name.size : kMaxShownName),
                    name.data);
      return Status::Ok();
    }
    table[slot] = index + 1;
  }
  return Status::Ok();
}

Status Reader::ReadNodes() {
  SRT_RETURN_IF_ERROR(graph_->nodes.reserve(file_.nodes.size));
  SRT_RETURN_IF_ERROR(graph_->attrs.reserve(file_.attrs.size));  // spans into it must not move
  Array<uint8_t> ready(allocator_);
  SRT_RETURN_IF_ERROR(ready.resize(file_.tensors.size));
  for (size_t i = 0; i < file_.tensors.size; ++i) ready[i] = graph_->tensors[i].is_constant;
  for (uint32_t index : graph_->inputs) ready[index] = 1;
  uint64_t io_used = 0;
  for (size_t i = 0; i < file_.nodes.size; ++i) {
    const NodeRecord& record = file_.nodes[i];
    Node node;
    node.op = static_cast<Op>(record.op);
    const bool named = ReadString(record.name_off, record.name_len, &node.name);
    const OpRule* rule = FindOpRule(node.op);
    char where[180];
    snprintf(where, sizeof(where), "node %zu '%.*s' (%s) at %llu", i,
             static_cast<int>(node.name.size < kMaxShownName ? node.name.size : kMaxShownName),
             node.name.data, rule != nullptr ? OpName(node.op) : "?",
             RecordOffset<NodeRecord>(Section::kNodes, i));
    if (!named) problems_.Add("%s: its name is outside the strings", where);
    if (rule == nullptr || record.op_version != 1) {
      problems_.Add("%s: unknown op %u version %u (written by a newer sparsert?)", where,
                    unsigned{record.op}, unsigned{record.op_version});
      return Status::Ok();
    }
    for (uint16_t reserved : record.reserved) {
      if (reserved != 0) problems_.Add("%s: a reserved field is not zero", where);
    }
    const uint64_t io_end = io_used + record.n_inputs + record.n_outputs;
    if (record.io_first != io_used || io_end > file_.node_io.size) {
      problems_.Add("%s: %u inputs and %u outputs from %u, expected from %llu of %zu", where,
                    unsigned{record.n_inputs}, unsigned{record.n_outputs}, record.io_first,
                    Ull(io_used), file_.node_io.size);
      return Status::Ok();
    }
    if (record.attrs_first != graph_->attrs.size() ||
        record.n_attrs > file_.attrs.size - graph_->attrs.size()) {
      problems_.Add("%s: %u attributes from %u, expected from %zu of %zu", where,
                    unsigned{record.n_attrs}, record.attrs_first, graph_->attrs.size(),
                    file_.attrs.size);
      return Status::Ok();
    }
    node.inputs = {file_.node_io.data + io_used, record.n_inputs};
    node.outputs = {file_.node_io.data + io_used + record.n_inputs, record.n_outputs};
    io_used = io_end;
    const bool was_valid = !problems_.any();
    CheckNodeIo(node, *rule, where, ready.data());
    const size_t attrs_first = graph_->attrs.size();
    SRT_RETURN_IF_ERROR(graph_->attrs.resize(attrs_first + record.n_attrs));
    ReadAttrs(record, *rule, where);
    node.attrs = {graph_->attrs.data() + attrs_first, record.n_attrs};
    if (was_valid && !problems_.any()) CheckGeometry(*graph_, node, where, &problems_);
    SRT_RETURN_IF_ERROR(graph_->nodes.push_back(node));
  }
  if (io_used != file_.node_io.size || graph_->attrs.size() != file_.attrs.size) {
    problems_.Add("section node_io or attrs holds entries of no node");
  }
  for (uint32_t index : graph_->outputs) {
    if (ready[index] == 0) {
      problems_.Add("output '%.*s' of the graph is never produced",
                    SRT_STR(graph_->tensors[index].name));
    }
  }
  return Status::Ok();
}

void Reader::CheckNodeIo(const Node& node, const OpRule& rule, const char* where, uint8_t* ready) {
  const size_t n_inputs = node.inputs.size;
  if (n_inputs < rule.min_inputs || n_inputs > rule.max_inputs ||
      node.outputs.size < rule.min_outputs || node.outputs.size > rule.max_outputs) {
    problems_.Add("%s: %zu inputs and %zu outputs, expected %u to %u and %u to %u", where, n_inputs,
                  node.outputs.size, rule.min_inputs, rule.max_inputs, rule.min_outputs,
                  rule.max_outputs);
  }
  const size_t required = rule.max_inputs == kVariadic ? n_inputs : rule.min_inputs;
  for (size_t i = 0; i < n_inputs; ++i) {
    const uint32_t index = node.inputs[i];
    if (index == kNoTensor && i >= required) continue;
    if (index >= file_.tensors.size) {
      problems_.Add("%s: input %zu is tensor %u of %zu", where, i, index, file_.tensors.size);
    } else if (ready[index] == 0) {
      problems_.Add("%s: input %zu (tensor %u) is not produced by an earlier node", where, i,
                    index);
    } else if (IsSparseBytes(graph_->tensors[index]) &&
               (i != 1 || (node.op != Op::kQConv && node.op != Op::kQDepthwise &&
                           node.op != Op::kQConvDynamic))) {
      problems_.Add("%s: input %zu is i8 and sparse, which only the weights of QConv may be", where,
                    i);
    } else if (i < 32 && (rule.constants >> i & 1) != 0 && !graph_->tensors[index].is_constant) {
      problems_.Add("%s: input %zu must be a constant", where, i);
    }
  }
  for (size_t i = 0; i < node.outputs.size; ++i) {
    const uint32_t index = node.outputs[i];
    if (index >= file_.tensors.size) {
      problems_.Add("%s: output %zu is tensor %u of %zu", where, i, index, file_.tensors.size);
    } else if (ready[index] != 0) {
      problems_.Add("%s: output %zu (tensor %u) is a constant, an input or produced twice", where,
                    i, index);
    } else {
      ready[index] = 1;
    }
  }
}

void Reader::ReadAttrs(const NodeRecord& record, const OpRule& rule, const char* where) {
  uint64_t seen = 0;
  for (size_t i = 0; i < record.n_attrs; ++i) {
    const size_t index = size_t{record.attrs_first} + i;
    Attr attr{};
    if (!ReadAttr(file_.attrs[index], rule, where, &attr)) continue;
    const uint64_t bit = uint64_t{1} << static_cast<uint32_t>(attr.key);
    if ((seen & bit) != 0) problems_.Add("%s: %s is there twice", where, AttrName(attr.key));
    seen |= bit;
    CheckAttrValue(rule.op, attr, where, &problems_);
    graph_->attrs[index] = attr;
  }
  for (int key = 1; key <= kMaxAttrKey; ++key) {
    if ((rule.required & ~seen) >> key & 1) {
      problems_.Add("%s: %s is missing", where, AttrName(static_cast<AttrKey>(key)));
    }
  }
}

bool Reader::ReadAttr(const AttrRecord& record, const OpRule& rule, const char* where, Attr* attr) {
  attr->key = static_cast<AttrKey>(record.key);
  attr->type = record.type;
  const bool allowed = record.key <= kMaxAttrKey && (rule.attrs >> record.key & 1) != 0;
  if (!allowed || record.type > 4 || (AttrTypes(attr->key) >> record.type & 1) == 0 ||
      record.reserved != 0) {
    const char* name = AttrName(attr->key);
    problems_.Add("%s: attribute %u (%s) of type %u is not one of its", where, unsigned{record.key},
                  name != nullptr ? name : "?", unsigned{record.type});
    return false;
  }
  switch (static_cast<AttrType>(record.type)) {
    case AttrType::kInt:
      memcpy(&attr->i, &record.payload, sizeof(attr->i));
      return true;
    case AttrType::kFloat: {
      const uint32_t bits = static_cast<uint32_t>(record.payload);
      memcpy(&attr->f, &bits, sizeof(attr->f));
      return true;
    }
    default:
      break;
  }
  // Ints: no key of version 1 has the type floats or string.
  if (record.count > kMaxAttrInts || record.payload > file_.ints.size ||
      record.count > file_.ints.size - record.payload) {
    problems_.Add("%s: %s has %u values from %llu of %zu", where, AttrName(attr->key), record.count,
                  Ull(record.payload), file_.ints.size);
    return false;
  }
  attr->ints = {file_.ints.data + record.payload, record.count};
  if (attr->key == AttrKey::k_perm && record.count > kMaxRank) {
    problems_.Add("%s: perm of more than %d axes", where, kMaxRank);
    return false;
  }
  return true;
}

}  // namespace

Status ReadModel(const void* bytes, size_t size, const Allocator* allocator, Graph* graph,
                 bool is_mapped) {
  if (reinterpret_cast<uintptr_t>(bytes) % kAlignment != 0) {
    return Status::Error(StatusCode::kInvalidArgument, "a model's bytes must be %zu-byte aligned",
                         size_t{kAlignment});
  }
  Reader reader(static_cast<const uint8_t*>(bytes), size, is_mapped, allocator, graph);
  return reader.Read();
}

}  // namespace sparsert
