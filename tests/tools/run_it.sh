#!/bin/bash
# run_it.sh PYTEST-COMMAND…: the end-to-end tests.
# With IT_AGAIN=n, up to n tests that failed beside others run once more, alone and one by one: on a busy machine two workers
# with a cluster each can starve one another of the time that a test grants. What fails alone too fails the run; what does not
# is named at the end, as a thing to mend. More than n failures are no accident and count at once.
set -uo pipefail
again=${IT_AGAIN:-0}
"$@" --cache-clear
code=$?
[ "$code" -eq 1 ] && [ "$again" -gt 0 ] || exit "$code"
cache=$(printf '%s\n' "$@" | sed -n 's/^cache_dir=//p')
failed=$(python3 -c 'import json, sys; print(*json.load(open(sys.argv[1])), sep="\n")' "$cache/v/cache/lastfailed") || exit "$code"
[ "$(printf '%s\n' "$failed" | wc -l)" -le "$again" ] || exit "$code"
printf '\n==> once more, alone:\n%s\n' "$failed"
CARILLON_RESULTS=${CARILLON_RESULTS%.json}-again.json "$@" -n 0 --last-failed --last-failed-no-failures none || exit $?
printf '\n==> FLAKY, failed beside others and passed alone:\n%s\n' "$failed"
