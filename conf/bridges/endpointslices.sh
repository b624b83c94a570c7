#!/bin/sh
# endpointslices.sh NAME SERVICE QUEUE: offers the ready pods of a Kubernetes service to a
# queue, every ten seconds. One that is not ready is forgotten after 30 s. Run it on the host
# of the queue. $KUBECTL: the command that asks. Needs jq.
while :; do
    ${KUBECTL:-kubectl} get endpointslices -l "kubernetes.io/service-name=$1" -o json |
        jq -r '.items[] | .ports[0].port as $port | .endpoints[] | select(.conditions.ready) |
            .addresses[] | "\(.) \($port)"' |
        while read -r ip port; do
            case $ip in *:*) ip="[$ip]" ;; esac
            echo "pegasus://$3/ticket?service=$2&provider=$ip:$port&tickets=1&capacity=1000000&lease=30s"
        done | pegasus send
    sleep "${INTERVAL:-10}"
done
