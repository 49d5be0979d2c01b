//! Memory of processes, from `/proc`: all of it that is resident, what a file backs included.

use super::precise;
use crate::findings::rounded;

/// Bytes of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

impl Memory {
    /// That of `pid`; `None` if there is no such process, or it has ended.
    pub fn of(pid: u32) -> Option<Self> {
        read(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }
}

/// In MiB.
pub fn mib(bytes: u64) -> f64 {
    rounded(precise(bytes) / 1_048_576.0, 1)
}

fn read(status: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    // Named by the kernel with a colon and a unit: `VmRSS:      1234 kB`.
    Some(Memory { resident: field("VmRSS")?, peak: field("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sizes_are_read_in_bytes() {
        let status = "Name:\tx y\nVmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(read(status), Some(Memory { resident: 1 << 20, peak: 2 << 20 }));
        assert_eq!(read("Name:\tzombie\n"), None);
    }

    #[test]
    fn memory_of_this_process_peaks_at_or_above_what_is_resident() {
        let here = Memory::of(std::process::id()).expect("it runs");
        assert!(here.resident > 0 && here.peak >= here.resident, "{here:?}");
    }
}
