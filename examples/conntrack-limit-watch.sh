#!/bin/sh
# A detector that is not part of relapse: it says when a node's conntrack limit has fallen to a quarter.
#
# In: what `signals: true` gives it, one JSON object a line: first what the operator knows of the cluster,
# then signals, as `relapse run --record` writes them. Out: findings, one JSON object a line.
# relapse.yaml beside this file says what it must find, and when.
set -eu

highest=0
standing=' '

say() {
    printf '{"incident":"I2","level":"cause","severity":"warning","subject":"node/%s","evidence":"%s","cleared":%s}\n' \
        "$1" "$2" "$3"
}

# Signals come by thousands a second; only those of the table pass on to the slower loop, each at once.
grep --line-buffered '"conntrack-table"' | while IFS= read -r line; do
    node=${line#*'"node":"'}
    node=${node%%'"'*}
    limit=${line#*'"limit":'}
    limit=${limit%%[!0-9]*}
    count=${line#*'"count":'}
    count=${count%%[!0-9]*}
    [ "$limit" -le "$highest" ] || highest=$limit
    case $standing in
    *" $node "*) said=yes ;;
    *) said=no ;;
    esac
    if [ $((limit * 4)) -le "$highest" ] && [ $said = no ]; then
        standing="$standing$node "
        say "$node" "the limit is $limit and was $highest; $count entries" false
    elif [ $((limit * 4)) -gt "$highest" ] && [ $said = yes ]; then
        standing="${standing%%" $node "*} ${standing#*" $node "}"
        say "$node" "the limit is $limit again" true
    fi
done
