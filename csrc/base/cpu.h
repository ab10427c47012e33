// Instruction sets: names, detection, and the one to use.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace sparsert {

// In rising order of preference within an architecture.
enum class Isa : uint8_t {
  kScalar = 0,
  kAvx2 = 1,
  kAvx512 = 2,
  kAvx512Vnni = 3,  // and products of four bytes
  kAmx = 4,         // and products of matrices of bytes, or of bf16
  kNeon = 5,
  kNeonDot = 6,  // as kAvx512Vnni
  kCount = 7
};

const char* IsaName(Isa isa);  // as above in lower case: "avx512vnni"

// True when this build has the kernels and this CPU and operating system can run them.
bool IsaAvailable(Isa isa);

Isa BestIsa();

// Of 64-bit ARM.
bool HasCrcInstructions();

// What the cost models ask about this CPU; defaults where it cannot be told.
struct CpuTraits {
  int64_t l1d_bytes = 32 * 1024;  // of one core
  int64_t l2_bytes = 1024 * 1024;
  double fma_per_cycle = 2.0;   // vector multiply-adds of the instruction set that a core starts
  bool halves_vectors = false;  // its widest vectors take two steps: one multiply-add a cycle
};
CpuTraits DetectCpu(Isa isa);

// The lines of these bytes leave all caches, where the CPU lets a program ask for that.
void FlushCaches(const void* begin, size_t bytes);

// `name` nullptr or "" picks the value of SPARSERT_ISA, else the best. Returns kUnsupported, naming
// what is available, when the name is unknown or the machine lacks it.
Status ChooseIsa(const char* name, Isa* isa);

}  // namespace sparsert
