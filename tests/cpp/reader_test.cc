// Tests the .sprt reader, and is the driver of its Python tests: reads, dumps, mutates and times.
//
//   reader_test                      checks itself on a small file made in memory
//   reader_test read FILE...         one line per file: "ok" or "error <code> <text>"
//   reader_test dump FILE            one line per constant: name, non-zeros, checksums; of a file
//                                    with levels for each of them, the last one first
//   reader_test fuzz COUNT SEED FILE...   mutated files with the checksum put right; must not crash
//   reader_test time FILE            milliseconds of reading and of decoding
//   reader_test rules                the opset's rules, to compare with the Python ones
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "formats/decode.h"
#include "modelfile/crc32.h"
#include "modelfile/levels.h"
#include "modelfile/op_rules.h"
#include "modelfile/reader.h"
#include "modelfile/records.h"

namespace sparsert {
namespace {

constexpr size_t kMaxAllocation = size_t{1} << 31;

void* Allocate(void*, size_t bytes, size_t alignment) {
  if (bytes > kMaxAllocation) return nullptr;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void Release(void*, void* memory, size_t) { free(memory); }

constexpr Allocator kAllocator = {Allocate, Release, nullptr};

// A copy of bytes that ends where its allocation ends, so that a read past it is noticed.
struct Bytes {
  explicit Bytes(size_t n) : size(n) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, n == 0 ? 1 : n) != 0) abort();
    data = static_cast<uint8_t*>(memory);
  }
  ~Bytes() { free(data); }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  uint8_t* data;
  size_t size;
};

Bytes* Load(const char* path) {
  FILE* file = fopen(path, "rb");
  if (file == nullptr) {
    fprintf(stderr, "cannot open %s\n", path);
    exit(2);
  }
  fseek(file, 0, SEEK_END);
  Bytes* bytes = new Bytes(static_cast<size_t>(ftell(file)));
  fseek(file, 0, SEEK_SET);
  if (fread(bytes->data, 1, bytes->size, file) != bytes->size) exit(2);
  fclose(file);
  return bytes;
}

uint32_t Checksum(const Array<float>& values) { return Crc32(values.data(), values.size() * 4); }

uint64_t g_touched = 0;  // keeps reads from being dropped

// Checks that CSR and dense agree, then prints or (out == nullptr) drops the checksums.
bool DecodeConstant(const Tensor& tensor, FILE* out) {
  const EncodedTensor& data = tensor.data;
  if (tensor.dtype != DType::kF32) {
    const size_t bytes = static_cast<size_t>(data.stored_bytes);
    const uint32_t crc = Crc32(data.values, bytes);
    if (out != nullptr) {
      fprintf(out, "%.*s - %08x\n", SRT_STR(tensor.name), crc);
    }
    return true;
  }
  if (static_cast<uint64_t>(data.rows) * static_cast<uint64_t>(data.cols) > (1u << 28)) return true;
  Array<float> dense(&kAllocator);
  uint64_t nnz = 0;
  if (!dense.resize(static_cast<size_t>(data.rows * data.cols)).ok()) return true;
  if (!DecodeDense(data, dense.data()).ok() || !CountNonZeros(data, &nnz).ok()) return false;
  if (out != nullptr) {
    fprintf(out, "%.*s %llu %08x\n", SRT_STR(tensor.name), static_cast<unsigned long long>(nnz),
            Checksum(dense));
  }
  Csr csr(&kAllocator);
  const Status status = DecodeCsr(data, &csr);
  if (dense.empty()) return true;
  // Scales may make products 0 that are too small.
  if (data.row_scale != nullptr && csr.nnz() < nnz) nnz = csr.nnz();
  if (!status.ok() || csr.nnz() != nnz || csr.row_ptr.back() != nnz) return false;
  size_t at = 0;
  for (size_t row = 0; row < static_cast<size_t>(csr.rows); ++row) {
    for (size_t col = 0; col < static_cast<size_t>(csr.cols); ++col) {
      const float value = dense[row * static_cast<size_t>(csr.cols) + col];
      if (!(value != 0.0f)) continue;
      if (at >= csr.row_ptr[row + 1] || csr.col_idx[at] != col) return false;
      if (memcmp(&csr.values[at], &value, sizeof(value)) != 0) return false;
      ++at;
    }
    if (at != csr.row_ptr[row + 1]) return false;
  }
  return at == nnz;
}

bool DecodeAll(const Graph& graph, FILE* out) {
  for (const Tensor& tensor : graph.tensors) {
    if (!tensor.is_constant) continue;
    if (DecodeConstant(tensor, out)) continue;
    fprintf(stderr, "constant %.*s decodes wrongly\n", SRT_STR(tensor.name));
    return false;
  }
  return true;
}

