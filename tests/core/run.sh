#!/bin/sh
# run.sh VARIANT PROGRAM... - run test programs of the core one after another, each for at most 300 s, times
# AIOD_TEST_TIMEOUT_FACTOR.
#
# VARIANT is plain, tsan or asan (how the programs were built). The output of each program is in PROGRAM.log, and is
# shown if the program fails. Exit status 77 means skipped; the last line of output gives the reason, and is shown. The
# last line is "core/VARIANT: N passed, N failed, N skipped". The exit status is 1 if a program failed.
set -eu

variant=$1
shift
wrapper=
limit=$(awk -v factor="${AIOD_TEST_TIMEOUT_FACTOR:-1}" 'BEGIN { printf "%g", 300 * factor }')

# ThreadSanitizer's shadow memory collides at random with a kernel that randomises mappings by more than 28 bits: turn
# address randomisation off if the kernel permits it.
if [ "$variant" = tsan ] && setarch "$(uname -m)" -R true 2>/dev/null; then
    wrapper="setarch $(uname -m) -R"
fi
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 ${TSAN_OPTIONS:-}"
export ASAN_OPTIONS="detect_leaks=1 strict_string_checks=1 detect_stack_use_after_return=1 ${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1 halt_on_error=1 ${UBSAN_OPTIONS:-}"

passed=0 failed=0 skipped=0
for program in "$@"; do
    status=0
    # shellcheck disable=SC2086 # the wrapper is a command and its arguments
    timeout "$limit" $wrapper "$program" >"$program.log" 2>&1 </dev/null || status=$?
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        echo "core/$variant  $(basename "$program")  ok"
    elif [ "$status" = 77 ]; then
        skipped=$((skipped + 1))
        echo "core/$variant  $(basename "$program")  skipped: $(tail -n 1 "$program.log")"
    else
        failed=$((failed + 1))
        [ "$status" != 124 ] || echo "timed out after $limit s" >>"$program.log"
        echo "core/$variant  $(basename "$program")  FAILED (exit status $status):"
        sed 's/^/    /' "$program.log"
    fi
done
echo "core/$variant: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
