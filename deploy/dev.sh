#!/usr/bin/env bash
# The newcomer's one door: checks what the system lacks, installs it where that is allowed, then calls cargo.
#
#   deploy/dev.sh demo [--orders N] …   the whole system on fresh data, then an account of what happened
#   deploy/dev.sh dev [--reset] …       the whole system, until Ctrl-C
#   deploy/dev.sh load <scenario> …     benchmarks
#   deploy/dev.sh test [cargo's flags]  all tests, on a real Kafka and a real Postgres
#   deploy/dev.sh conformance           checks by tools from outside (buf, the Compose specification, Stripe's mock server, schemathesis)
#   deploy/dev.sh faults [--seed N] …   load, calls and every fault at three nodes, then an account (--commands, --pause …)
#   deploy/dev.sh faults failover …     how long orders go unanswered when their node is killed, and when it leaves
#   deploy/dev.sh faults life …         five contexts, each killed in turn, and a provider that fails; then the books (--orders)
#   deploy/dev.sh faults roll …         nodes of an earlier build (--old COMMIT) replaced by this one's, back and again; then the new format
#   deploy/dev.sh faults grow …         partitions grow twice under load from three producers, one of them Kafka's own
#   deploy/dev.sh simulate --seeds N    a cluster under a seed that decides everything (--seed S --trace repeats one, --shrink shortens it)
#   deploy/dev.sh simulate --mutants    which broken promise, of which seed, shows that a rule is left out or a step is done wrong
#   deploy/dev.sh explore --faults N    the model of the lane with as many faults anywhere (the tests: 1; 2 takes minutes)
#   deploy/dev.sh tools                 only checks and installs what the system lacks
#
# HOLDFAST_NO_INSTALL=1 never installs anything, and only says what is missing. HOLDFAST_BREAKING_BASE names the commit
# with whose contracts `conformance` compares.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

BUF_VERSION=1.75.0
CHECK_JSONSCHEMA_VERSION=0.39.0
STRIPE_MOCK_VERSION=v0.203.0
SCHEMATHESIS_VERSION=4.32.5
JAVA_OLDEST=17
cache=${XDG_CACHE_HOME:-$HOME/.cache}/holdfast

say() { printf 'dev.sh: %s\n' "$*" >&2; }
die() { say "$2"; exit "$1"; }
has() { command -v "$1" >/dev/null 2>&1; }

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
  exit 2
}

# --- what the system lacks ------------------------------------------------------------------------------------------

java_is_new_enough() {
  local java=java version
  [[ -z ${JAVA_HOME:-} ]] || java=$JAVA_HOME/bin/java
  version=$("$java" -version 2>&1 | sed -n 's/.* version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p') || return 1
  [[ -n $version ]] && ((version >= JAVA_OLDEST))
}

# Whether a library's headers are installed, by the name that pkg-config knows it by.
library() { pkg-config --exists "$1" 2>/dev/null; }

# Prints one word for each thing that is missing.
missing_tools() {
  { has cc && has c++ && has make; } || echo compiler
  has pkg-config || echo pkg-config
  # Before there is a pkg-config, all three are taken for missing: the package manager knows better.
  library openssl || echo openssl
  library libzstd || echo zstd
  library zlib || echo zlib
  java_is_new_enough || echo java
  has mvn || echo maven
  has cargo || echo rust
}

# Of the kind jre or jdk.
newest_java_package() {
  local kind=$1 version
  for version in 25 21 17; do
    if [[ -n $(apt-cache search --names-only "^openjdk-$version-$kind-headless\$") ]]; then
      echo "openjdk-$version-$kind-headless"
      return
    fi
  done
  echo "default-$kind-headless"
}

debian_package() {
  case $1 in
    compiler) echo build-essential ;;
    java) newest_java_package jre ;;
    jdk) newest_java_package jdk ;;
    rust) echo rustup ;;
    openssl) echo libssl-dev ;;
    zstd) echo libzstd-dev ;;
    zlib) echo zlib1g-dev ;;
    node) echo nodejs npm ;;
    go) echo golang-go ;;
    python) echo python3 python3-venv ;;
    browser) echo chromium chromium-driver ;;
    *) echo "$1" ;;
  esac
}

fedora_package() {
  case $1 in
    compiler) echo gcc gcc-c++ make ;;
    java) echo java-latest-openjdk-headless ;;
    jdk) echo java-latest-openjdk-devel ;;
    rust) echo rustup ;;
    pkg-config) echo pkgconf-pkg-config ;;
    openssl) echo openssl-devel ;;
    zstd) echo libzstd-devel ;;
    zlib) echo zlib-devel ;;
    node) echo nodejs npm ;;
    go) echo golang ;;
    python) echo python3 ;;
    browser) echo chromium chromedriver ;;
    *) echo "$1" ;;
  esac
}

