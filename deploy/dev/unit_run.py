#!/usr/bin/python3
"""A `systemctl` for tests on machines without systemd: runs a unit's own command under the unit's own sandbox options.

unit_run.py start|stop|restart|reload|status|enable|disable|daemon-reload [--now] UNIT

Applied: User, Group, UMask, EnvironmentFile, LimitNOFILE, StateDirectory, ReadWritePaths, NoNewPrivileges,
CapabilityBoundingSet, ProtectSystem, ProtectHome, PrivateTmp, PrivateDevices, ProtectKernelTunables, SystemCallFilter,
RestrictAddressFamilies, MemoryDenyWriteExecute. What a unit asks for besides is printed at its start.
Needs root, util-linux (setpriv), and python3-seccomp for the system's own Python.
"""

import ctypes
import os
import pathlib
import pwd
import resource
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time

STATE = pathlib.Path("/run/unit-run")
APPLIED = {
    "Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "TimeoutStopSec", "KillSignal", "SendSIGKILL", "User", "Group",
    "UMask", "EnvironmentFile", "LimitNOFILE", "StateDirectory", "StateDirectoryMode", "ReadWritePaths", "NoNewPrivileges",
    "CapabilityBoundingSet", "AmbientCapabilities", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices",
    "ProtectKernelTunables", "SystemCallFilter", "SystemCallErrorNumber", "RestrictAddressFamilies", "MemoryDenyWriteExecute",
}  # fmt: skip
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE, MS_MOVE = 0x20000, 1, 32, 4096, 16384, 1 << 19, 8192


def read_unit(name):
    """The [Service] section: option -> list of values; an empty value clears the list, as systemd does."""
    for place in ("/etc/systemd/system", "/lib/systemd/system"):
        path = pathlib.Path(place, name)
        if path.exists():
            break
    else:
        sys.exit(f"Unit {name} not found.")
    options, section = {}, ""
    for line in path.read_text().splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and line[0] not in "#;":
            key, value = line.split("=", 1)
            options.setdefault(key, []).append(value)
    return options


def one(unit, key, default=""):
    return unit.get(key, [default])[-1]


def on(unit, key):
    return one(unit, key).lower() in ("yes", "true", "1", "on", "strict", "full")


def mount(source, target, kind=None, flags=0, data=None):
    arguments = [a.encode() if a is not None else None for a in (str(source), str(target), kind)]
    if LIBC.mount(*arguments, flags, data.encode() if data else None):
        error = ctypes.get_errno()
        raise OSError(error, f"mount {source} on {target}: {os.strerror(error)}")


