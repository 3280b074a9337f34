"""The measuring part of compare.sh, which says what this is and installs what it needs."""

import argparse, atexit, base64, glob, http.client, json, os, re, shutil, signal, socket, statistics, subprocess, sys, time

cli = argparse.ArgumentParser()
cli.add_argument("--work", required=True)
cli.add_argument("--tierdav", required=True)
cli.add_argument("--peers", required=True)
cli.add_argument("--rounds", type=int, default=3)
cli.add_argument("--seconds", type=int, default=3)
cli.add_argument("--rows", default=".")
cli.add_argument("--servers", default=".")
cli.add_argument("--json")
cli.add_argument("--quick", action="store_true")
cli.add_argument("--list", action="store_true")
args = cli.parse_args()
if args.quick:
    args.rounds = args.seconds = 1
work = args.work
os.chmod(work, 0o755)

USER, PASSWORD = "bench", "a password"
AUTH = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
CERT, KEY, HASHES = f"{work}/cert.pem", f"{work}/key.pem", f"{work}/hashes"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    return path


def credentials():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-keyout", KEY, "-out", CERT], check=True, capture_output=True)
    with open(CERT) as c, open(KEY) as k:
        write(f"{work}/both.pem", c.read() + k.read())
    hashed = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True).stdout.strip()
    write(HASHES, f"{USER}:{hashed}\n")
    line = subprocess.run([args.tierdav, "hash-password", USER], input=PASSWORD + "\n", capture_output=True, text=True, check=True).stdout.strip()
    write(f"{work}/users", line + "\n")


# Each of these gets a port, a directory to serve, one for its own things, and how it is asked: "plain", "tls" or "auth"
# (Basic). It returns a command, or None for what it can't do.

def tierdav(*flags):
    def start(port, root, own, how):
        # Both tiers are on one file system: as where no cache directory is named.
        write_policy = [] if "--write-policy" in flags else ["--write-policy", "around"]
        more = {"plain": [], "tls": ["--tls-cert", CERT, "--tls-key", KEY], "auth": ["--users-file", f"{work}/users"]}[how]
        return [args.tierdav, "serve", "--root", root, "--cache-dir", f"{own}/cache", "--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{free_port()}",
                "--log-level", "error", "--cache-capacity", "8GiB", *write_policy, *flags, *more]
    return start


def nginx(port, root, own, how):
    tls = f"ssl_certificate {CERT}; ssl_certificate_key {KEY};" if how == "tls" else ""
    auth = f'auth_basic "x"; auth_basic_user_file {HASHES};' if how == "auth" else ""
    write(f"{own}/conf", f"""load_module modules/ngx_http_dav_ext_module.so;
user root; worker_processes auto; daemon off; pid {own}/pid; error_log {own}/log;
events {{ worker_connections 8192; }}
http {{ access_log off; sendfile on; tcp_nodelay on; client_max_body_size 0; client_body_temp_path {own}/body; keepalive_requests 1000000;
dav_ext_lock_zone zone=locks:10m;
server {{ listen 127.0.0.1:{port} {"ssl" if tls else ""}; {tls} {auth} root {root};
location / {{ dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK; dav_ext_lock zone=locks; }} }} }}
""")
    return ["nginx", "-c", f"{own}/conf"]


