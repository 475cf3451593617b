#!/bin/sh
# Installs liburing's headers and liburing.a, which manylinux images lack or have too old,
# from the source of a release; no shared library, so that none can be linked.
set -eu

release=liburing-2.15
commit=d41bf9220ec39277ff235379e9089d9e0fd6c2a5

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
git -c advice.detachedHead=false clone --quiet --depth 1 --branch "$release" https://github.com/axboe/liburing "$folder"
cd "$folder"
if [ "$(git rev-parse HEAD)" != "$commit" ]; then
    echo "$release is not the commit that it was" >&2
    exit 1
fi
./configure --libdevdir="${1:-/usr/lib64}" >/dev/null
make -C src -s install ENABLE_SHARED=0 CFLAGS="-O2 -fPIC"
