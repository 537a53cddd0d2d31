#!/bin/sh
# Warns when a node has had no default route in table 2 for a second.
#
# Reads signals as JSON lines, prints findings as JSON lines. Replace it with your agent.
set -eu

wait=1000000000 # nanoseconds; a table that is rebuilt sooner is not an incident
gone=''         # NODE=TIME of each default route that is missing
warned=''

finding() {
    printf '{"incident":"MY-1","level":"cause","severity":"warning","subject":"node/%s","evidence":"%s","cleared":%s}\n' \
        "$1" "table 2 has no default route" "$2"
}

# Besides routes, one signal that every node sends several times a second serves as the clock.
grep --line-buffered -e '"table":2,"destination":null' -e '"conntrack-table"' | while IFS= read -r line; do
    at=${line#*'"at":'}
    at=${at%%,*}
    node=${line#*'"node":"'}
    node=${node%%'"'*}
    case $line in
    *'"change":"removed"'*) gone="$gone $node=$at" ;;
    *'"destination":null'*)
        rest=''
        for entry in $gone; do
            [ "${entry%=*}" = "$node" ] || rest="$rest $entry"
        done
        gone=$rest
        case $warned in
        *" $node "*)
            warned="${warned%%" $node "*} ${warned#*" $node "}"
            finding "$node" true
            ;;
        esac
        ;;
    esac
    for entry in $gone; do
        node=${entry%=*}
        case $warned in
        *" $node "*) ;;
        *)
            if [ $((at - ${entry#*=})) -gt "$wait" ]; then
                warned="$warned $node "
                finding "$node" false
            fi
            ;;
        esac
    done
done
