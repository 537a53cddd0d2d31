# In a guest of kernels.sh: replays scenarios as root and as an ordinary user; files for the table go to /tmp/out.
# shellcheck shell=sh disable=SC1091,SC2154,SC2086
. ./settings
uname -r >/tmp/out/kernel

# Nothing is loaded beforehand: what labs need of the kernel's modules, it loads when it is asked for it.
relapse doctor >/tmp/out/doctor 2>&1 || cat /tmp/out/doctor

# How many times as long a lab takes to come up here as where this guest runs: deadlines are as much longer.
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

# replay USER: in a home of its own.
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
