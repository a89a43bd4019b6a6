# shellcheck shell=bash
# Sourced by `measure`: figures of several rounds, their medians and ratios, and the table of them.

RESULTS=$DIR/results
mkdir "$RESULTS"

# note NAME: adds the figure on its input to those of NAME.
note() { cat >>"$RESULTS/$1"; }

last() { tail -1 "$RESULTS/$1"; }

median() {
    sort -n "$RESULTS/$1" | awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}'
}

# spread NAME: the median, and the least and the most.
spread() {
    echo "$(median "$1") ($(sort -n "$RESULTS/$1" | head -1)..$(sort -n "$RESULTS/$1" | tail -1))"
}

# ratio A B: of the medians.
ratio() {
    awk -v a="$(median "$1")" -v b="$(median "$2")" 'BEGIN {printf "%.2f", a / b}'
}

# row WHAT FIGURE BESIDE ITS_FIGURE RATIO GOAL
row() {
    local IFS='|'
    echo "$*" >>"$RESULTS/table"
    say "$1: $2"
}

print_table() {
    printf '\n'
    { echo 'what|median (least..most)|beside|median (least..most)|ratio|goal' && cat "$RESULTS/table"; } | column -t -s '|' -o ' | '
}