def apache(port, root, own, how):
    modules = ["mpm_event", "authz_core", "dav", "dav_fs", "dir", "mime"]
    modules += {"plain": [], "tls": ["socache_shmcb", "ssl"], "auth": ["authn_core", "authn_file", "auth_basic", "authz_user"]}[how]
    tls = f"SSLEngine on\nSSLCertificateFile {CERT}\nSSLCertificateKeyFile {KEY}" if how == "tls" else ""
    require = f'AuthType Basic\nAuthName x\nAuthUserFile {HASHES}\nRequire valid-user' if how == "auth" else "Require all granted"
    write(f"{own}/conf", "\n".join(f"LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so" for m in modules) + f"""
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {own}/pid
ErrorLog {own}/log
Mutex file:{own} default
User www-data
Group www-data
DocumentRoot {root}
DavLockDB {own}/lock
TypesConfig /etc/mime.types
MaxKeepAliveRequests 0
MaxRequestWorkers 1200
ThreadLimit 100
ThreadsPerChild 100
ServerLimit 12
EnableSendfile on
{tls}
<Directory {root}>
Dav On
{require}
</Directory>
""")
    return ["apache2", "-DFOREGROUND", "-f", f"{own}/conf"]


def lighttpd(port, root, own, how):
    modules = ['"mod_webdav"'] + {"plain": [], "tls": ['"mod_openssl"'], "auth": ['"mod_auth"', '"mod_authn_file"']}[how]
    tls = f'ssl.engine = "enable"\nssl.pemfile = "{work}/both.pem"' if how == "tls" else ""
    auth = f'auth.backend = "htpasswd"\nauth.backend.htpasswd.userfile = "{HASHES}"\nauth.require = ("/" => ("method" => "basic", "realm" => "x", "require" => "valid-user"))' if how == "auth" else ""
    write(f"{own}/conf", f"""server.modules = ({", ".join(modules)})
server.document-root = "{root}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{own}/log"
server.upload-dirs = ("{own}")
server.max-keep-alive-requests = 1000000
server.max-fds = 8192
mimetype.assign = ("" => "application/octet-stream")
webdav.activate = "enable"
webdav.sqlite-db-name = "{own}/db"
{tls}
{auth}
""")
    return ["lighttpd", "-D", "-f", f"{own}/conf"]


def rclone(port, root, own, how):
    more = {"plain": [], "tls": ["--cert", CERT, "--key", KEY], "auth": ["--user", USER, "--pass", PASSWORD]}[how]
    return ["rclone", "serve", "webdav", root, "--addr", f"127.0.0.1:{port}", "--log-level", "ERROR", *more]


def dufs(port, root, own, how):
    more = {"plain": ["-A"], "tls": ["-A", "--tls-cert", CERT, "--tls-key", KEY], "auth": ["-A", "--auth", f"{USER}:{PASSWORD}@/:rw"]}[how]
    return [f"{args.peers}/bin/dufs", root, "--bind", "127.0.0.1", "--port", str(port), "--log-format", "", *more]


def wsgidav(port, root, own, how):
    if how == "plain":
        return [f"{args.peers}/venv/bin/wsgidav", "--host=127.0.0.1", f"--port={port}", f"--root={root}", "--auth=anonymous", "--server=cheroot", "-qqq"]


def dav_server(port, root, own, how):
    if how == "plain":
        return [f"{args.peers}/build/release/dav-server-peer", str(port), root]


OURS = ["TierDAV", "TierDAV back", "TierDAV commit", "TierDAV untraced"]
SERVERS = {"TierDAV": tierdav("--durability", "relaxed"), "TierDAV back": tierdav("--durability", "relaxed", "--write-policy", "back"), "TierDAV commit": tierdav("--durability", "commit"),
           "TierDAV untraced": tierdav("--durability", "relaxed", "--trace=false"),
           "nginx": nginx, "Apache": apache, "lighttpd": lighttpd, "rclone": rclone, "dufs": dufs, "dav-server": dav_server, "WsgiDAV": wsgidav}
SERVERS = {name: start for name, start in SERVERS.items() if re.search(args.servers, name)}


