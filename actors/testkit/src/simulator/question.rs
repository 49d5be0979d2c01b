//! Questions of a node, and their answers.
//!
//! Deliberately absent: when a question takes effect, and when its answer comes.

use std::{sync::Arc, time::Duration};

use holdfast_core::{
    PartitionId,
    batch::Fence,
    epoch::{Generation, Token},
    growth::{Act, Growth},
    port::store::Wanted,
};
use holdfast_machine::{
    Ask, gate,
    lane::{self, Delivery, Number},
    ownership,
};

use super::{log::Input, store::Write};

/// A question that is under way, and its answer once it has taken effect.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub node: usize,
    pub question: Question,
    pub answer: Option<Answer>,
    /// Until then nothing comes of it.
    pub hangs_until: Duration,
}

#[derive(Clone, Debug)]
pub(super) enum Question {
    Find {
        ask: Ask,
        wanted: Vec<Wanted>,
        claimants: Vec<Number>,
        unprepared: Vec<Number>,
    },
    Ask {
        ask: Ask,
        messages: Vec<Number>,
    },
    Decide {
        delivery: Delivery,
        term: u64,
    },
    Commit {
        ask: Ask,
        fences: Vec<Fence>,
        writes: Vec<Write>,
        parts: Vec<Option<usize>>,
    },
    Compare {
        ask: Ask,
    },
    Retoken {
        ask: Ask,
        held: Vec<(PartitionId, Token)>,
    },
    Look {
        ask: Ask,
        partitions: Vec<(PartitionId, u64)>,
        count: u32,
    },
    Acknowledge {
        ask: Ask,
        partition: PartitionId,
        token: Token,
        generation: Generation,
    },
    /// An attempt at an effect.
    Attempt {
        partition: PartitionId,
        term: u64,
        key: Arc<str>,
        effect: u64,
    },
    /// What the takers ask.
    Own(ownership::Action),
    /// What a gate asks.
    Measure {
        input: Input,
        term: u64,
        ask: Ask,
        partitions: Vec<PartitionId>,
    },
    /// The counts are read.
    Count,
    /// What is to be done about the counts.
    Act(Act),
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Lane(lane::Input),
    Takers(ownership::Input),
    /// Of the reader that began under this ownership.
    Gate(Input, u64, gate::Input),
    Counts(Arc<Growth>, Vec<Act>),
    /// The counts could not be read.
    NotCounted,
    Nothing,
}
