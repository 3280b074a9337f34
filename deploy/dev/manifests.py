#!/usr/bin/env python3
"""The checks behind deploy/dev/manifests.sh, which starts the gateway and sets WORK, ADMIN and TIERDAV."""

import base64
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request

import jsonschema
import kubernetes_validate
import yaml

REPO = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = REPO / "deploy" / "kubernetes"
MONITORING = REPO / "deploy" / "monitoring"
WORK = pathlib.Path(os.environ["WORK"])
VERSIONS = ("1.31", "1.37")
# Metrics in our queries that another exporter publishes: Ceph's mgr module prometheus, and Prometheus itself.
FOREIGN = {"ceph_pool_percent_used", "ceph_pool_metadata", "ceph_pool_rd", "ceph_pool_wr", "ceph_health_status", "up"}

passed = failed = 0


def check(what, problems):
    """Prints one line; `problems` is what is wrong, empty when nothing is."""
    global passed, failed
    if problems:
        failed += 1
        print(f"FAILED: {what}", *(f"    {p}" for p in problems), sep="\n")
    else:
        passed += 1
        print(f"ok: {what}", flush=True)


def run(*command, **options):
    """Runs a command; returns its output, or raises with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}".strip())
    return done.stdout


def complaints(function, *arguments):
    """What `function` raises, as a list; empty when it returns."""
    try:
        function(*arguments)
        return []
    except Exception as error:  # every kind is a finding here
        return [str(error)]


def documented(overlay, place):
    """The overlay of one's own in docs/deploy.md over one of ours, with the changes that are said beside it."""
    text = (REPO / "docs/deploy.md").read_text()
    [block] = re.findall(r"```yaml\n(# share/kustomization.yaml.*?)```", text, re.DOTALL)
    own = yaml.safe_load(block.replace("../tierdav", os.path.relpath(REPO, place.resolve())))
    [base] = own["resources"]
    own["resources"] = [base.replace("overlays/embedded", f"overlays/{overlay}")]
    if overlay == "k3s":
        own["components"] = [c for c in own["components"] if not c.endswith("/ingress")]
    if overlay.startswith("rook-pools"):
        own["patches"] = [p for p in own["patches"] if p["target"]["name"] != "tierdav-cache"]
    return own


def build_all():
    """Renders every overlay and example, and one overlay with all components, by name."""
    builds = {}
    places = {f"overlay {d.name}": d for d in sorted((KUBERNETES / "overlays").iterdir())}
    places |= {f"app-pod {d}": KUBERNETES / "app-pod" / d for d in ("davfs2", "root-pvc")}
    components = [MONITORING, *sorted((KUBERNETES / "components").iterdir())]
    with tempfile.TemporaryDirectory() as scratch:
        # ingress and gateway-api set the same key, as one replaces the other.
        for name in ("ingress", "gateway-api"):
            other = {"ingress": "gateway-api", "gateway-api": "ingress"}[name]
            place = pathlib.Path(scratch) / name
            place.mkdir()
            wanted = [os.path.relpath(c, place.resolve()) for c in components if c.name != other]
            base = os.path.relpath(KUBERNETES / "overlays" / "embedded", place.resolve())
            kind = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
            text = yaml.dump(kind | {"namespace": "tierdav", "resources": [base], "components": wanted})
            (place / "kustomization.yaml").write_text(text)
            places[f"embedded with every component and {name}"] = place
        for overlay in ("embedded", "k3s", "rook-pools/gateway"):
            place = pathlib.Path(scratch) / f"docs-{overlay.replace('/', '-')}"
            place.mkdir()
            (place / "kustomization.yaml").write_text(yaml.dump(documented(overlay, place)))
            places[f"the overlay of docs/deploy.md over {overlay}"] = place
        for name, place in places.items():
            try:
                output = run("kubectl", "kustomize", place)
            except RuntimeError as error:
                check(f"{name} builds", [str(error)])
                continue
            builds[name] = [o for o in yaml.safe_load_all(output) if o]
            check(f"{name} builds ({len(builds[name])} objects)", [])
    for name in [n for n in builds if n.startswith("overlay")]:
        [gateway_set] = [o for o in builds[name] if o["kind"] == "StatefulSet"]
        job = run(KUBERNETES / "offline.py", "tierdav scrub", input=json.dumps(gateway_set))
        builds[f"offline job of {name}"] = [json.loads(job)]
    alone = KUBERNETES / "components/ingress/k3s-traefik.yaml"
    builds[alone.name] = [o for o in yaml.safe_load_all(alone.read_text()) if o]
    return builds


