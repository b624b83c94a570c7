#!/bin/sh
# srv.sh NAME SERVICE QUEUE: offers the hosts of an SRV record to a queue, every ten seconds,
# with their weights as tickets. Who is no longer in the record is forgotten after 30 s.
# Run it on the host of the queue: others may offer their own address only (`pegasus help
# security`). $DIG: the command that asks.
while :; do
    ${DIG:-dig} +short SRV "$1" | while read -r _ weight port host; do
        for ip in $(${DIG:-dig} +short A "$host"); do
            echo "pegasus://$3/ticket?service=$2&provider=$ip:$port&tickets=$((weight > 0 ? weight : 1))&capacity=1000000&lease=30s"
        done
    done | pegasus send
    sleep "${INTERVAL:-10}"
done
