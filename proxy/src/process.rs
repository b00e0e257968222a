//! What the operating system says of this process, for Prometheus: names and units of its client libraries.
//!
//! Invariants
//! - What cannot be found out has no line: unknown is not zero. Where there is no `/proc`, that is memory and
//!   open files.
//!
//! Not here: what the program was built from (`built`), its own figures (`admin::metrics`).

use crate::telemetry::genai::seconds;
use bursar_domain::Timestamp;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// The lines of the page; `started_at` is when the process started.
pub(crate) fn page(started_at: Timestamp) -> String {
    let status = std::fs::read_to_string("/proc/self/status").ok();
    let start = u64::try_from(started_at.micros()).ok().map(seconds);
    let resident = status.as_deref().and_then(resident_bytes);
    lines([
        ("start_time_seconds", "gauge", "When the process started, in Unix time", start),
        (
            "cpu_seconds",
            "counter",
            "Time on processors, in user and in system mode",
            cpu_micros().map(seconds),
        ),
        ("resident_memory_bytes", "gauge", "Memory that is resident", resident.map(|n| n.to_string())),
        ("open_fds", "gauge", "Open files and sockets", open_files().map(|n| n.to_string())),
        (
            "max_fds",
            "gauge",
            "Most files and sockets that may be open",
            getrlimit(Resource::Nofile).current.map(|n| n.to_string()),
        ),
    ])
}

/// Families of one sample each: name, kind, help, value.
fn lines<const N: usize>(families: [(&str, &str, &str, Option<String>); N]) -> String {
    let mut page = String::new();
    for (name, kind, help, value) in families {
        let Some(value) = value else { continue };
        let suffix = if kind == "counter" { "_total" } else { "" };
        page.push_str(&format!(
            "# HELP process_{name} {help}.\n# TYPE process_{name} {kind}\nprocess_{name}{suffix} {value}\n"
        ));
    }
    page
}

/// The resident set by `/proc/PID/status`, whose figure is in KiB.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn cpu_micros() -> Option<u64> {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let (whole, rest) = (u64::try_from(spent.tv_sec).ok()?, u64::try_from(spent.tv_nsec).ok()?);
    whole.checked_mul(1_000_000)?.checked_add(rest.checked_div(1_000)?)
}

/// Open descriptors, without the one that looking takes.
fn open_files() -> Option<usize> {
    std::fs::read_dir("/proc/self/fd").ok()?.count().checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes_or_not_at_all() {
        assert_eq!(resident_bytes("Name:\tbursar\nVmRSS:\t   14336 kB\nThreads:\t9\n"), Some(14_680_064));
        assert_eq!(resident_bytes("Name:\tbursar\nVmHWM:\t   14336 kB\n"), None);
        assert_eq!(resident_bytes("VmRSS:\t   x kB\n"), None);
    }

    #[test]
    fn what_is_unknown_has_no_line() {
        let page = lines([("a", "gauge", "A", None), ("b", "counter", "B", Some("1.5".to_owned()))]);
        assert_eq!(page, "# HELP process_b B.\n# TYPE process_b counter\nprocess_b_total 1.5\n");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn on_linux_everything_is_known() {
        let page = page(Timestamp::from_micros(1_795_348_800_500_000));
        assert!(page.contains("\nprocess_start_time_seconds 1795348800.5\n"), "{page}");
        for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds"] {
            let value = page.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            assert!(value.is_some_and(|value| value.parse::<f64>().unwrap() > 0.0), "{name}: {page}");
        }
    }
}
