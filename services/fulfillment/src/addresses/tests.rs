//! Laws of the look-up.

use std::sync::Mutex;

use super::*;

/// Counts what it is asked, and knows the customers of even ids.
#[derive(Default)]
struct Source {
    asked: Mutex<Vec<Vec<Place>>>,
    away: bool,
}

#[async_trait]
impl Addresses for Source {
    async fn addresses(&self, places: &[Place]) -> Result<Vec<Result<Option<Address>, LookupFailed>>, LookupFailed> {
        self.asked.lock().unwrap().push(places.to_vec());
        if self.away {
            return Err(LookupFailed("away".into()));
        }
        let answer = |place: &Place| place.customer.as_u128().is_multiple_of(2).then(|| address(&place.address));
        Ok(places.iter().map(answer).map(Ok).collect())
    }
}

fn address(id: &Uuid) -> Address {
    let empty = || "".into();
    Address {
        recipient: id.to_string().into(),
        lines: [].into(),
        city: empty(),
        postal_code: empty(),
        country: empty(),
    }
}

fn paid(customer: u128, address_id: &str) -> Command {
    let (customer, address_id) = (Uuid::from_u128(customer), address_id.into());
    Command::OrderPaid { customer, address_id, lines: [].into(), address: Lookup::NotAsked }
}

fn answers(commands: &[Command]) -> Vec<Lookup> {
    let lookup = |command: &Command| match command {
        Command::OrderPaid { address, .. } => Some(address.clone()),
        _ => None,
    };
    commands.iter().filter_map(lookup).collect()
}

async fn filled(source: &Source, commands: &mut [Command]) -> Vec<Result<(), LookupFailed>> {
    let mut commands: Vec<&mut Command> = commands.iter_mut().collect();
    fill(source, &mut commands).await
}

#[tokio::test]
async fn a_batch_costs_one_question_in_which_no_address_stands_twice() {
    let (source, id) = (Source::default(), Uuid::from_u128(9));
    let mut commands =
        [paid(2, &id.to_string()), Command::ReservationConfirmed, paid(1, &id.to_string()), paid(2, &id.to_string())];
    assert_eq!(filled(&source, &mut commands).await, vec![Ok(()); 4]);
    let found = Lookup::Found(address(&id));
    assert_eq!(answers(&commands), [found.clone(), Lookup::Missing, found]);
    assert_eq!(source.asked.lock().unwrap().len(), 1);
    assert_eq!(source.asked.lock().unwrap()[0].len(), 2);
}

#[tokio::test]
async fn what_is_no_addresss_id_is_missing_and_spoils_no_question() {
    let source = Source::default();
    let upper = Uuid::from_u128(0xabc).to_string().to_uppercase();
    let mut commands = [paid(2, ""), paid(2, "home"), paid(2, &upper)];
    assert_eq!(filled(&source, &mut commands).await, vec![Ok(()); 3]);
    assert_eq!(answers(&commands), [Lookup::Missing, Lookup::Missing, Lookup::Missing]);
    assert!(source.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn with_customers_away_that_news_alone_waits() {
    let source = Source { away: true, ..Source::default() };
    let mut commands = [paid(2, &Uuid::from_u128(9).to_string()), Command::OrderCancelled, paid(2, "")];
    let results = filled(&source, &mut commands).await;
    assert_eq!(results, [Err(LookupFailed("away".into())), Ok(()), Ok(())]);
    assert_eq!(answers(&commands)[0], Lookup::NotAsked);
}

#[tokio::test]
async fn large_batches_are_asked_in_parts() {
    let source = Source::default();
    let mut commands: Vec<Command> =
        (0..=ADDRESSES_MAX as u128).map(|n| paid(n, &Uuid::from_u128(9).to_string())).collect();
    filled(&source, &mut commands).await;
    let sizes: Vec<usize> = source.asked.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [ADDRESSES_MAX, 1]);
}