class Server:
    def __init__(self, name, how):
        self.how, self.port = how, free_port()
        own = f"{work}/{how}-{name.replace(' ', '-')}"
        self.root = f"{own}/root"
        os.makedirs(self.root)
        for d in (own, self.root):
            os.chmod(d, 0o777)
        command = SERVERS[name](self.port, self.root, own, how)
        self.process = None
        if command is None:
            return
        log = open(f"{own}/out", "w")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(300):
            try:
                return socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"{name} ended: {open(log.name).read()}")
                time.sleep(0.1)
        sys.exit(f"{name} does not listen")

    def url(self):
        return f"{'https' if self.how == 'tls' else 'http'}://127.0.0.1:{self.port}"

    def headers(self):
        return {"Authorization": AUTH} if self.how == "auth" else {}

    def request(self, method, path, body=None, headers={}):
        if self.how == "tls":
            c = http.client.HTTPSConnection("127.0.0.1", self.port, context=__import__("ssl")._create_unverified_context())
        else:
            c = http.client.HTTPConnection("127.0.0.1", self.port)
        c.request(method, path, body, {**self.headers(), **headers})
        r = c.getresponse()
        r.read()
        c.close()
        return r.status

    def pids(self):
        children = {}
        for stat in glob.glob("/proc/[0-9]*/stat"):
            try:
                text = open(stat).read()
            except OSError:
                continue
            pid, rest = int(text.split(" ", 1)[0]), text.rsplit(") ", 1)[1].split()
            children.setdefault(int(rest[1]), []).append(pid)
        out, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            out.append(pid)
            todo += children.get(pid, [])
        return out

    def cpu(self):
        total = 0
        for pid in self.pids():
            try:
                fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def peak(self):
        total = 0
        for pid in self.pids():
            try:
                total += int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1))
            except (OSError, AttributeError):
                pass
        return total / 1024

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()


running = {}
signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))


def servers(how):
    if how not in running:
        if not os.path.exists(CERT):
            credentials()
        running[how] = {name: Server(name, how) for name in SERVERS}
        atexit.register(lambda: [s.stop() for s in running[how].values()])
    return running[how]


SIZES = {"4 KiB": 4 << 10, "64 KiB": 64 << 10, "1 MiB": 1 << 20, "64 MiB": 64 << 20}
prepared = set()


def body(size):
    path = f"{work}/body-{size}"
    if not os.path.exists(path):
        with open(path, "wb") as f:
            f.write(os.urandom(size))
    return path


def objects(size):
    """Files of one size to read."""
    def prepare(server):
        data = open(body(size), "rb").read()
        for i in range(2 if size > 1 << 20 else 32):
            assert server.request("PUT", f"/get-{size}-{i}", data) in (200, 201, 204)
    return (f"objects {size}", prepare)


def sparse(server):
    """A file of 4 GiB, made beside the server."""
    with open(f"{server.root}/large", "wb") as f:
        f.truncate(4 << 30)
    os.chmod(f"{server.root}/large", 0o666)


def directory(n):
    def prepare(server):
        os.mkdir(f"{server.root}/d{n}")
        os.chmod(f"{server.root}/d{n}", 0o777)
        for i in range(n):
            with open(f"{server.root}/d{n}/file-{i:06}", "wb") as f:
                f.write(b"x" * 100)
    return (f"directory {n}", prepare)


