// Usable cores of Linux; elsewhere, the cores that are online.
#include "base/usable_cores.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace sparsert {
namespace {

constexpr size_t kMaxPath = 4096;
constexpr size_t kMaxLine = 4096;

// Lines of a text file; of a line that is too long the rest is dropped.
class Lines {
 public:
  Lines(const char* root, const char* path) {
    char full[2 * kMaxPath];
    const int size = snprintf(full, sizeof(full), "%s%s", root, path);
    if (size > 0 && static_cast<size_t>(size) < sizeof(full)) file_ = fopen(full, "r");
  }
  ~Lines() {
    if (file_ != nullptr) fclose(file_);
  }
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  // The next line without its end, or nullptr.
  char* Next() {
    if (file_ == nullptr || fgets(line_, sizeof(line_), file_) == nullptr) return nullptr;
    char* end = strchr(line_, '\n');
    if (end != nullptr) {
      *end = '\0';
    } else {
      for (int c = fgetc(file_); c != EOF && c != '\n';) c = fgetc(file_);
    }
    return line_;
  }

 private:
  FILE* file_ = nullptr;
  char line_[kMaxLine];
};

// Reads a decimal number at *text and moves behind it.
bool ReadNumber(const char** text, long long* value) {
  char* end = nullptr;
  *value = strtoll(*text, &end, 10);
  if (end == *text) return false;
  *text = end;
  return true;
}

bool EndsHere(const char* text) { return text[strspn(text, " \t\r")] == '\0'; }

// The lowest CPU of a list such as "0-1,64-65" that contains `cpu`, else `cpu` itself.
int LeaderOf(const char* list, int cpu) {
  long long leader = CpuMask::kMaxCpus;
  bool contains = false;
  for (const char* at = list;;) {
    long long first = 0;
    if (!ReadNumber(&at, &first)) return cpu;
    long long last = first;
    if (*at == '-' && !ReadNumber(&++at, &last)) return cpu;
    if (first < 0 || last < first || last >= CpuMask::kMaxCpus) return cpu;
    if (first < leader) leader = first;
    contains |= first <= cpu && cpu <= last;
    if (*at != ',') return EndsHere(at) && contains ? static_cast<int>(leader) : cpu;
    ++at;
  }
}

constexpr const char* kSiblingFiles[] = {"core_cpus_list", "thread_siblings_list"};

int PhysicalCores(const CpuMask& mask, const char* root) {
  CpuMask leaders;
  int cores = 0;
  for (int cpu = 0; cpu < CpuMask::kMaxCpus; ++cpu) {
    if (!mask.Has(cpu)) continue;
    int leader = cpu;
    for (const char* name : kSiblingFiles) {
      char path[128];
      snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, name);
      Lines lines(root, path);
      const char* line = lines.Next();
      if (line == nullptr) continue;
      leader = LeaderOf(line, cpu);
      break;
    }
    if (leaders.Has(leader)) continue;
    leaders.Add(leader);
    ++cores;
  }
  return cores;
}

// A hierarchy of cgroups: where it is mounted, which of its cgroups is at that place, and the
// process's cgroup. Empty strings: unknown.
struct Hierarchy {
  Hierarchy() { mount[0] = mount_root[0] = group[0] = '\0'; }

  char mount[kMaxPath];
  char mount_root[kMaxPath];
  char group[kMaxPath];
};

// Whether `name` is an element of a list with commas.
bool Lists(const char* list, const char* name) {
  const size_t size = strlen(name);
  for (const char* at = list; at != nullptr; at = strchr(at, ',')) {
    if (*at == ',') ++at;
    if (strncmp(at, name, size) == 0 && (at[size] == ',' || EndsHere(at + size))) return true;
  }
  return false;
}

bool Copy(const char* from, char* to) {
  const size_t size = strlen(from);
  if (size >= kMaxPath) return false;
  memcpy(to, from, size + 1);
  return true;
}

// mountinfo writes a blank, a tab, a newline and a backslash as \ and three octal digits.
void Unescape(char* text) {
  char* to = text;
  for (const char* at = text; *at != '\0'; ++to) {
    auto digit = [at](int i) { return at[i] >= '0' && at[i] <= '7'; };
    if (*at == '\\' && digit(1) && digit(2) && digit(3)) {
      *to = static_cast<char>((at[1] - '0') * 64 + (at[2] - '0') * 8 + at[3] - '0');
      at += 4;
    } else {
      *to = *at++;
    }
  }
  *to = '\0';
}

// Splits the next word off *text; the empty string at the end.
char* NextWord(char** text) {
  char* word = *text + strspn(*text, " ");
  char* end = word + strcspn(word, " ");
  *text = *end == '\0' ? end : end + 1;
  *end = '\0';
  return word;
}

// Lines such as "36 35 0:33 /part /mount rw,nosuid shared:1 - cgroup2 cgroup rw,nsdelegate".
void FindMounts(const char* root, Hierarchy* v1, Hierarchy* v2) {
  Lines lines(root, "/proc/self/mountinfo");
  for (char* line = lines.Next(); line != nullptr; line = lines.Next()) {
    char* separator = strstr(line, " - ");
    if (separator == nullptr) continue;
    *separator = '\0';
    char* rest = separator + 3;
    const char* type = NextWord(&rest);
    NextWord(&rest);  // the source
    const char* options = NextWord(&rest);
    Hierarchy* found = nullptr;
    if (strcmp(type, "cgroup2") == 0) found = v2;
    if (strcmp(type, "cgroup") == 0 && Lists(options, "cpu")) found = v1;
    if (found == nullptr || found->mount[0] != '\0') continue;
    for (int i = 0; i < 3; ++i) NextWord(&line);
    char* mount_root = NextWord(&line);
    char* mount = NextWord(&line);
    Unescape(mount_root);
    Unescape(mount);
    if (mount[0] != '/' || !Copy(mount, found->mount) || !Copy(mount_root, found->mount_root)) {
      found->mount[0] = '\0';
    }
  }
}

