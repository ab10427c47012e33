#!/usr/bin/env bash
# arm_sysroot.sh FOLDER PYTHON: a 64-bit ARM Debian with Python, NumPy and cffi to run under qemu-user.
#
# Unpacks Debian packages of the other architecture into FOLDER/root and wheels into FOLDER/site, and
# writes FOLDER/python, which runs that Python. The state of this machine's apt and dpkg is left
# alone; what is downloaded comes from the sources that its apt and pip are configured with. PYTHON
# is one with pip. QEMU_CPU chooses the processor (cortex-a76).
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
python=$2
root=$folder/root
apt=$folder/apt

mkdir -p "$root" "$apt/lists/partial" "$apt/cache/archives/partial"
: >"$apt/status"
trap 'rm -rf "$apt"' EXIT
options=(-q -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$apt"
  -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
  -o Dir::Log="$apt" -o APT::Install-Recommends=false -o Acquire::Languages=none
  -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)")
apt-get "${options[@]}" update
apt-get "${options[@]}" -y --download-only install python3 libstdc++6 libatomic1 >/dev/null
# Headers without the compiler that their packages depend on.
(cd "$apt/cache/archives" && apt-get "${options[@]}" download \
  "$(apt-cache "${options[@]}" depends libpython3-dev | sed -n 's/.*Depends: \(libpython3\.[0-9]*-dev\)/\1/p')")
for package in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$package" "$root"; done

binary=$(find "$root/usr/bin" -name 'python3.[0-9]*' -type f | head -n 1)
version=${binary##*python}
# pyconfig.h includes its part of the architecture by a path from usr/include.
ln -sfn ../aarch64-linux-gnu "$root/usr/include/python$version/aarch64-linux-gnu"
ln -sfn "root/usr/include/python$version" "$folder/include"

# The host's would be seen otherwise: libraries choose their code by it.
mkdir -p "$root/proc"
for number in 0 1; do
  printf 'processor\t: %s\nBogoMIPS\t: 125.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 1\n\n' "$number"
done >"$root/proc/cpuinfo"

platforms=()
for glibc in 17 24 26 27 28 31 34 35 36; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
"$python" -m pip --disable-pip-version-check install --quiet --root-user-action=ignore \
  --target "$folder/site" --upgrade --only-binary=:all: --implementation cp \
  --python-version "$version" --platform manylinux2014_aarch64 "${platforms[@]}" \
  ${PIP_ARGS:-} numpy cffi click rich

# A child that Python starts by sys.executable must run under emulation as well.
cat >"$folder/site/sitecustomize.py" <<END
"""Names the program that runs this Python under emulation."""
import sys

sys.executable = "$folder/python"
END
cat >"$folder/python" <<END
#!/bin/sh
exec qemu-aarch64 -cpu "\${QEMU_CPU:-cortex-a76}" -L "$root" "$binary" "\$@"
END
chmod +x "$folder/python"
echo "$version" >"$folder/version"
