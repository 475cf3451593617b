#!/bin/sh
# Tries a release in a fresh root file system of Debian, where nobody has installed anything:
#
#     sh release/debian.sh SUITE PYTHON [ARGUMENT ...]      for example bookworm python3.11
#
# First Python, pip and the wheel alone, without compiler, headers and liburing; then Python
# alone, and what README.md promises of a checkout: the demo and the tests, which get the
# ARGUMENTs. Takes root, mmdebstrap and git, and tries what is committed.
set -eu
suite=$1 python=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf --one-file-system "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

fresh() { # PACKAGES: a new root file system, with what reaches the package indexes here
    mmdebstrap --quiet --mode=root --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
        --include="ca-certificates,$1" "$suite" "$scratch/root"
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ ! -e "$file" ] || cp -L "$file" "$scratch/root$file"
    done
}

inside() { # COMMAND ...: in it, in a mount namespace of its own, with which its mounts go
    # shellcheck disable=SC2016
    unshare --mount --propagation private sh -c '
        root=$1
        shift
        for folder in proc sys dev; do mount --rbind "/$folder" "$root/$folder"; done
        exec chroot "$root" env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"
    ' inside "$scratch/root" "$@"
}

told() { printf '\n=== %s: %s\n' "$suite" "$*"; }

told "$python, pip and the wheel"
fresh "$python,$python-venv"
mkdir "$scratch/root/release"
cp "$root/release/smoke.py" "$root"/dist/*.whl "$scratch/root/release"
inside sh -c '! command -v cc gcc && ! ls /usr/include/*.h /usr/lib/*/liburing* 2>/dev/null'
inside "$python" -m venv /venv
inside /venv/bin/pip install --quiet --only-binary :all: --no-index --no-deps --find-links /release trio-uring
inside /venv/bin/pip install --quiet --only-binary :all: trio-uring 'hypercorn[trio]>=0.17' 'trustme>=1'
inside /venv/bin/python -m trio_uring doctor | head -12
inside /venv/bin/python /release/smoke.py

told "$python, and the checkout"
rm -rf --one-file-system "$scratch/root"
fresh "$python"
git clone --quiet "$root" "$scratch/root/checkout"
for session in demo "tests $*"; do
    told "PYTHON=$python sh bootstrap.sh $session"
    # shellcheck disable=SC2086
    inside env PYTHON="$python" sh /checkout/bootstrap.sh $session
done