// Lines such as "0::/user.slice" (version 2) and "4:cpu,cpuacct:/docker/7f" (version 1).
void FindGroups(const char* root, Hierarchy* v1, Hierarchy* v2) {
  Lines lines(root, "/proc/self/cgroup");
  for (char* line = lines.Next(); line != nullptr; line = lines.Next()) {
    char* controllers = strchr(line, ':');
    char* group = controllers == nullptr ? nullptr : strchr(controllers + 1, ':');
    if (group == nullptr || group[1] != '/') continue;
    *controllers++ = '\0';
    *group++ = '\0';
    if (strcmp(line, "0") == 0 && *controllers == '\0') {
      Copy(group, v2->group);
    } else if (Lists(controllers, "cpu")) {
      Copy(group, v1->group);
    }
  }
}

int RoundUp(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return CpuMask::kMaxCpus;
  const long long cores = quota / period + (quota % period != 0);
  return cores > CpuMask::kMaxCpus ? CpuMask::kMaxCpus : static_cast<int>(cores);
}

// A file of one number; -1 without one.
long long ReadCount(const char* root, const char* folder, const char* name) {
  char path[kMaxPath + 64];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  Lines lines(root, path);
  const char* line = lines.Next();
  long long value = -1;
  return line != nullptr && ReadNumber(&line, &value) && EndsHere(line) ? value : -1;
}

int QuotaOfV2(const char* root, const char* folder) {
  char path[kMaxPath + 64];
  snprintf(path, sizeof(path), "%s/cpu.max", folder);
  Lines lines(root, path);
  const char* line = lines.Next();
  long long quota = 0;
  long long period = 0;
  if (line == nullptr || !ReadNumber(&line, &quota) || !ReadNumber(&line, &period) ||
      !EndsHere(line)) {
    return CpuMask::kMaxCpus;
  }
  return RoundUp(quota, period);
}

int QuotaOfV1(const char* root, const char* folder) {
  return RoundUp(ReadCount(root, folder, "cpu.cfs_quota_us"),
                 ReadCount(root, folder, "cpu.cfs_period_us"));
}

// The least quota of the process's cgroup and of those above it, up to the mount.
int LeastQuota(const char* root, const Hierarchy& h, int (*quota_of)(const char*, const char*)) {
  // The cgroup's path below the mount. In a container the mount may show a part of the hierarchy
  // only, and the process's path may lie outside of it: then the mount itself is what holds.
  const char* below = h.group;
  const size_t prefix = strcmp(h.mount_root, "/") == 0 ? 0 : strlen(h.mount_root);
  const bool inside = strncmp(h.group, h.mount_root, prefix) == 0 &&
                      (h.group[prefix] == '/' || h.group[prefix] == '\0') &&
                      strstr(h.group, "/..") == nullptr;
  below = inside ? h.group + prefix : "";
  char folder[2 * kMaxPath];
  const size_t top = strlen(h.mount);
  if (top + strlen(below) >= kMaxPath) below = "";
  snprintf(folder, sizeof(folder), "%s%s", h.mount, below);
  int least = CpuMask::kMaxCpus;
  for (;;) {
    size_t size = strlen(folder);
    while (size > top && folder[size - 1] == '/') folder[--size] = '\0';
    const int quota = quota_of(root, folder);
    if (quota < least) least = quota;
    if (size <= top) return least;
    while (size > top && folder[size - 1] != '/') folder[--size] = '\0';
  }
}

}  // namespace

int CountUsableCores(const CpuMask& mask, const char* root) {
  int cores = PhysicalCores(mask, root);
  Hierarchy v1;
  Hierarchy v2;
  FindMounts(root, &v1, &v2);
  FindGroups(root, &v1, &v2);
  // Where mounts are not told: the usual places.
  if (v1.mount[0] == '\0') Copy("/sys/fs/cgroup/cpu", v1.mount);
  if (v2.mount[0] == '\0') Copy("/sys/fs/cgroup", v2.mount);
  const int quota_v1 = LeastQuota(root, v1, &QuotaOfV1);
  const int quota_v2 = LeastQuota(root, v2, &QuotaOfV2);
  if (quota_v1 < cores) cores = quota_v1;
  if (quota_v2 < cores) cores = quota_v2;
  return cores < 1 ? 1 : cores;
}

int UsableCores() {
  CpuMask mask;
#if defined(__linux__)
  // The system call, since the C library's mask ends at 1024 CPUs.
  const bool known = syscall(SYS_sched_getaffinity, 0, sizeof(mask.bits), mask.bits) > 0;
#else
  const bool known = false;
#endif
  if (!known) {
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    for (long cpu = 0; cpu < online; ++cpu) mask.Add(static_cast<int>(cpu));
  }
  return CountUsableCores(mask, "");
}

}  // namespace sparsert
