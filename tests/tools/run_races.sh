#!/bin/bash
# Runs the given programs, built with ThreadSanitizer, one after the other.
# setarch -R: gcc 12's TSan cannot map its shadow where kernels of today randomise addresses with 32 bits.
set -euo pipefail
wrap=()
if setarch -R true 2>/dev/null; then
    wrap=(setarch -R)
fi
failed=0
for program in "$@"; do
    start=$SECONDS
    options=halt_on_error=1:second_deadlock_stack=1:exitcode=66
    # The gRPC library is not built with ThreadSanitizer, which does not see the atomic operations and futexes by which its threads
    # synchronise, only what they copy. None of our code runs on them.
    # libraft writes its trace texts into one buffer of the process: of no consequence to the only one that an agent has, and seen only
    # where a test has several. libuv closes files by bare system calls, so who gets the number next seems to race. What these call of
    # ours is still looked at.
    case $program in *grpc* | *store_raft*) options+=:ignore_noninstrumented_modules=1 ;; esac
    if TSAN_OPTIONS=$options timeout 120 "${wrap[@]}" "$program"; then
        echo "  ${program##*/}: ok, $((SECONDS - start)) s"
    else
        echo "  ${program##*/}: FAILED (exit code $?)"
        failed=1
    fi
done
exit $failed