// The constants as every level has them.
bool DecodeLevels(const Graph& graph, FILE* out) {
  for (size_t level = graph.levels.size(); level-- > 0;) {
    Graph made(&kAllocator);
    Array<uint8_t> keeps(&kAllocator);
    if (!MakeLevelGraph(graph, level, &keeps, &made).ok() || !DecodeAll(made, out)) return false;
    g_touched += LevelBytes(graph, level);
  }
  return graph.levels.size() != 0 || DecodeAll(graph, out);
}

// Reads everything that a graph refers to.
uint64_t Touch(const Graph& graph) {
  uint64_t sum = graph.metadata.size;
  for (const Tensor& tensor : graph.tensors) {
    for (size_t i = 0; i < tensor.name.size; ++i) sum += static_cast<uint8_t>(tensor.name.data[i]);
    if (tensor.rank == kUnknownRank) continue;
    for (int i = 0; i < tensor.rank; ++i) sum += static_cast<uint64_t>(tensor.dims[i]);
  }
  for (const Node& node : graph.nodes) {
    for (uint32_t index : node.inputs) sum += index == kNoTensor ? 0 : graph.tensors[index].rank;
    for (uint32_t index : node.outputs) sum += graph.tensors[index].rank;
    for (const Attr& attr : node.attrs) {
      for (int64_t value : attr.ints) sum += static_cast<uint64_t>(value);
    }
  }
  for (size_t i = 0; i < graph.metadata.size; ++i) {
    sum += static_cast<uint8_t>(graph.metadata.data[i]);
  }
  return sum;
}

uint64_t g_random = 1;

uint64_t Random(uint64_t limit) {
  g_random ^= g_random << 13;
  g_random ^= g_random >> 7;
  g_random ^= g_random << 17;
  return limit == 0 ? 0 : (g_random >> 11) % limit;
}

void MutateOnce(uint8_t* bytes, size_t size) {
  if (size < 64) return;
  // Most of a file is weights: aim at header and tables as often.
  size_t tables = size;
  if (size >= 256) {
    uint64_t data_offset;
    memcpy(&data_offset, bytes + 32 + 16 * 10, sizeof(data_offset));
    if (data_offset < size) tables = static_cast<size_t>(data_offset);
  }
  const size_t range = Random(4) != 0 ? tables : size;
  const size_t at = Random(range);
  switch (Random(6)) {
    case 0:
      bytes[at] ^= static_cast<uint8_t>(1u << Random(8));
      break;
    case 1:
      bytes[at] = static_cast<uint8_t>(Random(256));
      break;
    case 2:
    case 3: {  // a field becomes an extreme or a neighbour of itself
      static const uint64_t kExtremes[] = {0,
                                           1,
                                           0xff,
                                           0xffff,
                                           0x7fffffff,
                                           0xffffffff,
                                           0x7fffffffffffffff,
                                           0xffffffffffffffff,
                                           0x8000000000000000,
                                           uint64_t{1} << 40};
      const size_t width = size_t{1} << Random(4);
      const size_t aligned = at / width * width;
      if (aligned + width > size) return;
      uint64_t value = 0;
      memcpy(&value, bytes + aligned, width);
      value = Random(2) != 0 ? kExtremes[Random(10)] : value + Random(17) - 8;
      memcpy(bytes + aligned, &value, width);
      break;
    }
    case 4: {  // swaps two fields
      const size_t a = at / 8 * 8;
      const size_t b = Random(range) / 8 * 8;
      if (a + 8 > size || b + 8 > size) return;
      uint64_t first;
      uint64_t second;
      memcpy(&first, bytes + a, 8);
      memcpy(&second, bytes + b, 8);
      memcpy(bytes + a, &second, 8);
      memcpy(bytes + b, &first, 8);
      break;
    }
    default: {  // copies a run
      const size_t from = Random(range);
      const size_t room = size - (at > from ? at : from);
      memmove(bytes + at, bytes + from, Random(room < 64 ? room : 64));
      break;
    }
  }
}

