#!/usr/bin/env python3
"""Cuts recordings down to fixtures for the detectors' tests.

    relapse run policy-route-lost --record recordings
    scripts/cut-recording.py reports/latest recordings detectors/fixtures

Keeps signals about the state of a node from the start, and all others from shortly before the fault until
shortly after the last verdict; in a control, for as long as the twin is relevant. Signals that no detector
of the incident uses are dropped: a new incident, or a slow twin, needs a line below. Replay both and compare
before you commit a fixture.
"""

import json
import pathlib
import sys

MILLISECOND = 1_000_000
BEFORE, AFTER, CONTROL = 250 * MILLISECOND, 60 * MILLISECOND, 800 * MILLISECOND
# Addresses that a name has within a second of its first answer are its own; requests before the fault are its history.
LEARNT = {"I6": 1300 * MILLISECOND, "W3": 1300 * MILLISECOND, "W4": 1300 * MILLISECOND}
# These continue after t0: a restart, a rebuild, downloads that a dead client never acknowledges.
LONG = {"rolling-restart": 1800, "rebuilt": 1200, "client-dies": 1500, "reuse-succeeds": 1500,
        "pod-replaced": 4000, "restarted": 4000, "rolling-update": 3000, "other-resolver-lost": 2000}
STATE = {"pod", "endpoints", "collector", "link", "rule", "route", "container", "node-condition", "kube-proxy"}
WANTED = {
    "I1": {"segment", "socket"},
    "I2": {"conntrack-table", "conntrack-stats", "kernel-log"},
    "I3": {"probe", "dns", "route-lookup", "event", "pod-log"},
    "I4": {"segment", "probe", "route-lookup"},
    "I5": {"exchange"},
    "I6": {"dns", "segment"},
    "I7": {"flow", "segment", "conntrack-stats", "socket"},
    "W1": {"probe"},
    "W2": {"probe"},
    "W3": {"ingress-log"},
    "W4": {"exchange"},
    "W5": set(),
    "W6": {"probe"},
}


def is_wanted(incident, kind, what):
    if incident in WANTED and kind not in WANTED[incident]:
        return False
    if incident in ("I4", "I6") and kind == "segment":
        return what["flags"]["syn"] or what["flags"]["rst"]
    if incident == "I6" and kind == "dns":
        return bool(what["answers"])
    return True


def trials(run):
    """For each trial: its incident, t0, when its last expectation was met, when healing began."""
    found = {}
    for line in open(run / "events.jsonl"):
        record = json.loads(line)
        what = record["what"]
        if "run-started" in what:
            for info in what["run-started"]["trials"]:
                trial = info["trial"]
                found[key(trial)] = {"incident": info["incident"], "backend": trial["backend"]}
        event = what["trial"]["event"] if "trial" in what else None
        if not isinstance(event, dict):
            continue
        trial = found[key(what["trial"]["trial"])]
        if "injected" in event:
            trial.setdefault("t0", event["injected"]["t0"])
        elif "verdict" in event and "detected" in event["verdict"]["verdict"]:
            trial["last"] = record["at"]
        elif event.get("phase", {}).get("phase") == "heal":
            trial["heal"] = record["at"]
    return found


def key(trial):
    return trial["scenario"] + (f"--{trial['control']}" if trial["control"] else "")


def cut(source, target, name, trial):
    begin = trial["t0"] - LEARNT.get(trial["incident"], BEFORE)
    if "--" in name:
        length = next((ms * MILLISECOND for twin, ms in LONG.items() if twin in name), CONTROL)
        end = min(trial["heal"], trial["t0"] + length)
    else:
        end = trial.get("last", trial["heal"]) + AFTER
    with open(source) as lines, open(target, "w") as out:
        out.write(next(lines))
        for line in lines:
            signal = json.loads(line)
            kind, what = next(iter(signal["observed"].items()))
            if signal["at"] > end:
                continue
            if kind in STATE:
                again = kind == "collector" and what["sight"] == "ready" and signal["at"] > begin
                if not again:
                    out.write(line)
            elif signal["at"] >= begin and is_wanted(trial["incident"], kind, what):
                out.write(line)


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    run, recordings, target = map(pathlib.Path, sys.argv[1:4])
    for name, trial in trials(run).items():
        source = recordings / f"{name}.jsonl"
        if source.exists() and "t0" in trial:
            backend = "" if trial["backend"] == "netns" else f"-on-{trial['backend']}"
            fixture = target / f"{name}{backend}.jsonl"
            cut(source, fixture, name, trial)
            print(f"{name}: {source.stat().st_size // 1000} kB -> {fixture.stat().st_size // 1000} kB")


main()
