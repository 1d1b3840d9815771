#!/usr/bin/env bash
# The quick checks that others make of a skill: the reference validator, a linter, a security scanner. Half a minute.
#   bash tests/ecosystem.sh
# Needs Python 3.10+ with venv, Node 20+, git, tar and both package indexes; leaves nothing behind. With
# ECOSYSTEM_TOOLS=FOLDER the tools stay there for the next run. Exit status: how many checks failed.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
tools=${ECOSYSTEM_TOOLS:-$work/tools}

# One environment each: a scanner must not choose the versions that the validator runs with.
for package in skills-ref==0.1.1 bastionskill==0.11.0; do
  folder=$tools/${package%%==*}
  if [ ! -e "$folder/$package" ]; then
    python3 -m venv --clear "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$package"
    touch "$folder/$package"
  fi
done

# As installers copy it: the files of today that git does not ignore, in a folder called like the skill.
skill=$work/image2
mkdir "$skill"
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' name; do
  if [ -e "$name" ]; then printf '%s\0' "$name"; fi
done | tar --null -cf - -T - | tar -xf - -C "$skill"

# metadata.openclaw is a nested block, the only form OpenClaw reads; this rule of the linter wants strings.
printf '{"rules": {"frontmatter.metadata_string_values": "off"}}\n' > "$work/skill-check.json"

failed=0
check() {
  local name=$1
  shift
  if "$@" > "$work/said" 2>&1; then
    echo "PASS $name"
  else
    echo "FAIL $name"
    sed 's/^/  | /' "$work/said"
    failed=$((failed + 1))
  fi
}
check skills-ref "$tools/skills-ref/bin/agentskills" validate "$skill"
check skill-check npx --yes skill-check@1.2.0 check "$skill" --config "$work/skill-check.json" --no-security-scan \
  --no-open --format github --fail-on-warning
check bastionskill "$tools/bastionskill/bin/bastionskill" scan "$skill"
exit "$failed"