# wrk runs one thread for each connection where the requests of a connection depend on each other; `id` is the thread's.
HEAD = """
id = 0
local n, count, body = 0, 0, nil
function setup(thread) count = count + 1; thread:set("id", count) end
function init() if {file} then body = io.open({file}, "rb"):read("*a") end end
"""
# No upload has the bytes that its name has already: they would not be written again.
SIMPLE = HEAD + """
function request()
  n = n + 1
  local data = body
  if data and {fresh} then data = string.format("%08d%08d", {run}, n) .. string.sub(data, 17) end
  return wrk.format({method}, {path}, {headers}, data) end
"""
# A step is over when its reply is there: wrk asks for a first request that it does not send.
CHAINS = {
    "MKCOL + DELETE": """
function request() return wrk.format(n % 2 == 0 and "MKCOL" or "DELETE", "/dir-" .. {run} .. "-" .. id .. "-" .. math.floor(n / 2) .. "/", {headers}) end
function response() n = n + 1 end
""",
    "MOVE": """
function request()
  local names, h = {"/move-" .. {run} .. "-" .. id .. "-a", "/move-" .. {run} .. "-" .. id .. "-b"}, {headers}
  if n == 0 then return wrk.format("PUT", names[1], h, "content") end
  h["Destination"] = {url} .. names[n % 2 + 1]; h["Overwrite"] = "T"
  return wrk.format("MOVE", names[(n + 1) % 2 + 1], h) end
function response() n = n + 1 end
""",
    "LOCK + PUT + UNLOCK": """
local token = ""
local info = '<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>bench</owner></lockinfo>'
function request()
  local path, h = "/locked-" .. {run} .. "-" .. id .. "-" .. math.floor(n / 3), {headers}
  if n % 3 == 0 then h["Timeout"] = "Second-600"; h["Depth"] = "0"; h["Content-Type"] = "application/xml"; return wrk.format("LOCK", path, h, info) end
  if n % 3 == 1 then h["If"] = "(" .. token .. ")"; return wrk.format("PUT", path, h, body) end
  h["Lock-Token"] = token; return wrk.format("UNLOCK", path, h) end
function response(status, headers)
  n = n + 1
  for name, value in pairs(headers) do if string.lower(name) == "lock-token" then token = value end end end
""",
}
runs = 0


def lua(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def wrk(server, row):
    global runs
    runs += 1
    headers = {**server.headers(), **row.get("headers", {})}
    table = "{" + ", ".join(f"[{lua(k)}]={lua(v)}" for k, v in headers.items()) + "}"
    file = lua(body(row["size"])) if "size" in row else "nil"
    script = HEAD + CHAINS[row["chain"]] if "chain" in row else SIMPLE
    script = script.replace("{headers}", table).replace("{file}", file).replace("{url}", lua(server.url())).replace("{run}", str(runs)).replace("{fresh}", str("again" not in row).lower())
    script = script.replace("{method}", lua(row.get("method", ""))).replace("{path}", row.get("path", ""))
    script += """
function done(summary) io.write(string.format("ERRORS %d %d\\n", summary.errors.status, summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout)) end
"""
    threads = row["connections"] if "chain" in row else 1
    before = server.cpu()
    command = ["wrk", f"-t{threads}", f"-c{row['connections']}", f"-d{max(args.seconds, row.get('seconds', 0))}s", "--timeout", "30s", "--latency", "-s", write(f"{work}/wrk.lua", script), server.url()]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    cpu = server.cpu() - before
    if int(re.search(r"ERRORS (\d+)", out).group(1)) > 0:
        return None
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s|m)", out).groups()
    ms = float(p99) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[unit]
    return {"rate": rate, "p99_ms": ms, "cpu_us": cpu / max(requests, 1) * 1e6}


def idle(server, row):
    """The row under 1 000 connections that say nothing."""
    held = []
    try:
        for _ in range(1000):
            held.append(socket.create_connection(("127.0.0.1", server.port), 5))
        return wrk(server, row)
    except OSError:
        return None
    finally:
        for s in held:
            s.close()