arch_package() {
  case $1 in
    compiler) echo base-devel ;;
    java) echo jre-openjdk-headless ;;
    jdk) echo jdk-openjdk ;;
    rust) echo rustup ;;
    pkg-config) echo pkgconf ;;
    node) echo nodejs npm ;;
    browser) echo chromium ;;
    *) echo "$1" ;;
  esac
}

packages() {
  local namer=$1 tool
  shift
  for tool in "$@"; do "$namer" "$tool"; done | paste -sd ' ' -
}

# Installs the named tools, or says how to and ends.
provide() {
  local as_root=() list
  if has apt-get; then
    if ((EUID != 0)); then as_root=(sudo -n); fi
    if [[ -n ${HOLDFAST_NO_INSTALL:-} ]] || ! "${as_root[@]}" true 2>/dev/null; then
      die 1 "missing: $*. Run: sudo apt-get update && sudo apt-get install -y $(packages debian_package "$@")"
    fi
    say "missing: $*; installing through apt-get"
    "${as_root[@]}" apt-get update -qq >&2
    list=$(packages debian_package "$@")
    # shellcheck disable=SC2086  # a list of words
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $list >&2 ||
      die 1 "apt-get could not install: $list. Rust itself: see rust-lang.org/tools/install; the rest: install by hand"
  elif has dnf; then
    die 1 "missing: $*. Run: sudo dnf install $(packages fedora_package "$@")"
  elif has pacman; then
    die 1 "missing: $*. Run: sudo pacman -S --needed $(packages arch_package "$@")"
  else
    die 1 "missing: $*. Install with your system's package manager: a C and C++ compiler with make, pkg-config, the headers of OpenSSL 3, zstd and zlib, Java $JAVA_OLDEST or newer, Maven, and Rust (rust-lang.org/tools/install)"
  fi
}

