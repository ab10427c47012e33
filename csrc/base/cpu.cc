// CPU detection and the choice of instruction set.
#include "base/cpu.h"

#include <atomic>
#include <cstring>

#include "base/arch.h"
#include "base/platform.h"
#if defined(SRT_X86)
#include <cpuid.h>
#if defined(SRT_AMX) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(SRT_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace sparsert {
namespace {

constexpr int kIsaCount = static_cast<int>(Isa::kCount);
const char* const kIsaNames[kIsaCount] = {"scalar", "avx2", "avx512", "avx512vnni",
                                          "amx",    "neon", "neondot"};

void AppendText(char* text, size_t size, const char* more) {
  const size_t used = strlen(text);
  if (used + 1 < size) strncat(text, more, size - used - 1);
}

#if defined(SRT_X86)
// Bytes of the data (or unified) cache of a level by CPUID's cache leaf, which Intel and AMD number
// differently; 0 if the CPU does not tell.
int64_t CacheBytes(bool amd, unsigned level) {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const unsigned leaf = amd ? 0x8000001du : 4u;
  for (unsigned i = 0; i < 8 && __get_cpuid_count(leaf, i, &a, &b, &c, &d) != 0; ++i) {
    const unsigned type = a & 31u;
    if (type == 0) break;
    if (type == 2 || (a >> 5 & 7u) != level) continue;
    const int64_t ways = (b >> 22) + 1;
    const int64_t partitions = (b >> 12 & 1023u) + 1;
    const int64_t line = (b & 4095u) + 1;
    return ways * partitions * line * (static_cast<int64_t>(c) + 1);
  }
  return 0;
}
#endif

#if defined(SRT_AMX) && defined(SRT_X86) && defined(__linux__)
// Whether the CPU multiplies tiles of bytes and of bf16, and the kernel grants this process their
// registers. It grants them once for all threads and what they fork, and refuses where a thread's
// signal stack is too small for them.
bool RequestTiles() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  constexpr unsigned kTiles = 3u << 24 | 1u << 22;  // AMX-TILE, AMX-INT8, AMX-BF16
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTiles) != kTiles) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Asks once; threads that come together ask each, with the same answer.
bool TilesGranted() {
  static std::atomic<int> granted{-1};
  int known = granted.load(std::memory_order_relaxed);
  if (known < 0) {
    known = RequestTiles() ? 1 : 0;
    granted.store(known, std::memory_order_relaxed);
  }
  return known == 1;
}
#endif

}  // namespace

const char* IsaName(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

bool IsaAvailable(Isa isa) {
  switch (isa) {
#if defined(SRT_SCALAR)
    case Isa::kScalar:
      return true;
#endif
#if defined(SRT_X86)
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("bmi2");
    case Isa::kAvx512:
      return IsaAvailable(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq");
    case Isa::kAvx512Vnni:
      return IsaAvailable(Isa::kAvx512) && __builtin_cpu_supports("avx512vnni");
#if defined(SRT_AMX) && defined(SRT_X86) && defined(__linux__)
    case Isa::kAmx:
      return IsaAvailable(Isa::kAvx512Vnni) && __builtin_cpu_supports("avx512vbmi2") &&
             TilesGranted();
#endif
#elif defined(SRT_ARM)
    case Isa::kNeon:
      return true;
#if defined(__linux__) && !defined(SRT_BARE)
    case Isa::kNeonDot:
      return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#endif
#endif
    default:
      return false;
  }
}

bool HasCrcInstructions() {
#if defined(SRT_ARM) && defined(__linux__) && !defined(SRT_BARE)
  return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#else
  return false;
#endif
}

Isa BestIsa() {
  for (int i = kIsaCount - 1; i > 0; --i) {
    if (IsaAvailable(static_cast<Isa>(i))) return static_cast<Isa>(i);
  }
#if defined(SRT_ARM)
  return Isa::kNeon;
#else
  return Isa::kScalar;
#endif
}

void FlushCaches(const void* begin, size_t bytes) {
#if defined(SRT_X86)
  constexpr unsigned kClflushopt = 1u << 23;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (bytes == 0) return;  // in a virtual machine, CPUID leaves it
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (b & kClflushopt) == 0) return;
  const auto* line = static_cast<const volatile char*>(begin);
  for (size_t at = 0; at < bytes; at += 64) __asm__ __volatile__("clflushopt %0" ::"m"(line[at]));
  __asm__ __volatile__("mfence" ::: "memory");
#else
  static_cast<void>(begin);
  static_cast<void>(bytes);
#endif
}

CpuTraits DetectCpu(Isa isa) {
  CpuTraits traits;
  if (isa == Isa::kScalar) traits.fma_per_cycle = 0.5;
#if defined(SRT_X86)
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0) return traits;
  const bool amd = b == signature_AMD_ebx;
  const int64_t l1 = CacheBytes(amd, 1);
  if (l1 > 0) traits.l1d_bytes = l1;
  const int64_t l2 = CacheBytes(amd, 2);
  if (l2 > 0) traits.l2_bytes = l2;
  if (amd && isa >= Isa::kAvx512 && __get_cpuid(1, &a, &b, &c, &d) != 0) {
    const unsigned family = (a >> 8 & 15u) + (a >> 20 & 255u);
    traits.halves_vectors = family == 0x19;  // Zen 4, of 512 bits
    if (traits.halves_vectors) traits.fma_per_cycle = 1.0;
  }
#endif
  return traits;
}

Status ChooseIsa(const char* name, Isa* isa) {
  if (name == nullptr || name[0] == '\0') name = Environment("SPARSERT_ISA");
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
