//! Customers that never change, for tests and benchmarks.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use holdfast_core::codec::LookupFailed;
use holdfast_orders_domain::{Account, Standing};
use uuid::Uuid;

use super::{CustomerSource, Question};

/// Customers as given.
#[derive(Clone, Debug, Default)]
pub struct StaticCustomers {
    customers: BTreeMap<Uuid, (Account, BTreeSet<Uuid>)>,
    is_everybody_good: bool,
}

impl StaticCustomers {
    /// Every customer may order, and has every address.
    pub const fn all() -> Self {
        Self { customers: BTreeMap::new(), is_everybody_good: true }
    }

    /// These customers, each with its account and its addresses; others are unknown.
    pub fn of(customers: impl IntoIterator<Item = (Uuid, Account, Vec<Uuid>)>) -> Self {
        let each = |(id, account, addresses): (_, _, Vec<Uuid>)| (id, (account, addresses.into_iter().collect()));
        Self { customers: customers.into_iter().map(each).collect(), is_everybody_good: false }
    }
}

#[async_trait]
impl CustomerSource for StaticCustomers {
    async fn standings(&self, questions: &[Question]) -> Result<Vec<Result<Standing, LookupFailed>>, LookupFailed> {
        let answer = |question: &Question| match self.customers.get(&question.customer) {
            _ if self.is_everybody_good => question.good(),
            None => Standing { account: Account::Unknown, has_address: false, ..question.good() },
            Some((account, addresses)) => Standing {
                customer: question.customer,
                account: *account,
                has_address: question.address.is_some_and(|address| addresses.contains(&address)),
            },
        };
        Ok(questions.iter().map(answer).map(Ok).collect())
    }
}
