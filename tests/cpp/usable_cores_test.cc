// Usable cores of made-up machines: files below a root of their own.
#include "base/usable_cores.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <vector>

namespace sparsert {
namespace {

int failures = 0;
int checks = 0;

// A file system that goes with its object.
class FakeRoot {
 public:
  FakeRoot() {
    const char* folder = std::getenv("TMPDIR");
    root_ = std::string(folder != nullptr ? folder : P_tmpdir) + "/usable_cores_XXXXXX";
    if (mkdtemp(root_.data()) == nullptr) {
      std::perror(root_.c_str());
      std::exit(2);
    }
  }
  ~FakeRoot() {
    for (const std::string& file : files_) std::remove(file.c_str());
    for (auto folder = folders_.rbegin(); folder != folders_.rend(); ++folder) {
      rmdir(folder->c_str());
    }
    rmdir(root_.c_str());
  }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;

  void Write(const std::string& path, const std::string& text) {
    for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
      const std::string folder = root_ + path.substr(0, at);
      if (mkdir(folder.c_str(), 0700) == 0) folders_.push_back(folder);
    }
    const std::string full = root_ + path;
    std::FILE* file = std::fopen(full.c_str(), "w");
    if (file == nullptr) {
      std::perror(full.c_str());
      std::exit(2);
    }
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
    files_.push_back(full);
  }

  const char* path() const { return root_.c_str(); }