// Reads and decodes `count` mutants. Returns how many were accepted, -1 when one decoded wrongly.
long FuzzBytes(const Bytes* base, long count) {
  long accepted = 0;
  for (long i = 0; i < count; ++i) {
    size_t size = base->size;
    const uint64_t kind = Random(8);
    if (kind == 0) size = Random(size);
    Bytes mutated(size);
    memcpy(mutated.data, base->data, size);
    if (size >= 32) {
      const uint64_t edits = 1 + Random(3);
      for (uint64_t e = 0; e < edits; ++e) MutateOnce(mutated.data, size);
      if (Random(8) != 0) memcpy(mutated.data, base->data, 16);
      if (Random(8) != 0) memcpy(mutated.data + 16, &size, 8);
      if (Random(64) != 0) memset(mutated.data + 28, 0, 4);
      const uint32_t crc = Crc32(mutated.data + 32, size - 32);
      memcpy(mutated.data + 24, &crc, 4);
    }
    Graph graph(&kAllocator);
    const Status status = ReadModel(mutated.data, size, &kAllocator, &graph);
    if (!status.ok()) {
      if (status.text()[0] == '\0') return -1;
      continue;
    }
    ++accepted;
    g_touched += Touch(graph);
    if (!DecodeLevels(graph, nullptr)) return -1;
  }
  return accepted;
}

int Fuzz(long count, uint64_t seed, int n_files, char** paths) {
  g_random = seed * 2 + 1;
  for (int f = 0; f < n_files; ++f) {
    const Bytes* base = Load(paths[f]);
    const long accepted = FuzzBytes(base, count);
    delete base;
    if (accepted < 0) return 1;
    printf("%ld of %ld mutants accepted\n", accepted, count);
  }
  return 0;
}

int ReadFiles(int n_files, char** paths) {
  for (int f = 0; f < n_files; ++f) {
    const Bytes* bytes = Load(paths[f]);
    Graph graph(&kAllocator);
    const Status status = ReadModel(bytes->data, bytes->size, &kAllocator, &graph);
    if (status.ok()) {
      printf("ok\n");
    } else {
      printf("error %d %s\n", static_cast<int>(status.code()), status.text());
    }
    delete bytes;
  }
  return 0;
}

int Dump(const char* path) {
  const Bytes* bytes = Load(path);
  Graph graph(&kAllocator);
  const Status status = ReadModel(bytes->data, bytes->size, &kAllocator, &graph);
  if (!status.ok()) fprintf(stderr, "%s\n", status.text());
  const bool right = status.ok() && DecodeLevels(graph, stdout);
  delete bytes;
  return right ? 0 : 1;
}

double Milliseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

int Time(const char* path) {
  const Bytes* bytes = Load(path);
  for (int run = 0; run < 5; ++run) {
    Graph graph(&kAllocator);
    const double start = Milliseconds();
    const uint32_t crc = Crc32(bytes->data + 32, bytes->size - 32);
    const double crc_done = Milliseconds();
    const Status status = ReadModel(bytes->data, bytes->size, &kAllocator, &graph);
    const double read_done = Milliseconds();
    if (!status.ok()) return 1;
    double dense_time = 0;
    double csr_time = 0;
    for (const Tensor& tensor : graph.tensors) {
      if (!tensor.is_constant || tensor.dtype != DType::kF32) continue;
      Array<float> dense(&kAllocator);
      if (!dense.resize(static_cast<size_t>(tensor.data.rows * tensor.data.cols)).ok()) return 1;
      Csr csr(&kAllocator);
      const double begin = Milliseconds();
      if (!DecodeDense(tensor.data, dense.data()).ok()) return 1;
      const double middle = Milliseconds();
      if (!DecodeCsr(tensor.data, &csr).ok()) return 1;
      dense_time += middle - begin;
      csr_time += Milliseconds() - middle;
    }
    printf("%.1f MB (crc %08x): crc %.2f ms, read with crc %.2f ms, dense %.1f ms, csr %.1f ms\n",
           static_cast<double>(bytes->size) / 1e6, crc, crc_done - start, read_done - crc_done,
           dense_time, csr_time);
  }
  delete bytes;
  return 0;
}

void Expect(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "failed: %s\n", what);
  exit(1);
}

uint32_t SlowCrc32(const uint8_t* bytes, size_t size) {
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; ++i) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
  }
  return ~crc;
}

