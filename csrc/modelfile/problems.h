// Collects what is wrong with a file into one text.
#pragma once

#include <cstdarg>
#include <cstdio>

#include "base/status.h"

namespace sparsert {

// Keeps the first problems, as many as fit a Status, and counts the rest.
class Problems {
 public:
  static constexpr int kMaxListed = 8;

#if defined(__GNUC__)
  __attribute__((format(printf, 2, 3)))
#endif
  void Add(const char* format, ...) {
    if (++count_ > kMaxListed || full_) return;
    char problem[200];
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(problem, sizeof(problem), format, args);
    va_end(args);
    if (length < 0) return;
    const size_t room = sizeof(text_) - used_;
    const int written = snprintf(text_ + used_, room, "%s%s", listed_ == 0 ? "" : "; ", problem);
    if (written < 0 || static_cast<size_t>(written) >= room) {
      text_[used_] = '\0';
      full_ = true;
      return;
    }
    used_ += static_cast<size_t>(written);
    ++listed_;
  }

  bool any() const { return count_ != 0; }

  Status ToStatus() const {
    if (count_ == 0) return Status::Ok();
    if (count_ == listed_) return Status::Error(StatusCode::kModelFormat, "%s", text_);
    return Status::Error(StatusCode::kModelFormat, "%s; and %d more problems", text_,
                         count_ - listed_);
  }

 private:
  int count_ = 0;
  int listed_ = 0;
  size_t used_ = 0;
  bool full_ = false;
  char text_[460] = "";
};

}  // namespace sparsert