def private_devices():
    """A /dev with the harmless ones only."""
    new = STATE / "dev"
    new.mkdir(exist_ok=True)
    mount("tmpfs", new, "tmpfs", 0, "mode=755")
    for name, minor in {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}.items():
        os.mknod(new / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        os.chmod(new / name, 0o666)
    (new / "fd").symlink_to("/proc/self/fd")
    (new / "shm").mkdir(mode=0o1777)
    mount(new, "/dev", None, MS_MOVE)


def sandbox(unit, user):
    """Builds the mount namespace."""
    if LIBC.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    # As systemd does: what is unmounted outside goes away in here too, or a service would keep FUSE mounts alive.
    mount("none", "/", None, MS_REC | MS_SLAVE)
    if on(unit, "PrivateDevices"):
        private_devices()
    writable = []
    for name in one(unit, "StateDirectory").split():
        path = pathlib.Path("/var/lib", name)
        path.mkdir(exist_ok=True)
        os.chmod(path, int(one(unit, "StateDirectoryMode", "0755"), 8))
        os.chown(path, user.pw_uid, user.pw_gid)
        writable.append(str(path))
    writable += [p for value in unit.get("ReadWritePaths", []) for p in value.split()]
    system = one(unit, "ProtectSystem")
    if system == "strict":
        for path in writable:
            mount(path, path, None, MS_BIND | MS_REC)
        kept = ("/dev", "/proc", "/sys", *writable)
        points = [line.split()[4] for line in open("/proc/self/mountinfo", encoding="ascii")]
        for point in points:
            if not any(point == k or point.startswith(k + "/") for k in kept):
                LIBC.mount(None, point.encode(), None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)
    elif system == "full":
        for path in ("/usr", "/etc"):
            mount(path, path, None, MS_BIND | MS_REC)
            mount("none", path, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    if on(unit, "ProtectKernelTunables"):
        for path in ("/proc/sys", "/sys"):
            mount(path, path, None, MS_BIND)
            mount("none", path, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    if on(unit, "ProtectHome"):
        for path in ("/home", "/root"):
            mount("tmpfs", path, "tmpfs", MS_RDONLY, "mode=000")
    if on(unit, "PrivateTmp"):
        for path in ("/tmp", "/var/tmp"):
            mount("tmpfs", path, "tmpfs", 0, "mode=1777")


def syscalls(names):
    """The names that systemd's groups stand for."""
    found = set()
    for name in names:
        if not name.startswith("@"):
            found.add(name)
            continue
        text = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
        lines = [line.strip() for line in text.splitlines()[1:]]
        found |= syscalls(line for line in lines if line and line[0] != "#")
    return found


def plan_filter(unit):
    """Allowed system calls; None without a filter. Made before the sandbox, which has no systemd-analyze to spare."""
    if "SystemCallFilter" not in unit:
        return None
    allowed = set()
    for value in unit["SystemCallFilter"]:
        if value.startswith("~"):
            allowed -= syscalls(value[1:].split())
        else:
            # As in systemd, these are always allowed.
            allowed |= syscalls([*value.split(), "@default", "execve", "exit", "exit_group", "rt_sigreturn"])
    return allowed


def load_filter(allowed, families, no_write_execute):
    """Loads the seccomp filter into this process; whatever is not allowed answers EPERM."""
    import seccomp  # python3-seccomp

    rules = seccomp.SyscallFilter(defaction=seccomp.ERRNO(1))
    execute, write = 4, 2
    for name in allowed:
        try:
            if name == "socket" and families:
                for family in families:
                    rules.add_rule(seccomp.ALLOW, name, seccomp.Arg(0, seccomp.EQ, getattr(socket, family)))
            elif name == "mmap" and no_write_execute:
                for bit in (execute, write):
                    rules.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, bit, 0))
            elif name in ("mprotect", "pkey_mprotect") and no_write_execute:
                rules.add_rule(seccomp.ALLOW, name, seccomp.Arg(2, seccomp.MASKED_EQ, execute, 0))
            else:
                rules.add_rule(seccomp.ALLOW, name)
        except (RuntimeError, OSError):
            pass  # a name that this architecture does not have
    rules.load()


def command(unit):
    """ExecStart with the variables of EnvironmentFile."""
    for path in unit.get("EnvironmentFile", []):
        for line in open(path.lstrip("-"), encoding="utf-8"):
            if "=" in line and not line.startswith("#"):
                key, value = line.strip().split("=", 1)
                os.environ[key] = value.strip('"')
    words = []
    for word in shlex.split(one(unit, "ExecStart")):
        words += shlex.split(os.environ.get(word[1:], "")) if word.startswith("$") else [word]
    return words


def start(name):
    unit, pid_file = read_unit(name), STATE / name
    if running(name):
        return
    print(f"{name}: not applied here: {' '.join(sorted(set(unit) - APPLIED)) or 'nothing'}")
    user = pwd.getpwnam(one(unit, "User", "root"))
    allowed = plan_filter(unit)
    words = command(unit)
    log = os.open(f"/var/log/{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open("/dev/null", os.O_RDONLY)
    pid = os.fork()
    if pid:
        pid_file.write_text(str(pid))
        # As with Type=exec: the unit has started when its own program runs.
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode() == words[0]:
                return
            time.sleep(0.01)
        sys.exit(f"{name} did not start: see /var/log/{name}.log")
    os.setsid()
    os.dup2(nothing, 0), os.dup2(log, 1), os.dup2(log, 2)
    try:
        sandbox(unit, user)
        os.chdir("/")
        os.umask(int(one(unit, "UMask", "0022"), 8))
        files = int(one(unit, "LimitNOFILE", "1024"))
        # A container may not be allowed to raise its limit.
        files = min(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        privileges = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
        if on(unit, "NoNewPrivileges"):
            privileges.append("--no-new-privs")
        if one(unit, "CapabilityBoundingSet", "all") == "":
            privileges += ["--bounding-set=-all", "--inh-caps=-all"]
        if allowed is not None:
            families = one(unit, "RestrictAddressFamilies")
            inner = [sys.executable, __file__, "--filtered", ",".join(sorted(allowed)), families]
            privileges += [*inner, "mdwe" if on(unit, "MemoryDenyWriteExecute") else "-"]
        os.execvp(privileges[0], privileges + words)
    except OSError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
    os._exit(203)


def running(name):
    """The unit's process, if it lives (a dead child of nobody here is reaped by process 1)."""
    try:
        pid = int((STATE / name).read_text())
        if pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return None
        return pid
    except (OSError, ValueError):
        return None


def stop(name):
    pid = running(name)
    if pid is None:
        return
    seconds = int(one(read_unit(name), "TimeoutStopSec", "90").removesuffix("s"))
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while running(name):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            sys.exit(f"{name} did not stop within {seconds} s and was killed")
        time.sleep(0.02)


def main():
    if sys.argv[1] == "--filtered":
        _, _, allowed, families, mdwe, *words = sys.argv
        load_filter(allowed.split(","), families.split(), mdwe == "mdwe")
        os.execvp(words[0], words)
    STATE.mkdir(exist_ok=True)
    words = [a for a in sys.argv[1:] if not a.startswith("--")]
    action, names = words[0], [n if "." in n else n + ".service" for n in words[1:]]
    for name in names:
        if action in ("stop", "restart", "disable") and (action != "disable" or "--now" in sys.argv):
            stop(name)
        if action in ("start", "restart") or (action == "enable" and "--now" in sys.argv):
            start(name)
        if action in ("reload", "kill") and running(name):
            os.kill(running(name), signal.SIGHUP)
        if action in ("status", "is-active"):
            print(f"{name}: {'active' if running(name) else 'inactive'}")
            sys.exit(0 if running(name) else 3)


if __name__ == "__main__":
    main()
