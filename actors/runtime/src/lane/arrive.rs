//! The lane turns what arrives into the input of its machine.
//!
//! Deliberately absent: bodies, which stay in the shell under the number that each gets here.

use std::time::Duration;

use holdfast_core::{AggregateId, KeyHash, Timestamp, port::clock::Clock};
use holdfast_machine::lane::{Arrival, Content, Mail, Message, Number, Origin as Came, Source};

use super::Lane;
use crate::work::{Input, Item, MailRow, Origin, Work};

impl Lane {
    /// Keeps what has arrived, and says what the machine needs to know of it.
    pub(super) fn arrive(&mut self, input: Input) -> Arrival {
        self.number += 1;
        let number = Number(self.number);
        let (partition, term) = (input.partition, input.term);
        let content = match &input.work {
            Work::Item(item) => Content::Message(message(item, &*self.env.clock)),
            Work::Refused(refused) => Content::Refused(match &refused.mail {
                None => Source::Log((refused.record.topic.clone(), refused.record.offset)),
                Some(MailRow { position, since, attempts, aggregate }) => {
                    let mail =
                        Mail { position: *position, attempts: *attempts, waited: waited(*since, &*self.env.clock) };
                    let of = |id: &AggregateId| (id.clone(), KeyHash::of(id.key.as_bytes()));
                    Source::Mail(mail, aggregate.as_ref().map(of))
                }
            }),
            Work::Ignored { topic, offset } => Content::Ignored((topic.clone(), *offset)),
            Work::Activate { aggregate, .. } => {
                Content::Read { aggregate: aggregate.clone(), hash: KeyHash::of(aggregate.key.as_bytes()) }
            }
        };
        self.bodies.insert(number, input);
        Arrival { number, partition, term, content }
    }
}

fn message(item: &Item, clock: &dyn Clock) -> Message {
    let origin = match &item.origin {
        Origin::Log { record, .. } => Came::Log((record.topic.clone(), record.offset)),
        Origin::Mail { position, attempts, since, .. } => {
            Came::Mail(Mail { position: *position, attempts: *attempts, waited: waited(*since, clock) })
        }
        Origin::Timer { name, .. } => Came::Timer { name: name.clone() },
        Origin::Effect { .. } => Came::Effect,
        Origin::Call { .. } => Came::Call,
    };
    Message {
        aggregate: item.aggregate.clone(),
        hash: item.hash,
        origin,
        fingerprint: item.fingerprint(),
        seed: item.message.id.as_bytes()[15],
        failure: item.failure.get().cloned(),
    }
}

fn waited(since: Timestamp, clock: &dyn Clock) -> Duration {
    Duration::from_millis(clock.now().ms_since(since))
}