def validate(builds):
    """Every object against the API's schema, or the resource's own, strictly."""
    kinds = yaml.safe_load((REPO / "deploy/dev/crd-schemas.yaml").read_text())["kinds"]
    for name, objects in builds.items():
        for version in VERSIONS:
            problems = []
            for o in objects:
                kind = f"{o['apiVersion']}/{o['kind']}"
                at = f"{o['kind']}/{o['metadata']['name']}: "
                if kind in kinds:
                    found = complaints(jsonschema.validate, o["spec"], kinds[kind])
                else:
                    found = complaints(kubernetes_validate.validate, o, version, True)
                problems += [at + p for p in found]
            check(f"{name} is valid for Kubernetes {version}", problems)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "imagee": "x"}]}}
    found = [] if complaints(kubernetes_validate.validate, pod, VERSIONS[0], True) else ["accepted"]
    check("an unknown field would be found", found)


def known_keys():
    """The settings that this gateway knows."""
    return set(re.findall(r"^#? ?([a-z_]+) = ", run(os.environ["TIERDAV"], "check-config"), re.M))


def pods(objects):
    """(object, pod template) of everything that makes pods."""
    return [(o, o["spec"]["template"]) for o in objects if "template" in o.get("spec", {})]


def gateway(builds):
    """Our own rules for the gateway's pod."""
    keys = known_keys()
    for name, objects in builds.items():
        sets = [o for o in objects if o["kind"] == "StatefulSet"]
        if not sets:
            continue
        [gateway_set] = sets
        problems = []

        def expect(holds, text):
            if not holds:
                problems.append(text)

        spec = gateway_set["spec"]["template"]["spec"]
        labels = gateway_set["spec"]["template"]["metadata"]["labels"]
        [container] = spec["containers"]
        config = {}
        for source in container["envFrom"]:
            maps = [o for o in objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == source["configMapRef"]["name"]]
            expect(len(maps) == 1, f"no ConfigMap {source}")
            config |= maps[0]["data"]
        unknown = [k for k in config if k.removeprefix("TIERDAV_").lower() not in keys]
        expect(not unknown, f"settings that the gateway does not know: {unknown}")
        claims = {o["metadata"]["name"] for o in objects if o["kind"] == "PersistentVolumeClaim"}
        used = {v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if "persistentVolumeClaim" in v}
        expect(used == claims, f"claims {claims}, mounted {used}")
        mounts = {m["mountPath"] for m in container["volumeMounts"]}
        expect({config["TIERDAV_ROOT"], config["TIERDAV_CACHE_DIR"]} - {"none"} <= mounts, f"root and cache are not on volumes: {mounts}")
        expect(any(config["TIERDAV_USERS_FILE"].startswith(m + "/") for m in mounts), "users_file is not mounted")
        expect(gateway_set["spec"]["replicas"] == 1, "two writers on one root")
        expect(spec["enableServiceLinks"] is False, "service links look like settings")
        expect(spec["automountServiceAccountToken"] is False, "a token is mounted")
        grace = int(config.get("TIERDAV_SHUTDOWN_GRACE", "30s").removesuffix("s")) + container["lifecycle"]["preStop"]["sleep"]["seconds"]
        expect(spec["terminationGracePeriodSeconds"] > grace, "the kubelet kills before the gateway is through")
        for o in objects:
            if o["kind"] == "Service":
                wanted = o["spec"]["selector"].items()
                expect(wanted <= labels.items(), f"Service {o['metadata']['name']} selects no pod")
            if o["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
                selector = o["spec"].get("selector") or o["spec"]["podSelector"]
                expect(selector["matchLabels"].items() <= labels.items(), f"{o['kind']} selects no pod")
            if o["kind"] == "PodDisruptionBudget":
                expect(o["spec"].get("maxUnavailable") == 1, "the budget blocks drains")
            if o["apiVersion"].startswith("ceph.rook.io"):
                expect(o["metadata"]["namespace"] == "rook-ceph", f"{o['kind']} is not in Rook's namespace")
            expect(o["kind"] != "Secret", "a Secret comes with the manifests: a default password?")
        kinds = {o["kind"] for o in objects}
        expect({"PodDisruptionBudget", "NetworkPolicy", "Service"} <= kinds, f"kinds: {kinds}")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            url = "http://" + os.environ["ADMIN"].removeprefix("http://") + container[probe]["httpGet"]["path"]
            problems.extend(complaints(urllib.request.urlopen, url))
        check(f"{name}: the gateway's pod keeps our rules", problems)


def containers(builds):
    """Rules for every container: locked down unless FUSE forbids it, memory limited, images by tag."""
    problems = []
    for name, objects in builds.items():
        for o, template in pods(objects):
            spec = template["spec"]
            for c in spec.get("initContainers", []) + spec["containers"]:
                at = f"{name}: {o['kind']}/{o['metadata']['name']}/{c['name']}: "
                security = c.get("securityContext", {})
                if security.get("privileged") and c["name"] == "mount":
                    pass
                elif not (security.get("readOnlyRootFilesystem") and security.get("capabilities") == {"drop": ["ALL"]}
                          and security.get("allowPrivilegeEscalation") is False):
                    problems.append(at + f"not locked down: {security}")
                elif not (security | spec.get("securityContext", {})).get("runAsNonRoot"):
                    problems.append(at + "may run as root")
                if "memory" not in c["resources"].get("limits", {}) or "memory" not in c["resources"].get("requests", {}):
                    problems.append(at + "no memory request or limit")
                if ":" not in c["image"].rsplit("/", 1)[-1] or c["image"].endswith(":latest"):
                    problems.append(at + f"image {c['image']} has no version")
    check("every container is locked down, limited and of one version", problems)


def traps(builds):
    """Traps that were met before."""
    [ingress] = [o for o in builds["overlay k3s"] if o["kind"] == "Ingress"]
    notes = ingress["metadata"]["annotations"]
    good = notes["nginx.ingress.kubernetes.io/proxy-body-size"] == "0" and notes["nginx.ingress.kubernetes.io/proxy-request-buffering"] == "off"
    check("the Ingress limits and buffers no upload", [] if good and "cert-manager.io/cluster-issuer" in notes else [str(notes)])
    [client] = [o for o in builds["overlay rook-pools"] if o["kind"] == "CephClient"]
    pools = {o["metadata"]["name"] for o in builds["overlay rook-pools"] if o["kind"] == "CephBlockPool"}
    [config] = [o["data"] for o in builds["overlay rook-pools"] if o["kind"] == "ConfigMap" and "TIERDAV_ROOT" in o["data"]]
    allowed = set(re.findall(r"allow rwx pool=([\w-]+)", client["spec"]["caps"]["osd"]))
    named = {config["TIERDAV_CACHE_POOL"], config["TIERDAV_DATA_POOL"]}
    check("the key opens the two pools that exist and are configured", [] if allowed == pools == named else [f"{allowed} {pools} {named}"])
    classes = {o["metadata"]["name"]: o["spec"]["deviceClass"] for o in builds["overlay rook-pools"] if o["kind"] == "CephBlockPool"}
    check("the pools differ by device class", [] if classes == {"tierdav-cache": "ssd", "tierdav-data": "hdd"} else [str(classes)])
    cluster_wide = ("Namespace", "ClusterRole", "ClusterRoleBinding")
    lost = [f"{name}: {o['kind']}/{o['metadata']['name']}" for name, objects in builds.items() for o in objects
            if "namespace" not in o["metadata"] and o["kind"] not in cluster_wide]
    check("nothing lands in the namespace default", lost)
    [root] = [o["spec"] for o in builds["overlay rook-pools"] if o["kind"] == "PersistentVolumeClaim"]
    # CephFS counts placeholders in full, and takes a restored one for a file of zeros.
    good = root["accessModes"] == ["ReadWriteOncePod"] and "cephfs" not in root["storageClassName"]
    check("placeholders are on a block volume", [] if good else [str(root)])
    [job] = [o for o in builds["app-pod davfs2"] if o["kind"] == "Job"]
    spec = job["spec"]["template"]["spec"]
    [sidecar] = spec["initContainers"]
    spread = {m["name"]: m.get("mountPropagation") for c in (sidecar, *spec["containers"]) for m in c["volumeMounts"] if m["name"] == "mnt"}
    both = [m.get("mountPropagation") for c in (sidecar, *spec["containers"]) for m in c["volumeMounts"] if m["name"] == "mnt"]
    good = sidecar["restartPolicy"] == "Always" and both == ["Bidirectional", "HostToContainer"] and spec["terminationGracePeriodSeconds"] >= 600
    check("the davfs2 sidecar hands its mount to the application", [] if good else [str(spread)])


def scripts():
    """The scripts that run in containers, run here."""
    disks = KUBERNETES / "components/node-labels/disks.sh"
    sys_block = WORK / "block"
    for disk, rotational in {"sda": 1, "nvme0n1": 0, "loop0": 0, "mmcblk0": 0}.items():
        (sys_block / disk / "queue").mkdir(parents=True)
        (sys_block / disk / "queue" / "rotational").write_text(f"{rotational}\n")
    both = json.loads(run("sh", disks, sys_block))["metadata"]["labels"]
    wanted = {"tierdav.github.io/ssd": "true", "tierdav.github.io/hdd": "true"}
    (sys_block / "nvme0n1" / "queue" / "rotational").unlink()
    only = json.loads(run("sh", disks, sys_block))["metadata"]["labels"]
    none = json.loads(run("sh", disks, WORK / "absent"))["metadata"]["labels"]
    good = both == wanted and only == wanted | {"tierdav.github.io/ssd": "false"} and set(none.values()) == {"false"}
    check("a node is labelled by its disks, and an SD card is no SSD", [] if good else [str((both, only, none))])
    ceph_config()
    for name in ("app-pod/loader/loader.py", "overlays/rook-pools/gateway/ceph-config.py"):
        source = (KUBERNETES / name).read_text()
        check(f"{name} compiles", complaints(compile, source, name, "exec"))
    for name in (disks, KUBERNETES / "app-pod/davfs2/mount.sh"):
        check(f"{name.name} is POSIX shell", complaints(run, "sh", "-n", name))
    for name in sorted(REPO.glob("deploy/**/Containerfile")):
        check(f"{name.relative_to(REPO)} passes hadolint", complaints(run, "hadolint", name))


def ceph_config():
    """Runs the init container's script against an API server that has the key only at the second look."""
    asked = []

    class Api(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            name = self.path.rsplit("/", 1)[-1]
            data = {"rook-ceph-client-tierdav": {"userID": "tierdav", "userKey": "AQBsecret=="},
                    "rook-ceph-config": {"mon_host": "[v2:10.0.0.1:3300,v1:10.0.0.1:6789]"}}
            status = 403 if self.headers["Authorization"] != "Bearer tok" else 404 if len(asked) == 1 else 200
            body = json.dumps({"data": {k: base64.b64encode(v.encode()).decode() for k, v in data[name].items()}}).encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    out = WORK / "ceph"
    out.mkdir()
    (out / "token").write_text("tok\n")
    script = KUBERNETES / "overlays/rook-pools/gateway/ceph-config.py"
    env = os.environ | {"API_SERVER": f"http://127.0.0.1:{server.server_port}", "TOKEN_DIR": str(out), "OUT_DIR": str(out), "RETRY_S": "0"}
    said = run("python3", script, env=env)
    conf, keyring = (out / "ceph.conf").read_text(), (out / "keyring").read_text()
    good = (asked[0].startswith("/api/v1/namespaces/rook-ceph/secrets/") and "AQBsecret" not in said
            and "mon_host = [v2:10.0.0.1:3300,v1:10.0.0.1:6789]" in conf and f"keyring = {out}/keyring" in conf
            and keyring == "[client.tierdav]\n\tkey = AQBsecret==\n" and (out / "keyring").stat().st_mode & 0o007 == 0)
    check("the init container waits for Rook's Secrets and writes ceph.conf and keyring", [] if good else [conf, keyring, said])
    (out / "token").write_text("wrong\n")
    refused = complaints(lambda: run("python3", script, env=env))
    check("without the right it says which RoleBinding is missing", [] if "RoleBinding" in str(refused) else refused or ["succeeded"])
    server.shutdown()


def monitoring():
    """Rules, their tests, the dashboard, and the metrics that all of them name."""
    metrics = (WORK / "metrics").read_text()
    check("the exported metrics keep Prometheus' conventions", complaints(lambda: run("promtool", "check", "metrics", input=metrics)))
    check("generated files are up to date", complaints(run, sys.executable, REPO / "deploy/dev/monitoring.py", "--check", WORK / "metrics"))
    check("the rules are right", complaints(run, "promtool", "check", "rules", MONITORING / "rules.yaml"))
    check("the alerts fire when they should", complaints(lambda: run("promtool", "test", "rules", "rules_test.yaml", cwd=MONITORING)))
    check("prometheus.yml is right", complaints(run, "promtool", "check", "config", MONITORING / "prometheus.yml"))

    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    rules = [r for g in groups for r in g["rules"]]
    tested = {t["alertname"] for c in yaml.safe_load((MONITORING / "rules_test.yaml").read_text())["tests"]
              for t in c.get("alert_rule_test", []) if t.get("exp_alerts")}
    alerts = {r["alert"] for r in rules if "alert" in r}
    check(f"each of {len(alerts)} alerts is seen firing in a test", sorted(alerts - tested))
    runbook = (REPO / "docs" / "runbook.md").read_text()
    check("each alert has its part of the runbook", sorted(a for a in alerts if f"\n## {a}\n" not in runbook))

    board = json.loads((MONITORING / "dashboard.json").read_text())
    queries = [t["expr"] for p in board["panels"] for t in p.get("targets", [])]
    recorded = [{"record": f"panel:q{n}", "expr": q.replace("$__rate_interval", "1m")} for n, q in enumerate(queries)]
    (WORK / "panels.yaml").write_text(yaml.dump({"groups": [{"name": "panels", "rules": recorded}]}))
    check(f"{len(queries)} queries of the dashboard parse", complaints(run, "promtool", "check", "rules", WORK / "panels.yaml"))
    ids = [p["id"] for p in board["panels"]]
    rows = [p["title"] for p in board["panels"] if p["type"] == "row"]
    check("the dashboard has its rows", [] if rows == ["Clients", "Tiers", "Cluster"] and len(set(ids)) == len(ids) else [str(rows)])

    exported = set(re.findall(r"^([a-z_]+)(?:\{| )", metrics, re.M)) | {r["record"] for r in rules if "record" in r} | FOREIGN
    texts = {f"dashboard: {q}": q for q in queries} | {r.get("alert") or r["record"]: r["expr"] for r in rules}
    unknown = [f"{name} names {m}" for name, text in texts.items()
               for m in re.findall(r"\b((?:tierdav|process_|ceph_|up\b)[\w:]*)", re.sub(r'"[^"]*"', "", text)) if m not in exported]
    check(f"every metric in {len(texts)} queries is exported by a running gateway", unknown)
    own = {m for m in exported if m.startswith(("tierdav_", "process_")) and not m.endswith(("_sum", "_count"))}
    unseen = sorted(m for m in own if not any(re.search(rf"\b{m}\b", q) for q in queries))
    check("every metric is on the dashboard", unseen)


def pages():
    """What the pages name must be there: directories for kubectl, and the files of links."""
    missing = []
    for page in [*sorted((REPO / "docs").glob("*.md")), KUBERNETES / "app-pod" / "README.md"]:
        text = page.read_text()
        named = [REPO / d for d in re.findall(r"(?:-k|-f|^\| `)\s*(deploy/[\w./-]+)", text, re.M)]
        named += [page.parent / link for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]*)?\)", text)]
        missing += [f"{page.name}: {p}" for p in named if not p.exists()]
    check("what the pages name is there", missing)


built = build_all()
validate(built)
if failed == 0:
    gateway(built)
    containers(built)
    traps(built)
scripts()
monitoring()
pages()
print(f"manifests: {passed} checks passed, {failed} failed")
sys.exit(failed > 0)
