#!/bin/sh
# Runs a session of noxfile.py on a machine that has nothing but Python and the package
# manager of Debian, Ubuntu, Fedora or Arch:
#
#     sh bootstrap.sh SESSION [ARGUMENT ...]      for example demo, tests, lint
#
# Installs the compiler and headers that are missing, as root or through sudo where it
# asks no password; otherwise says how to and stops. Makes .venv here, and uses it again
# the next time. PYTHON=... chooses the interpreter that .venv is made with.
set -eu
cd "$(dirname "$0")"

die() {
    printf 'bootstrap: %s\n' "$@" >&2
    exit 1
}

[ $# -gt 0 ] || die "which session? sh bootstrap.sh demo|tests|lint|... [ARGUMENT ...]"
session=$1
shift

# --- Python ---------------------------------------------------------------------------

is_usable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10) or sys.implementation.name != "cpython")' 2>/dev/null
}

find_python() {
    for candidate in .venv/bin/python ${PYTHON:-python3 python3.15 python3.14 python3.13 python3.12 python3.11 python3.10 python}; do
        if is_usable "$candidate"; then
            python=$candidate
            return
        fi
    done
    die "trio-uring needs CPython 3.10 or newer, and found none${PYTHON:+ in PYTHON=$PYTHON}."
}

# --- what the build needs ---------------------------------------------------------------

: "${CC:=cc}"
export CC

links() {
    printf '%s\nint main(void) { return 0; }\n' "$1" >"$scratch/check.c"
    shift
    # CC may carry options of its own.
    # shellcheck disable=SC2086
    $CC -D_GNU_SOURCE "$scratch/check.c" -o "$scratch/check" "$@" >/dev/null 2>&1
}

has_compiler() { printf 'int main(void) { return 0; }\n' | $CC -x c -fsyntax-only - >/dev/null 2>&1; }
has_libc() { links '#include <errno.h>'; }
has_liburing() {
    links '#include <liburing.h>
#ifndef IORING_SETUP_DEFER_TASKRUN
#error older than 2.3
#endif' -luring
}
has_python_headers() { [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]; }
# Trio's own suite looks names up in them.
has_services() {
    case $session in
    tests | trio_suite*) [ -e /etc/services ] && [ -e /etc/protocols ] ;;
    esac
}
# The benchmark suite tells which of its parts are left out without these. Debian and
# Ubuntu have all of them.
wants_tools() { [ "$session" = bench ] && command -v apt-get >/dev/null; }
has_tool() { ! wants_tools || command -v "$1" >/dev/null; }
# The demo counts the system calls by it, and goes without where it cannot be installed.
has_strace() {
    [ "$session" != demo ] || command -v strace >/dev/null || ! command -v apt-get >/dev/null || ! may_install
}
has_openssl() { ! wants_tools || links '#include <openssl/ssl.h>' -lssl; }
has_venv() { [ -x .venv/bin/python ] || "$python" -c 'import ensurepip, venv' 2>/dev/null; }

# Prints the words that stand for what is missing.
missing() {
    if has_compiler; then
        has_libc || echo libc
        has_liburing || echo liburing
    else
        # Without a compiler nothing can be tried; the package managers leave alone what is there.
        echo compiler libc liburing
    fi
    has_python_headers || echo python-headers
    has_venv || echo venv
    has_services || echo services
    has_openssl || echo openssl
    has_strace || echo strace
    for tool in wrk fio strace; do
        has_tool "$tool" || echo "$tool"
    done
}

# The package that brings it, in $manager's words; nothing where another package does.
package() {
    case $manager:$1 in
    *:compiler) echo gcc ;;
    apt-get:libc) echo libc6-dev ;;
    dnf:libc) echo glibc-devel ;;
    pacman:libc) echo glibc linux-api-headers ;;
    pacman:liburing) echo liburing ;;
    apt-get:liburing) echo liburing-dev ;;
    dnf:liburing) echo liburing-devel ;;
    apt-get:python-headers) echo "python$version-dev" ;;
    dnf:python-headers) if [ "$version" = "$system_version" ]; then echo python3-devel; else echo "python$version-devel"; fi ;;
    pacman:python-headers | pacman:venv) echo python ;;
    apt-get:venv) echo "python$version-venv" ;;
    dnf:venv) echo python3-libs ;;
    apt-get:services) echo netbase ;;
    dnf:services) echo setup ;;
    pacman:services) echo iana-etc ;;
    apt-get:openssl) echo libssl-dev ;;
    apt-get:wrk | apt-get:fio | apt-get:strace) echo "$1" ;;
    esac
}

find_manager() {
    for manager in apt-get dnf pacman; do
        if command -v "$manager" >/dev/null; then
            return
        fi
    done
    die "missing here: $needed" \
        "and there is no apt-get, dnf or pacman to install it with; please install it by hand."
}

install_command() {
    case $manager in
    apt-get) echo "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages" ;;
    dnf) echo "dnf install -y -q $packages" ;;
    pacman)
        # A new system has no package lists yet; refreshing old ones without an upgrade would break it.
        refresh=
        [ -e /var/lib/pacman/sync/core.db ] || refresh=y
        echo "pacman -S$refresh --needed --noconfirm $packages"
        ;;
    esac
}

may_install() { [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }

install_missing() {
    needed=$(missing | tr '\n' ' ')
    [ -n "$needed" ] || return 0
    find_manager
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    system_version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
    packages=$(for word in $needed; do package "$word"; done | tr '\n' ' ')
    packages=${packages% }
    command=$(install_command)
    may_install ||
        die "missing here: ${needed% }" "and installing needs root. Run this as root, then start again:" "    $command"
    [ "$(id -u)" = 0 ] && run_as='' || run_as="sudo -n"
    echo "bootstrap: installing $packages"
    # shellcheck disable=SC2086
    $run_as sh -c "$command" </dev/null >"$scratch/install.log" 2>&1 || {
        cat "$scratch/install.log" >&2
        die "this failed:" "    $command"
    }
    needed=$(missing | tr '\n' ' ')
    [ -z "$needed" ] || die \
        "installed $packages, but this is still missing or too old: ${needed% }" \
        "Needed are a C compiler, the headers of libc and of $("$python" -c 'import sys; print(sys.executable)')," \
        "and liburing 2.3 or newer with its headers. PYTHON=... chooses another Python."
}

# --- .venv and nox ----------------------------------------------------------------------

make_environment() {
    if ! is_usable .venv/bin/python; then
        echo "bootstrap: making .venv with $("$python" --version)"
        "$python" -m venv --clear .venv || die "could not make .venv"
    fi
    if ! .venv/bin/python -c 'import nox' 2>/dev/null; then
        echo "bootstrap: installing nox into .venv"
        .venv/bin/python -m pip --disable-pip-version-check install -qq nox || die "could not install nox"
    fi
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
find_python
install_missing
make_environment
if [ $# -gt 0 ]; then
    .venv/bin/python -m nox -s "$session" -- "$@"
else
    .venv/bin/python -m nox -s "$session"
fi
