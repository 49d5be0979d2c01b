//! The machine that a run was made on, as far as it matters for its figures.
//!
//! Deliberately absent: its name, and anything else that says whose it is.

use std::fs::read_to_string;

use serde::{Deserialize, Serialize};

use super::number::short;
use crate::scenarios::cpu::cores;

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// All of its memory.
    pub memory_bytes: u64,
    /// The model of its processor, as the kernel says.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let cpu = field(&read_to_string("/proc/cpuinfo").unwrap_or_default(), "model name");
        let memory = field(&read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal");
        let kib = memory.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0_u64);
        Self {
            cores: cores(),
            memory_bytes: kib * 1_024,
            cpu: if cpu.is_empty() { std::env::consts::ARCH.to_owned() } else { cpu },
            kernel: read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cores, memory_bytes, cpu, kernel } = self;
        #[allow(clippy::cast_precision_loss)] // bytes of memory
        let gib = short(*memory_bytes as f64 / f64::from(1 << 30));
        let s = if *cores == 1 { "" } else { "s" };
        write!(f, "{cores} core{s} ({cpu}), {gib} GiB of memory, Linux {kernel}")
    }
}

/// The first value of `name` in lines of `name : value`.
fn field(text: &str, name: &str) -> String {
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_memory_and_kernel() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(!machine.cpu.is_empty() && !machine.kernel.is_empty(), "{machine:?}");
    }

    #[test]
    fn field_is_the_first_of_its_name() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2: fast\nmodel name\t: other\n";
        assert_eq!(field(text, "model name"), "Some CPU @ 2: fast");
        assert_eq!(field(text, "model"), "");
    }
}
