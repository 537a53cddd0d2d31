#!/bin/bash
# Writes docs/scoreboard.md: how many incidents a folder of rules catches. The rules stay where they are.
# RECORDINGS: a folder of recordings instead of those in the program.
# Usage: scripts/scoreboard.sh RULES   (RULES/../README.md or RULES/README.md names source and version)
set -euo pipefail
rules=${1:?"give a folder of rules"}
relapse=${RELAPSE:-${CARGO_TARGET_DIR:-target}/release/relapse}
out=docs/scoreboard.md
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
ln -s "$(realpath "$rules")" "$tmp/$(basename "$rules")"
relapse=$(realpath "$relapse")
recordings=${RECORDINGS:+--recordings=$(realpath "$RECORDINGS")}
(cd "$tmp" && "$relapse" alerts ${recordings:-} "$(basename "$rules")" --report "$tmp/report.md" > /dev/null)
source=$(cat "$rules/README.md" "$(dirname "$rules")/README.md" 2> /dev/null | grep -F "$(basename "$rules")/" | head -1 || true)
{
  echo "# What stock rules see"
  echo
  echo "Made by \`make scoreboard RULES=FOLDER\` ($(basename "$rules")). ${source:-The folder names no source.}"
  echo
  echo "[How it works, and what is not covered](alerts.md). Levels are those of the [reviewed list](../alerts/src/report/reviewed.yaml)."
  echo
  sed 's/^#/##/' "$tmp/report.md"
  echo
  echo "## What no exporter shows"
  echo
  echo "Policy rules and per-table routes (I4's cause: \`network_route\` lists routes without their table), PAWS and reused"
  echo "source ports (I7), path MTUs and MSS clamps (I1's cause), and retransmissions in pods: \`node_netstat_*\` covers the"
  echo "node's own namespace. A lost interface (I3) makes its series vanish; none of them becomes 0."
} > "$tmp/scoreboard.md"
mv "$tmp/scoreboard.md" "$out"
echo "wrote $out"
