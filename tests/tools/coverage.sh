#!/bin/bash
# Line coverage after a run of the tests: coverage.sh OBJECT_FOLDER FLOOR FOLDER...
# Writes a page for people and fails if a FOLDER has less than FLOOR percent of its lines run.
set -euo pipefail
objects=$1 floor=$2
shift 2

# gcovr stumbles over notes of sources that were renamed or removed since.
find "$objects/t" -name '*.gcno' | while read -r notes; do
    source=${notes#"$objects/t/"}
    [ -f "${source%.gcno}.c" ] || rm -f "$notes"
done

# Counters are not atomic (that made some tests ten times slower), so threads may lose counts and gcov may print a branch as taken
# fewer than no times, which gcovr takes for an unknown line and warns of in seven lines: those are left out, what else it does not
# understand is not. Lines, which are what is judged, stay right within a few counts.
negative='(  |UnknownLineType: )branch +[0-9]+ taken -[0-9]+'
wrapping='\(WARNING\) (Unrecognized GCOV output|Exception during parsing)|\t(This is indicative|Please report this|at <https)'
gcovr -r . "$objects/t" -e tests/ --gcov-ignore-parse-errors --json "$objects/report.json" \
    2> >(grep -vP "^(\t$negative|$wrapping)" >&2 || true)
gcovr -r . -a "$objects/report.json" --html-details "$objects/report.html" >/dev/null
failed=0
for folder in "$@"; do
    report=$objects/$(basename "$folder").txt
    gcovr -r . -a "$objects/report.json" -f "$folder/" -o "$report"
    percent=$(awk '/^TOTAL/ { print $4 + 0 }' "$report")
    if [ "${percent:-0}" -lt "$floor" ]; then
        cat "$report"
        echo "coverage: $folder has $percent % of its lines run, at least $floor % wanted" >&2
        failed=1
    else
        echo "coverage: $folder $percent % of lines"
    fi
done
gcovr -r . -a "$objects/report.json" | awk '/^TOTAL/ { print "coverage: everything " $4 " of lines" }'
exit $failed
