#!/usr/bin/env python3
"""Makes what would otherwise be typed twice: prometheusrule.yaml, dashboard.json and docs/metrics.md.

monitoring.py [--check] [METRICS]: METRICS is the text that a running gateway exports; without it docs/metrics.md is left
alone. With --check nothing is written, and a file that would change is an error.
"""

import json
import pathlib
import re
import sys

import yaml

REPO = pathlib.Path(__file__).resolve().parents[2]
MONITORING = REPO / "deploy" / "monitoring"


def rule_object():
    """The PrometheusRule with the groups of rules.yaml."""

    class Dumper(yaml.SafeDumper):
        """Writes expressions of several lines as they are."""

    def text(dumper, value):
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    spec = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "tierdav", "labels": {"app.kubernetes.io/name": "tierdav"}},
        "spec": spec,
    }
    body = yaml.dump(rule, Dumper=Dumper, sort_keys=False, width=1000)
    return "# Made from rules.yaml by deploy/dev/monitoring.py: edit that.\n" + body


# Panels: title, unit, [(expression, legend)], help, and the type if it is no graph. $i stands for the chosen gateways.
CLIENTS = [
    ("Requests by method", "reqps",
     [("sum by (method) (rate(tierdav_requests_total{$i}[$__rate_interval]))", "{{method}}")],
     "Requests finished per second, also those that were refused before WebDAV saw them, or whose answer was broken off."),
    ("Answers by status", "reqps",
     [("sum by (status) (rate(tierdav_requests_total{$i}[$__rate_interval]))", "{{status}}"),
      ("sum(rate(tierdav_unchanged_uploads_total{$i}[$__rate_interval]))", "of these, uploads of what was there"),
      ("sum by (reason) (rate(tierdav_replies_broken_total{$i}[$__rate_interval]))", "of these, broken off: {{reason}}")],
     "503 means: try again (starting, stopping, pool away). davfs2 retries 5xx and gives up on 4xx and 507. "
     "Broken off: gone, the client went away; unreadable, the content could not be read."),
    ("Latency of requests, median and 99th percentile", "s",
     [(f"histogram_quantile({q}, sum by (le, method) (rate(tierdav_request_duration_seconds_bucket"
       '{$i,method=~"get|put|propfind|lock"}[$__rate_interval])))', "{{method}} p" + p)
      for q, p in (("0.5", "50"), ("0.99", "99"))],
     "From the head of a request to the end of its answer, bodies included."),
    ("Bytes", "Bps",
     [("sum(rate(tierdav_received_bytes_total{$i}[$__rate_interval]))", "received"),
      ("sum(rate(tierdav_unchanged_upload_bytes_total{$i}[$__rate_interval]))", "received and there already"),
      ("sum(rate(tierdav_sent_bytes_total{$i}[$__rate_interval]))", "sent")],
     "Bodies only, as far as they came or left. What was there already is not written."),
    ("Connections, requests in flight, locks", "short",
     [("sum(tierdav_connections{$i})", "connections"),
      ("sum(tierdav_requests_in_flight{$i})", "in flight"),
      ("sum(tierdav_locks{$i})", "locks")],
     "davfs2 holds a lock for every file that is open for writing."),
    ("New connections and refused logins", "cps",
     [("sum(rate(tierdav_connections_opened_total{$i}[$__rate_interval]))", "connections"),
      ("sum by (reason) (rate(tierdav_login_failures_total{$i}[$__rate_interval]))", "login refused: {{reason}}")],
     "Per second."),
]
TIERS = [
    ("Hit ratio of reads", "percentunit",
     [("tierdav:read_hit_ratio_bytes:rate5m{$i}", "bytes"),
      ("tierdav:read_hit_ratio_operations:rate5m{$i}", "operations")],
     "Share of what clients read that came from the cache tier (needs the recording rules)."),
    ("Cache tier", "bytes",
     [("sum by (state) (tierdav_cache_object_bytes{$i})", "{{state}}"),
      ("sum(tierdav_cache_used_bytes{$i})", "used"),
      ("sum(tierdav_cache_capacity_bytes{$i})", "capacity")],
     "Dirty objects are in the cache tier only."),
    ("Objects in the cache tier", "short",
     [("sum by (state) (tierdav_cache_objects{$i})", "{{state}}")], "By state."),
    ("Age of the oldest dirty data", "s",
     [("max(tierdav_dirty_age_max_seconds{$i})", "oldest")], "Should stay near max_dirty_age."),
    ("Damage", "short",
     [("sum(tierdav_lost_objects{$i})", "changed objects that are lost"),
      ("sum(increase(tierdav_damage_found_total{$i}[1h]))", "reads that found damage in the last hour"),
      ("sum(increase(tierdav_cache_write_errors_total{$i}[1h]))", "writes that the cache tier refused in the last hour")],
     "Should be 0: the gateway's log names what it is about."),
    ("Moves", "ops",
     [('sum by (kind, result) (rate(tierdav_moves_total{$i}[$__rate_interval]))', "{{kind}} {{result}}")],
     "Objects moved per second."),
    ("Bytes moved", "Bps",
     [("sum by (kind) (rate(tierdav_moved_bytes_total{$i}[$__rate_interval]))", "{{kind}}"),
      ("sum(rate(tierdav_spared_bytes_total{$i}[$__rate_interval]))", "gone before they were flushed")],
     "Per second. What is gone before it was flushed never goes to the backing tier."),
    ("Object I/O for clients", "Bps",
     [("sum by (op, tier) (rate(tierdav_object_bytes_total{$i}[$__rate_interval]))", "{{op}} {{tier}}")],
     "Writes to the backing tier: the cache had no room, or policy or write_policy send them there."),
    ("Object operations for clients", "ops",
     [("sum by (op, tier) (rate(tierdav_object_operations_total{$i}[$__rate_interval]))", "{{op}} {{tier}}")],
     "Per second."),
    ("Latency of object reads, 99th percentile", "s",
     [("histogram_quantile(0.99, sum by (le, op, tier) (rate(tierdav_object_duration_seconds_bucket{$i}"
       "[$__rate_interval])))", "{{op}} {{tier}}")],
     "The distance between the tiers is what tiering can win."),
    ("Migrator's queue and waits", "short",
     [("sum(tierdav_migrator_queue_actions{$i})", "actions waiting"),
      ("sum(rate(tierdav_migrator_throttle_wait_seconds_total{$i}[$__rate_interval]))", "seconds throttled per second")],
     "Waits come from migrate_bandwidth and migrate_ops."),
    ("Trace", "ops",
     [("sum(rate(tierdav_trace_records_total{$i}[$__rate_interval]))", "records"),
      ("sum(rate(tierdav_trace_dropped_records_total{$i}[$__rate_interval]))", "dropped"),
      ("sum(rate(tierdav_trace_errors_total{$i}[$__rate_interval]))", "errors")],
     "Per second."),
    ("Shadow policies: hit ratio of bytes", "percentunit",
     [("sum by (policy, size) (rate(tierdav_shadow_read_hit_bytes_total{$i}[$__rate_interval])) / "
       "sum by (policy, size) (rate(tierdav_shadow_read_bytes_total{$i}[$__rate_interval]))", "{{policy}} x{{size}}")],
     "What other policies would reach on this load, with so many times the cache; empty without `shadow`."),
    ("Shadow policies: hit ratio of operations", "percentunit",
     [("sum by (policy, size) (rate(tierdav_shadow_read_hits_total{$i}[$__rate_interval])) / "
       "sum by (policy, size) (rate(tierdav_shadow_reads_total{$i}[$__rate_interval]))", "{{policy}} x{{size}}")],
     "Likewise, by object reads."),
    ("Shadow policies: load of the backing device", "percentunit",
     [("sum by (policy, size) (rate(tierdav_shadow_backing_busy_seconds_total{$i}[$__rate_interval]))",
       "{{policy}} x{{size}}")],
     "Share of time in which it would be busy, moves included."),
    ("Shadow policies: what they cost, and what auto did", "short",
     [("sum(rate(tierdav_shadow_cpu_seconds_total{$i}[$__rate_interval]))", "CPU cores"),
      ("sum(rate(tierdav_shadow_dropped_total{$i}[$__rate_interval]))", "requests not told of, per second"),
      ("sum(tierdav_shadow_objects{$i})", "objects told of"),
      ("min(tierdav_shadow_sampling_ratio{$i})", "sampling ratio"),
      ("sum(increase(tierdav_shadow_switches_total{$i}[1h]))", "changes by policy = auto in the last hour")],
     "They see a sample of the objects."),
    ("Free space under the tiers", "bytes",
     [("min by (volume) (tierdav_volume_available_bytes{$i})", "{{volume}} free"),
      ("max by (volume) (tierdav_volume_size_bytes{$i})", "{{volume}} size")],
     "What statvfs says of the two directories."),
    ("Intent log", "bytes",
     [("sum by (instance) (tierdav_intent_log_bytes{$i})", "{{instance}}"),
      ("sum by (instance) (tierdav_intent_log_kept{$i})", "{{instance}} is kept")],
     "What the next start reads. Kept at 1: a disk failed to sync; restart once it works."),
]
CLUSTER = [
    ("Memory", "bytes",
     [("sum by (instance) (process_resident_memory_bytes{$i})", "resident"),
      ("sum by (instance) (process_virtual_memory_bytes{$i})", "virtual")], "Of the gateway's process."),
    ("CPU", "short",
     [("sum by (instance) (rate(process_cpu_seconds_total{$i}[$__rate_interval]))", "cores"),
      ("sum by (instance) (tierdav_runtime_workers{$i})", "runtime's workers")],
     "Cores in use."),
    ("Descriptors, threads, tasks", "short",
     [("sum(process_open_fds{$i})", "open descriptors"), ("sum(process_max_fds{$i})", "limit of descriptors"),
      ("sum(process_threads{$i})", "threads"), ("sum(tierdav_runtime_tasks{$i})", "tasks"),
      ("sum(tierdav_runtime_queue_tasks{$i})", "tasks waiting")], "Of the gateway's process."),
    ("Version and time since the start", "s",
     [("sum by (version, instance) (tierdav_build_info{$i} * on (instance) group_left () "
       "(time() - process_start_time_seconds{$i}))", "{{instance}} {{version}}")],
     "A fall is a restart."),
    ("Certificate: time left", "s",
     [("min(tierdav_tls_certificate_not_after_timestamp_seconds{$i} - time())", "left")],
     "Of the certificate that the gateway itself uses; empty when a proxy does TLS."),
    ("RADOS operations of the gateway", "ops",
     [("sum by (op, pool) (rate(tierdav_rados_operations_total{$i}[$__rate_interval]))", "{{op}} {{pool}}")],
     "What the gateway asks of its pools, per second; empty without pools."),
    ("RADOS operations: 99th percentile", "s",
     [("histogram_quantile(0.99, sum by (le, op, pool) (rate(tierdav_rados_operation_duration_seconds_bucket{$i}"
       "[$__rate_interval])))", "{{op}} {{pool}}")],
     "From the beginning of an operation to its answer."),
    ("RADOS errors", "ops",
     [("sum by (op, pool, error) (rate(tierdav_rados_errors_total{$i}[$__rate_interval])) > 0", "{{op}} {{pool}}: {{error}}")],
     "not_found and busy are everyday answers; all others mean trouble."),
    ("RADOS bytes of the gateway", "Bps",
     [("sum by (op, pool) (rate(tierdav_rados_bytes_total{$i}[$__rate_interval]))", "{{op}} {{pool}}")],
     "Moves between the pools pass through the gateway and are in it; what OSDs copy is not."),
    ("RADOS operations in flight", "short",
     [("sum by (pool) (tierdav_rados_operations_in_flight{$i})", "{{pool}}")],
     "Rises when the cluster is slow or does not answer. Pool none: the monitors."),
    ("Connection to Ceph", "short",
     [("min by (instance) (tierdav_rados_owner{$i})", "{{instance}} holds its pools' lock"),
      ("sum by (result) (rate(tierdav_rados_connects_total{$i}[$__rate_interval]))", "tries to connect per second: {{result}}")],
     "0: the gateway serves nothing."),
    ("Versions waiting for their removal from the pools", "short",
     [("sum by (instance) (tierdav_purges_waiting_versions{$i})", "{{instance}}")],
     "From 65 536 on, an upload begins only when a version has gone."),
    ("Pools: share used", "percentunit",
     [('ceph_pool_percent_used * on (pool_id) group_left (name) ceph_pool_metadata{name=~"tierdav-.*"}', "{{name}}")],
     "From Ceph's exporter; empty without Ceph."),
    ("Pools: operations", "ops",
     [('rate(ceph_pool_rd[$__rate_interval]) * on (pool_id) group_left (name) ceph_pool_metadata{name=~"tierdav-.*"}',
       "{{name}} read"),
      ('rate(ceph_pool_wr[$__rate_interval]) * on (pool_id) group_left (name) ceph_pool_metadata{name=~"tierdav-.*"}',
       "{{name}} write")], "From Ceph's exporter."),
    ("Ceph's health", "short",
     [("max(ceph_health_status)", "0 ok, 1 warning, 2 error")], "From Ceph's exporter."),
]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard():
    """The Grafana dashboard: three rows, as data."""
    panels, y = [], 0
    for row, content in (("Clients", CLIENTS), ("Tiers", TIERS), ("Cluster", CLUSTER)):
        panels.append({"id": len(panels) + 1, "type": "row", "title": row, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        for at, (title, unit, queries, help_text) in enumerate(content):
            targets = [
                {"refId": chr(ord("A") + n), "datasource": SOURCE, "legendFormat": legend,
                 "expr": expr.replace("$i", 'instance=~"$instance"')}
                for n, (expr, legend) in enumerate(queries)
            ]
            panels.append({
                "id": len(panels) + 1, "type": "timeseries", "title": title, "description": help_text,
                "datasource": SOURCE, "targets": targets,
                "gridPos": {"x": at % 3 * 8, "y": y + at // 3 * 7, "w": 8, "h": 7},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}},
                                "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                            "tooltip": {"mode": "multi", "sort": "desc"}},
            })
        y += -(-len(content) // 3) * 7
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"},
        {"name": "instance", "type": "query", "label": "Gateway", "datasource": SOURCE, "refresh": 2,
         "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
         "definition": "label_values(tierdav_build_info, instance)",
         "query": {"query": "label_values(tierdav_build_info, instance)", "refId": "instance"}},
    ]
    board = {
        "uid": "tierdav", "title": "TierDAV", "tags": ["tierdav", "storage"], "schemaVersion": 39, "version": 1,
        "editable": True, "timezone": "browser", "refresh": "30s", "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables}, "annotations": {"list": []}, "panels": panels,
    }
    return json.dumps(board, indent=1) + "\n"


def metrics_page(text):
    """The table of all metrics from what a gateway exports."""
    labels = {}
    for name, pairs in re.findall(r"^([a-z_]+)\{(.*)\} ", text, re.M):
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        names = [n for n in re.findall(r'(\w+)="', pairs) if n != "le"]
        for family in (name, family):
            labels.setdefault(family, sorted(set(names)))
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    rows = [
        f"| `{name}` | {kinds[name]} | {', '.join(labels.get(name, []))} | {meaning} |"
        for name, meaning in sorted(re.findall(r"^# HELP (\S+) (.*)$", text, re.M))
    ]
    head = ("# Metrics\n\nMade by `deploy/dev/manifests.sh --write` from what a running gateway exports on "
            "`/.tierdav/metrics`.\n\n| name | type | labels | meaning |\n| --- | --- | --- | --- |\n")
    return head + "\n".join(rows) + "\n"


def main():
    arguments = sys.argv[1:]
    check = "--check" in arguments
    files = {MONITORING / "prometheusrule.yaml": rule_object(), MONITORING / "dashboard.json": dashboard()}
    for path in (a for a in arguments if a != "--check"):
        files[REPO / "docs" / "metrics.md"] = metrics_page(pathlib.Path(path).read_text())
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if check and stale:
        names = ", ".join(str(p.relative_to(REPO)) for p in stale)
        sys.exit(f"out of date: {names}; run deploy/dev/manifests.sh --write")
    for path in stale:
        path.write_text(files[path])


if __name__ == "__main__":
    main()
