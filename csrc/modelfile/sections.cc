// Checks header, checksum and section table of a .sprt file, in that order.
#include "modelfile/sections.h"

#include <cstring>

#include "base/platform.h"
#include "modelfile/crc32.h"

namespace sparsert {
namespace {

unsigned long long Ull(uint64_t n) { return static_cast<unsigned long long>(n); }

Status Wrong(const char* text) { return Status::Error(StatusCode::kModelFormat, "%s", text); }

bool StartsWith(const uint8_t* bytes, size_t size, const char* prefix, size_t length) {
  return size >= length && memcmp(bytes, prefix, length) == 0;
}

Status NotAModelFile(const uint8_t* bytes, size_t size) {
  if (size == 0) return Wrong("not a .sprt file: it is empty");
  if (size < sizeof(kMagic) && memcmp(bytes, kMagic, size) == 0) {
    return Status::Error(StatusCode::kModelFormat, "truncated: %zu bytes, not even a header", size);
  }
  if (StartsWith(bytes, size, "PK\x03\x04", 4)) {
    return Wrong("not a .sprt file: it looks like a zip archive");
  }
  if (StartsWith(bytes, size, "\x1f\x8b", 2)) {
    return Wrong("not a .sprt file: it looks like a gzip file");
  }
  // An ONNX model is a protobuf whose first field is nearly always ir_version, a small number.
  if (size >= 2 && bytes[0] == 0x08 && bytes[1] > 0 && bytes[1] < 32) {
    return Wrong(
        "not a .sprt file: it looks like an ONNX model (sparsert convert makes a .sprt of it)");
  }
  return Wrong("not a .sprt file: wrong magic bytes at its start");
}

bool IsUtf8(const uint8_t* text, size_t size) {
  for (size_t i = 0; i < size;) {
    const uint8_t lead = text[i];
    if (lead == 0) return false;
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || size - i <= more) return false;
    for (size_t k = 1; k <= more; ++k) {
      if ((text[i + k] & 0xc0) != 0x80) return false;
    }
    const uint8_t second = text[i + 1];
    const bool overlong = (lead == 0xe0 && second < 0xa0) || (lead == 0xf0 && second < 0x90);
    const bool surrogate = lead == 0xed && second >= 0xa0;
    const bool too_large = lead == 0xf4 && second >= 0x90;
    if (overlong || surrogate || too_large) return false;
    i += more + 1;
  }
  return true;
}

uint32_t Checksum(const uint8_t* bytes, size_t size, bool is_mapped) {
  constexpr size_t kChunk = size_t{4} << 20;  // whole pages
  uint32_t crc = 0;
  for (size_t chunk = 0; chunk < size; chunk += kChunk) {
    const size_t begin = chunk == 0 ? kCrcStart : chunk;
    const size_t end = size - chunk < kChunk ? size : chunk + kChunk;
    crc = Crc32(bytes + begin, end - begin, crc);
    if (is_mapped) ForgetPages(bytes + chunk, end - chunk);
  }
  return crc;
}

Status CheckHeader(const uint8_t* bytes, size_t size, bool is_mapped, Header* out) {
  if (!StartsWith(bytes, size, kMagic, sizeof(kMagic))) return NotAModelFile(bytes, size);
  if (size < kHeaderBytes) {
    return Status::Error(StatusCode::kModelFormat,
                         "truncated: expected at least %zu bytes, the file has %zu",
                         size_t{kHeaderBytes}, size);
  }
  Header header;
  memcpy(&header, bytes, sizeof(header));
  if (header.version_major != kVersionMajor) {
    return Status::Error(StatusCode::kModelFormat, "version %u.%u of the format, %s",
                         unsigned{header.version_major}, unsigned{header.version_minor},
                         header.version_major > kVersionMajor
                             ? "written by a newer sparsert: this one reads version 1, update it"
                             : "expected version 1");
  }
  if (header.header_bytes != kHeaderBytes || header.flags != 0) {
    return Wrong("the header is invalid (header_bytes at 12 or flags at 28)");
  }
  if (header.file_bytes != size) {
    return Status::Error(StatusCode::kModelFormat, "%s: expected %llu bytes, the file has %zu",
                         header.file_bytes > size ? "truncated" : "bytes past the end",
                         Ull(header.file_bytes), size);
  }
  const uint32_t crc = Checksum(bytes, size, is_mapped);
  if (crc != header.crc32) {
    return Status::Error(StatusCode::kModelFormat,
                         "checksum mismatch: the header says %08x, the bytes give %08x; the file "
                         "is corrupt",
                         header.crc32, crc);
  }
  if (header.version_minor == 0) {
    bool is_zero = (header.level_count | header.levels_first) == 0;
    for (uint8_t byte : header.reserved) is_zero &= byte == 0;
    if (!is_zero) return Wrong("reserved bytes 224 to 255 of the header are not zero");
  }
  *out = header;
  return Status::Ok();
}

}  // namespace

Status SplitFile(const uint8_t* bytes, size_t size, bool is_mapped, FileSections* file) {
  Header header;
  SRT_RETURN_IF_ERROR(CheckHeader(bytes, size, is_mapped, &header));
  memcpy(file->entries, header.sections, sizeof(file->entries));
  file->level_count = header.level_count;
  file->levels_first = header.levels_first;
  uint64_t end = kHeaderBytes;
  for (size_t s = 0; s < kSectionCount; ++s) {
    const uint64_t expected = AlignUp(end, kAlignment);
    const SectionEntry& section = file->entries[s];
    if (section.offset != expected || expected > size || section.bytes > size - expected) {
      return Status::Error(StatusCode::kModelFormat,
                           "section %s is at %llu with %llu bytes, expected at %llu and within the "
                           "file's %zu bytes",
                           kSectionNames[s], Ull(section.offset), Ull(section.bytes), Ull(expected),
                           size);
    }
    end = section.offset + section.bytes;
    if (section.bytes % kRecordBytes[s] != 0) {
      return Status::Error(
          StatusCode::kModelFormat, "section %s at %llu: %llu bytes are not whole records of %zu",
          kSectionNames[s], Ull(section.offset), Ull(section.bytes), kRecordBytes[s]);
    }
  }
  if (end != size) {
    return Status::Error(StatusCode::kModelFormat, "the last section ends at %llu, the file at %zu",
                         Ull(end), size);
  }
  const auto cut = [bytes, file](Section id, auto* span) {
    using Record = std::remove_cv_t<std::remove_pointer_t<decltype(span->data)>>;
    span->data = reinterpret_cast<const Record*>(bytes + file->entry(id).offset);
    span->size = static_cast<size_t>(file->entry(id).bytes / sizeof(Record));
  };
  cut(Section::kTensors, &file->tensors);
  cut(Section::kNodes, &file->nodes);
  cut(Section::kNodeIo, &file->node_io);
  cut(Section::kAttrs, &file->attrs);
  cut(Section::kInts, &file->ints);
  cut(Section::kDims, &file->dims);
  cut(Section::kSymbols, &file->symbols);
  cut(Section::kGraphIo, &file->graph_io);
  cut(Section::kStrings, &file->strings);
  cut(Section::kData, &file->data);
  const SectionEntry& metadata = file->entry(Section::kMetadata);
  file->metadata = {reinterpret_cast<const char*>(bytes + metadata.offset),
                    static_cast<size_t>(metadata.bytes)};
  if (!IsUtf8(file->strings.data, file->strings.size)) {
    return Wrong("section strings is not valid UTF-8 without zero bytes");
  }
  return Status::Ok();
}

}  // namespace sparsert
