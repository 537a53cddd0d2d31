# Runs in a guest of kernels.sh: replays scenarios as root and as an ordinary user; files for the table go to /tmp/out.
# shellcheck shell=sh disable=SC1091,SC2154,SC2086
. ./settings
uname -r >/tmp/out/kernel

# No modules are loaded beforehand: the kernel loads those that labs need on demand.
relapse doctor >/tmp/out/doctor 2>&1 || cat /tmp/out/doctor

# Slowdown of the guest relative to its host, measured by the time for a lab to come up, as the factor for deadlines.
best=
for _ in 1 2; do
    relapse run policy-route-lost --only incident --reports /tmp/measure >/dev/null 2>&1
    took=$(sed -n 's/.*"up":{"secs":\([0-9]*\),"nanos":\([0-9]*\)}.*/\1 \2/p' /tmp/measure/latest/events.jsonl |
        awk '{ printf "%d", $1 * 1000 + $2 / 1000000 }')
    [ -n "$best" ] && [ "$best" -le "${took:-0}" ] || best=$took
done
factor=$(awk "BEGIN { f = ${best:-0} / $native_up_ms; printf \"%.1f\", f < 1 ? 1 : f }")
echo "$factor" >/tmp/out/factor
export TERM=dumb

# replay USER: replays in a separate home.
replay() {
    user=$1 home=/tmp/home/$1
    mkdir -p /tmp/out/$user $home
    cat >$home/replay <<IN
export HOME=$home PATH=/bin:/sbin TERM=dumb
cd /work
relapse doctor >$home/doctor 2>&1
relapse run $names $only --jobs $jobs --deadline-factor $factor --allow-host-writes --reports $home 2>&1
echo \$? >$home/status
IN
    echo "=== $user, deadlines x $factor"
    if [ $user = root ]; then
        sh $home/replay
    else
        chown nobody $home
        su -s /bin/sh nobody -c "sh $home/replay"
    fi
    cp $home/doctor $home/status $home/latest/events.jsonl /tmp/out/$user/
    rm -rf $home
}
replay root
replay user
