#!/bin/sh
# deploy.sh PROVIDER COMMAND…: keeps new clients from a provider, waits until nothing is in
# progress there, runs the command, and lets clients come again. If the command fails, the
# provider stays drained for what is left of $FOR. $QUEUES: HOST:PORT of the balancers.
set -eu
provider=$1 && shift
drain() { pegasus drain "$provider" ${QUEUES-} --for "${FOR:-10m}"; }
drain
while drain | grep -qv ' 0 active'; do sleep 1; done
"$@"
pegasus resume "$provider" ${QUEUES-}
