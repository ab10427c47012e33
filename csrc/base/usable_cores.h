// How many cores a process may keep busy: what its CPU mask, its cgroups and the hardware allow.
#pragma once

#include <cstdint>

namespace sparsert {

// CPUs by number, as the operating system counts them.
struct CpuMask {
  static constexpr int kMaxCpus = 4096;

  void Add(int cpu) {
    if (cpu >= 0 && cpu < kMaxCpus) bits[cpu / 64] |= uint64_t{1} << (cpu % 64);
  }
  bool Has(int cpu) const {
    return cpu >= 0 && cpu < kMaxCpus && (bits[cpu / 64] >> (cpu % 64) & 1) != 0;
  }

  uint64_t bits[kMaxCpus / 64] = {};
};

// The least of
//   - the physical cores among the CPUs of `mask`: hyperthreads of one core count once
//     (/sys/devices/system/cpu/cpuN/topology/core_cpus_list or thread_siblings_list);
//   - the CPU quotas, rounded up, of the process's cgroup and of every cgroup above it: cpu.max of
//     version 2, cpu.cfs_quota_us over cpu.cfs_period_us of version 1. The cgroup is read from
//     /proc/self/cgroup, where the hierarchies are mounted from /proc/self/mountinfo.
// At least 1. Files that are missing or malformed limit nothing. `root` is put before every path.
int CountUsableCores(const CpuMask& mask, const char* root);

// The same for the calling thread on this machine.
int UsableCores();

}  // namespace sparsert
