#!/bin/sh
# consul.sh NAME SERVICE QUEUE: offers the healthy instances of a Consul service to a queue,
# every ten seconds. One that fails its check is forgotten after 30 s. Run it on the host of
# the queue, beside a Consul agent. $GET: the command that asks. Needs jq.
while :; do
    ${GET:-curl -sf} "http://127.0.0.1:8500/v1/health/service/$1?passing=true" |
        jq -r '.[] | [if .Service.Address == "" then .Node.Address else .Service.Address end,
            .Service.Port, .Service.Weights.Passing // 1] | map(tostring) | join(" ")' |
        while read -r ip port weight; do
            case $ip in *:*) ip="[$ip]" ;; esac
            echo "pegasus://$3/ticket?service=$2&provider=$ip:$port&tickets=$weight&capacity=1000000&lease=30s"
        done | pegasus send
    sleep "${INTERVAL:-10}"
done
