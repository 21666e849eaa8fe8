# shellcheck shell=bash
# Sourced by bin/demo and bin/test: system packages where they can be had, and .venv with the project in it.

say() { printf '%s\n' "$*"; }

# stop WHAT TO-DO: ends the command with two lines that a person can act on.
stop() {
    printf 'error: %s\n       %s\n' "$1" "$2" >&2
    if [ -s "$log" ]; then
        printf '       details: %s\n' "$log" >&2
        trap - EXIT
    fi
    exit 1
}

# attempt LABEL COMMAND...: runs it, output to the log, one line on the screen. Gives the command's status.
attempt() {
    local label=$1 began=$SECONDS status=0
    shift
    printf '  %s ... ' "$label"
    printf '\n$ %s\n' "$*" >>"$log"
    "$@" </dev/null >>"$log" 2>&1 || status=$?
    if [ "$status" = 0 ]; then say "ok ($((SECONDS - began)) s)"; else say "failed"; fi
    return "$status"
}

# find_python: sets `python`.
find_python() {
    for python in python3 python3.11 python3.12 python3.13 python3.14; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>>"$log"; then return; fi
    done
    stop "no Python 3.11 or newer found" "on Debian 12 and Ubuntu 24.04: sudo apt-get install python3"
}

apt_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get)
    [ "$(id -u)" = 0 ] || apt=(sudo -n "${apt[@]}")
    # The lists may be missing (a fresh container) or stale, but fetching them each time would be slow.
    "${apt[@]}" install -y --no-install-recommends "$@" ||
        { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"; }
}

# install_packages PACKAGE...: installs them if root or sudo without a password allows it.
install_packages() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || sudo -n true 2>>"$log" || return 1
    attempt "installing $*" apt_install "$@"
}

# want_commands NAME:PACKAGE:USE...: installs what is missing, and says what could not be had and what for.
want_commands() {
    local entry name package use packages=()
    for entry; do
        IFS=: read -r name package use <<<"$entry"
        command -v "$name" >/dev/null || packages+=("$package")
    done
    [ "${#packages[@]}" = 0 ] || install_packages "${packages[@]}" || true
    for entry; do
        IFS=: read -r name package use <<<"$entry"
        command -v "$name" >/dev/null ||
            say "  missing: $name, for the tests of $use; to get it: sudo apt-get install $package"
    done
}

# want_package_lists: some tests unpack packages without installing them.
want_package_lists() {
    if ! command -v apt-cache >/dev/null || apt-cache show busybox-static >/dev/null 2>&1; then return; fi
    if [ "$(id -u)" = 0 ]; then attempt "fetching the lists of packages" apt-get update || true; fi
}

# want_promtool: puts it, and Prometheus itself, into .venv. Installing the package would start a server here.
want_promtool() {
    if command -v promtool >/dev/null && command -v prometheus >/dev/null; then return; fi
    attempt "fetching promtool" fetch_promtool ||
        say "  missing: prometheus, for the tests of alerts and dashboards; to get it: sudo apt-get install prometheus"
}

fetch_promtool() {
    (cd .venv && apt-get download prometheus && dpkg-deb -x prometheus_*.deb unpacked &&
        mv unpacked/usr/bin/{promtool,prometheus} bin/ && rm -r unpacked prometheus_*.deb)
}

# want_project EXTRA: .venv holds the project with this extra (may be empty).
# It is made anew when pyproject.toml or setup.py has changed.
want_project() {
    local stamp extra=${1:+[$1]} installed=.venv/installed${1:+-$1}
    stamp=$({ pwd; cat pyproject.toml setup.py; } | sha256sum)
    if ! venv_runs || [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ]; then
        make_venv
        printf '%s\n' "$stamp" >.venv/stamp
    fi
    [ ! -e "$installed" ] || return 0
    attempt "installing colo-compare$extra and what it needs" \
        env COLO_COMPARE_COMPILE=never .venv/bin/python -m pip install --editable ".$extra" ||
        stop "pip could not install the project" "can pip reach its package index? then run this once more"
    touch "$installed"
}

venv_runs() { .venv/bin/python -c '' 2>>"$log"; }

make_venv() {
    local version package
    [ -w . ] || stop "$(id -un) cannot write to $PWD" "run this as the folder's owner, or in a clone of your own"
    find_python
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package=python$version-venv
    can_make_venv || install_packages "$package" || true
    can_make_venv || stop "this Python $version cannot make virtual environments" \
        "install the missing part with: sudo apt-get install $package"
    rm -rf .venv
    attempt "making .venv with Python $version" "$python" -m venv .venv ||
        stop "could not make .venv in $PWD" "is there room on the disk?"
}

# Debian keeps ensurepip, without which a venv has no pip, in a package of its own.
can_make_venv() { "$python" -c 'import ensurepip, venv' 2>>"$log"; }

PATH=$PATH:/usr/sbin:/sbin # where ethtool is; not on an ordinary user's PATH
log=$(mktemp "${TMPDIR:-/tmp}/colo-compare.XXXXXX.log")
trap 'rm -f "$log"' EXIT