ensure_build_tools() {
  local lacking
  # rustup puts cargo here and relies on a new login to find it.
  has cargo || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  mapfile -t lacking < <(missing_tools)
  ((${#lacking[@]} == 0)) || provide "${lacking[@]}"
  mapfile -t lacking < <(missing_tools)
  ((${#lacking[@]} == 0)) || die 1 "still missing after installing: ${lacking[*]}. Is an older Java first on the path (JAVA_HOME=${JAVA_HOME:-unset})?"
}

# A test sends by Kafka's own client, by a program that is compiled when it is started.
ensure_java_compiler() {
  local java=java
  [[ -z ${JAVA_HOME:-} ]] || java=$JAVA_HOME/bin/java
  [[ $("$java" --list-modules 2>/dev/null) == *jdk.compiler@* ]] || provide jdk
  [[ $("$java" --list-modules 2>/dev/null) == *jdk.compiler@* ]] ||
    die 1 "$java has no compiler. Is a Java without one first on the path (JAVA_HOME=${JAVA_HOME:-unset})?"
}

# The pages are tested in one.
ensure_browser() {
  { has chromium || has chromium-browser || has google-chrome; } && has chromedriver && return
  provide browser
  has chromedriver || die 1 "there is still no chromedriver on the path"
}

# --- conformance ----------------------------------------------------------------------------------------------------

ensure_buf() {
  local home=$cache/tools/buf-$BUF_VERSION fresh
  buf=$home/node_modules/.bin/buf
  [[ -x $buf ]] && return
  if ! { has node && has npm; }; then provide node; fi
  say "installing buf $BUF_VERSION through npm, once"
  mkdir -p "$cache/tools"
  fresh=$(mktemp -d "$cache/tools/buf-tmp-XXXXXX")
  npm install --prefix "$fresh" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error \
    "@bufbuild/buf@$BUF_VERSION" >&2 || { rm -rf -- "$fresh"; die 1 "npm could not install @bufbuild/buf@$BUF_VERSION; check the network and npm's settings"; }
  # Another process may have been faster; its copy is as good.
  mv -T -- "$fresh" "$home" 2>/dev/null || rm -rf -- "$fresh"
}

# A program from PyPI, in an environment of its own.
ensure_from_pypi() {
  local name=$1 version=$2 home fresh
  home=$cache/tools/$name-$version
  [[ -d $home/bin ]] && return
  python3 -c 'import ensurepip, venv' 2>/dev/null || provide python
  say "installing $name $version through pip, once"
  mkdir -p "$cache/tools"
  fresh=$(mktemp -d "$cache/tools/$name-tmp-XXXXXX")
  # An environment can't be moved, so what is put in its place is a link to it.
  if ! { python3 -m venv "$fresh" && "$fresh/bin/pip" install --quiet --disable-pip-version-check "$name==$version"; } >&2; then
    rm -rf -- "$fresh"
    die 1 "pip could not install $name==$version; check the network and pip's settings"
  fi
  ln -sfn -- "$fresh" "$home"
}

# The gateway before the whole shop, asked all that its description allows, and much that it does not.
edge_conformance() {
  ensure_from_pypi schemathesis "$SCHEMATHESIS_VERSION"
  ensure_build_tools
  say "the gateway against its description, by schemathesis $SCHEMATHESIS_VERSION"
  HOLDFAST_SCHEMATHESIS=$cache/tools/schemathesis-$SCHEMATHESIS_VERSION/bin/schemathesis \
    cargo test --release --locked --workspace --test system >&2 || die 1 "the gateway does not do what its description says"
}

compose_conformance() {
  local check_jsonschema=$cache/tools/check-jsonschema-$CHECK_JSONSCHEMA_VERSION/bin/check-jsonschema
  # It brings the schema of the Compose specification along.
  ensure_from_pypi check-jsonschema "$CHECK_JSONSCHEMA_VERSION"
  say "compose.yaml against the Compose specification"
  "$check_jsonschema" --builtin-schema vendor.compose-spec deploy/compose.yaml >&2 ||
    die 1 "deploy/compose.yaml is not what the Compose specification allows"
}

ensure_stripe_mock() {
  local home=$cache/tools/stripe-mock-$STRIPE_MOCK_VERSION
  stripe_mock=$home/stripe-mock
  [[ -x $stripe_mock ]] && return
  has go || provide go
  say "building stripe-mock $STRIPE_MOCK_VERSION through Go, once"
  GOBIN=$home GOFLAGS=-mod=mod go install "github.com/stripe/stripe-mock@$STRIPE_MOCK_VERSION" >&2 ||
    die 1 "Go could not build github.com/stripe/stripe-mock@$STRIPE_MOCK_VERSION; check the network and GOPROXY"
}

# The requests of the Stripe adapter, as Stripe's own mock server checks them against its published API.
stripe_conformance() {
  local port status=0 server
  ensure_stripe_mock
  ensure_build_tools
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  "$stripe_mock" -http-addr "127.0.0.1:$port" >/dev/null 2>&1 &
  server=$!
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$server" 2>/dev/null || die 1 "stripe-mock does not start"
    sleep 0.1
  done
  say "payments against stripe-mock $STRIPE_MOCK_VERSION"
  HOLDFAST_STRIPE_MOCK=http://127.0.0.1:$port cargo test --release --locked --workspace --test stripe_mock >&2 || status=$?
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  ((status == 0)) || die 1 "Stripe's mock server does not take what payments sends"
}

# What was asked for, the last release, or, before there is one, the previous commit; nothing if that had no contracts.
breaking_base() {
  local base=${HOLDFAST_BREAKING_BASE:-}
  [[ -n $base ]] || base=$(git describe --tags --abbrev=0 HEAD~1 2>/dev/null) || base=HEAD~1
  git cat-file -e "$base:proto/buf.yaml" 2>/dev/null && echo "$base"
}

conformance() {
  local base reason
  compose_conformance
  ensure_buf
  say "buf lint"
  (cd proto && "$buf" lint)
  if ! base=$(breaking_base); then
    say "buf breaking: nothing earlier to compare with"
    return
  fi
  reason=$(git log "$base..HEAD" --format='%(trailers:key=Breaking-Change,valueonly)' | sed '/^$/d')
  if [[ -n $reason ]]; then
    say "buf breaking: declared since $base, not checked: $reason"
    return
  fi
  say "buf breaking against $base"
  local before status=0
  before=$(mktemp -d)
  git archive "$base" proto | tar -x -C "$before"
  (cd proto && "$buf" breaking --against "$before/proto") || status=$?
  rm -rf -- "$before"
  ((status == 0)) || die 1 "the contracts break those of $base; if that is meant, say why in the commit: 'Breaking-Change: <reason>'"
}

# --- verbs ----------------------------------------------------------------------------------------------------------

(($# > 0)) || usage
verb=$1
shift
case $verb in
  demo | dev | load)
    ensure_build_tools
    exec cargo run --release --locked -- "$verb" "$@"
    ;;
  test)
    ensure_build_tools
    ensure_java_compiler
    ensure_browser
    exec cargo test --release --locked --workspace "$@"
    ;;
  conformance)
    conformance
    stripe_conformance
    edge_conformance
    ;;
  tools)
    ensure_build_tools
    ;;
  simulate)
    ensure_build_tools
    exec cargo run --release --locked --package holdfast-testkit --example simulate -- "$@"
    ;;
  explore)
    ensure_build_tools
    [[ ${1:-} == --faults && ${2:-} =~ ^[0-9]$ ]] || die 2 "usage: deploy/dev.sh explore --faults N, with N below 10"
    HOLDFAST_LANE_FAULTS=$2 exec cargo test --release --locked --package holdfast-machine --lib -- --nocapture lane_keeps_every_promise while_homes_move
    ;;
  faults)
    ensure_build_tools
    ensure_java_compiler
    [[ ${1:-} == failover || ${1:-} == grow || ${1:-} == life || ${1:-} == roll || ${1:-} == run ]] || set -- run "$@"
    exec cargo test --release --locked --workspace --test faults -- "$@"
    ;;
  *)
    usage
    ;;
esac