def davfs2(server, row):
    """Seconds as a rate, through a mount of its own."""
    at = f"{work}/mnt"
    os.makedirs(at, exist_ok=True)
    conf = write(f"{work}/davfs2.conf", "ask_auth 0\nuse_locks 1\nbuf_size 256\ndelay_upload 0\ncache_size 2048\n")

    def mounted(what):
        if subprocess.run(["mount", "-t", "davfs", "-o", f"conf={conf},uid=0", server.url() + "/", at], stdin=subprocess.DEVNULL, capture_output=True).returncode:
            return None
        before = server.cpu()
        start = time.monotonic()
        try:
            n = what()
        finally:
            # Uploads end before umount does.
            subprocess.run(["umount", at], check=True, capture_output=True)
        took = time.monotonic() - start
        if not n:
            # It never took what is asked for here.
            return None
        return {"rate": n / took, "p99_ms": took * 1e3, "cpu_us": (server.cpu() - before) / n * 1e6}

    def create():
        os.makedirs(f"{at}/many", exist_ok=True)
        for i in range(1000):
            with open(f"{at}/many/{i}", "wb") as f:
                f.write(b"y" * 16384)
        return 1000

    def copy():
        shutil.copyfile(body(256 << 20), f"{at}/copied")
        return 1

    def stat():
        return len([os.stat(f"{at}/many/{n}") for n in os.listdir(f"{at}/many")])

    def read():
        return len([open(f"{at}/many/{n}", "rb").read() for n in os.listdir(f"{at}/many")])

    try:
        return mounted({"create": create, "copy": copy, "stat": stat, "read": read}[row["davfs2"]])
    except (OSError, subprocess.CalledProcessError):
        return None


def rows():
    depth = lambda d: {"Depth": d, "Content-Type": "application/xml"}
    get = lambda size, label, c, **more: {"label": f"GET {label}, {c} connections", "method": "GET", "path": f'"/get-{size}-" .. (n % {2 if size > 1 << 20 else 32})',
                                          "connections": c, "needs": [objects(size)], "seconds": 5 if size > 1 << 20 else 0, **more}
    put = lambda size, label, c, **more: {"label": f"PUT {label}, {c} connections", "method": "PUT", "path": f'"/put-{size}-" .. (n % {256 if size < 1 << 20 else 32 if size == 1 << 20 else 4})',
                                          "connections": c, "size": size, "seconds": 5 if size > 1 << 20 else 0, **more}
    for label, size in SIZES.items():
        for c in (1, 8) if size > 1 << 20 else (1, 8, 64):
            yield get(size, label, c)
    yield {"label": "GET 64 KiB of 4 GiB, 8 connections", "method": "GET", "path": '"/large"', "connections": 8, "headers": {"Range": "bytes=3221225472-3221291007"},
           "needs": [("sparse", sparse)]}
    for label, size in SIZES.items():
        for c in (1, 8):
            yield put(size, label, c)
    yield put(1 << 20, "1 MiB of what is there", 8, again=True)
    yield {"label": "PROPFIND Depth 0, 8 connections", "method": "PROPFIND", "path": '"/get-4096-1"', "connections": 8, "headers": depth("0"), "needs": [objects(4096)]}
    for n, c in ((10, 8), (1000, 4), (10_000, 1), (100_000, 1)):
        yield {"label": f"PROPFIND Depth 1, {n} files, {c} connections", "method": "PROPFIND", "path": f'"/d{n}/"', "connections": c, "headers": depth("1"), "needs": [directory(n)],
               "slow": n > 1000, "seconds": 8 if n > 10_000 else 0}
    for c in (1, 8):
        yield {"label": f"MKCOL + DELETE, {c} connections", "chain": "MKCOL + DELETE", "connections": c}
        yield {"label": f"MOVE, {c} connections", "chain": "MOVE", "connections": c}
        yield {"label": f"LOCK + PUT 4 KiB + UNLOCK, {c} connections", "chain": "LOCK + PUT + UNLOCK", "connections": c, "size": 4096}
    yield {"label": "COPY 64 MiB, 1 connection", "method": "COPY", "path": '"/get-67108864-0"', "connections": 1, "headers": {"Destination": "/copied-64", "Overwrite": "T"},
           "needs": [objects(64 << 20)], "absolute": True, "seconds": 3}
    for how, title in (("tls", "TLS"), ("auth", "Basic")):
        yield {**get(4096, "4 KiB", 8), "label": f"GET 4 KiB, {title}, 8 connections", "how": how}
        yield {**get(1 << 20, "1 MiB", 8), "label": f"GET 1 MiB, {title}, 8 connections", "how": how}
        yield {**put(4096, "4 KiB", 8), "label": f"PUT 4 KiB, {title}, 8 connections", "how": how}
    yield {**get(4096, "4 KiB", 8), "label": "GET 4 KiB, 8 connections beside 1 000 idle", "run": idle}
    for what, label in (("create", "davfs2: create 1 000 files of 16 KiB"), ("stat", "davfs2: cold stat of 1 000"), ("read", "davfs2: cold read of 1 000"), ("copy", "davfs2: copy in 256 MiB")):
        yield {"label": label, "davfs2": what, "run": davfs2, "slow": True}


