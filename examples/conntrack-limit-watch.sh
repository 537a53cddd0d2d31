#!/bin/sh
# An example of an outside detector: reports when a node's conntrack limit falls to a quarter.
#
# Input with `signals: true`: one JSON object per line, first the operator's configuration of the cluster, then signals,
# as written by `relapse run --record`. Output: findings, one JSON object per line.
# relapse.yaml next to this file states what it must find, and by when.
set -eu

highest=0
standing=' '

report() {
    printf '{"incident":"I2","level":"cause","severity":"warning","subject":"node/%s","evidence":"%s","cleared":%s}\n' \
        "$1" "$2" "$3"
}

# There are thousands of signals a second; only those of the conntrack table are passed to the slower loop, unbuffered.
grep --line-buffered '"conntrack-table"' | while IFS= read -r line; do
    node=${line#*'"node":"'}
    node=${node%%'"'*}
    limit=${line#*'"limit":'}
    limit=${limit%%[!0-9]*}
    count=${line#*'"count":'}
    count=${count%%[!0-9]*}
    [ "$limit" -le "$highest" ] || highest=$limit
    case $standing in
    *" $node "*) reported=yes ;;
    *) reported=no ;;
    esac
    if [ $((limit * 4)) -le "$highest" ] && [ $reported = no ]; then
        standing="$standing$node "
        report "$node" "the limit is $limit and was $highest; $count entries" false
    elif [ $((limit * 4)) -gt "$highest" ] && [ $reported = yes ]; then
        standing="${standing%%" $node "*} ${standing#*" $node "}"
        report "$node" "the limit is $limit again" true
    fi
done
