#!/usr/bin/env bash
# TierDAV beside other WebDAV servers: same file system, same data, wrk as the load, rounds that alternate between the servers.
# Prints one Markdown table (medians, and TierDAV's ratio to the best of the others) and writes the figures as JSON.
#
#   benches/compare.sh [--rounds N] [--seconds N] [--rows REGEX] [--json FILE]     default 3 rounds of 3 seconds, all rows
#
# Peers: Apache mod_dav, nginx with dav-ext, lighttpd mod_webdav, rclone (Debian's packages), WsgiDAV (PyPI). None of them
# syncs an upload to disk: TierDAV runs once with `durability = relaxed`, which compares, and once with `commit`. Tracing is
# on. Needs root; installs what is missing.
set -euo pipefail
ROUNDS=3 SECONDS_EACH=3 ROWS=. JSON=""
while [ $# -gt 0 ]; do
    case "$1" in
        --rounds) ROUNDS=${2:?}; shift 2 ;;
        --seconds) SECONDS_EACH=${2:?}; shift 2 ;;
        --rows) ROWS=${2:?}; shift 2 ;;
        --json) JSON=${2:?}; shift 2 ;;
        *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done
. "$(dirname "$0")/../deploy/dev/lib.sh"
missing=()
for p in apache2 nginx libnginx-mod-http-dav-ext lighttpd lighttpd-mod-webdav rclone wrk python3-venv; do
    dpkg -s "$p" > /dev/null 2>&1 || missing+=("$p")
done
if [ ${#missing[@]} != 0 ]; then
    apt-get update -qq
    # Debian starts what it installs; these run on ports of ours.
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" > /dev/null
    rm -f /usr/sbin/policy-rc.d
fi
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/pip" -q install 'wsgidav==4.3.3' 'cheroot>=10,<11' 2> /dev/null
cargo build --quiet --release --manifest-path "$REPO/Cargo.toml" --package gateway --bin tierdav
BIN="${CARGO_TARGET_DIR:-$REPO/target}/release/tierdav"
python3 - "$WORK" "$BIN" "$ROUNDS" "$SECONDS_EACH" "$ROWS" "$JSON" <<'P'
import atexit, http.client, json, os, re, signal, socket, statistics, subprocess, sys, time
work, binary, rounds, seconds, rows_wanted, json_file = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6]
os.chmod(work, 0o755)

def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)

def root(name):
    path = f"{work}/{name}/root"
    os.makedirs(path, exist_ok=True)
    os.chmod(path, 0o777)
    os.makedirs(f"{work}/{name}/state", exist_ok=True)
    os.chmod(f"{work}/{name}/state", 0o777)
    return path

def nginx():
    p, r = port(), root("nginx")
    write(f"{work}/nginx/conf", f"""load_module modules/ngx_http_dav_ext_module.so;
user root; worker_processes auto; daemon off; pid {work}/nginx/pid; error_log {work}/nginx/log;
events {{ worker_connections 4096; }}
http {{ access_log off; sendfile on; tcp_nodelay on; client_max_body_size 0; client_body_temp_path {work}/nginx/state/body; keepalive_requests 1000000;
dav_ext_lock_zone zone=locks:10m;
server {{ listen 127.0.0.1:{p}; root {r}; location / {{ dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK; dav_ext_lock zone=locks; }} }} }}
""")
    return p, ["nginx", "-c", f"{work}/nginx/conf"]

def apache():
    p, r = port(), root("apache")
    modules = ["mpm_event", "authz_core", "dav", "dav_fs", "dir", "mime"]
    write(f"{work}/apache/conf", "\n".join(f"LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so" for m in modules) + f"""
ServerName localhost
Listen 127.0.0.1:{p}
PidFile {work}/apache/pid
ErrorLog {work}/apache/log
Mutex file:{work}/apache/state default
User www-data
Group www-data
DocumentRoot {r}
DavLockDB {work}/apache/state/lock
TypesConfig /etc/mime.types
MaxKeepAliveRequests 0
EnableSendfile on
<Directory {r}>
Dav On
Require all granted
</Directory>
""")
    return p, ["apache2", "-DFOREGROUND", "-f", f"{work}/apache/conf"]

def lighttpd():
    p, r = port(), root("lighttpd")
    write(f"{work}/lighttpd/conf", f"""server.modules = ("mod_webdav")
server.document-root = "{r}"
server.bind = "127.0.0.1"
server.port = {p}
server.errorlog = "{work}/lighttpd/log"
server.upload-dirs = ("{work}/lighttpd/state")
server.max-keep-alive-requests = 1000000
mimetype.assign = ("" => "application/octet-stream")
webdav.activate = "enable"
webdav.sqlite-db-name = "{work}/lighttpd/state/db"
""")
    return p, ["lighttpd", "-D", "-f", f"{work}/lighttpd/conf"]

def rclone():
    p, r = port(), root("rclone")
    return p, ["rclone", "serve", "webdav", r, "--addr", f"127.0.0.1:{p}", "--log-level", "ERROR"]

