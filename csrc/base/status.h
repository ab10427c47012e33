// Error values of the core: a code and a text, passed by value; the core never throws.
#pragma once

#include <cstdarg>
#include <cstdio>

namespace sparsert {

enum class StatusCode : int {
  kOk = 0,
  kInvalidArgument = 1,  // a caller's argument: name, shape, dtype, option
  kModelFormat = 2,      // the bytes are not a valid .sprt file
  kShape = 3,            // shapes contradict each other
  kUnsupported = 4,      // valid, but not something this build or machine can run
  kOutOfMemory = 5,
  kInternal = 6,
};

class [[nodiscard]] Status {
 public:
  Status() { text_[0] = '\0'; }

  static Status Ok() { return Status(); }

#if defined(__GNUC__)
  __attribute__((format(printf, 2, 3)))
#endif
  static Status Error(StatusCode code, const char* format, ...) {
    Status status;
    status.code_ = code;
    va_list args;
    va_start(args, format);
    vsnprintf(status.text_, sizeof(status.text_), format, args);
    va_end(args);
    return status;
  }

  static Status OutOfMemory(const char* what, unsigned long long bytes) {
    return Error(StatusCode::kOutOfMemory, "out of memory: %s needs %llu bytes", what, bytes);
  }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const char* text() const { return text_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  char text_[500];
};

// Returns from the calling function when `expr` is not ok.
#define SRT_RETURN_IF_ERROR(expr)              \
  do {                                         \
    ::sparsert::Status srt_status_ = (expr);   \
    if (!srt_status_.ok()) return srt_status_; \
  } while (0)

}  // namespace sparsert
