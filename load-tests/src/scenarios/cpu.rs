//! CPU time of processes, from `/proc`.

use serde::Serialize;

/// Clock ticks of `/proc` in a second; the same on every Linux there is.
const TICKS: f64 = 100.0;

/// CPU seconds of one server and all its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// The design. If it runs in this process, the producer too, in a live run.
    pub design: f64,
    /// This process, if the design has one of its own.
    pub load: f64,
    /// The process that counts events.
    pub counter: f64,
    /// The broker.
    pub kafka: f64,
    /// The postmaster and its backends, those that ended included.
    pub postgres: f64,
    /// Everything else on this machine: a measurement beside much of it says little.
    pub others: f64,
}

/// Whom to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pids {
    /// The design, if it does not run in this process.
    pub design: Option<u32>,
    /// The counter, where there is one.
    pub counter: Option<u32>,
    /// The broker, if it runs on this machine.
    pub kafka: Option<u32>,
    /// The postmaster, if it runs on this machine.
    pub postgres: Option<u32>,
}

impl Pids {
    /// What they have used since they started.
    pub fn used(self) -> Cpu {
        let here = used(std::process::id(), 2);
        let of = |pid: Option<u32>| pid.map_or(0.0, |pid| used(pid, 2));
        let (counter, kafka) = (of(self.counter), of(self.kafka));
        let (design, load) = if self.design.is_some() { (of(self.design), here) } else { (here, 0.0) };
        let postgres = self.postgres.map_or(0.0, |pid| {
            let alive: f64 = children(pid).iter().map(|child| used(*child, 2)).sum();
            used(pid, 4) + alive
        });
        let others = machine() - design - load - counter - kafka - postgres;
        Cpu { design, load, counter, kafka, postgres, others }
    }
}

impl Cpu {
    /// What was used since `before`, in µs for each of `count` commands.
    #[must_use]
    pub fn per_command_us(self, before: Self, count: f64) -> Self {
        let each = |now: f64, then: f64| ((now - then) * 1e6 / count.max(1.0) * 10.0).round() / 10.0;
        Self {
            design: each(self.design, before.design),
            load: each(self.load, before.load),
            counter: each(self.counter, before.counter),
            kafka: each(self.kafka, before.kafka),
            postgres: each(self.postgres, before.postgres),
            others: each(self.others, before.others).max(0.0),
        }
    }
}

/// The fields of `/proc/<pid>/stat` after the command's name, which may hold anything.
fn stat(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// CPU seconds: user and system time; with four fields also that of children that ended.
fn used(pid: u32, fields: usize) -> f64 {
    stat(pid).iter().skip(11).take(fields).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// CPU seconds that anybody on this machine has used: user, nice, system, and both kinds of interrupts.
fn machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at)).sum::<f64>() / TICKS
}

fn children(pid: u32) -> Vec<u32> {
    let parent = pid.to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter(|child| stat(*child).get(1) == Some(&parent)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_is_seen_to_use_time() {
        let pids = Pids::default();
        let before = pids.used();
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 200 {
            std::hint::black_box(0_u64.wrapping_add(1));
        }
        let used = pids.used().per_command_us(before, 1.0);
        assert!(used.design >= 50_000.0, "{used:?}");
        assert_eq!((used.load, used.counter, used.kafka, used.postgres), (0.0, 0.0, 0.0, 0.0));
        assert!(machine() >= used.design / 1e6, "the machine's time holds this process's");
        let beside = Pids { design: Some(1), ..pids }.used();
        assert!(beside.load >= used.design / 1e6, "{beside:?}");
    }
}