def wsgidav():
    p, r = port(), root("wsgidav")
    return p, [f"{work}/venv/bin/wsgidav", "--host=127.0.0.1", f"--port={p}", f"--root={r}", "--auth=anonymous", "--server=cheroot", "-qqq"]

def tierdav(durability):
    def start():
        name = f"tierdav-{durability}"
        p, r = port(), root(name)
        return p, [binary, "serve", "--root", r, "--cache-dir", f"{work}/{name}/cache", "--listen", f"127.0.0.1:{p}", "--admin-listen", f"127.0.0.1:{port()}",
                   "--durability", durability, "--log-level", "error", "--cache-capacity", "8GiB"]
    return start

OURS = ["TierDAV", "TierDAV commit"]
servers = {"TierDAV": tierdav("relaxed"), "TierDAV commit": tierdav("commit"), "nginx": nginx, "Apache": apache, "lighttpd": lighttpd, "rclone": rclone, "WsgiDAV": wsgidav}
running = {}

def stop():
    for process, _ in running.values():
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
atexit.register(stop)

for name, make in servers.items():
    p, command = make()
    log = open(f"{work}/{name}.log".replace(" ", "-"), "w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    running[name] = (process, p)
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", p), 1).close()
            break
        except OSError:
            if process.poll() is not None:
                sys.exit(f"{name} ended: {open(log.name).read()}")
            time.sleep(0.1)

def request(name, method, path, body=None, headers={}):
    c = http.client.HTTPConnection("127.0.0.1", running[name][1])
    c.request(method, path, body, headers)
    r = c.getresponse(); r.read(); c.close()
    return r.status

SIZES = {"4 KiB": 4 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20}
bodies = {}
for label, size in SIZES.items():
    bodies[label] = f"{work}/body-{size}"
    with open(bodies[label], "wb") as f:
        f.write(os.urandom(size))
for name in servers:
    for label, path in bodies.items():
        with open(path, "rb") as f:
            data = f.read()
        for i in range(32):
            status = request(name, "PUT", f"/get-{len(data)}-{i}", data)
            assert status in (200, 201, 204), (name, status)
    for n in (10, 1000):
        status = request(name, "MKCOL", f"/d{n}/")
        assert status == 201, (name, status)
        for i in range(n):
            request(name, "PUT", f"/d{n}/file-{i:04}", b"x" * 100)

LUA = """
local i, body = 0, nil
local headers = {headers}
init = function() if {file} then body = io.open({file}, "rb"):read("*a") end end
request = function() i = i + 1; return wrk.format("{method}", {path}, headers, body) end
"""

def wrk(name, method, path, connections, file=None, headers="{}"):
    script = f"{work}/wrk.lua"
    write(script, LUA.replace("{headers}", headers).replace("{file}", f'"{file}"' if file else "nil").replace("{method}", method).replace("{path}", path))
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, f"http://127.0.0.1:{running[name][1]}"], capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()
    ms = float(p99) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]
    return None if bad and int(bad.group(1)) > 0 else (rate, ms)

depth = lambda d: '{["Depth"]="%s", ["Content-Type"]="application/xml"}' % d
rows = [(f"GET {label}, {c} connections", "GET", f'"/get-{size}-" .. (i % 32)', c, None, "{}") for label, size in SIZES.items() for c in (1, 8, 64)]
rows += [(f"PUT {label}, {c} connections", "PUT", f'"/put-{size}-" .. (i % 256)', c, bodies[label], "{}") for label, size in SIZES.items() for c in (1, 8)]
rows += [("PROPFIND Depth 0, 8 connections", "PROPFIND", '"/get-4096-1"', 8, None, depth(0)),
         ("PROPFIND Depth 1, 10 files, 8 connections", "PROPFIND", '"/d10/"', 8, None, depth(1)),
         ("PROPFIND Depth 1, 1 000 files, 4 connections", "PROPFIND", '"/d1000/"', 4, None, depth(1))]
results = []
print("| requests per second (p99 in ms) | " + " | ".join(servers) + " | ratio to the best peer |")
print("| --- |" + " --- |" * (len(servers) + 1))
for label, method, path, connections, file, headers in rows:
    if not re.search(rows_wanted, label):
        continue
    got = {name: [] for name in servers}
    for _ in range(rounds):
        for name in servers:
            got[name].append(wrk(name, method, path, connections, file, headers))
    median = {n: None if None in v else (statistics.median(r for r, _ in v), statistics.median(m for _, m in v)) for n, v in got.items()}
    peers = {n: m for n, m in median.items() if n not in OURS and m}
    best = max(peers.values())[0]
    ratios = [ours[0] / max(got[n][i][0] for n in peers) for i, ours in enumerate(got["TierDAV"]) if ours]
    cells = ["fails" if m is None else f"{m[0]:.0f} ({m[1]:.1f})" for m in median.values()]
    spread = f"{median['TierDAV'][0] / best:.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "fails"
    print(f"| {label} | " + " | ".join(cells) + f" | {spread} |", flush=True)
    results.append({"row": label, "figures": got})
if json_file:
    with open(json_file, "w") as f:
        json.dump(results, f, indent=1)
P
