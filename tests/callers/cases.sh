# All cases: each is a function case_NAME.
CALLERS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$CALLERS/lab.sh"
. "$CALLERS/kinds.sh"
for file in "$CALLERS"/cases/*.sh; do
    . "$file"
done