def cell(m):
    return "fails" if m is None else f"{m[0]:.{0 if m[0] >= 100 else 2}f} ({m[1]:.1f})"


results = []
wanted = [r for r in rows() if re.search(args.rows, r["label"]) and not (args.quick and r.get("slow"))]
if args.list:
    sys.exit("\n".join(r["label"] for r in wanted))
print("Requests per second (p99 in ms; davfs2 rows: files per second and ms in all); ratio to the best peer: median (lowest to highest round).\n")
print("| row | " + " | ".join(SERVERS) + " | ratio | commit's ratio | trace's cost in CPU |")
print("| --- |" + " --- |" * (len(SERVERS) + 3))
for row in wanted:
    how = row.get("how", "plain")
    alive = {n: s for n, s in servers(how).items() if s.process}
    for key, prepare in row.get("needs", []):
        if (how, key) not in prepared:
            for server in alive.values():
                prepare(server)
            prepared.add((how, key))
    got = {name: [] for name in SERVERS}
    for _ in range(args.rounds):
        for name, server in alive.items():
            asked = row
            if row.get("absolute"):
                asked = {**row, "headers": {**row["headers"], "Destination": server.url() + row["headers"]["Destination"]}}
            got[name].append(row.get("run", wrk)(server, asked))
    fine = {n: v for n, v in got.items() if v and None not in v}
    median = {n: (statistics.median(r["rate"] for r in v), statistics.median(r["p99_ms"] for r in v), statistics.median(r["cpu_us"] for r in v)) for n, v in fine.items()}
    peers = [n for n in fine if n not in OURS]

    def ratio(ours):
        if ours not in fine or not peers:
            return "-"
        each = [r["rate"] / max(fine[n][i]["rate"] for n in peers) for i, r in enumerate(fine[ours])]
        return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
    cost = "-"
    if "TierDAV" in median and "TierDAV untraced" in median and median["TierDAV untraced"][2]:
        cost = f"{(median['TierDAV'][2] / median['TierDAV untraced'][2] - 1) * 100:+.1f} %"
    print(f"| {row['label']} | " + " | ".join(cell(median.get(n)) for n in SERVERS) + f" | {ratio('TierDAV')} | {ratio('TierDAV commit')} | {cost} |", flush=True)
    results.append({"row": row["label"], "figures": got, "peak_mib": {n: s.peak() for n, s in alive.items()}})
    if args.json:
        with open(args.json, "w") as f:
            json.dump(results, f, indent=1)
print("\nThe servers' own CPU time in µs per request (per file in davfs2 rows), and at the end the peak of resident memory in MiB since their start.\n")
print("| row | " + " | ".join(SERVERS) + " |")
print("| --- |" + " --- |" * len(SERVERS))
for result in results:
    cpu = {n: statistics.median(r["cpu_us"] for r in v) for n, v in result["figures"].items() if v and None not in v}
    print(f"| {result['row']} | " + " | ".join(f"{cpu[n]:.0f}" if n in cpu else "-" for n in SERVERS) + " |")
for how, alive in running.items():
    print(f"| peak MiB, {how} | " + " | ".join(f"{s.peak():.0f}" if s.process else "-" for s in alive.values()) + " |")
