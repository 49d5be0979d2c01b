//! Canaries in every personal field: where they may be found, and where never.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use holdfast_proto::customers::v1;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::shop::{Shop, erase, id, remove};

const CANARY: &str = "canary-7f3";

/// Everything that is logged, at any level, by this workspace's crates; spans and their fields too.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn profile() -> v1::Profile {
    let word = |what: &str| format!("{CANARY}-{what}");
    v1::Profile { name: word("name"), email: format!("{}@x", word("email")), phone: word("phone") }
}

fn address() -> v1::Address {
    let word = |what: &str| format!("{CANARY}-{what}");
    v1::Address {
        recipient: word("recipient"),
        lines: vec![word("line-1"), word("line-2")],
        city: word("city"),
        postal_code: word("zip"),
        country: "DE".into(),
    }
}

fn preferences() -> v1::Preferences {
    v1::Preferences { locale: CANARY.into(), marketing: true }
}

/// Commands with a canary wherever one fits, each of which must be accepted; what the caller is answered.
async fn drive(shop: &mut Shop, customer_id: &str, address_id: &str) -> String {
    let (customer, address_id) = (customer_id.to_owned(), address_id.to_owned());
    let mut answers = Vec::new();
    let command = v1::CreateCustomer {
        customer_id: customer.clone(),
        profile: Some(profile()),
        preferences: Some(preferences()),
    };
    let request = v1::CreateCustomerRequest { request_id: id(), command: Some(command) };
    answers.push(format!("{:?}", shop.client.create_customer(request).await.unwrap()));
    let renamed = Some(v1::Profile { name: format!("{CANARY}-renamed"), ..profile() });
    let command = v1::UpdateProfile { customer_id: customer.clone(), profile: renamed };
    let request = v1::UpdateProfileRequest { request_id: id(), command: Some(command) };
    answers.push(format!("{:?}", shop.client.update_profile(request).await.unwrap()));
    let command =
        v1::AddAddress { customer_id: customer.clone(), address_id: address_id.clone(), address: Some(address()) };
    let request = v1::AddAddressRequest { request_id: id(), command: Some(command.clone()) };
    answers.push(format!("{:?}", shop.client.add_address(request).await.unwrap()));
    // Rejected, and kept with its claim.
    let request = v1::AddAddressRequest { request_id: id(), command: Some(command) };
    answers.push(format!("{:?}", shop.client.add_address(request).await.unwrap_err()));
    let moved = Some(v1::Address { city: format!("{CANARY}-moved"), ..address() });
    let command = v1::ChangeAddress { customer_id: customer.clone(), address_id, address: moved };
    let request = v1::ChangeAddressRequest { request_id: id(), command: Some(command) };
    answers.push(format!("{:?}", shop.client.change_address(request).await.unwrap()));
    let preferences = Some(v1::Preferences { marketing: false, ..preferences() });
    let command = v1::SetPreferences { customer_id: customer.clone(), preferences };
    let request = v1::SetPreferencesRequest { request_id: id(), command: Some(command) };
    answers.push(format!("{:?}", shop.client.set_preferences(request).await.unwrap()));
    // A refused command: the refusal may quote nothing of it.
    let bad = Some(v1::Profile { email: format!("{CANARY} "), ..profile() });
    let command = v1::UpdateProfile { customer_id: customer, profile: bad };
    let request = v1::UpdateProfileRequest { request_id: id(), command: Some(command) };
    answers.push(format!("{:?}", shop.client.update_profile(request).await.unwrap_err()));
    answers.concat()
}

#[tokio::test]
async fn personal_data_is_only_in_the_state_and_erasure_removes_it() {
    let lines = Lines::default();
    let subscriber =
        tracing_subscriber::fmt().with_writer(lines.clone()).with_env_filter(EnvFilter::new("holdfast=trace"));
    subscriber.with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL).init();
    let mut shop = Shop::open().await;
    let ((customer_id, address_id), other) = ((id(), id()), id());
    let answers = drive(&mut shop, &customer_id, &address_id).await + &drive(&mut shop, &other, &id()).await;
    assert!(!answers.contains(CANARY), "an answer of a mutation: {answers}");
    assert_eq!(shop.events(&customer_id, 5).await.len(), 5);

    let everything = |shop: &Shop| {
        let topics = shop.log.topics().into_iter().map(|topic| format!("{:?}", shop.log.all_records(&topic)));
        let mut contents = shop.store.contents();
        let states = format!("{:?}", std::mem::take(&mut contents.states));
        assert!(!contents.claims.is_empty() && !contents.outbox.is_empty());
        (states, topics.collect::<String>() + &format!("{contents:?}"))
    };
    let (states, others) = everything(&shop);
    assert!(states.contains(CANARY), "the canaries have to be somewhere for this test to say anything");
    assert!(!others.contains(CANARY), "a record, a claim, an outbox row or another row holds one");

    shop.client.remove_address(remove(&customer_id, &address_id)).await.unwrap();
    for id in [&customer_id, &other] {
        shop.client.erase_customer(erase(id)).await.unwrap();
    }
    let (states, others) = everything(&shop);
    assert!(!states.contains(CANARY) && !others.contains(CANARY), "erased, and still there");
    let answer = format!("{:?}", shop.get(&customer_id, 0).await.unwrap());
    assert!(answer.contains(&customer_id) && !answer.contains(CANARY));
    let lines = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(lines.contains("holdfast_"), "nothing was logged, so nothing was looked at: {lines}");
    assert!(!lines.contains(CANARY), "a line or a span of the log holds one");
}
