# In a guest of kernels.sh: takes parts away that labs need, one at a time. `relapse doctor` must name each, and each
# trial must be refused or skipped with that line, or pass without the part; none may be built and prove nothing.
# shellcheck shell=sh disable=SC1091,SC2154,SC2086
. ./settings
modules=/lib/modules/$(uname -r)/kernel/net
export TERM=dumb

# part NAME LINE USER: LINE is a pattern for what doctor prints.
part() {
    name=$1 line=$2 user=$3 home=/tmp/home
    rm -rf $home && mkdir -p $home
    cat >$home/try <<IN
export HOME=$home PATH=/bin:/sbin TERM=dumb
cd /work
${limit:-:}
relapse doctor >$home/doctor 2>&1
relapse run policy-route-lost conntrack-cap-reset --jobs $jobs --deadline-factor 10 --allow-host-writes --reports $home >$home/run 2>&1
echo \$? >$home/status
IN
    if [ $user = root ]; then
        sh $home/try
    else
        chown $user $home
        su -s /bin/sh $user -c "sh $home/try"
    fi
    wrong=
    said=$(grep -E "$line" $home/doctor | head -n 1 | cut -c 1-150)
    [ -n "$said" ] || wrong="$wrong doctor does not say it;"
    grep -qE '^(INCONCLUSIVE|DIRTY|FAIL|INTERNAL)' $home/run && wrong="$wrong a trial proved nothing;"
    status=$(cat $home/status)
    refused=$(grep -c 'cannot run labs: ' $home/run)
    [ $status = 0 ] || [ $status = 2 -a $refused = 1 ] || wrong="$wrong exit status $status;"
    if [ $refused = 1 ]; then
        outcome="refused"
    else
        outcome="$(grep -c '^PASS  I' $home/run) pass, $(grep -c '^SKIPPED  I' $home/run) skipped"
    fi
    printf '%-34s %-18s %s\n' "$name" "$outcome" "$(echo $said)"
    if [ -n "$wrong" ]; then
        echo "    WRONG:$wrong"
        cat $home/doctor $home/run
        touch /tmp/out/failed
    fi
}

mv $modules/netfilter/nf_conntrack.ko /tmp/
part "no connection tracking" '^  missing +nftables' root
mv /tmp/nf_conntrack.ko $modules/netfilter/
mv $modules/packet/af_packet.ko /tmp/
part "no AF_PACKET" '^  less +packet capture' root
mv /tmp/af_packet.ko $modules/packet/
mv /dev/kmsg /dev/kmsg.away
part "no /dev/kmsg" '^  less +kernel log' root
mv /dev/kmsg.away /dev/kmsg
limit=/proc/sys/net/netfilter/nf_conntrack_max
mount --bind $limit $limit && mount -o remount,bind,ro $limit
limit=
part "nf_conntrack_max read-only" '^  less +may be written' root
umount /proc/sys/net/netfilter/nf_conntrack_max
limit="ulimit -n 4096"
part "4,096 open files" '^  less +.*open files: ' nobody
limit=
sysctl -qw kernel.unprivileged_userns_clone=0
part "user namespaces for root alone" '^  missing +user namespaces' nobody
sysctl -qw kernel.unprivileged_userns_clone=1
sysctl -qw user.max_user_namespaces=0
part "no user namespaces" '^  missing +user namespaces' root
