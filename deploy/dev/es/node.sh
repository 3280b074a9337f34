# A real Elasticsearch 7.0.0 node: installs, starts and stops it. Sourced after lib.sh.
#
# The node comes out of the jar in PyPI's pyserini 0.7.2.0 wheel, kept in ~/.cache/tierdav-es between runs.
# shellcheck shell=bash

ES_HERE="$REPO/deploy/dev/es"
ES_PORT=${ES_PORT:-19207}

# es_install MEGABYTES: the node's classes, and so much of images to load.
es_install() {
    local keep=${TIERDAV_ES_CACHE:-$HOME/.cache/tierdav-es}
    ES_JAR="$keep/lib/anserini-0.7.2-fatjar.jar" ES_CLASSES="$WORK/classes"
    mkdir -p "$keep/lib" "$ES_CLASSES/META-INF/services" "$WORK/images"
    if [ ! -s "$ES_JAR" ]; then
        python3 -m pip download -q --no-deps -d "$keep" pyserini==0.7.2.0 || return 1
        unzip -q -o -j "$keep"/pyserini-0.7.2.0*.whl '*fatjar.jar' -d "$keep/lib" || return 1
        rm -f "$keep"/*.whl
    fi
    python3 "$ES_HERE/unfinal.py" "$ES_JAR" "$ES_CLASSES" > /dev/null || return 1
    echo org.apache.lucene.codecs.lucene70.Lucene70DocValuesFormat \
        > "$ES_CLASSES/META-INF/services/org.apache.lucene.codecs.DocValuesFormat"
    javac -nowarn -cp "$ES_JAR" -d "$ES_CLASSES" "$ES_HERE/EsNode.java" 2> "$WORK/javac.log" || { cat "$WORK/javac.log"; return 1; }
    python3 "$ES_HERE/gen_dataset.py" "$WORK/images" $(($1 << 20))
}

# es_start DATA [STATUS]: waits for the node to answer, and for that status of its health. Sets ES_PID.
es_start() {
    local home="$WORK/home" i
    rm -rf "$home"; mkdir -p "$home/config" "$home/tmp" "$home/logs"
    cp "$ES_HERE/log4j2-es.properties" "$home/config/log4j2.properties"
    (cd "$home" && exec java -Xms512m -Xmx512m -XX:+UseSerialGC -XX:-UsePerfData "-Djava.io.tmpdir=$home/tmp" \
        "-Dlog4j.configurationFile=$home/config/log4j2.properties" -Djna.nosys=true \
        --add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED \
        -cp "$ES_CLASSES:$ES_JAR" EsNode "$home" "$1" "$ES_PORT" index.store.type=niofs) > "$WORK/node.log" 2>&1 &
    ES_PID=$!
    CHILDREN+=("$ES_PID")
    for i in $(seq 300); do
        curl -s -m 2 "localhost:$ES_PORT/_cluster/health?wait_for_status=${2:-green}&timeout=1s" | grep -q '"timed_out":false' && return 0
        kill -0 "$ES_PID" 2>/dev/null || break
        read -rt 1 <> <(:) || true
    done
    tail -5 "$WORK/node.log"
    return 1
}

es_stop() { kill "$ES_PID" && wait "$ES_PID" || true; }

# es_index: makes the index that images go into; each request is on stable storage, as the node sees it, before its answer.
es_index() {
    curl -sf -m 300 -o /dev/null -XPUT "localhost:$ES_PORT/images" -H 'Content-Type: application/json' -d '{"settings":{"index.number_of_shards":1,"index.number_of_replicas":0,"index.refresh_interval":"1s"},"mappings":{"properties":{"image":{"type":"binary"}}}}'
}

# es_load MEGABYTES BULK_BYTES: prints what came of it, as JSON.
es_load() { python3 "$ES_HERE/loader.py" "$WORK/images" $(($1 << 20)) "$ES_PORT" images "$2"; }

# es_commit: all that was loaded is in segments and can be searched.
es_commit() {
    curl -sf -m 300 -o /dev/null -XPOST "localhost:$ES_PORT/images/_flush" \
        && curl -sf -m 300 -o /dev/null -XPOST "localhost:$ES_PORT/images/_refresh"
}

es_count() { curl -s -m 60 "localhost:$ES_PORT/images/_count" | sed -n 's/.*"count":\([0-9]*\).*/\1/p'; }

# es_lost: uploads that the server refused since the installation; fails when there are none.
es_lost() { find /var/cache/davfs2 -path '*lost+found*' -type f -newer "$ES_CLASSES" | grep .; }
