#!/bin/sh
# Lets bird announce the service's address while this balancer can serve:
#
#   announce.sh [HEALTH [BIRDC]]
#
# HEALTH is /health of redirect_admin (default: http://127.0.0.1:7348/health): 200,
# or 503 while the redirector drains or has no provider. BIRDC is how to reach
# bird (default: birdc). Asks once a second, and tells bird each time, which may
# have been started anew. With redirect_accept_grace=3s a redirector that is told
# to end accepts clients until the router sends no more.
set -u
health=${1:-http://127.0.0.1:7348/health}
birdc=${2:-birdc}
before=
tell() {
    # shellcheck disable=SC2086 # a command with its options
    $birdc "$1" service >/dev/null || return
    [ "$before" = "$1" ] || echo "announce.sh: $1 service" >&2
    before=$1
}
trap 'tell disable; exit' INT TERM
while :; do
    if curl -fsS -m 1 -o /dev/null "$health" 2>/dev/null; then
        tell enable
    else
        tell disable
    fi
    sleep 1
done
