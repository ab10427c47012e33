#!/usr/bin/env bash
# need.sh PROGRAM PACKAGE...: installs Debian packages if a program is missing, or says what to do.
set -euo pipefail
program=$1
shift
if command -v "$program" >/dev/null; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq >/dev/null &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null || true
fi
if ! command -v "$program" >/dev/null; then
  echo "$program is missing: apt-get install $*" >&2
  exit 1
fi
