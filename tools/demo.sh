#!/bin/sh
# The main job end to end, and an answer out of its lake: on generated phantoms, or on the images of
# a folder with one sub-folder per class (demo.sh DIR). Writes below build/ only.
set -eu
cd "$(dirname "$0")/.."
PATH=$(pwd)/.venv/bin:$PATH

if [ $# -gt 0 ]; then
    study=studies/folders.yaml
    DATA=$1 LAKE=build/demo-folders/lake
    pictures=$DATA
else
    study=studies/demo.yaml
    PHANTOMS=build/demo/phantoms LAKE=build/demo/lake
    pictures=$PHANTOMS/images
    export PHANTOMS
fi
export LAKE
[ -z "${DATA:-}" ] || export DATA

# Exit code 3 is "done, with more rejects than expected": there is still an answer to show.
rayward run "$study" || [ $? -eq 3 ]

query="SELECT images.label AS is, predictions.label AS scored_as, count(*) AS images
FROM latest_predictions AS predictions
JOIN current_images AS images USING (image_id)
JOIN splits USING (image_id)
WHERE part = 'test'
GROUP BY ALL ORDER BY ALL"
printf '\n$ LAKE=%s rayward query "%s"\n' "$LAKE" "$query"
rayward query "$query"
printf '\nThe pictures lie in %s, the lake in %s. Ask it more: rayward query --lake %s "..."\n' \
    "$pictures" "$LAKE" "$LAKE"
