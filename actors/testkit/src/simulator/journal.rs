//! The trace of a run: a digest that stands for all of it, and its lines if they are kept.
//!
//! Invariant: the digest is the same with and without lines. Deliberately absent: time, and anything that
//! differs between two processes.

use std::fmt::{Arguments, Write};

/// Takes in a trace line by line.
#[derive(Debug)]
pub(super) struct Journal {
    pub digest: u64,
    pub lines: Option<Vec<String>>,
}

impl Journal {
    pub fn new(keeps_lines: bool) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, lines: keeps_lines.then(Vec::new) }
    }

    pub fn note(&mut self, line: Arguments<'_>) {
        if let Some(lines) = &mut self.lines {
            lines.push(line.to_string());
        }
        self.write_fmt(line).expect("a digest takes everything");
    }
}

impl Write for Journal {
    /// FNV-1a, eight bytes at a time.
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for bytes in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            let mixed = (self.digest ^ u64::from_le_bytes(word)).wrapping_mul(0x100_0000_01b3);
            self.digest = mixed ^ (mixed >> 32);
        }
        Ok(())
    }
}
