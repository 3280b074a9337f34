#!/usr/bin/env python3
"""Looks at the page of the admin listener, and at a collection, in a real browser: page.py ADMIN URL ROOT PID.

Checks what a person would notice: nothing is missing or cut off with 0, 10 and 100 000 files, wide and narrow, light and
dark, with and without script; a screen reader finds names; hostile file names are text; nothing is fetched from elsewhere.
With TIERDAV_SHOTS=DIR it leaves pictures there.
"""

import concurrent.futures
import http.client
import os
import pathlib
import sys
import time
import urllib.parse

from chromium import Chromium

ADMIN, URL, ROOT, PID = sys.argv[1:]
PAGE = f"http://{ADMIN}/.tierdav/"
SHOTS = os.environ.get("TIERDAV_SHOTS")
# Roles that mean nothing without a name.
NAMED = {"image", "link", "heading", "region", "meter", "columnheader", "rowheader", "status", "button"}
HOSTILE = "<img src=x onerror=alert(1)>&\"'\u202etxt.\u0007bin"
MANY = 100_000


def check(what, good, why=""):
    print(("ok: " if good else "FAILED: ") + what + (f": {why}" if why and not good else ""), flush=True)
    if not good:
        sys.exit(1)


def requests(paths, method="GET", body=None):
    """Sends them over one connection; every answer must be a success."""
    server = urllib.parse.urlsplit(URL)
    connection = http.client.HTTPConnection(server.hostname, server.port, timeout=60)
    for path in paths:
        connection.request(method, "/" + urllib.parse.quote(path), body=body)
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status}")
    connection.close()


