// CPU detection and the choice of instruction set.
#include "base/cpu.h"

#include <cstdlib>
#include <cstring>

namespace sparsert {
namespace {

constexpr int kIsaCount = static_cast<int>(Isa::kCount);
const char* const kIsaNames[kIsaCount] = {"scalar", "avx2", "avx512", "neon"};

void AppendText(char* text, size_t size, const char* more) {
  const size_t used = strlen(text);
  if (used + 1 < size) strncat(text, more, size - used - 1);
}

}  // namespace

const char* IsaName(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

bool IsaAvailable(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
#if defined(__x86_64__) || defined(__i386__)
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("bmi2");
    case Isa::kAvx512:
      return IsaAvailable(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq");
#elif defined(__aarch64__)
    case Isa::kNeon:
      return true;
#endif
    default:
      return false;
  }
}

Isa BestIsa() {
  for (int i = kIsaCount - 1; i > 0; --i) {
    if (IsaAvailable(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
  return Isa::kScalar;
}

Status ChooseIsa(const char* name, Isa* isa) {
  if (name == nullptr || name[0] == '\0') name = getenv("SPARSERT_ISA");
  if (name == nullptr || name[0] == '\0') {
    *isa = BestIsa();
    return Status::Ok();
  }
  char available[64] = "";
  for (int i = 0; i < kIsaCount; ++i) {
    if (!IsaAvailable(static_cast<Isa>(i))) continue;
    if (strcmp(name, kIsaNames[i]) == 0) {
      *isa = static_cast<Isa>(i);
      return Status::Ok();
    }
    AppendText(available, sizeof(available), available[0] ? ", " : "");
    AppendText(available, sizeof(available), kIsaNames[i]);
  }
  return Status::Error(StatusCode::kUnsupported,
                       "instruction set '%s' is not available on this machine; available: %s", name,
                       available);
}

}  // namespace sparsert