 private:
  std::string root_;
  std::vector<std::string> files_;
  std::vector<std::string> folders_;
};

struct TextFile {
  std::string path;
  std::string text;
};

void Expect(const char* what, int cpus, std::initializer_list<TextFile> files, int want) {
  FakeRoot root;
  for (const TextFile& file : files) root.Write(file.path, file.text);
  CpuMask mask;
  for (int cpu = 0; cpu < cpus; ++cpu) mask.Add(cpu);
  const int got = CountUsableCores(mask, root.path());
  ++checks;
  if (got == want) return;
  ++failures;
  std::printf("FAIL %s: got %d, want %d\n", what, got, want);
}

const std::string kV2 = "/sys/fs/cgroup";
const std::string kV1 = "/sys/fs/cgroup/cpu";
const std::string kMountV2 =
    "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";

TextFile Group(const std::string& text) { return {"/proc/self/cgroup", text}; }
TextFile Mounts(const std::string& text) { return {"/proc/self/mountinfo", text}; }
TextFile Max(const std::string& group, const std::string& text) {
  return {kV2 + group + "/cpu.max", text};
}
TextFile Siblings(int cpu, const std::string& list, const char* name = "core_cpus_list") {
  return {"/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/" + name, list};
}

void TestMask() {
  Expect("nothing is told", 6, {}, 6);
  Expect("no CPU at all", 0, {}, 1);
  Expect("more CPUs than a word", 200, {}, 200);
  CpuMask mask;
  for (const int cpu : {-1, 3, 64, 4095, 4096, 1 << 30}) mask.Add(cpu);
  FakeRoot root;
  ++checks;
  if (CountUsableCores(mask, root.path()) != 3 || mask.Has(-1) || mask.Has(4096) || !mask.Has(64)) {
    ++failures;
    std::printf("FAIL numbers out of range are not ignored\n");
  }
}

void TestQuotaV2() {
  Expect("v2, own group", 8, {Group("0::/\n"), Mounts(kMountV2), Max("", "200000 100000\n")}, 2);
  Expect("v2, rounded up", 8, {Group("0::/\n"), Mounts(kMountV2), Max("", "150000 100000\n")}, 2);
  Expect("v2, less than one", 8, {Group("0::/\n"), Mounts(kMountV2), Max("", "1000 100000\n")}, 1);
  Expect("v2, no limit", 8, {Group("0::/\n"), Mounts(kMountV2), Max("", "max 100000\n")}, 8);
  Expect("v2, more than there is", 4,
         {Group("0::/\n"), Mounts(kMountV2), Max("", "900000 100000\n")}, 4);
  Expect("v2, without mountinfo", 8, {Group("0::/\n"), Max("", "300000 100000\n")}, 3);
  Expect("v2, without any of /proc", 8, {Max("", "300000 100000\n")}, 3);
  const TextFile nested = Group("0::/system.slice/app.service/worker\n");
  Expect("v2, nested: the group", 8,
         {nested, Mounts(kMountV2), Max("/system.slice/app.service/worker", "300000 100000\n")}, 3);
  Expect("v2, nested: its parent", 8,
         {nested, Mounts(kMountV2), Max("/system.slice/app.service/worker", "max 100000\n"),
          Max("/system.slice/app.service", "250000 50000\n")},
         5);
  Expect("v2, nested: its grandparent", 8,
         {nested, Mounts(kMountV2), Max("/system.slice/app.service", "500000 100000\n"),
          Max("/system.slice", "400000 100000\n")},
         4);
  Expect("v2, nested: the least", 8,
         {nested, Mounts(kMountV2), Max("/system.slice/app.service/worker", "600000 100000\n"),
          Max("/system.slice/app.service", "200000 100000\n"),
          Max("/system.slice", "700000 100000\n"), Max("", "500000 100000\n")},
         2);
  Expect("v2, of another group", 8,
         {nested, Mounts(kMountV2), Max("/system.slice/other", "100000 100000\n")}, 8);
  Expect("v2, a group whose name begins alike", 8,
         {Group("0::/app2\n"), Mounts(kMountV2), Max("/app", "100000 100000\n")}, 8);
  Expect("v2, mounted elsewhere, with a blank", 8,
         {Group("0::/a\n"),
          Mounts("1 2 0:3 / /mnt/c\\040g rw - cgroup2 none rw\n"),
          {"/mnt/c g/a/cpu.max", "200000 100000\n"},
          Max("/a", "100000 100000\n")},
         2);
  Expect("v2, the mount shows the group's own part", 8,
         {Group("0::/docker/7f\n"),
          Mounts("1 2 0:3 /docker/7f /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
          Max("", "200000 100000\n")},
         2);
  Expect("v2, the mount shows a part above", 8,
         {Group("0::/docker/7f/worker\n"),
          Mounts("1 2 0:3 /docker/7f /sys/fs/cgroup ro - cgroup2 cgroup rw\n"),
          Max("/worker", "200000 100000\n"), Max("", "300000 100000\n")},
         2);
  Expect("v2, the group lies outside of its namespace", 8,
         {Group("0::/../other\n"),
          Mounts(kMountV2),
          Max("", "300000 100000\n"),
          {"/sys/fs/other/cpu.max", "100000 100000\n"}},
         3);
}

void TestQuotaV1() {
  const TextFile group = Group("5:memory:/m\n4:cpu,cpuacct:/docker/7f\n1:name=systemd:/s\n");
  auto quota = [](const std::string& folder, const char* text) {
    return TextFile{folder + "/cpu.cfs_quota_us", text};
  };
  auto period = [](const std::string& folder, const char* text) {
    return TextFile{folder + "/cpu.cfs_period_us", text};
  };
  const std::string own = kV1 + "/docker/7f";
  Expect("v1, the usual place", 8, {group, quota(own, "250000\n"), period(own, "100000\n")}, 3);
  Expect("v1, no limit", 8, {group, quota(own, "-1\n"), period(own, "100000\n")}, 8);
  Expect("v1, the parent", 8,
         {group, quota(own, "-1\n"), period(own, "100000\n"), quota(kV1 + "/docker", "100000\n"),
          period(kV1 + "/docker", "50000\n")},
         2);
  const std::string mounted = "/sys/fs/cgroup/cpu,cpuacct";
  Expect("v1, from mountinfo", 8,
         {group,
          Mounts("30 25 0:26 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
                 "31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"),
          quota(mounted + "/docker/7f", "400000\n"), period(mounted + "/docker/7f", "100000\n")},
         4);
  Expect("v1, a container without a namespace of its own", 8,
         {group, Mounts("31 25 0:27 /docker/7f /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"),
          quota(kV1, "400000\n"), period(kV1, "100000\n")},
         4);
  Expect("v1, cpuset is not cpu", 8,
         {Group("3:cpuset:/docker/7f\n"), quota(own, "100000\n"), period(own, "100000\n")}, 8);
  Expect("v1 and v2 at once: the least", 8,
         {Group("4:cpu:/a\n0::/b\n"), quota(kV1 + "/a", "500000\n"), period(kV1 + "/a", "100000\n"),
          Max("/b", "300000 100000\n")},
         3);
}

void TestMalformed() {
  for (const char* text :
       {"", "\n", "x", "200000", "200000 ", "200000 x", "200000 0", "0 100000", "-100000 100000",
        "200000 -1", "200000 100000 7", "max", "99999999999999999999999 100000"}) {
    Expect(text, 8, {Group("0::/\n"), Mounts(kMountV2), Max("", text)}, 8);
  }
  for (const char* text : {"", "\n", ":", "::", "0:", "0::", "0::relative\n", "x\n\n\n", "0:/\n"}) {
    Expect(text, 8, {Group(text), Mounts(kMountV2), Max("", "300000 100000\n")}, 3);
  }
  for (const char* text :
       {"", "\n", " - ", "- cgroup2", " - cgroup2 x", "1 2 3 - cgroup2 c rw\n",
        "1 2 0:3 / relative rw - cgroup2 c rw\n", "1 2 0:3 / - cgroup2 c rw\n"}) {
    Expect(text, 8, {Group("0::/\n"), Mounts(text), Max("", "300000 100000\n")}, 3);
  }
  const std::string long_path = "/" + std::string(5000, 'a');
  Expect("a path that is too long", 8,
         {Group("0::" + long_path + "\n"), Mounts(kMountV2), Max("", "300000 100000\n")}, 3);
  Expect("a mount that is too long", 8,
         {Group("0::/\n"), Mounts("1 2 0:3 / " + long_path + " rw - cgroup2 c rw\n" + kMountV2),
          Max("", "300000 100000\n")},
         3);
}

void TestHyperthreads() {
  Expect("neighbours", 4,
         {Siblings(0, "0-1\n"), Siblings(1, "0-1\n"), Siblings(2, "2-3\n"), Siblings(3, "2-3\n")},
         2);
  Expect("halves", 4,
         {Siblings(0, "0,2\n"), Siblings(1, "1,3\n"), Siblings(2, "0,2\n"), Siblings(3, "1,3\n")},
         2);
  Expect(
      "the older name", 2,
      {Siblings(0, "0-1\n", "thread_siblings_list"), Siblings(1, "0-1\n", "thread_siblings_list")},
      1);
  Expect("the mask holds one thread of each core", 2,
         {Siblings(0, "0,64\n"), Siblings(1, "1,65\n")}, 2);
  Expect("cores of one thread", 3, {Siblings(0, "0\n"), Siblings(1, "1\n"), Siblings(2, "2\n")}, 3);
  Expect("some do not tell", 3, {Siblings(0, "0-1\n"), Siblings(1, "0-1\n")}, 2);
  for (const char* text : {"", "x", "0-", "0,", "-1-0", "3-0", "0-99999999", "7", "0-1x"}) {
    Expect(text, 2, {Siblings(0, text), Siblings(1, text)}, 2);
  }
  Expect("a quota below the cores", 4,
         {Siblings(0, "0-1\n"), Siblings(1, "0-1\n"), Siblings(2, "2-3\n"), Siblings(3, "2-3\n"),
          Max("", "100000 100000\n")},
         1);
  Expect("a quota between cores and threads", 4,
         {Siblings(0, "0-1\n"), Siblings(1, "0-1\n"), Siblings(2, "2-3\n"), Siblings(3, "2-3\n"),
          Max("", "300000 100000\n")},
         2);
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestMask();
  sparsert::TestQuotaV2();
  sparsert::TestQuotaV1();
  sparsert::TestMalformed();
  sparsert::TestHyperthreads();
  const int here = sparsert::UsableCores();
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  ++sparsert::checks;
  if (here < 1 || here > online) {
    ++sparsert::failures;
    std::printf("FAIL %d cores usable of %ld\n", here, online);
  }
  std::printf("usable_cores_test: %d checks, %d failures; %d here\n", sparsert::checks,
              sparsert::failures, here);
  return sparsert::failures == 0 ? 0 : 1;
}