def cpu_seconds():
    """What the gateway has used so far: unlike the clock, it does not count what else the machine does."""
    user, system = pathlib.Path("/proc", PID, "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def shot(browser, name):
    if SHOTS:
        browser.shot(f"{SHOTS}/{name}.png")


def look(browser, name, url, expect):
    """Opens `url` in all four ways and checks what must hold for any page."""
    browser.events = []
    for width, dark in ((1400, False), (1400, True), (390, False), (390, True)):
        browser.window(width, dark)
        browser.open(url)
        size = browser.run("[document.documentElement.scrollWidth, innerWidth]")
        check(f"{name}, {width} px {'dark' if dark else 'light'}: nothing is cut off", size[0] <= size[1], str(size))
        text = browser.run("document.body.innerText")
        missing = [e for e in expect if e not in text]
        check(f"  and says {expect}", not missing, f"{missing} is not in {text[:2000]}")
        shot(browser, f"{name}-{width}-{'dark' if dark else 'light'}")
    nameless = [role for role, label in browser.tree() if role in NAMED and not label]
    check(f"{name}: everything has a name in the accessibility tree", not nameless, str(nameless))
    faint = browser.run(CONTRAST)
    check(f"{name}: text stands out from its background (4.5:1)", not faint, str(faint))
    browser.window(1400, False)
    browser.open(url)
    faint = browser.run(CONTRAST)
    check("  also in light colours", not faint, str(faint))
    complaints = browser.complaints()
    check("  and the browser has nothing to complain about", not complaints, str(complaints))
    elsewhere = {u for u in browser.asked() if not u.startswith((url.split("/", 3)[0] + "//" + url.split("/", 3)[2] + "/", "data:"))}
    check("  and nothing is fetched from elsewhere", not elsewhere, str(elsewhere))


# Elements with text of their own whose colour is too near to the background: WCAG 2.1, 1.4.3.
CONTRAST = """(() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1]; };
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const canvas = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
  const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] > .9) return c; }
    return canvas; };
  const faint = [];
  for (const e of document.body.querySelectorAll("*")) {
    if (e.closest("svg") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) faint.push(`${e.tagName}.${e.className} "${e.textContent.trim().slice(0, 20)}" ${ratio.toFixed(1)}`);
  }
  return [...new Set(faint)];
})()"""


def main():
    with Chromium() as browser:
        look(browser, "page-0", PAGE, ["ready", "No file has been read", "Nothing has moved yet", "Policy:"])
        empty_listing = ["Name", "Size", "0 entries"]
        look(browser, "listing-0", URL, empty_listing)

        requests(["media", "media/empty"], "MKCOL")
        names = [f"media/photo {n}.jpg" for n in range(8)] + ["media/large.bin"]
        for n, name in enumerate(names):
            requests([name], "PUT", os.urandom((n + 1) * 50_000))
        requests(["media/large.bin"], "PUT", os.urandom(21 << 20))
        # A control character cannot be in a name that clients send: this file came beside the gateway.
        pathlib.Path(ROOT, "media", HOSTILE).write_bytes(b"boo" * 1000)
        requests([f"media/{HOSTILE.replace(chr(7), '')}"], "PUT", b"boo" * 1000)
        requests([f"media/{HOSTILE.replace(chr(7), '')}"] * 30)
        requests(["media/large.bin"] * 3 + names * 2)
        look(browser, "page-10", PAGE, ["/media/large.bin", "<img src=x onerror=alert(1)>", " ago"])
        check("a hostile name is text", browser.run("document.querySelector('img, script:not([src])') === null"))
        moved = browser.run("document.querySelector('[aria-labelledby=h-moves]').innerText")
        check("moves are told with their reason", "flushed" in moved or "promoted" in moved, moved)
        look(browser, "listing-10", URL + "media/", ["large.bin", "21.0 MiB", "<img src=x onerror=alert(1)>"])
        check("a hostile name is text in a listing", browser.run("document.querySelector('img, script') === null"))
        browser.run("[...document.querySelectorAll('th a')].find((a) => a.textContent === 'Size').click()")
        browser._happened("Page.loadEventFired", time.monotonic() + 60)
        browser.run("[...document.querySelectorAll('th a')].find((a) => a.textContent === 'Size').click()")
        browser._happened("Page.loadEventFired", time.monotonic() + 60)
        rows = browser.run("[...document.querySelectorAll('tbody tr')].map((r) => r.innerText)")
        at = [i for i, row in enumerate(rows) if "large.bin" in row]
        files = [i for i, row in enumerate(rows) if " B" in row or "KiB" in row or "MiB" in row]
        check("a listing is sorted by size with two clicks, the largest first", at == files[:1], str(rows))

        browser.window(1400, False)
        browser.open(PAGE)
        requests(["new name.txt"], "PUT", b"x")
        seen = """new Promise((yes) => { const look = () => document.body.innerText.includes('new name.txt') && yes(true);
            new MutationObserver(look).observe(document.body, { childList: true, subtree: true }); look(); setTimeout(yes, 50000, false); })"""
        check("the page shows a new file by itself", browser.run(seen))
        browser.window(1400, False, script=False)
        browser.open(PAGE)
        browser.window(1400, False, script=False)
        tree = browser.tree()
        check("without script the page says the same", any("new name.txt" in label for _, label in tree))
        browser.window(1400, False)

        start = time.monotonic()
        for d in range(100):
            directory = pathlib.Path(ROOT, f"d{d}")
            directory.mkdir()
            for n in range(MANY // 100):
                (directory / f"{n}.bin").write_bytes(b"some content")
        paths = [[f"d{d}/{n}.bin" for d in range(part, 100, 4) for n in range(MANY // 100)] for part in range(4)]
        with concurrent.futures.ProcessPoolExecutor(4) as pool:
            list(pool.map(requests, paths))
        requests(["d7/7.bin"] * 500)
        print(f"{MANY} files made and read in {time.monotonic() - start:.0f} s")
        look(browser, "page-100000", PAGE, ["/d7/7.bin"])
        first = browser.run("document.querySelector('.hot tbody th').innerText")
        check("the hottest of 100 000 files is first", first == "/d7/7.bin", first)
        connection = http.client.HTTPConnection(*ADMIN.split(":"), timeout=60)
        times, size, before = [], 0, cpu_seconds()
        for _ in range(20):
            start = time.monotonic()
            connection.request("GET", "/.tierdav/")
            size = len(connection.getresponse().read())
            times.append(time.monotonic() - start)
        used = (cpu_seconds() - before) / len(times)
        times.sort()
        print(f"the page with {MANY} files: {size / 1024:.0f} KiB, median {times[10] * 1000:.1f} ms, longest {times[-1] * 1000:.1f} ms, "
              f"{used * 1000:.1f} ms of the processor")
        check("the page stays small and quick", size < 256 << 10 and used < 0.5)


main()