// A file with one input [N, 2] that is also its output.
void FillSmallFile(Bytes* file) {
  memset(file->data, 0, file->size);
  Header header = {};
  memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version_major = kVersionMajor;
  header.header_bytes = kHeaderBytes;
  header.file_bytes = file->size;
  uint64_t sizes[kSectionCount] = {};
  sizes[static_cast<size_t>(Section::kTensors)] = sizeof(TensorRecord);
  sizes[static_cast<size_t>(Section::kDims)] = 16;
  sizes[static_cast<size_t>(Section::kSymbols)] = sizeof(SymbolRecord);
  sizes[static_cast<size_t>(Section::kGraphIo)] = 16;
  sizes[static_cast<size_t>(Section::kStrings)] = 2;
  uint64_t offset = kHeaderBytes;
  for (size_t s = 0; s < kSectionCount; ++s) {
    header.sections[s] = {offset, sizes[s]};
    offset = (offset + sizes[s] + 63) / 64 * 64;
  }
  TensorRecord tensor = {};
  tensor.name_len = 1;
  tensor.dtype = static_cast<uint8_t>(DType::kF32);
  tensor.rank = 2;
  tensor.quant = kNoTensor;
  const int64_t dims[2] = {-1, 2};
  const SymbolRecord symbol = {1, 1};
  const uint32_t graph_io[4] = {1, 1, 0, 0};
  const auto put = [&](Section section, const void* bytes, size_t size) {
    memcpy(file->data + header.sections[static_cast<size_t>(section)].offset, bytes, size);
  };
  put(Section::kTensors, &tensor, sizeof(tensor));
  put(Section::kDims, dims, sizeof(dims));
  put(Section::kSymbols, &symbol, sizeof(symbol));
  put(Section::kGraphIo, graph_io, sizeof(graph_io));
  put(Section::kStrings, "xN", 2);
  memcpy(file->data, &header, sizeof(header));
  header.crc32 = Crc32(file->data + kCrcStart, file->size - kCrcStart);
  memcpy(file->data, &header, sizeof(header));
}

int SelfTest() {
  Expect(Crc32("123456789", 9) == 0xcbf43926u, "CRC-32 of 123456789");
  Bytes noise(5000);
  for (size_t i = 0; i < noise.size; ++i) noise.data[i] = static_cast<uint8_t>(Random(256));
  for (size_t size = 0; size <= noise.size; size += 1 + size / 16) {
    Expect(Crc32(noise.data, size) == SlowCrc32(noise.data, size), "CRC-32 of noise");
  }
  Bytes file(576);
  FillSmallFile(&file);
  Graph graph(&kAllocator);
  const Status status = ReadModel(file.data, file.size, &kAllocator, &graph);
  Expect(status.ok(), status.text());
  Expect(graph.inputs.size == 1 && graph.tensors[0].dims[0] == -1, "the small file's input");
  Expect(graph.symbols[0] == StrView{"N", 1}, "the small file's symbol");
  Expect(FuzzBytes(&file, 20000) >= 0, "mutants of the small file");
  for (size_t size = 0; size < file.size; ++size) {
    Bytes cut(size);
    memcpy(cut.data, file.data, size);
    Graph none(&kAllocator);
    const Status truncated = ReadModel(cut.data, size, &kAllocator, &none);
    Expect(truncated.code() == StatusCode::kModelFormat, "a truncated file");
  }
  Graph none(&kAllocator);
  Expect(ReadModel(file.data + 8, 64, &kAllocator, &none).code() == StatusCode::kInvalidArgument,
         "unaligned bytes");
  printf("ok\n");
  return 0;
}

void PrintRules() {
  for (uint16_t number = 0; number < 1000; ++number) {
    const Op op = static_cast<Op>(number);
    const OpRule* rule = FindOpRule(op);
    if ((rule == nullptr) != (OpName(op) == nullptr)) abort();
    if (rule == nullptr) continue;
    printf("op %u %s %u %u %u %u %u %llu %llu\n", unsigned{number}, OpName(op), rule->min_inputs,
           rule->max_inputs, rule->min_outputs, rule->max_outputs, rule->constants,
           static_cast<unsigned long long>(rule->attrs),
           static_cast<unsigned long long>(rule->required));
  }
  for (uint16_t key = 0; key < 1000; ++key) {
    const char* name = AttrName(static_cast<AttrKey>(key));
    if (name == nullptr) continue;
    printf("attr %u %s %u\n", unsigned{key}, name, AttrTypes(static_cast<AttrKey>(key)));
  }
  printf("fn %d %d %d\n", static_cast<int>(kUnaryFns), static_cast<int>(BinaryFn::kCount),
         static_cast<int>(ReduceFn::kCount));
}

}  // namespace
}  // namespace sparsert

int main(int argc, char** argv) {
  using namespace sparsert;
  if (argc == 1) return SelfTest();
  const char* mode = argv[1];
  if (strcmp(mode, "read") == 0) return ReadFiles(argc - 2, argv + 2);
  if (strcmp(mode, "dump") == 0 && argc == 3) return Dump(argv[2]);
  if (strcmp(mode, "time") == 0 && argc == 3) return Time(argv[2]);
  if (strcmp(mode, "fuzz") == 0 && argc > 4) {
    return Fuzz(atol(argv[2]), strtoull(argv[3], nullptr, 10), argc - 4, argv + 4);
  }
  if (strcmp(mode, "rules") == 0) {
    PrintRules();
    return 0;
  }
  fprintf(stderr, "usage: reader_test read|dump|fuzz|time|rules ...\n");
  return 2;
}
