# Runs in a guest of kernels.sh: removes parts that labs need, one at a time. `relapse doctor` must name each, and each
# trial must be refused or skipped with that line, or pass without the part; none may run and prove nothing.
# shellcheck shell=sh disable=SC1091,SC2154,SC2086
. ./settings
modules=/lib/modules/$(uname -r)/kernel/net
export TERM=dumb

# part NAME LINE EXPECTED RUN: LINE is a pattern for doctor's output, EXPECTED the result of `relapse run RUN`. Runs
# as $user, after the command $first.
part() {
    name=$1 line=$2 expected=$3 run=$4 home=/tmp/home
    rm -rf $home && mkdir -p $home
    cat >$home/try <<IN
export HOME=$home PATH=/bin:/sbin TERM=dumb
cd /work
$first
relapse doctor >$home/doctor 2>&1
relapse run $run --jobs $jobs --deadline-factor 10 --allow-host-writes --reports $home >$home/run 2>&1
IN
    case $user in
    root) sh $home/try ;;
    isolated) unshare -n sh $home/try ;;
    *) chown $user $home && su -s /bin/sh $user -c "sh $home/try" ;;
    esac
    found=$(grep -E "$line" $home/doctor | head -n 1 | tr -s ' ' | cut -c 2-150)
    if grep -q 'cannot run labs: ' $home/run; then
        outcome=refused
    else
        outcome="$(grep -c '^PASS  I' $home/run) pass, $(grep -c '^SKIP  I' $home/run) skipped"
        other=$(grep -cE '^(INCONCLUSIVE|DIRTY|FAIL|INTERNAL)' $home/run)
        [ $other = 0 ] || outcome="$outcome, $other other"
    fi
    printf '%-34s %-18s %s\n' "$name" "$outcome" "$found"
    if [ -z "$found" ] || [ "$outcome" != "$expected" ]; then
        echo "    WRONG: expected $expected, and a line of doctor that matches $line"
        cat $home/doctor $home/run
        touch /tmp/out/failed
    fi
}

one="policy-route-lost --only incident"
user=root first=''
mv $modules/netfilter/nf_conntrack.ko /tmp/
part "no connection tracking" '^  missing +nftables' refused "$one"
mv /tmp/nf_conntrack.ko $modules/netfilter/
mv /dev/kmsg /dev/kmsg.away
part "no /dev/kmsg" '^  limited +kernel log' "1 pass, 0 skipped" "$one"
mv /dev/kmsg.away /dev/kmsg
# Exists only in the initial network namespace, as in a container.
user=isolated
part "nf_conntrack_max read-only" '^  limited +writable' "0 pass, 1 skipped" "conntrack-cap-reset --only limit-raised"
user=root first='mount --bind /dev/null /proc/kcore'
part "parts of /proc masked" '^  missing +lab process' refused "$one"
umount /proc/kcore
user=nobody first='ulimit -n 4096'
part "4,096 open files" '^  limited +.*open files: ' "1 pass, 1 skipped" "policy-route-lost conntrack-cap-reset --only incident"
first=''
sysctl -qw kernel.unprivileged_userns_clone=0
part "user namespaces for root alone" '^  missing +user namespaces' refused "$one"
sysctl -qw kernel.unprivileged_userns_clone=1
sysctl -qw user.max_user_namespaces=0
user=root
part "no user namespaces" '^  missing +user namespaces' refused "$one"
