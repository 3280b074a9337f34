//! What the kernel and the runtime say of this process, under the names that Prometheus' client libraries use.

use std::fs;

use super::single;

/// Appends what can be read; a family that cannot be read is left out.
pub(super) fn render(o: &mut String) {
    let mut value = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            single(o, name, kind, help, value);
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = ticks_per_second();
    let page = rustix::param::page_size() as f64;
    value(
        "process_cpu_seconds_total",
        "counter",
        "CPU time, user and system.",
        cpu(&stat),
    );
    value(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory.",
        stat_field(&stat, 24).map(|pages| pages * page),
    );
    value(
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory.",
        stat_field(&stat, 23),
    );
    value(
        "process_threads",
        "gauge",
        "Threads of the process.",
        stat_field(&stat, 20),
    );
    value(
        "process_start_time_seconds",
        "gauge",
        "When the process started, seconds since 1970.",
        boot_time()
            .zip(stat_field(&stat, 22))
            .map(|(boot, t)| boot + t / ticks),
    );
    let open = open_descriptors().map(|n| n as f64);
    value("process_open_fds", "gauge", "Open file descriptors.", open);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    value(
        "process_max_fds",
        "gauge",
        "Most file descriptors that may be open.",
        limit.map(|n| n as f64),
    );
    let runtime = tokio::runtime::Handle::try_current()
        .ok()
        .map(|h| h.metrics());
    value(
        "tierdav_runtime_workers",
        "gauge",
        "Worker threads of the tokio runtime.",
        runtime.as_ref().map(|r| r.num_workers() as f64),
    );
    value(
        "tierdav_runtime_tasks",
        "gauge",
        "Tasks of the tokio runtime that are alive.",
        runtime.as_ref().map(|r| r.num_alive_tasks() as f64),
    );
    value(
        "tierdav_runtime_queue_tasks",
        "gauge",
        "Tasks that wait in the tokio runtime's global queue.",
        runtime.as_ref().map(|r| r.global_queue_depth() as f64),
    );
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

fn cpu(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / ticks_per_second())
}

/// CPU time so far, user and system, seconds.
pub(super) fn cpu_seconds() -> Option<f64> {
    cpu(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Resident memory, bytes.
pub fn resident_bytes() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    Some(stat_field(&stat, 24)? as u64 * rustix::param::page_size() as u64)
}

/// Open file descriptors.
pub fn open_descriptors() -> Option<u64> {
    fs::read_dir("/proc/self/fd").ok().map(|d| d.count() as u64)
}

/// Field `number` of /proc/PID/stat, counted from 1 as in proc(5). The name in field 2 may hold spaces and brackets.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

/// When the machine started, seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|l| l.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_process_with_an_odd_name_are_found() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 1234 8192000 512 184";
        assert_eq!(stat_field(stat, 14), Some(250.0));
        assert_eq!(stat_field(stat, 15), Some(50.0));
        assert_eq!(stat_field(stat, 20), Some(9.0));
        assert_eq!(stat_field(stat, 24), Some(512.0));
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let mut text = String::new();
        render(&mut text);
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_cpu_seconds_total",
        ] {
            assert!(
                text.contains(&format!("\n{name} ")),
                "{name} is missing in\n{text}"
            );
        }
    }
}
