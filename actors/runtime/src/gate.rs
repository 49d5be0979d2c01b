//! The shell of the gate machine: what a reader asks of it, and what the log and the counts say, become its
//! inputs.
//!
//! The rules are the machine's (`holdfast_machine::gate`, I3). Nothing is held while a record waits but the
//! record itself: no credit, so a wait takes no memory from others. Deliberately absent: any decision.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use holdfast_core::{PartitionId, port::log::Log};
use holdfast_machine::{
    Now, Rules,
    gate::{Action, Input, Machine},
};
use tokio::time::Instant;

use crate::{clock::Alarm, growth::Homes};

pub(crate) struct Gate {
    machine: Machine,
    topic: Arc<str>,
    partition: PartitionId,
    log: Arc<dyn Log>,
    homes: Homes,
    /// Set by the lane: whether this home serves its keys.
    serving: Arc<AtomicBool>,
    started: Instant,
}

impl Gate {
    pub fn new(
        topic: Arc<str>,
        partition: PartitionId,
        log: Arc<dyn Log>,
        homes: Homes,
        serving: Arc<AtomicBool>,
        rules: Rules,
    ) -> Self {
        let machine = Machine::new(topic.clone(), partition, rules);
        Self { machine, topic, partition, log, homes, serving, started: Instant::now() }
    }

    /// Whether the record at `offset` may go on at once.
    pub fn is_open(&self, offset: u64) -> bool {
        self.machine.is_open(offset) && self.serving.load(Ordering::Acquire)
    }

    /// Waits until the record at `offset`, which has been read, may go on.
    pub async fn pass(&mut self, offset: u64) {
        if self.is_open(offset) {
            return;
        }
        let (mut actions, mut alarm) = (Vec::new(), Alarm::default());
        let mut inputs = vec![self.counted(), Input::Read(offset)];
        loop {
            for input in inputs.drain(..) {
                let awake = self.started.elapsed();
                self.machine.handle(input, Now { boot: awake, awake }, &mut actions);
            }
            for action in actions.drain(..) {
                match action {
                    Action::Pass => return,
                    Action::Measure { ask, partitions } => {
                        let ends = self.log.ends(&self.topic, &partitions).await;
                        inputs.push(Input::Measured { ask, ends });
                    }
                    Action::HurryCounts => self.homes.hurry(),
                    Action::Report(error) => {
                        let (topic, partition) = (&self.topic, self.partition);
                        tracing::warn!(%topic, %partition, %error, "end offsets could not be read; holding");
                    }
                }
            }
            if inputs.is_empty() {
                let due = self.machine.due().map(|due| self.started + due);
                tokio::select! {
                    () = self.homes.changed() => {}
                    () = alarm.until(due) => {}
                }
                inputs.push(self.counted());
            }
        }
    }

    /// The counts as they are known now; time has passed, too.
    fn counted(&self) -> Input {
        Input::Counted { growth: self.homes.now(), is_serving: self.serving.load(Ordering::Acquire) }
    }
}
