#!/usr/bin/env bash
# The replayer beside wrk by request rate: GET of one file of 4 KiB over 64 connections, from nginx and from the gateway, in rounds
# that alternate. Prints a Markdown table: medians of requests per second, and lowest to highest. Planning is not in the
# replayer's time; content is compared byte by byte (`all`), or not (`lengths`). Needs nginx and wrk.
#
#   benches/replay-rate.sh [ROUNDS [REQUESTS]]
set -euo pipefail
. "$(dirname "$0")/../deploy/dev/lib.sh"
ROUNDS=${1:-3} REQUESTS=${2:-400000}
cargo build --release --quiet --manifest-path "$REPO/Cargo.toml" --package gateway --package trace-replay
BIN="${CARGO_TARGET_DIR:-$REPO/target}/release" TIERDAV="$BIN/tierdav"
{
    echo ts_us,client,op,path,offset,length,latency_us,result,method,path2,status,range
    seq -f '%.0f,c,read,f,0,4096,10,ok,GET,,200,' "$REQUESTS"
} > "$WORK/gets.csv"

mkdir -p "$WORK/www" "$WORK/nginx" "$WORK/root"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > "$WORK/nginx.conf" << END
daemon off; worker_processes auto; pid $WORK/nginx/pid; error_log $WORK/nginx/error;
events { worker_connections 1024; }
http {
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;
    client_body_temp_path $WORK/nginx/body; proxy_temp_path $WORK/nginx/proxy; fastcgi_temp_path $WORK/nginx/fastcgi;
    uwsgi_temp_path $WORK/nginx/uwsgi; scgi_temp_path $WORK/nginx/scgi;
    server { listen 127.0.0.1:$port; root $WORK/www; dav_methods PUT MKCOL; }
}
END
# nginx's workers give up root's rights.
chmod -R a+rwX "$WORK"
/usr/sbin/nginx -c "$WORK/nginx.conf" > /dev/null 2>&1 &
NGINX_PID=$!
# Killed by cleanup it would leave its workers behind.
trap 'status=$?; kill "$NGINX_PID" && wait "$NGINX_PID"; cleanup $status' EXIT
slow_start gateway "$WORK/root" "$WORK/cache"

wrk_rate() { # THREADS URL
    wrk "-t$1" -c64 -d5s "$2" | awk '/Requests\/sec/ { print $2 }'
}
replay_rate() { # VERIFY URL
    "$BIN/trace-replay" replay "$WORK/gets.csv" --target "$2" --mode closed --clients 64 --verify "$1" --quiet --json > "$WORK/report.json"
    python3 -c 'import json, sys; r = json.load(open(sys.argv[1]))["replay"]; print(1e6 * r["requests"] / r["elapsed_us"])' "$WORK/report.json"
}

head -c 4096 /dev/zero > "$WORK/f"
kinds=("wrk 1" "wrk 2" "replay lengths" "replay all")
for url in "http://127.0.0.1:$port/" "$URL"; do
    curl -sfo /dev/null --retry 20 --retry-connrefused -T "$WORK/f" "${url}f"
done
for round in $(seq 0 $((ROUNDS - 1))); do
    for server in "nginx http://127.0.0.1:$port/" "gateway $URL"; do
        for i in "${!kinds[@]}"; do
            kind=${kinds[$(((i + round) % ${#kinds[@]}))]}
            url=${server#* }
            # Only the replayer adds the file's name itself.
            [ "${kind% *}" = replay ] || url+=f
            echo "${server% *},$kind,$("${kind% *}_rate" "${kind#* }" "$url")" >> "$WORK/rates"
        done
    done
done
slow_stop
python3 - "$WORK/rates" << 'END'
import collections, statistics, sys
rates = collections.defaultdict(list)
for line in open(sys.argv[1]):
    server, kind, rate = line.strip().split(",")
    rates[server, kind].append(float(rate) / 1000)
name = {"wrk 1": "`wrk -t1`", "wrk 2": "`wrk -t2`", "replay lengths": "`replay --verify lengths`", "replay all": "`replay --verify all`"}
print("| thousand requests a second | nginx | the gateway |\n| --- | --- | --- |")
for kind in name:
    cells = (rates[server, kind] for server in ("nginx", "gateway"))
    print(f"| {name[kind]} |", " | ".join(f"{statistics.median(c):.0f} ({min(c):.0f} to {max(c):.0f})" for c in cells), "|")
END
