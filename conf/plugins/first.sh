#!/bin/sh
# A scheduler in sh: fills one provider before the next, in the order of their
# addresses. Use it with
#
#   queue_scheduler="exec:/usr/local/lib/pegasus/first.sh"
#
# It reads a line for every event and question, a word and KEY=VALUE pairs, and
# answers each question (`next`) with one line. If that takes longer than
# queue_plugin_timeout, the default scheduler decides.

while read -r kind pairs; do
    [ "$kind" = next ] || continue # the others are events: ticket, failed, withdrew
    id= first=
    for pair in $pairs; do
        case $pair in
        id=*) id=${pair#id=} ;;
        candidates=*) candidates=${pair#candidates=} ;;
        esac
    done
    IFS=,
    for provider in $candidates; do
        if [ -z "$first" ] || [ "$provider" \< "$first" ]; then first=$provider; fi
    done
    unset IFS
    echo "id=$id provider=$first"
done
