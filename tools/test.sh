#!/usr/bin/env bash
# Every test there is, in the order in which a failure is cheapest to understand.  Logs go to
# build/test-logs; the last line is `N passed, N failed`.
#
#   tools/test.sh            all steps
#   tools/test.sh c asan     only these steps
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/build/venv/bin:$PATH"
logs=build/test-logs
mkdir -p "$logs"
passed=0
failed=0

# Adds up what the programs of a step counted: lines `NAME: N passed, N failed` of the C tests and
# pytest's closing line.
count() {
    python3 - "$1" <<'PY'
import re, sys
good = bad = 0
for line in open(sys.argv[1], errors="replace"):
    line = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
    if re.match(r"^(\d+/\d+ )?\S+: \d+ passed, \d+ failed$", line) or re.search(
        r"\b\d+ (passed|failed|error|errors)\b.* in [\d.]+s", line
    ):
        for n, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", line):
            if word == "passed":
                good += int(n)
            elif word != "skipped":
                bad += int(n)
print(good, bad)
PY
}

# step NAME COMMAND...: a failing command counts as a failure even if it counted none itself, and
# a quiet success as one pass.
step() {
    local name=$1 begin=$SECONDS status=0 good bad
    shift
    "$@" >"$logs/$name.log" 2>&1 || status=$?
    read -r good bad < <(count "$logs/$name.log")
    if [ $status -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
    if [ $status -eq 0 ] && [ "$good" -eq 0 ]; then good=1; fi
    passed=$((passed + good))
    failed=$((failed + bad))
    printf '%-10s %6d passed, %d failed  (%d s)\n' "$name" "$good" "$bad" $((SECONDS - begin))
    if [ "$bad" -ne 0 ]; then
        echo "---- $logs/$name.log ----"
        grep -nE 'FAIL|Error|error:|ERROR|Assertion|assert |warning:|runtime error' "$logs/$name.log" | head -n 60
        tail -n 40 "$logs/$name.log"
    fi
}

meson_test() {
    local build=$1
    shift
    meson test -C "build/$build" --no-rebuild --num-processes 2 --verbose "$@"
}

build_release() { tools/build.sh release -Dwerror=true; }
run_c() { meson_test release; }

# Addresses and undefined behaviour: the whole C suite once more.
run_asan() {
    tools/build.sh asan -Dbuildtype=debugoptimized -Db_sanitize=address,undefined \
        -Db_lundef=false -Ddefault_library=static || return 1
    ASAN_OPTIONS=detect_leaks=1:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0 \
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        meson_test asan --timeout-multiplier 6 --no-suite abi
}

# Races: what uses threads.  Layers have products of their own there (tests/layers/plain_cblas.c).
run_tsan() {
    tools/build.sh tsan -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false \
        -Ddefault_library=static || return 1
    TSAN_OPTIONS=halt_on_error=1 meson_test tsan --timeout-multiplier 6 --suite threads
}

# Old processors: no tier may leak instructions into a lower one.  The emulator knows AVX2 but
# not AVX-512, and Nehalem has neither.
run_old_cpus() {
    for cpu in Nehalem Haswell; do
        qemu-x86_64 -cpu "$cpu" build/release/cli/qkv info || return 1
        qemu-x86_64 -cpu "$cpu" build/release/cli/qkv check --cases 60 --seed 1 || return 1
    done
    qemu-x86_64 -cpu Nehalem build/release/cli/qkv info | grep -q 'avx2.*CPU lacks'
}

# AArch64 under emulation: each kernel of the baseline on a CPU of Armv8.0-A, where what is newer is an
# illegal instruction, everything else on one that has all.  That is some thirty times slower than
# this CPU, so a twentieth of the random cases, and one width of the table of fills.
aarch64_programs() {
    echo "max test_attend --test=mixed/" # the longest first
    echo "cortex-a57 test_attend --test=registry/"
    echo "max test_props"
    (cd build/aarch64/tests && find . -name 'test_*' -type f -perm -u+x) |
        sed -e '/test_attend$/d' -e '/test_props$/d' -e 's/^/max /'
    printf 'max test_attend --test=%s\n' small/ _d17_ long/ registry/attend_bf16 registry/decode_bf16
}
run_aarch64() {
    local out=build/aarch64/out status
    tools/build.sh aarch64 --cross-file tools/cross/aarch64-linux.ini -Dmodel=false -Dcli=false \
        -Dwerror=true || return 1
    rm -rf $out && mkdir $out
    aarch64_programs | QKV_TEST_SCALE=5 xargs -P 2 -I RUN sh -c "set -- RUN; cpu=\$1; shift
        qemu-aarch64 -cpu \$cpu build/aarch64/tests/\$* >\$(mktemp $out/XXXXXX) 2>&1"
    status=$?
    cat $out/*
    return $status
}

# The amx tier over the model of its instructions, which runs on every CPU.  Only what is compiled for it,
# and the programs that compare kernels with the oracle.  Also the build without oneDNN, for layers.
run_amx_model() {
    local suites="simd_amx_tiles simd_plain16_f32 simd_plain16_pairs"
    TARGETS="cli/qkv tests/test_attend tests/test_bf16 tests/test_hidden tests/layers/test_layers ${suites//simd_/tests\/simd\/test_simd_}" \
        tools/build.sh amx_model -Damx_model=true -Donednn=disabled -Dwerror=true -Ddefault_library=static || return 1
    # shellcheck disable=SC2086
    meson_test amx_model $suites || return 1
    QKV_TEST_SCALE=15 meson_test amx_model attend bf16 hidden layers || return 1
    build/amx_model/cli/qkv check --cases 300 --seed 3
}

# WebAssembly: the programs that compare kernels with the oracle, under Node; the npm package beside the command; the
# page in Chromium.  A twentieth of the random cases, as on the other emulated machines.
run_web() {
    WASM_TARGETS='' tools/web.sh || return 1
    QKV_TEST_SCALE=5 meson_test wasm --no-suite abi || return 1
    local status=0 tap=build/web/tests.tap
    QKV_COMMAND="$PWD/build/release/cli/qkv" node --test --test-reporter=tap tests/web/*.test.mjs >$tap || status=$?
    cat $tap
    awk '$1 == "#" && $2 == "pass" { good = $3 } $1 == "#" && $2 == "fail" { bad = $3 }
        END { print "web: " good + 0 " passed, " bad + 0 " failed" }' $tap
    return $status
}

# Memory errors that guard pages do not show, on a few cases (the emulated CPU has no AVX-512).
run_valgrind() {
    valgrind -q --error-exitcode=9 --leak-check=full build/release/cli/qkv check --cases 12 --seed 2
}

run_install() { tools/install_python.sh; }

# Typed, and packages agree with their stubs.
run_mypy() { mypy --strict python/qkv; }

run_pytest() {
    # Not from the source folder: `import qkv` must find what was installed.
    QKV_COMMAND="$PWD/build/release/cli/qkv" QKV_BUILD="$PWD/build/release" \
        python -m pytest -q -p no:cacheprovider tests/python tests/model tests/cli tests/examples tests/bench tests/sizing
}

all="build c old_cpus aarch64 amx_model web valgrind install mypy pytest asan tsan"
for name in ${*:-$all}; do
    case $name in
    build) step build build_release ;;
    install) step install run_install ;;
    *) step "$name" "run_$name" ;;
    esac
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
