#!/bin/sh
# One night for an operator that knows only "done" and "failed", and starts anew what failed.
# A night with more rejects than expected (3) and one that the publish gate holds (4) are done: they
# have told whoever is to know, and another try would change nothing. All else keeps its code.
set -u
rayward run "$@"
code=$?
case $code in
    3 | 4) exit 0 ;;
    *) exit "$code" ;;
esac
