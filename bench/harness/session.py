"""One run of one system: starts it, stamps each line of its console with this machine's clock, and keeps it within its time limits."""
import dataclasses
import os
import select
import subprocess
import tempfile
import time

from . import processes

BOOT_LIMIT = 180  # seconds in which a machine must boot, or end


@dataclasses.dataclass
class Result:
    status: str  # ok, over, skip, fail
    seconds: float | None = None        # by this machine's clock
    guest_seconds: float | None = None  # by the guest's own
    checksum: str | None = None
    reason: str | None = None
    extra: dict = dataclasses.field(default_factory=dict)


class Protocol:
    """Follows the runner's lines (bench/guest/main.c). `observe` is called with start or end, and the workload."""

    def __init__(self, observe=None):
        self.results, self.ready, self.done, self.running, self.started = {}, None, None, None, None
        self.observe = observe or (lambda what, name: {})

    def line(self, text, at):
        words = text.strip().split(" ", 3)
        if len(words) < 2 or words[0] != "BENCH":
            return
        what, name, rest = words[1], *(words[2:] + ["", ""])[:2]
        if what == "ready":
            self.ready = at
        elif what == "done":
            self.done = at
        elif what == "start":
            self.running, self.started = name, at
            self.observe("start", name)
        elif what == "end" and name == self.running:
            self.results[name] = Result("fail", at - self.started, float(rest), reason="no checksum followed",
                                        extra=self.observe("end", name) or {})
        elif what == "sum" and name in self.results:
            self.results[name].checksum, self.results[name].status, self.results[name].reason = rest, "ok", None
            self.running = None
        elif what in ("over", "skip", "fail"):
            self.results[name] = Result(what, reason=rest or None)
            self.running = None

    def deadline(self, limit, since):
        """When to give up on what happens now. The guest's own limit comes first, if its clock is right."""
        if self.running and self.running not in self.results:
            return self.started + limit * 1.1 + 5
        return since + BOOT_LIMIT


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Console:
    """Lines with the time at which each was complete."""

    def __init__(self, process, path):
        self.process, self.path, self.partial, self.text, self.at = process, path, b"", b"", 0
        self.file = None
        if path is None:
            os.set_blocking(process.stdout.fileno(), False)

    def wait(self, seconds):
        if self.path is None:
            select.select([self.process.stdout], [], [], seconds)
            chunk = self.process.stdout.read()
        else:
            if self.file is None and self.path.exists():
                self.file = open(self.path, "rb")
            chunk = self.file.read() if self.file else b""
            if not chunk:
                time.sleep(min(seconds, 0.002))
        now = time.monotonic()
        if not chunk:
            return [], chunk == b"" and self.process.poll() is not None
        self.text = (self.text + chunk)[-4000:]
        *lines, self.partial = (self.partial + chunk).split(b"\n")
        return [(line.decode(errors="replace"), now) for line in lines], False


def run_session(started, limit, observer, until=None):
    """Runs to the end of the machine, to `until(text)`, or to a limit. Returns a Protocol, times of interest and the system's own figures."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        to_file = started.console is not None
        process = subprocess.Popen(started.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if to_file else subprocess.PIPE,
                                   stderr=subprocess.DEVNULL if to_file else errors, cwd=started.directory)
        watch = observer(process.pid) if observer else None
        protocol, marks, ended, since = Protocol(watch), {}, False, begin
        console = Console(process, started.console)
        try:
            while not ended:
                lines, ended = console.wait(0.25)
                for text, at in lines:
                    since = at
                    protocol.line(text, at)
                    if until:
                        until(text, at - begin, marks)
                if (protocol.done or "ready" in marks) and to_file:
                    break  # Bochs does not end with the guest
                if time.monotonic() > protocol.deadline(limit, since):
                    marks["killed"] = True
                    break
            if not ended and process.poll() is None and not to_file and not marks.get("killed"):
                process.wait(60)
            if ended:
                marks["end"] = time.monotonic() - begin
        finally:
            stop(process)
            if process.stdout:
                process.stdout.close()
        errors.seek(0)
        said = errors.read().decode(errors="replace")
    if started.finish:
        marks.update(started.finish(said))
    marks["tail"], marks["errors"] = console.text.decode(errors="replace"), said[-2000:]
    return protocol, marks


def idle_observer(memory):
    """Watches the processes while the guest sleeps: host CPUs used, and memory beyond the guest's own."""
    def observer(pid):
        before = {}

        def observe(what, name):
            if name != "idle":
                return {}
            if what == "start":  # at the end the machine powers off at once
                overhead = processes.memory_overhead(pid, memory)
                if overhead is not None:
                    before["memory"] = {"memory_overhead_mib": overhead[0] / 1024, "guest_ram_touched_mib": overhead[1] / 1024}
                before["cpu"], before["at"] = processes.cpu_seconds(pid), time.monotonic()
                return {}
            spent = processes.cpu_seconds(pid) - before["cpu"]
            figures = {"host_cpus": spent / (time.monotonic() - before["at"])} if spent >= 0 else {}  # else it has ended already
            figures.update(before.get("memory", {}))
            return figures
        return observe
    return observer
