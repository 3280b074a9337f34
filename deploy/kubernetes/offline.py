#!/usr/bin/env python3
"""Makes a Job of the gateway's StatefulSet, JSON in and out: it runs a shell command in the gateway's place.

It has the gateway's image, volumes, user and settings, but none of its labels, so that no client is sent to it.
docs/deploy.md, "With the gateway stopped", has the steps around it.
"""

import json
import sys

gateway = json.load(sys.stdin)
pod = gateway["spec"]["template"]["spec"]
pod["restartPolicy"] = "Never"
[container] = pod["containers"]
for serving in ("args", "ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
    container.pop(serving, None)
container["command"] = ["sh", "-c", sys.argv[1]]
meta = {"name": "tierdav-offline", "namespace": gateway["metadata"]["namespace"]}
job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}
json.dump(job, sys.stdout)
