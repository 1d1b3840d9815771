#!/usr/bin/env bash
# Prepares a fresh Debian machine, then runs the README's test command.
set -euo pipefail
cd "$(dirname "$0")/.."
wanted=()
command -v chromium >/dev/null || wanted+=(chromium)
python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
if [ ${#wanted[@]} -gt 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${wanted[@]}" >/dev/null
fi
exec python3 tests/run.py
