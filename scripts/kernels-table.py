#!/usr/bin/env python3
"""Prints the table scenario x kernel from the results of the guests of kernels.sh: kernels-table.py RESULTS SUITE...

Exit status 1 if any trial neither passed nor was skipped for a reason that `relapse doctor` gave there, or if a
guest replayed nothing.
"""

import json
import pathlib
import sys

USERS = ["root", "user"]


def trials(folder):
    """Outcome and reasons of each trial (scenario, control), in the order of the run."""
    ended = {}
    events = folder / "events.jsonl"
    for line in events.read_text().splitlines() if events.exists() else []:
        event = json.loads(line)
        trial = event.get("what", event).get("trial") if isinstance(event, dict) else None
        if trial and "ended" in trial["event"]:
            name = (trial["trial"]["scenario"], trial["trial"].get("control"))
            ended[name] = trial["event"]["ended"]
    return ended


def main():
    results, suites = pathlib.Path(sys.argv[1]), sys.argv[2:]
    read = lambda path: path.read_text().strip() if path.exists() else "?"
    columns, rows, wrong = [], {}, []
    for suite in suites:
        kernel, factor = read(results / suite / "kernel"), read(results / suite / "factor")
        for user in USERS:
            folder = results / suite / user
            doctor = read(folder / "doctor")
            column = (kernel, f"x {factor}", user)
            columns.append(column)
            ended = trials(folder)
            if not ended:
                wrong.append(f"{kernel}, {user}: nothing was replayed (exit status {read(folder / 'status')})")
            for name, end in ended.items():
                outcome, reasons = end["outcome"], end.get("reasons", [])
                known = outcome == "skipped" and reasons and reasons[0] in doctor
                rows.setdefault(name, {})[column] = outcome
                if outcome != "pass" and not known:
                    label = "/".join(part for part in name if part)
                    wrong.append(f"{kernel}, {user}: {label}: {outcome}: {'; '.join(reasons)}")
    label = lambda name: name[0] if name[1] is None else f"  {name[1]}"
    width = max([len(label(name)) for name in rows] or [8]) + 2
    widths = [max(len(part) for part in column) + 2 for column in columns]
    line = lambda first, cells: print((first.ljust(width) + "".join(c.ljust(w) for c, w in zip(cells, widths))).rstrip())
    print()
    for part, title in enumerate(["kernel", "deadlines", "as"]):
        line(title, [column[part] for column in columns])
    # Sort twins below their incident; a run orders trials differently.
    order = {scenario: place for place, (scenario, _) in enumerate(reversed(rows))}
    for name, cells in sorted(rows.items(), key=lambda row: (-order[row[0][0]], row[0][1] is not None)):
        line(label(name), [cells.get(column, "-") for column in columns])
    print()
    for text in wrong:
        print(text, file=sys.stderr)
    return 1 if wrong else 0


sys.exit(main())
