#!/bin/sh
# The load on the server of `server.trace`: fills it beyond its memory, saves it by a forked child, empties it, ends it.
set -e
port=6399
until redis-cli -p $port ping >/dev/null 2>&1; do sleep 0.1; done
redis-benchmark -p $port -q -n 6000 -r 3000 -d 8000 -c 20 -t set,get,lpush,lpop,hset,zadd
redis-cli -p $port bgsave
sleep 1
redis-cli -p $port flushall
sleep 1
redis-cli -p $port shutdown nosave
