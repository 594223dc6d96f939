# Sourced by the scripts that fetch or build a real part which the tests run against. Each part lives in its own
# folder of the cache, outside the checkout, beside a stamp that is the hash of everything which decides what it is:
# the pins and the script itself. So a second run costs one hash, and a changed pin rebuilds.
set -euo pipefail

# The scripts name their pins relative to themselves, wherever they were called from.
self="$(readlink -f "$0")"
cd "$(dirname "$self")"

cache="${HEADROOM_CACHE:-$HOME/.cache/headroom}"
export LC_ALL=C

fail() {
    echo "$part: $*" >&2
    exit 1
}

# What cannot be had here (a tool is missing, a registry does not answer) ends with 77: the caller skips the tests that
# need the part, by its name. Anything else that goes wrong is our own mistake and ends with 1.
unavailable() {
    echo "$part: $*" >&2
    exit 77
}

need() {
    command -v "$1" >/dev/null || unavailable "needs $1, which is not on this machine"
}

# begin NAME PIN...: sets $part, $home and $log, and leaves at once when that exact part is already there.
begin() {
    part="$1"
    shift
    home="$cache/$part"
    started=$SECONDS
    mkdir -p "$home"
    # Two test runs on one machine share the cache: the second waits for the first one's build and then finds it done.
    exec 9>"$cache/$part.lock"
    flock 9
    wanted="$(cat "$self" "$@" | sha256sum | cut -d' ' -f1)"
    if [ "$(cat "$home/stamp" 2>/dev/null)" = "$wanted" ]; then
        echo "$part: there already, $home (0 s)"
        exit 0
    fi
    rm -f "$home/stamp"
    log="$home/install.log"
    : >"$log"
}

# quietly COMMAND...: registries and compilers talk a lot; only a failure makes that worth reading.
quietly() {
    "$@" >>"$log" 2>&1 9>&- || {
        tail -n 30 "$log" >&2
        fail "'$*' failed; the whole log is $log"
    }
}

# fetch COMMAND...: the same for what asks a registry.
fetch() {
    "$@" >>"$log" 2>&1 9>&- || {
        tail -n 30 "$log" >&2
        unavailable "could not be fetched by '$*'; the whole log is $log"
    }
}

finish() {
    echo "$wanted" >"$home/stamp"
    echo "$part: $* ($((SECONDS - started)) s)"
}

# Modules and build results of Go are kept in the same cache, so that a rebuild after a changed pin is an increment.
# GOTOOLCHAIN=local: a pin that wants a newer Go must fail here, not download one.
go_environment() {
    need go
    export GOMODCACHE="$cache/go/mod" GOCACHE="$cache/go/build" GOTOOLCHAIN=local CGO_ENABLED=0
    export GOFLAGS="-buildvcs=false -modcacherw"
}
