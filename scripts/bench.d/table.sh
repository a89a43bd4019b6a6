# shellcheck shell=bash
# Sourced by `measure` and `cluster`: figures of several rounds, their medians and ratios, and the table of them.

RESULTS=$DIR/results
mkdir "$RESULTS"

# note NAME: adds the figure on standard input to the figures of NAME.
note() { cat >>"$RESULTS/$1"; }

last() { tail -1 "$RESULTS/$1"; }

median() {
    sort -n "$RESULTS/$1" | awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}'
}

# spread NAME: prints the median, the smallest and the largest figure of NAME.
spread() {
    echo "$(median "$1") ($(sort -n "$RESULTS/$1" | head -1)..$(sort -n "$RESULTS/$1" | tail -1))"
}

# ratio A B: prints the ratio of the medians of A and B.
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
