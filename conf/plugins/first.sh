#!/bin/sh
# A scheduler in sh: fills one provider before the next, in the order of their
# addresses. Use it with
#
#   queue_scheduler="exec:/usr/local/lib/pegasus/first.sh"
#
# It reads a line for every event and question, in words KEY=VALUE after the
# first word, and answers each question (`next`) with one line. Nobody waits for
# it longer than queue_plugin_timeout: then the default scheduler decides.

while read -r kind pairs; do
    [ "$kind" = next ] || continue # `ticket`, `failed`, `withdrew` tell what happens
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
