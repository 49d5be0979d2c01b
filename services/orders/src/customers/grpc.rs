//! Answers from customers' `CustomerService`.
//!
//! Through the platform's client stack: deadline, circuit breaker, jittered retries within a budget. No
//! personal data travels.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_orders_domain::{Account, Standing};
use holdfast_platform::{
    errors::{code_word, reason},
    grpc::{Peer, client},
};
use holdfast_proto::customers::v1::{
    CheckCustomersRequest, CheckCustomersResponse, CustomerQuestion, CustomerStatus,
    customer_service_client::CustomerServiceClient,
};
use tonic::Status;
use uuid::Uuid;

use super::{CustomerSource, Question};

/// Customers over gRPC.
#[derive(Clone, Debug)]
pub struct GrpcCustomers {
    customers: Peer,
}

impl GrpcCustomers {
    /// Asks this peer; see [`settings`].
    pub const fn new(customers: Peer) -> Self {
        Self { customers }
    }
}

/// How to call customers: a batch of commands waits for the answer, so not for long.
pub fn settings() -> client::Settings {
    client::Settings { deadline: Duration::from_millis(800), ..client::Settings::default() }
}

#[async_trait]
impl CustomerSource for GrpcCustomers {
    async fn standings(&self, questions: &[Question]) -> Result<Vec<Result<Standing, LookupFailed>>, LookupFailed> {
        let request = request(questions);
        let answer = self
            .customers
            .call(|stack| {
                let request = request.clone();
                async move { CustomerServiceClient::new(stack).check_customers(request).await }
            })
            .await
            .map_err(failed)?;
        in_order(questions, answer.into_inner())
    }
}

/// Each customer once, with all addresses that are asked for.
fn request(questions: &[Question]) -> CheckCustomersRequest {
    let mut by_customer: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
    for question in questions {
        let addresses = by_customer.entry(question.customer).or_default();
        addresses.extend(question.address.map(|address| address.to_string()));
    }
    let question =
        |(customer, address_ids): (Uuid, _)| CustomerQuestion { customer_id: customer.to_string(), address_ids };
    CheckCustomersRequest { customers: by_customer.into_iter().map(question).collect() }
}

fn failed(status: Status) -> LookupFailed {
    let word = code_word(status.code());
    LookupFailed(match reason(&status) {
        Some(reason) => format!("customers' accounts: {word} ({reason})"),
        None => format!("customers' accounts: {word}"),
    })
}

/// The answers in the order of the questions. A customer about whom nothing is said that this build
/// understands is no unknown one: that question failed.
fn in_order(
    questions: &[Question],
    answer: CheckCustomersResponse,
) -> Result<Vec<Result<Standing, LookupFailed>>, LookupFailed> {
    let broken = |what: &str| LookupFailed(format!("customers' accounts: {what}"));
    let id = |text: &str| Uuid::try_parse(text).map_err(|_| broken("an id that is none"));
    let mut known: BTreeMap<Uuid, (Account, BTreeSet<Uuid>)> = BTreeMap::new();
    for checked in answer.customers {
        let account = match checked.status() {
            CustomerStatus::Active => Account::Active,
            CustomerStatus::Suspended | CustomerStatus::Erased => Account::NotActive,
            CustomerStatus::Unspecified => continue,
        };
        let addresses = checked.address_ids.iter().map(|address| id(address)).collect::<Result<_, _>>()?;
        known.insert(id(&checked.customer_id)?, (account, addresses));
    }
    for unknown in answer.unknown_customer_ids {
        known.insert(id(&unknown)?, (Account::Unknown, BTreeSet::new()));
    }
    let answer = |question: &Question| {
        let Some((account, addresses)) = known.get(&question.customer) else {
            return Err(broken("a customer was left out, or has a status that this build does not know"));
        };
        let has_address = question.address.is_some_and(|address| addresses.contains(&address));
        Ok(Standing { customer: question.customer, account: *account, has_address })
    };
    Ok(questions.iter().map(answer).collect())
}

#[cfg(test)]
mod tests {
    use holdfast_proto::customers::v1::CheckedCustomer;

    use super::*;

    fn question(customer: u128, address: Option<u128>) -> Question {
        Question { customer: Uuid::from_u128(customer), address: address.map(Uuid::from_u128) }
    }

    fn checked(customer: u128, status: CustomerStatus, addresses: &[u128]) -> CheckedCustomer {
        CheckedCustomer {
            customer_id: Uuid::from_u128(customer).to_string(),
            status: status.into(),
            address_ids: addresses.iter().map(|address| Uuid::from_u128(*address).to_string()).collect(),
            version: 1,
        }
    }

    #[test]
    fn answer_is_put_in_the_order_of_the_question() {
        let questions = [question(1, Some(1)), question(1, Some(2)), question(2, None), question(3, Some(1))];
        let asked = request(&questions);
        assert_eq!(asked.customers.iter().map(|each| each.address_ids.len()).collect::<Vec<_>>(), [2, 0, 1]);
        let answer = CheckCustomersResponse {
            customers: vec![checked(2, CustomerStatus::Erased, &[]), checked(1, CustomerStatus::Active, &[2])],
            unknown_customer_ids: vec![Uuid::from_u128(3).to_string()],
            read: None,
        };
        let standing =
            |customer, account, has_address| Standing { customer: Uuid::from_u128(customer), account, has_address };
        let expected = [
            standing(1, Account::Active, false),
            standing(1, Account::Active, true),
            standing(2, Account::NotActive, false),
            standing(3, Account::Unknown, false),
        ];
        assert_eq!(in_order(&questions, answer), Ok(expected.into_iter().map(Ok).collect()));
    }

    #[test]
    fn customer_left_out_or_unclear_fails_alone() {
        let answer = CheckCustomersResponse {
            customers: vec![checked(1, CustomerStatus::Unspecified, &[]), checked(2, CustomerStatus::Active, &[])],
            ..CheckCustomersResponse::default()
        };
        let answers = in_order(&[question(1, None), question(2, None), question(3, None)], answer).unwrap();
        assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false]);
    }
}
