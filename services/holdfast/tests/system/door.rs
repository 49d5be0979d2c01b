//! Attacks on the door: records, calls and requests that strangers can send, one attack after the other, on
//! one shop with all contexts and real servers.
//!
//! Each attack is written against the contracts ("bad record", "gRPC") and the design ("What may enter"),
//! never against the code. Invariant: after each attack an order on every partition is answered and takes a
//! command by record and by call, every context answers for every partition, the process is live, and nothing
//! was dead-lettered but what the contracts name. A stand that an attack breaks is replaced for the next
//! attack. Deliberately absent: the bad records of `bad_records.rs` and the bad input of `edge/bad.rs`, which
//! are not repeated here.

mod actors;
mod attack;
mod bodies;
mod bombs;
mod calls;
mod envelopes;
mod events;
mod forgeries;
mod probe;
mod requests;
mod rest;
mod services;
mod stand;
mod webhooks;

use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use tokio::{runtime::Runtime, sync::Mutex};

use self::{attack::Attack, stand::Stand};

/// The stand that the attacks share, opened by the first of them.
#[derive(Default)]
pub struct Door {
    stand: Mutex<Option<Stand>>,
}

impl Door {
    async fn suffers(&self, attack: &Attack) -> Result<(), Failed> {
        let mut kept = self.stand.lock().await;
        let stand = match kept.take() {
            Some(stand) => stand,
            None => Stand::open().await?,
        };
        let suffered = stand.suffer(attack).await;
        if suffered.stands {
            *kept = Some(stand);
        } else {
            stand.tell_log();
        }
        if suffered.faults.is_empty() { Ok(()) } else { Err(suffered.faults.join("\n").into()) }
    }
}

/// Every attack as a trial; `open` is there unless tests are only listed.
pub fn trials(open: Option<(Arc<Door>, Arc<Runtime>)>) -> Vec<Trial> {
    let all = [
        envelopes::attacks(),
        bodies::attacks(),
        bombs::attacks(),
        events::attacks(),
        forgeries::attacks(),
        actors::attacks(),
        calls::attacks(),
        services::attacks(),
        requests::attacks(),
        webhooks::attacks(),
        rest::attacks(),
    ];
    let trial = |attack: Attack| {
        let open = open.clone();
        Trial::test(format!("door::{}", attack.name), move || {
            let Some((door, runtime)) = open else { return Err(Failed::without_message()) };
            runtime.block_on(door.suffers(&attack))
        })
    };
    all.into_iter().flatten().map(trial).collect()
}
