#!/usr/bin/env bash
# Times a program under several kinds of OpenMP places and hardware threads:
#
#     examples/bench.sh ./solver input.dat
#     PLACES="cores one" SMT="1 all" REPEATS=9 examples/bench.sh ./solver input.dat
#
#   PLACES     what to try as --places   (default: cores threads one)
#   SMT        what to try as --smt      (default: 1 all)
#   REPEATS    runs of each combination  (default: 5), taken in turns, so that a machine that grows
#              warm or busy meanwhile does not favour any
#   PLAN       further plan options, such as "--numa-bind-nodes 0"
#   OMPBIND    the launcher, when it is not found in PATH
#
# Prints seconds of wall time to standard output; the program's own output is thrown away.
set -euo pipefail

if (($# == 0)); then
    echo "usage: ${0##*/} PROGRAM [ARG]..." >&2
    exit 125
fi

ompbind=${OMPBIND:-ompbind}
repeats=${REPEATS:-5}
read -ra all_places <<<"${PLACES:-cores threads one}"
read -ra all_smt <<<"${SMT:-1 all}"
read -ra plan <<<"${PLAN:-}"

microseconds() { # wall clock; the decimal point may be a comma
    printf '%s\n' "${EPOCHREALTIME//[!0-9]/}"
}

declare -A times=() threads=() # by "places smt"
combinations=()
for places in "${all_places[@]}"; do
    for smt in "${all_smt[@]}"; do
        # What cannot be planned is said once and left out.
        if environment=$("$ompbind" show "${plan[@]}" --places "$places" --smt "$smt" \
            --rank 0 --format env); then
            combinations+=("$places $smt")
            count=${environment#*OMP_NUM_THREADS=}
            threads["$places $smt"]=${count%%$'\n'*}
        fi
    done
done

for ((turn = 0; turn < repeats; turn++)); do
    for combination in "${combinations[@]}"; do
        read -r places smt <<<"$combination"
        begin=$(microseconds)
        "$ompbind" run "${plan[@]}" --places "$places" --smt "$smt" -- "$@" >/dev/null
        times[$combination]+=" $(($(microseconds) - begin))"
    done
done

seconds() { # from microseconds
    printf '%d.%03d' $(($1 / 1000000)) $(($1 / 1000 % 1000))
}

printf '%-8s %4s %8s %10s %10s %10s\n' places smt threads median best worst
ranges=()
for combination in "${combinations[@]}"; do
    read -r places smt <<<"$combination"
    read -ra walls <<<"${times[$combination]}"
    mapfile -t walls < <(printf '%s\n' "${walls[@]}" | sort -n)
    ranges+=("${walls[0]} ${walls[-1]}")
    printf '%-8s %4s %8s %10s %10s %10s\n' "$places" "$smt" "${threads[$combination]}" \
        "$(seconds "${walls[repeats / 2]}")" "$(seconds "${walls[0]}")" "$(seconds "${walls[-1]}")"
done

# Where every two ranges from best to worst overlap, the order of the medians says nothing.
overlap=${#ranges[@]}
for one in "${ranges[@]}"; do
    for other in "${ranges[@]}"; do
        ((${one% *} <= ${other#* })) || overlap=0
    done
done
if ((overlap > 1)); then
    echo "the ranges from best to worst all overlap: this shows no difference" >&2
fi
