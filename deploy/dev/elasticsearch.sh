#!/usr/bin/env bash
# A real Elasticsearch 7.0.0 node with its data directory on a davfs2 mount of the gateway: 64 MB of images go in; then
# node, mount and gateway stop, all three start again, and every document must still be there.
#
# The node comes out of the jar in PyPI's pyserini 0.7.2.0 wheel, kept in ~/.cache/tierdav-es between runs.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || { echo "davfs2 mounts need root"; exit 1; }
HERE="$REPO/deploy/dev/es" KEEP=${TIERDAV_ES_CACHE:-$HOME/.cache/tierdav-es} PORT_ES=19207 MB=${MB:-64}
JAR="$KEEP/lib/anserini-0.7.2-fatjar.jar"
build

mkdir -p "$KEEP/lib"
if [ ! -s "$JAR" ]; then
    python3 -m pip download -q --no-deps -d "$KEEP" pyserini==0.7.2.0 || exit 1
    unzip -q -o -j "$KEEP"/pyserini-0.7.2.0*.whl '*fatjar.jar' -d "$KEEP/lib" || exit 1
    rm -f "$KEEP"/*.whl
fi
CLASSES="$WORK/classes"
mkdir -p "$CLASSES/META-INF/services" "$WORK/images"
python3 "$HERE/unfinal.py" "$JAR" "$CLASSES" > /dev/null || exit 1
echo org.apache.lucene.codecs.lucene70.Lucene70DocValuesFormat > "$CLASSES/META-INF/services/org.apache.lucene.codecs.DocValuesFormat"
javac -nowarn -cp "$JAR" -d "$CLASSES" "$HERE/EsNode.java" 2> "$WORK/javac.log" || { cat "$WORK/javac.log"; exit 1; }
python3 "$HERE/gen_dataset.py" "$WORK/images" $((MB << 20)) || exit 1

node_start() { # waits for the node to answer
    local home="$WORK/home"
    rm -rf "$home"; mkdir -p "$home/config" "$home/tmp" "$home/logs"
    cp "$HERE/log4j2-es.properties" "$home/config/log4j2.properties"
    (cd "$home" && exec java -Xms512m -Xmx512m -XX:+UseSerialGC -XX:-UsePerfData "-Djava.io.tmpdir=$home/tmp" \
        "-Dlog4j.configurationFile=$home/config/log4j2.properties" -Djna.nosys=true \
        --add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED \
        -cp "$CLASSES:$JAR" EsNode "$home" "$WORK/mnt/data" "$PORT_ES" index.store.type=niofs) > "$WORK/node.log" 2>&1 &
    NODE=$!
    CHILDREN+=("$NODE")
    local i
    for i in $(seq 90); do
        curl -s -m 2 "localhost:$PORT_ES/_cluster/health?wait_for_status=$1&timeout=1s" | grep -q '"timed_out":false' && return 0
        kill -0 "$NODE" 2>/dev/null || break
        read -rt 1 <> <(:) || true
    done
    tail -5 "$WORK/node.log"
    return 1
}
node_stop() { kill "$NODE" && wait "$NODE"; CHILDREN=(); return 0; }
count() { curl -s -m 20 "localhost:$PORT_ES/images/_count" | sed -n 's/.*"count":\([0-9]*\).*/\1/p'; }
lost() { find /var/cache/davfs2 -path '*lost+found*' -type f -newer "$WORK/classes" | grep .; }

gateway_start --log-level warn || exit 1
dav_mount "$WORK/mnt" "delay_upload 0" "cache_size 4096" "table_size 8192" || exit 1
check "the node starts on the mount" node_start green
curl -s -m 30 -XPUT "localhost:$PORT_ES/images" -H 'Content-Type: application/json' -d '{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0,"index.refresh_interval":"1s"},"mappings":{"properties":{"image":{"type":"binary"}}}}'; echo
check "$MB MB of images are loaded" python3 "$HERE/loader.py" "$WORK/images" $((MB << 20)) "$PORT_ES" images 5000000
curl -s -m 60 -XPOST "localhost:$PORT_ES/images/_flush" > /dev/null
curl -s -m 60 -XPOST "localhost:$PORT_ES/images/_refresh" > /dev/null
before=$(count)
check "there are documents ($before)" [ "${before:-0}" -gt 100 ]
node_stop
check "unmount" umount "$WORK/mnt"
gateway_stop || exit 1
gateway_start --log-level warn || exit 1
dav_mount "$WORK/mnt" "delay_upload 0" "cache_size 4096" "table_size 8192" || exit 1
check "the node starts again" node_start green
after=$(count)
check "every document is there after the restart of everything ($after)" [ "$after" = "$before" ]
node_stop
check "unmount again" umount "$WORK/mnt"
if lost; then echo "FAILED: uploads in lost+found"; exit 1; fi
gateway_stop
