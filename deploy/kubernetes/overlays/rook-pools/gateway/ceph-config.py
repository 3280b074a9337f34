#!/usr/bin/env python3
"""Writes ceph.conf and the keyring from what Rook publishes, then exits.

Rook keeps the key in Secret rook-ceph-client-NAME and the monitors' addresses in Secret rook-ceph-config, both in its own
namespace, so they cannot be mounted here. The gateway's librados follows monitors that move while it runs; a start after
that, or after a rotation of the key (`kubectl rollout restart statefulset/tierdav`), comes through here again.

Python's standard library only; the tests run it against an API server of their own.
"""

import base64
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request

API = os.environ.get("API_SERVER", "https://kubernetes.default.svc")
TOKEN_DIR = os.environ.get("TOKEN_DIR", "/var/run/secrets/kubernetes.io/serviceaccount")
NAMESPACE = os.environ.get("ROOK_NAMESPACE", "rook-ceph")
CLIENT = os.environ.get("CEPH_CLIENT", "tierdav")
OUT = os.environ.get("OUT_DIR", "/etc/ceph")
RETRY_S = float(os.environ.get("RETRY_S", "3"))


def secret(name):
    """The decoded values of a Secret in Rook's namespace."""
    with open(f"{TOKEN_DIR}/token", encoding="ascii") as token:
        headers = {"Authorization": f"Bearer {token.read().strip()}"}
    url = f"{API}/api/v1/namespaces/{NAMESPACE}/secrets/{name}"
    tls = ssl.create_default_context(cafile=f"{TOKEN_DIR}/ca.crt") if url.startswith("https:") else None
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10, context=tls) as reply:
        data = json.load(reply).get("data", {})
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def wait_for(name, *keys):
    """The first of `keys` in Secret `name`; waits until Rook has made it. A refusal (403) is final."""
    while True:
        try:
            values = secret(name)
            for key in keys:
                if values.get(key):
                    return values[key]
            problem = f"has none of {', '.join(keys)}"
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                sys.exit(f"Secret {NAMESPACE}/{name}: {error}; is the RoleBinding tierdav-ceph-config there?")
            problem = str(error)
        except OSError as error:
            problem = str(error)
        print(f"waiting for Secret {NAMESPACE}/{name}: {problem}", file=sys.stderr, flush=True)
        time.sleep(RETRY_S)


def write(name, text):
    """Writes a file that only this user and the pod's group can read."""
    path = os.path.join(OUT, name)
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "w", encoding="ascii") as file:
        file.write(text)
    os.rename(path + ".new", path)


key = wait_for(f"rook-ceph-client-{CLIENT}", "userKey", CLIENT)
monitors = wait_for("rook-ceph-config", "mon_host")
write("keyring", f"[client.{CLIENT}]\n\tkey = {key}\n")
write(
    "ceph.conf",
    "[global]\n"
    f"mon_host = {monitors}\n"
    f"[client.{CLIENT}]\n"
    f"keyring = {OUT}/keyring\n"
    # No request waits for ever for an OSD that is away: the gateway answers 503.
    "rados_osd_op_timeout = 30\n"
    "rados_mon_op_timeout = 30\n",
)
print(f"client.{CLIENT}, monitors {monitors}")
