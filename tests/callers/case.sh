#!/usr/bin/env bash
# Runs one case, inside of what enter.sh makes. Exit status 0: it passed; 77: it cannot run here.
#
#   case.sh CASE
set -euo pipefail
. "$(dirname "$0")/cases.sh"

lab_up
image_up
"case_${1//-/_}"
