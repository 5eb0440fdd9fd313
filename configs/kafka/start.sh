#!/bin/bash
# Prepares an empty volume, then becomes the broker. Runs in the built and in the official image.
set -eu
java=(java -cp '/opt/kafka/libs/*' "-Dlog4j2.configurationFile=$FOLDER/log4j2.yaml"
    # Native libraries are unpacked here: /tmp does not let programs run.
    "-Djava.io.tmpdir=$DATA/tmp" -Djava.awt.headless=true)

mkdir -p "$DATA/tmp"
rm -rf "${DATA:?}"/tmp/*

# Partitions and votes of a broker that goes away would be lost, so a cluster never gets smaller.
had=0
if [ -s "$DATA/brokers" ]; then read -r had <"$DATA/brokers"; fi
if [ "$BROKERS" -lt "$had" ]; then
    echo "start: brokers: $BROKERS is less than the $had there are, and those beyond hold data; write brokers: $had" >&2
    exit 1
fi

if [ ! -s "$DATA/log/meta.properties" ]; then
    if [ -d "$DATA/log" ] && ! rmdir "$DATA/log" 2>/dev/null; then
        echo "start: $DATA/log holds files but is no broker's folder; not touching it" >&2
        exit 1
    fi
    voters=--no-initial-controllers
    if [ "$NODE" = 1 ]; then
        # The first broker founds the cluster, unless others already run: then its volume was lost.
        voters=--standalone
        for peer in $PEERS; do
            if timeout 2 bash -c "echo >/dev/tcp/${peer%:*}/${peer#*:}" 2>/dev/null; then
                voters=--no-initial-controllers
            fi
        done
    fi
    # What an interrupted run leaves half-made never stands in the real one's place.
    rm -rf "$DATA/log.new"
    sed "s|^log.dirs=.*|log.dirs=$DATA/log.new|" "$FOLDER/server.properties" >"$DATA/tmp/format.properties"
    "${java[@]}" -Xmx96m kafka.tools.StorageTool format --cluster-id="$CLUSTER_ID" $voters \
        --config "$DATA/tmp/format.properties" >"$DATA/tmp/format.log" 2>&1 || {
        cat "$DATA/tmp/format.log" >&2
        exit 1
    }
    mv "$DATA/log.new" "$DATA/log"
    sync "$DATA"
fi
echo "$BROKERS" >"$DATA/brokers"

exec "${java[@]}" "-Xmx${HEAP_MIB}m" -XX:+ExitOnOutOfMemoryError \
    kafka.Kafka "$FOLDER/server.properties"
